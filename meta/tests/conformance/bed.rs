//! What a case stands on: a store, a clock that is moved by hand, and keys of its own.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use interflow_meta::{
    Clock, Env, KeyRange, LossyStore, Meta, MetaError, RangeOptions, Store, SystemRandom,
    Transaction,
};
use parking_lot::Mutex;

use super::CASES;

/// A case that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// A store to be tested, and what it can't do.
pub(crate) struct Provided {
    /// The store. Keys below a prefix that was never used are absent.
    pub(crate) store: Arc<dyn Store>,
    /// Others' keys may lie beside the case's, which are cleared when it ends well.
    pub(crate) is_shared: bool,
    /// Its versions age by the machine's clock, not by that of the `Env`.
    pub(crate) has_real_clock: bool,
    /// Dropped when the case has ended: a server, a folder.
    pub(crate) guard: Box<dyn Any + Send + Sync>,
}

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(Mutex<Duration>);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.0.lock()
    }
}

/// A store with what a case needs around it.
pub(crate) struct Bed {
    /// On `store`.
    pub(crate) meta: Meta,
    /// The store; it loses commits as told.
    pub(crate) store: LossyStore,
    /// The clock of `meta`.
    pub(crate) clock: Arc<ManualClock>,
    /// See [`Provided::is_shared`].
    pub(crate) is_shared: bool,
    has_real_clock: bool,
    prefix: Vec<u8>,
    _guard: Box<dyn Any + Send + Sync>,
}

impl Bed {
    /// The key `name` of this case.
    pub(crate) fn key(&self, name: impl AsRef<[u8]>) -> Vec<u8> {
        [&self.prefix[..], name.as_ref()].concat()
    }

    /// The keys of this case from `begin` up to `end`.
    pub(crate) fn range(&self, begin: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> KeyRange {
        KeyRange::new(self.key(begin), self.key(end))
    }

    /// All keys of this case.
    pub(crate) fn all(&self) -> KeyRange {
        KeyRange::prefix(&self.prefix)
    }

    /// The bytes that every key of this case begins with.
    pub(crate) fn prefix_bytes(&self) -> usize {
        self.prefix.len()
    }

    /// What `key` is called in this case.
    pub(crate) fn name(&self, key: &[u8]) -> String {
        let name = key.strip_prefix(&self.prefix[..]).expect("a key of this case");
        String::from_utf8(name.to_vec()).unwrap()
    }

    /// A transaction whose version is chosen.
    pub(crate) async fn begun(&self) -> Transaction {
        let tx = self.meta.begin();
        tx.read_version().await.unwrap();
        tx
    }

    /// Sets the key `name`, in a transaction of its own.
    pub(crate) async fn set(&self, name: &str, value: &'static str) {
        let key = &self.key(name);
        self.meta.transact(|tx| async move { tx.set(key.clone(), value) }).await.unwrap();
    }

    /// Sets each of `names` to itself.
    pub(crate) async fn fill(&self, names: &[&str]) {
        self.meta
            .transact(|tx| async move {
                for name in names {
                    tx.set(self.key(name), name.as_bytes().to_vec())?;
                }
                Ok::<_, MetaError>(())
            })
            .await
            .unwrap();
    }

    /// The value of the key `name`, in a transaction of its own.
    pub(crate) async fn value(&self, name: &str) -> Option<Vec<u8>> {
        self.meta.begin().get(&self.key(name)).await.unwrap().map(|value| value.to_vec())
    }

    /// The names of one page of all keys, as `tx` sees them.
    pub(crate) async fn names(&self, tx: &Transaction, options: RangeOptions) -> Vec<String> {
        let page = tx.get_range(&self.all(), options).await.unwrap();
        page.rows.iter().map(|(key, _)| self.name(key)).collect()
    }

    /// Clears all keys of this case.
    pub(crate) async fn clear(&self) {
        self.meta.transact(|tx| async move { tx.clear_range(self.all()) }).await.unwrap();
    }

    /// Lets the store's own time pass: by hand where that is possible.
    pub(crate) async fn pass(&self, time: Duration) {
        self.clock.advance(time);
        if self.has_real_clock {
            tokio::time::sleep(time).await;
        }
    }
}

/// Runs the case `name` on a store that `open` provides.
pub(crate) fn run<F>(name: &str, open: impl FnOnce(Env) -> F)
where
    F: Future<Output = Provided>,
{
    let case = CASES.iter().find(|case| case.name == name).expect("a case of the table");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let clock = Arc::new(ManualClock::default());
        let env =
            Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, random: Arc::new(SystemRandom) };
        let provided = open(env.clone()).await;
        let store = LossyStore::new(provided.store);
        let bed = Arc::new(Bed {
            meta: Meta::new(Arc::new(store.clone()), env, "conformance"),
            store,
            clock,
            is_shared: provided.is_shared,
            has_real_clock: provided.has_real_clock,
            prefix: format!("conformance/{name}/{:016x}/", rand::random::<u64>()).into_bytes(),
            _guard: provided.guard,
        });
        let ended = tokio::time::timeout(PATIENCE, (case.run)(Arc::clone(&bed))).await;
        assert!(ended.is_ok(), "{name} hangs");
        if bed.is_shared {
            // Once: a case that closes its store has cleared before.
            let tx = bed.meta.begin();
            tx.clear_range(bed.all()).unwrap();
            let _ = tx.commit().await;
        }
        bed.meta.close().await;
    });
}
