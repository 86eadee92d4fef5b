//! A transaction: reads of one version of the store with its own writes on top, committed at once.
//!
//! ```text
//!   get, get_range, get_key ──►  overlay (own writes)  ──►  Snapshot (the store at one version)
//!         └ adds read-conflict ranges
//!   set, clear, atomics, stamps ──►  mutations + overlay ──► commit
//! ```

mod limits;
mod overlay;
mod read;
mod select;
mod write;

use std::sync::Arc;
use std::time::Duration;

use foundationdb_tuple::Subspace;
use parking_lot::Mutex;
use tokio::sync::{OnceCell, oneshot};

use crate::env::Env;
use crate::error::MetaError;
use crate::store::{
    Commit, Committed, Mutation, RangeSet, STAMP_BYTES, Snapshot, Store, WatchRequest,
};
pub use limits::{MAX_KEY_BYTES, MAX_TRANSACTION_BYTES, MAX_TRANSACTION_TIME, MAX_VALUE_BYTES};
pub(crate) use limits::{check_key, check_range, check_value};
use overlay::Overlay;
#[cfg(test)]
pub(crate) use read::GETS_AT_A_TIME;
pub use read::{RangeOptions, Scan};
pub use select::KeySelector;

/// One transaction. Clones are the same transaction.
///
/// All reads see the store at one version (that of the first read), and the transaction's own
/// writes. A plain read makes the commit fail with [`MetaError::Conflict`] if what it read was
/// written by another in the meantime; a *snapshot* read doesn't.
#[derive(Clone, Debug)]
pub struct Transaction {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    env: Env,
    root: Arc<Subspace>,
    maybe_committed: bool,
    view: OnceCell<View>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct View {
    snapshot: Arc<dyn Snapshot>,
    since: Duration,
}

/// What the transaction has gathered.
#[derive(Debug, Default)]
struct State {
    overlay: Overlay,
    mutations: Vec<Mutation>,
    mutation_bytes: usize,
    reads: RangeSet,
    writes: RangeSet,
    watches: Vec<WatchRequest>,
    /// Set when the commit begins; from then on the transaction can't be used.
    closed: bool,
    committed: Option<Committed>,
}

impl Transaction {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        env: Env,
        root: Arc<Subspace>,
        maybe_committed: bool,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                store,
                env,
                root,
                maybe_committed,
                view: OnceCell::new(),
                state: Mutex::default(),
            }),
        }
    }

    /// The prefix of all keys; each entity's file builds its own below it.
    pub(crate) fn root(&self) -> &Subspace {
        &self.inner.root
    }

    /// An earlier attempt of this [`transact`](crate::Meta::transact) may have been committed.
    #[must_use]
    pub fn is_maybe_committed(&self) -> bool {
        self.inner.maybe_committed
    }

    /// A random number; drawn anew in each attempt.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        self.inner.env.random.next_u64()
    }

    /// The version that the reads see.
    ///
    /// # Errors
    /// The store's own.
    pub async fn read_version(&self) -> Result<u64, MetaError> {
        Ok(self.snapshot().await?.version())
    }

    /// The store's state for this transaction, taken at the first call.
    async fn snapshot(&self) -> Result<&Arc<dyn Snapshot>, MetaError> {
        let view = self
            .inner
            .view
            .get_or_try_init(|| async {
                Ok::<_, MetaError>(View {
                    since: self.inner.env.clock.now(),
                    snapshot: self.inner.store.snapshot().await?,
                })
            })
            .await?;
        let age = self.inner.env.clock.now().saturating_sub(view.since);
        if age > MAX_TRANSACTION_TIME {
            return Err(MetaError::TooOld);
        }
        Ok(&view.snapshot)
    }

    /// Makes the writes durable and visible, all or none. One that wrote nothing always succeeds.
    ///
    /// A commit that has begun goes on when the future is dropped. Afterwards the transaction can't
    /// be used, except for [`versionstamp`](Self::versionstamp).
    ///
    /// # Errors
    /// [`MetaError::Conflict`] and [`MetaError::TooOld`]: nothing was written, try anew.
    /// [`MetaError::CommitUnknown`]: find out by reading, or make the transaction idempotent.
    /// [`MetaError::TransactionTooLarge`]; the store's own.
    pub async fn commit(&self) -> Result<Committed, MetaError> {
        let snapshot = Arc::clone(self.snapshot().await?);
        let commit = {
            let mut state = self.inner.state.lock();
            state.check_open()?;
            state.check_size()?;
            state.closed = true;
            let is_write = !state.mutations.is_empty() || !state.writes.is_empty();
            Commit {
                // Without writes there is no place in the order of commits to check.
                reads: if is_write { state.reads.iter().collect() } else { Vec::new() },
                writes: state.writes.iter().collect(),
                mutations: std::mem::take(&mut state.mutations),
                watches: std::mem::take(&mut state.watches),
            }
        };
        let committed = snapshot.commit(commit).await?;
        self.inner.state.lock().committed = Some(committed);
        Ok(committed)
    }

    /// What the versionstamps of this transaction became; `None` before its commit.
    #[must_use]
    pub fn versionstamp(&self) -> Option<[u8; STAMP_BYTES]> {
        self.inner.state.lock().committed.map(|committed| committed.stamp)
    }
}

impl State {
    fn check_open(&self) -> Result<(), MetaError> {
        if self.closed {
            return Err(MetaError::UsedAfterCommit);
        }
        Ok(())
    }

    fn check_size(&self) -> Result<(), MetaError> {
        let bytes = self.mutation_bytes + self.reads.byte_size() + self.writes.byte_size();
        if bytes > MAX_TRANSACTION_BYTES {
            return Err(MetaError::TransactionTooLarge(bytes));
        }
        Ok(())
    }
}

/// Tells once when a key's value has changed from what its transaction saw.
///
/// Begins with the commit of the transaction that asked for it and outlives it. A change and a
/// change back may go unnoticed; a change to another value does not.
#[derive(Debug)]
pub struct Watch {
    fired: oneshot::Receiver<()>,
}

impl Watch {
    /// Waits for the change.
    ///
    /// # Errors
    /// [`MetaError::Unavailable`]: the store was closed, or the transaction not committed.
    pub async fn changed(self) -> Result<(), MetaError> {
        self.fired.await.map_err(|_| MetaError::Unavailable("the watch has ended".to_owned()))
    }

    /// It has fired; doesn't wait.
    pub fn has_fired(&mut self) -> bool {
        self.fired.try_recv().is_ok()
    }
}
