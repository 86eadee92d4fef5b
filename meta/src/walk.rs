//! All rows of a store below the root, for tools that look at everything.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::MetaError;
use crate::meta::Meta;
use crate::store::{KeyRange, Page, Snapshot, key_after};

/// Rows and bytes of one page at most.
const PAGE_ROWS: usize = 5_000;
const PAGE_BYTES: usize = 1 << 20;

/// A walk over all rows in key order, one page in memory, in the background. It reads at one version for
/// as long as the store keeps it, then at a newer one.
#[derive(Debug)]
pub(crate) struct Walk {
    meta: Meta,
    snapshot: Option<Arc<dyn Snapshot>>,
    version: Option<u64>,
    left: KeyRange,
    moved: bool,
}

impl Walk {
    pub(crate) fn new(meta: &Meta) -> Self {
        let left = meta.all_keys();
        Self { meta: meta.background(), snapshot: None, version: None, left, moved: false }
    }

    /// The next rows; `None` at the end.
    ///
    /// # Errors
    /// The store's own; [`MetaError::TimedOut`] when it was unavailable for a minute.
    pub(crate) async fn next_page(&mut self) -> Result<Option<Vec<(Bytes, Bytes)>>, MetaError> {
        let mut retries = self.meta.retries();
        while !self.left.is_empty() {
            let page = match self.read().await {
                Ok(page) => page,
                Err(error) if error.is_retryable() => {
                    self.snapshot = None;
                    // A newer version needs no patience.
                    if error != MetaError::TooOld {
                        retries.pause_after(&error).await?;
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let end = self.left.end.clone();
            let begin = match page.rows.last() {
                Some((last, _)) if page.more => key_after(last),
                _ => end.clone(),
            };
            self.left = KeyRange::new(begin, end);
            return Ok((!page.rows.is_empty()).then_some(page.rows));
        }
        Ok(None)
    }

    async fn read(&mut self) -> Result<Page, MetaError> {
        let snapshot = match &self.snapshot {
            Some(snapshot) => Arc::clone(snapshot),
            None => self.newer().await?,
        };
        snapshot.get_range(&self.left, PAGE_ROWS, PAGE_BYTES, false).await
    }

    async fn newer(&mut self) -> Result<Arc<dyn Snapshot>, MetaError> {
        let snapshot = self.meta.store().snapshot().await?;
        let version = snapshot.version();
        self.moved |= self.version.is_some_and(|before| before != version);
        self.version = Some(version);
        self.snapshot = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Something may have been written between two pages.
    pub(crate) fn has_moved(&self) -> bool {
        self.moved
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Clock, EmbeddedStore, Env, PriorityStore};

    /// Tokio's clock, which a test can let pass at once.
    #[derive(Debug)]
    struct TokioClock(tokio::time::Instant);

    impl Clock for TokioClock {
        fn now(&self) -> Duration {
            self.0.elapsed()
        }
    }

    /// The rows of a whole walk.
    async fn rows(meta: &Meta) -> Result<usize, MetaError> {
        let (mut walk, mut rows) = (Walk::new(meta), 0);
        while let Some(page) = walk.next_page().await? {
            rows += page.len();
        }
        Ok(rows)
    }

    #[tokio::test(start_paused = true)]
    async fn a_walk_gives_way_and_has_patience() {
        let clock = Arc::new(TokioClock(tokio::time::Instant::now()));
        let env = Env { clock, ..Env::default() };
        let store = Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap());
        let store = PriorityStore::new(store);
        let meta = Meta::new(Arc::new(store.clone()), env, "test");
        let key = &meta.root().pack(&"a");
        meta.transact(|tx| async move { tx.set(key.clone(), "v") }).await.unwrap();
        store.take_counts();
        assert_eq!(rows(&meta).await.unwrap(), 1);
        assert_eq!(store.take_counts(), (0, 1));

        store.hold_up(true);
        let passes_soon = async {
            tokio::time::sleep(Duration::from_secs(30)).await;
            store.hold_up(false);
        };
        let (walked, ()) = tokio::join!(rows(&meta), passes_soon);
        assert_eq!(walked.unwrap(), 1);
        store.hold_up(true);
        let given_up = rows(&meta).await.unwrap_err();
        assert!(matches!(given_up, MetaError::TimedOut(_)), "{given_up}");
    }
}
