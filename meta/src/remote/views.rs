//! The versions that a server has handed out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use interflow_proto::meta_remote as proto;
use parking_lot::Mutex;

use crate::env::Env;
use crate::error::MetaError;
use crate::store::Snapshot;
use crate::transaction::MAX_TRANSACTION_TIME;

/// A second more than transactions have: clocks of client and server are read apart.
const KEEP: Duration = MAX_TRANSACTION_TIME.saturating_add(Duration::from_secs(1));
/// Versions kept at most; the oldest goes first. A version holds pages of the store, not memory.
const MAX_VIEWS: usize = 4_096;

/// Snapshots by their version, kept for as long as a transaction may take. All who read at one
/// version share one.
#[derive(Debug)]
pub(super) struct Views {
    env: Env,
    /// Which life of the server: versions of another one are unknown here.
    instance: u64,
    kept: Mutex<BTreeMap<u64, Kept>>,
}

#[derive(Debug)]
struct Kept {
    snapshot: Arc<dyn Snapshot>,
    since: Duration,
}

impl Views {
    pub(super) fn new(env: Env) -> Self {
        let instance = env.random.next_u64();
        Self { env, instance, kept: Mutex::default() }
    }

    /// Keeps `snapshot`, the newest, and names it.
    pub(super) fn hand_out(&self, snapshot: Arc<dyn Snapshot>) -> proto::View {
        let now = self.env.clock.now();
        let version = snapshot.version();
        let mut kept = self.kept.lock();
        kept.entry(version)
            .and_modify(|kept| kept.since = now)
            .or_insert(Kept { snapshot, since: now });
        // Versions rise, so the first are those that were handed out first.
        while let Some(oldest) = kept.first_entry() {
            if oldest.get().since + KEEP >= now && kept.len() <= MAX_VIEWS {
                break;
            }
            kept.pop_first();
        }
        proto::View { instance: self.instance, version }
    }

    /// The snapshot that `view` names.
    ///
    /// # Errors
    /// [`MetaError::TooOld`] when it isn't kept any more.
    pub(super) fn find(&self, view: Option<&proto::View>) -> Result<Arc<dyn Snapshot>, MetaError> {
        let view = view.filter(|view| view.instance == self.instance).ok_or(MetaError::TooOld)?;
        let now = self.env.clock.now();
        let kept = self.kept.lock();
        let found = kept.get(&view.version).filter(|kept| kept.since + KEEP >= now);
        found.map(|kept| Arc::clone(&kept.snapshot)).ok_or(MetaError::TooOld)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Commit, Mutation, Store};
    use crate::{Clock, EmbeddedStore};

    #[derive(Debug, Default)]
    struct ManualClock(Mutex<Duration>);

    impl Clock for ManualClock {
        fn now(&self) -> Duration {
            *self.0.lock()
        }
    }

    async fn next(store: &EmbeddedStore) -> Arc<dyn Snapshot> {
        let mutations = vec![Mutation::Set("k".into(), "v".into())];
        let commit = Commit { mutations, ..Commit::default() };
        store.snapshot().await.unwrap().commit(commit).await.unwrap();
        store.snapshot().await.unwrap()
    }

    #[tokio::test]
    async fn a_version_is_kept_for_as_long_as_a_transaction_may_take() {
        let clock = Arc::new(ManualClock::default());
        let env = Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Env::default() };
        let store = EmbeddedStore::in_memory(env.clone()).unwrap();
        let views = Views::new(env.clone());
        let old = views.hand_out(next(&store).await);
        assert_eq!(views.find(Some(&old)).unwrap().version(), old.version);
        *clock.0.lock() += Duration::from_secs(5);
        let newer = views.hand_out(next(&store).await);
        views.find(Some(&old)).unwrap();
        *clock.0.lock() += Duration::from_secs(2);
        assert_eq!(views.find(Some(&old)).unwrap_err(), MetaError::TooOld);
        views.find(Some(&newer)).unwrap();
        assert_eq!(views.kept.lock().len(), 2, "it goes with the next");
        views.hand_out(next(&store).await);
        assert_eq!(views.kept.lock().len(), 2);
        // Another life of the server may use the same versions for something else.
        let other = Views::new(env);
        other.hand_out(store.snapshot().await.unwrap());
        assert_eq!(other.find(Some(&newer)).unwrap_err(), MetaError::TooOld);
        assert_eq!(views.find(None).unwrap_err(), MetaError::TooOld);
    }

    #[tokio::test]
    async fn the_number_of_versions_is_bounded() {
        #[derive(Debug)]
        struct Numbered(u64);
        #[async_trait::async_trait]
        impl Snapshot for Numbered {
            fn version(&self) -> u64 {
                self.0
            }
            async fn get(&self, _: &[u8]) -> Result<Option<bytes::Bytes>, MetaError> {
                Err(MetaError::TooOld)
            }
            async fn get_range(
                &self,
                _: &crate::KeyRange,
                _: usize,
                _: usize,
                _: bool,
            ) -> Result<crate::Page, MetaError> {
                Err(MetaError::TooOld)
            }
            async fn commit(&self, _: Commit) -> Result<crate::Committed, MetaError> {
                Err(MetaError::TooOld)
            }
        }
        let views = Views::new(Env::default());
        for version in 0..5_000 {
            views.hand_out(Arc::new(Numbered(version)));
        }
        let kept = views.kept.lock();
        assert_eq!((kept.len(), *kept.keys().next().unwrap()), (MAX_VIEWS, 5_000 - 4_096));
    }
}
