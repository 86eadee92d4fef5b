//! Meta for unit tests of entities: what is read is counted, commits are lost as told, the clock
//! stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::store::{Commit, Committed, KeyRange, Page, Snapshot, Store};
use crate::{Clock, EmbeddedStore, Env, LossyStore, Meta, MetaError, Random};

#[derive(Debug, Default)]
pub(crate) struct Probe {
    /// Keys that were looked at: got, or rows of ranges.
    pub(crate) rows: AtomicU64,
    /// Calls that read: each is a round trip where the store is far away.
    pub(crate) reads: AtomicU64,
    /// Keys that are being got, and how many were at most.
    getting: AtomicU64,
    pub(crate) most_getting: AtomicU64,
}

#[derive(Debug)]
pub(crate) struct ProbedStore {
    inner: Arc<dyn Store>,
    probe: Arc<Probe>,
}

#[derive(Debug)]
struct ProbedSnapshot {
    inner: Arc<dyn Snapshot>,
    probe: Arc<Probe>,
}

#[async_trait]
impl Store for ProbedStore {
    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, MetaError> {
        Ok(Arc::new(ProbedSnapshot {
            inner: self.inner.snapshot().await?,
            probe: Arc::clone(&self.probe),
        }))
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[async_trait]
impl Snapshot for ProbedSnapshot {
    fn version(&self) -> u64 {
        self.inner.version()
    }

    async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, MetaError> {
        self.probe.rows.fetch_add(1, Ordering::Relaxed);
        self.probe.reads.fetch_add(1, Ordering::Relaxed);
        let getting = self.probe.getting.fetch_add(1, Ordering::Relaxed) + 1;
        self.probe.most_getting.fetch_max(getting, Ordering::Relaxed);
        // As on a store that is far away: others get their turn until it answers.
        tokio::task::yield_now().await;
        let value = self.inner.get(key).await;
        self.probe.getting.fetch_sub(1, Ordering::Relaxed);
        value
    }

    async fn get_range(
        &self,
        range: &KeyRange,
        rows: usize,
        bytes: usize,
        reverse: bool,
    ) -> Result<Page, MetaError> {
        let page = self.inner.get_range(range, rows, bytes, reverse).await?;
        let count = u64::try_from(page.rows.len()).unwrap();
        self.probe.rows.fetch_add(count, Ordering::Relaxed);
        self.probe.reads.fetch_add(1, Ordering::Relaxed);
        Ok(page)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, MetaError> {
        self.inner.commit(commit).await
    }
}

/// A clock that stands.
#[derive(Debug)]
struct StandingClock;

impl Clock for StandingClock {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

#[derive(Debug)]
pub(crate) struct SeededRandom(Mutex<StdRng>);

impl Random for SeededRandom {
    fn next_u64(&self) -> u64 {
        self.0.lock().next_u64()
    }
}

/// Meta in memory, with a standing clock and repeatable random numbers.
pub(crate) struct TestBed {
    pub(crate) meta: Meta,
    pub(crate) probe: Arc<Probe>,
    pub(crate) lossy: LossyStore,
}

impl TestBed {
    pub(crate) fn new() -> Self {
        let probe = Arc::new(Probe::default());
        let env = Env {
            clock: Arc::new(StandingClock),
            random: Arc::new(SeededRandom(Mutex::new(StdRng::seed_from_u64(1)))),
        };
        let lossy = LossyStore::new(Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap()));
        let store = ProbedStore { inner: Arc::new(lossy.clone()), probe: Arc::clone(&probe) };
        let meta = Meta::new(Arc::new(store), env, "test");
        Self { meta, probe, lossy }
    }
}
