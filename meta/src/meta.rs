//! The handle on meta, and its retry loop.

use std::sync::Arc;
use std::time::Duration;

use foundationdb_tuple::Subspace;

use crate::env::Env;
use crate::error::{MetaError, TransactError};
use crate::store::{KeyRange, Store};
use crate::transaction::Transaction;

/// How long [`Meta::transact`] retries before it gives up.
const RETRY_FOR: Duration = Duration::from_secs(60);
/// The longest pause between two attempts, as FoundationDB's.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// The first pause; FoundationDB's is 10 ms, but a commit to the embedded store takes one sync.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// A handle on the cluster's metadata. Clones are cheap and share one store.
///
/// ```
/// # use interflow_meta::{Meta, MetaError};
/// # async fn example(meta: &Meta) -> Result<(), MetaError> {
/// let seen = meta
///     .transact(|tx| async move {
///         let seen = tx.get(b"greeting").await?;
///         tx.set("greeting", "hello")?;
///         Ok::<_, MetaError>(seen)
///     })
///     .await?;
/// # let _ = seen; Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Meta {
    store: Arc<dyn Store>,
    env: Env,
    root: Arc<Subspace>,
}

impl Meta {
    /// Metadata kept in `store`, all entities' keys below the tuple `(root)`.
    pub fn new(store: Arc<dyn Store>, env: Env, root: &str) -> Self {
        Self { store, env, root: Arc::new(Subspace::all().subspace(&root)) }
    }

    /// The same metadata for work in the background (scans, clean-up): its transactions give way to
    /// others where the store is one that many share. They may be held up for long.
    #[must_use]
    pub fn background(&self) -> Self {
        let store = self.store.background().unwrap_or_else(|| Arc::clone(&self.store));
        Self { store, ..self.clone() }
    }

    /// A transaction without a retry loop.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        self.attempt(false)
    }

    fn attempt(&self, maybe_committed: bool) -> Transaction {
        Transaction::new(
            Arc::clone(&self.store),
            self.env.clone(),
            Arc::clone(&self.root),
            maybe_committed,
        )
    }

    /// Runs `body` in a transaction and commits it, again and again until it gets through.
    ///
    /// `body` may run several times and must have no other effect than on its transaction. After
    /// [`MetaError::CommitUnknown`] it runs again although an earlier run may have been committed:
    /// it must be idempotent, for example by a token that it writes and finds again
    /// ([`Transaction::is_maybe_committed`] tells).
    ///
    /// # Errors
    /// What `body` returns, unless it is a retryable error of meta; what the commit returns, unless
    /// retryable; [`MetaError::TimedOut`] after a minute of retries.
    pub async fn transact<T, E, F, Fut>(&self, body: F) -> Result<T, E>
    where
        E: TransactError,
        F: Fn(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let mut retries = self.retries();
        let mut maybe_committed = false;
        loop {
            let transaction = self.attempt(maybe_committed);
            let error = match body(transaction.clone()).await {
                Ok(value) => match transaction.commit().await {
                    Ok(_) => return Ok(value),
                    Err(error) => E::from(error),
                },
                Err(error) => error,
            };
            // Nothing that the attempt holds may outlive it into the pause.
            drop(transaction);
            let Some(cause) = error.as_meta().filter(|cause| cause.is_retryable()) else {
                return Err(error);
            };
            maybe_committed |= cause.is_maybe_committed();
            retries.pause_after(cause).await?;
        }
    }

    /// For a loop of its own around what may be tried again.
    pub(crate) fn retries(&self) -> Retries {
        Retries { env: self.env.clone(), began: self.env.clock.now(), pause: Duration::ZERO }
    }

    /// Ends the store: commits under way are finished, new ones refused, watches ended. Its files
    /// are free when the last handle is dropped.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Clock and random numbers.
    pub(crate) fn env(&self) -> &Env {
        &self.env
    }

    /// The store itself, without transactions.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The prefix of all keys.
    pub(crate) fn root(&self) -> &Subspace {
        &self.root
    }

    /// Everything below the root.
    pub(crate) fn all_keys(&self) -> KeyRange {
        KeyRange::prefix(self.root.bytes())
    }

    /// A random number, for tokens that must stay the same over the attempts of a transaction.
    #[must_use]
    pub fn random_u64(&self) -> u64 {
        self.env.random.next_u64()
    }
}

/// The pauses between attempts, until there were attempts for too long.
#[derive(Debug)]
pub(crate) struct Retries {
    env: Env,
    began: Duration,
    pause: Duration,
}

impl Retries {
    /// Waits until the next attempt after the failure `cause`.
    ///
    /// # Errors
    /// [`MetaError::TimedOut`] with `cause` after a minute of them.
    pub(crate) async fn pause_after(&mut self, cause: &MetaError) -> Result<(), MetaError> {
        if self.env.clock.now().saturating_sub(self.began) > RETRY_FOR {
            return Err(MetaError::TimedOut(Box::new(cause.clone())));
        }
        if !self.pause.is_zero() {
            tokio::time::sleep(self.jitter()).await;
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, MAX_PAUSE);
        Ok(())
    }

    /// Between half of the pause and all of it, so that those who collided part.
    fn jitter(&self) -> Duration {
        let half = self.pause / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).max(1);
        half + Duration::from_nanos(self.env.random.next_u64() % nanos)
    }
}
