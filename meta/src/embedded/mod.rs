//! The embedded store: one ordered, durable tree (redb) in one process.
//!
//! ```text
//!   snapshot ─► the newest View, shared            (no lock held, no disk)
//!   commit   ─► CommitQueue ─► one thread ─► redb ─► Guard ─► Backend (a file, memory, a faulty disk)
//!                               └ Window: who wrote what in the last seconds
//!                               └ Watches
//! ```
//!
//! A failed write or sync ends commits until a restart, a full disk until there is room; reads go
//! on either way ([`guard`]).
//!
//! At rest no thread wakes and nothing is written. redb was taken over fjall because its storage
//! can be replaced, so that the store's durability is tested on a disk that loses writes.

mod backend;
mod committer;
mod engine;
mod fault;
#[allow(clippy::disallowed_methods, reason = "this is where the real file is")]
mod file;
mod guard;
mod layout;
mod memory;
mod overlay;
mod queue;
mod superblock;
mod view;
mod watches;
mod window;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::env::Env;
use crate::error::MetaError;
use crate::store::{Snapshot, Store};
pub use backend::Backend;
use committer::Committer;
use engine::Engine;
pub use fault::{FaultBackend, FaultDisk};
pub use file::FileBackend;
pub use memory::MemoryBackend;
use queue::CommitQueue;
use view::{EmbeddedSnapshot, Published, View};
use watches::Watches;
use window::Window;

/// Settings of an embedded store.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Pages that redb keeps in memory, in bytes.
    pub cache_bytes: usize,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { cache_bytes: 8 << 20 }
    }
}

/// Why a store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it: end that one, or choose another folder.
    #[error("the metadata store is in use by another process")]
    Locked,
    /// A newer Interflow wrote it: use that one.
    #[error(
        "the metadata store has format {found}; this build knows formats up to {known}: start the \
         version of interflow that wrote it, or a later one"
    )]
    NewerFormat {
        /// The format found.
        found: u32,
        /// The newest format that this build reads.
        known: u32,
    },
    /// What is there can't be read: restore a backup.
    #[error("the metadata store is damaged: {0}; restore the data folder from a backup")]
    Corrupt(String),
    /// The file system's answer.
    #[error("the metadata store can't be opened: {0}")]
    Io(#[source] std::io::Error),
}

/// A store on redb.
#[derive(Debug)]
pub struct EmbeddedStore {
    queue: Arc<CommitQueue>,
    published: Arc<Published>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl EmbeddedStore {
    /// Opens or creates the store in the file at `path`. Blocks: it reads the whole file and verifies
    /// it.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, options: &EmbeddedOptions, env: Env) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(FileBackend::open(path)?), options, env)
    }

    /// A store in memory.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn in_memory(env: Env) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(MemoryBackend::default()), &EmbeddedOptions::default(), env)
    }

    /// Opens or creates the store on `backend`.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_on(
        backend: Arc<dyn Backend>,
        options: &EmbeddedOptions,
        env: Env,
    ) -> Result<Self, OpenError> {
        let engine = Engine::open(backend, options.cache_bytes)?;
        let view = View::open(&engine).map_err(engine::damaged)?;
        let version = view.version;
        let published = Arc::new(Published::new(view));
        let queue = Arc::new(CommitQueue::default());
        let committer = Committer {
            engine,
            cache_bytes: options.cache_bytes,
            is_full: false,
            queue: Arc::clone(&queue),
            published: Arc::clone(&published),
            env,
            version,
            window: Window::new(version),
            watches: Watches::default(),
        };
        let thread = std::thread::Builder::new()
            .name("meta-commit".to_owned())
            .spawn(move || committer.run())
            .map_err(OpenError::Io)?;
        Ok(Self { queue, published, thread: Mutex::new(Some(thread)) })
    }

    /// Lets the thread finish and waits for it. Blocks.
    fn join(&self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the metadata store's thread panicked");
        }
    }
}

/// redb's errors, whatever their type.
fn failed(error: impl Into<redb::Error>) -> MetaError {
    match error.into() {
        redb::Error::Corrupted(what) => MetaError::Corrupt(what),
        other => MetaError::StoreFailed(other.to_string()),
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, MetaError> {
        Ok(Arc::new(EmbeddedSnapshot {
            view: self.published.latest(),
            queue: Arc::clone(&self.queue),
        }))
    }

    fn failure(&self) -> Option<String> {
        self.queue.failure()
    }

    async fn close(&self) {
        self.queue.close();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join()).await;
            if !matches!(joined, Ok(Ok(()))) {
                tracing::error!("the metadata store's thread did not end well");
            }
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        self.join();
    }
}
