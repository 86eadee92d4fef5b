//! What a store must do; everything else of a transaction is the same on all of them.
//!
//! ```text
//!   Transaction  ── reads ──►  Snapshot::get, get_range     (one version, for ever the same)
//!        │
//!        └───── commit ──►  Snapshot::commit(reads, writes) ──►  Committed | Conflict | CommitUnknown
//! ```
//!
//! Own writes, limits, selectors and retries live above, in [`Transaction`](crate::Transaction) and
//! [`Meta`](crate::Meta).

mod lossy;
mod ops;
mod priority;
mod range;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::MetaError;
pub use lossy::{Loss, LossyStore};
pub(crate) use ops::put_stamp;
pub use ops::{AtomicOp, Mutation, STAMP_BYTES};
pub use priority::PriorityStore;
pub use range::{KeyRange, RangeSet};
pub(crate) use range::{after_prefix, key_after};

/// An ordered, transactional map of bytes to bytes.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// The state as of all commits acknowledged before this call.
    ///
    /// # Errors
    /// [`MetaError::Unavailable`], [`MetaError::StoreFailed`].
    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, MetaError>;

    /// Finishes the commits that are under way and refuses new ones. What the store holds of the
    /// system (files, locks) goes with its last handle and snapshot.
    async fn close(&self);

    /// The same store for work that others needn't wait for: where the store tells priorities apart,
    /// its transactions give way to those of this one. `None`: it doesn't.
    fn background(&self) -> Option<Arc<dyn Store>> {
        None
    }

    /// Why no commit is taken any more until the process is started anew, if a write or a sync
    /// failed.
    fn failure(&self) -> Option<String> {
        None
    }
}

/// The store at one version.
#[async_trait]
pub trait Snapshot: Debug + Send + Sync {
    /// The version: rises with each commit of the store.
    fn version(&self) -> u64;

    /// The value of `key`.
    ///
    /// # Errors
    /// [`MetaError::TooOld`] when the store has dropped this version, or the store's own.
    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError>;

    /// Pairs of `range` in key order (`reverse`: from its end), up to `rows` of them, and stopping
    /// when keys and values pass `bytes`; at least one if there is one.
    ///
    /// # Errors
    /// As [`get`](Snapshot::get).
    async fn get_range(
        &self,
        range: &KeyRange,
        rows: usize,
        bytes: usize,
        reverse: bool,
    ) -> Result<Page, MetaError>;

    /// Makes all of `commit` durable at once, if nothing in its read ranges was written by a commit
    /// after this snapshot.
    ///
    /// A commit goes on when the future is dropped.
    ///
    /// # Errors
    /// [`MetaError::Conflict`], [`MetaError::TooOld`]: nothing was written.
    /// [`MetaError::CommitUnknown`], [`MetaError::StoreFailed`]: it may have been.
    async fn commit(&self, commit: Commit) -> Result<Committed, MetaError>;
}

/// What one read of a range gave.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Keys and values, in the order asked for.
    pub rows: Vec<(Bytes, Bytes)>,
    /// There may be more in the range.
    pub more: bool,
}

/// A transaction as it is committed.
#[derive(Debug, Default)]
pub struct Commit {
    /// A write of others in here since the snapshot is a conflict.
    pub reads: Vec<KeyRange>,
    /// What others that read it shall conflict with, on top of what `mutations` touch.
    pub writes: Vec<KeyRange>,
    /// In the order they were made.
    pub mutations: Vec<Mutation>,
    /// Watches that begin with this commit.
    pub watches: Vec<WatchRequest>,
}

/// A commit that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The version that shows it; the snapshot's own for a commit without writes.
    pub version: u64,
    /// What its versionstamps became: version and place within it, big-endian.
    pub stamp: [u8; STAMP_BYTES],
}

/// A watch to be kept by the store.
#[derive(Debug)]
pub struct WatchRequest {
    /// What is watched.
    pub key: Bytes,
    /// Its value as the transaction saw it, own writes included.
    pub seen: Option<Bytes>,
    /// Is told once when the value differs from `seen`. Dropped when the store closes.
    pub fire: oneshot::Sender<()>,
}
