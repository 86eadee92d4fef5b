//! The service over a store in memory and the real embedded meta.

mod appends;
mod cluster;
mod crashes;
mod observers;
mod reads;
mod real;
mod restarts;
mod retention;
mod rolls;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use async_trait::async_trait;
use bytes::Bytes;
use interflow_meta::logs::{Opening, Policy, set_policy};
use interflow_meta::topics::{self, NewLogs, NewTopic};
use interflow_meta::{DEFAULT_TENANT, Durability, EmbeddedStore, Env, LogId, Meta, NodeId, Offset};
use tokio::sync::Semaphore;
use uuid::Uuid;

use self::store::MemStore;
use super::registry::{LogRecord, Registry, RegistryError, Roll, RollOutcome};
use super::service::{Identity, LogStore, Parts};
use super::{LogConfig, Progress};
use crate::clock::ManualClock;
use crate::core::segment::Head;
use crate::{
    Append, AppendKey, AppendKind, AppendResult, AppendTicket, LogClient, Read, ReadOutcome,
};

const NODE: NodeId = NodeId(1);
const START_MS: i64 = 1_000_000;

/// Meta behind a gate that rolls wait at, and loads with what they have read, and that can
/// refuse them.
struct Gate {
    meta: Meta,
    rolls: Semaphore,
    loads: Semaphore,
    /// Loads that came to the gate.
    loaded: AtomicU64,
    is_down: AtomicBool,
    trims: AtomicU64,
}

#[async_trait]
impl Registry for Gate {
    async fn load(&self, log: LogId) -> Result<Option<LogRecord>, RegistryError> {
        self.check()?;
        let record = Registry::load(&self.meta, log).await;
        self.loaded.fetch_add(1, Ordering::SeqCst);
        self.loads.acquire().await.expect("never closed").forget();
        record
    }

    async fn roll(&self, roll: &Roll) -> Result<RollOutcome, RegistryError> {
        self.rolls.acquire().await.expect("never closed").forget();
        self.check()?;
        self.meta.roll(roll).await
    }

    async fn trim(&self, log: LogId, before: Offset) -> Result<Option<Offset>, RegistryError> {
        self.trims.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        Registry::trim(&self.meta, log, before).await
    }

    async fn set_replicas(
        &self,
        log: LogId,
        closed: &crate::core::chain::Closed,
        replicas: &[NodeId],
    ) -> Result<bool, RegistryError> {
        self.check()?;
        self.meta.set_replicas(log, closed, replicas).await
    }

    async fn logs(
        &self,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<(LogId, Head)>, RegistryError> {
        self.check()?;
        self.meta.logs(after, limit).await
    }

    fn token(&self) -> u64 {
        self.meta.random_u64()
    }
}

impl Gate {
    fn new(meta: Meta) -> Arc<Self> {
        Arc::new(Self {
            meta,
            rolls: Semaphore::new(Semaphore::MAX_PERMITS),
            loads: Semaphore::new(Semaphore::MAX_PERMITS),
            loaded: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            trims: AtomicU64::new(0),
        })
    }

    /// Trims that came to the gate since the last call.
    fn take_trims(&self) -> u64 {
        self.trims.swap(0, Ordering::SeqCst)
    }

    fn check(&self) -> Result<(), RegistryError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(RegistryError("a test".to_owned()));
        }
        Ok(())
    }
}

/// A node: its service, and what outlives it.
struct Node {
    logs: LogStore,
    store: Arc<MemStore>,
    gate: Arc<Gate>,
    /// What gives way to others comes to another one.
    upkeep: Arc<Gate>,
    clock: Arc<ManualClock>,
    config: LogConfig,
    incarnation: u64,
}

impl Node {
    /// A node without logs whose rolls pass freely.
    fn new() -> Self {
        Self::with(LogConfig::default())
    }

    fn with(config: LogConfig) -> Self {
        let store = EmbeddedStore::in_memory(Env::default()).expect("a store in memory");
        let meta = Meta::new(Arc::new(store), Env::default(), "test");
        let gates = [Gate::new(meta.clone()), Gate::new(meta)];
        let progress = Progress::new();
        let store = MemStore::new(&progress);
        let clock = Arc::new(ManualClock::new(START_MS));
        Self::start(store, progress, gates, clock, config, 1)
    }

    fn start(
        store: Arc<MemStore>,
        progress: Arc<Progress>,
        [gate, upkeep]: [Arc<Gate>; 2],
        clock: Arc<ManualClock>,
        config: LogConfig,
        incarnation: u64,
    ) -> Self {
        let logs = LogStore::start(Parts {
            registry: Arc::clone(&gate) as Arc<dyn Registry>,
            upkeep: Arc::clone(&upkeep) as Arc<dyn Registry>,
            store: Arc::clone(&store) as Arc<dyn crate::store::EntryStore>,
            progress,
            clock: Arc::clone(&clock) as Arc<dyn crate::clock::Clock>,
            config: config.clone(),
            identity: Identity { node: NODE, incarnation },
            peers: Arc::new(crate::peers::Alone(NODE)),
            seals: Default::default(),
            rules: Default::default(),
        });
        Self { logs, store, gate, upkeep, clock, config, incarnation }
    }

    /// The process is killed; of what wasn't reported durable, `extra` entries are kept.
    fn crash(self, extra: u64) -> Self {
        let progress = Progress::new();
        let store = self.store.crash(extra, &progress);
        let Self { gate, upkeep, clock, config, incarnation, .. } = self;
        Self::start(store, progress, [gate, upkeep], clock, config, incarnation + 1)
    }

    /// The process stops in order and starts again.
    async fn restart(self) -> Self {
        self.logs.shutdown().await;
        self.crash(0)
    }

    async fn create(&self, durability: Durability, policy: Policy) -> LogId {
        let new = NewTopic {
            name: format!("topic-{}", self.gate.meta.random_u64()),
            id: Uuid::from_u128(u128::from(self.gate.meta.random_u64())),
            partitions: 1,
            config: Default::default(),
            logs: NewLogs {
                durability,
                policy,
                replication_factor: 1,
                opening: Opening {
                    base: 0,
                    leader_epoch: 0,
                    sequencer: NODE,
                    incarnation: self.incarnation,
                    replicas: vec![NODE],
                    token: 1,
                    opened_ms: START_MS,
                },
            },
        };
        let new = &new;
        let topic = self
            .gate
            .meta
            .transact(|tx| async move { topics::create(&tx, DEFAULT_TENANT, new).await })
            .await
            .expect("a new topic");
        topic.logs[0]
    }

    /// A durable log with the default policy.
    async fn log(&self) -> LogId {
        self.create(Durability::Durable, Policy::default()).await
    }

    async fn set_policy(&self, log: LogId, policy: Policy) {
        self.gate
            .meta
            .transact(|tx| async move { set_policy(&tx, log, policy).await })
            .await
            .expect("the log exists");
        self.logs.refresh(log).await.expect("refreshed");
    }

    async fn delete(&self, log: LogId) {
        let record = interflow_meta::logs::load_head(&self.gate.meta.begin(), log).await;
        let name = record.expect("meta").expect("a log").topic;
        let name = &name;
        self.gate
            .meta
            .transact(|tx| async move { topics::delete(&tx, DEFAULT_TENANT, name, None).await })
            .await
            .expect("deleted");
    }

    /// Appends and waits; the journal goes on by itself.
    async fn put(&self, append: Append) -> AppendResult {
        self.store.eager(true);
        let result = self.logs.append(append).await;
        self.store.eager(false);
        result
    }

    async fn read_all(&self, log: LogId) -> Vec<(Offset, String)> {
        let mut offset = self.logs.bounds(log).await.expect("bounds").start;
        let mut all = Vec::new();
        loop {
            let outcome = self.read(log, offset).await;
            for batch in &outcome.batches {
                all.push((batch.base_offset, text(&batch.bytes)));
            }
            if outcome.batches.is_empty() && outcome.next_offset == offset {
                return all;
            }
            offset = outcome.next_offset;
        }
    }

    async fn read(&self, log: LogId, offset: Offset) -> ReadOutcome {
        self.logs.read(read(log, offset)).await.expect("a read")
    }
}

fn read(log: LogId, offset: Offset) -> Read {
    Read { log, offset, max_bytes: 1 << 20, stable_only: false, filter: None }
}

/// A batch of `count` records that is known again by `name`.
fn batch(log: LogId, count: u32, name: &str) -> Append {
    let mut bytes = vec![0xaa; 16];
    bytes.extend_from_slice(name.as_bytes());
    Append {
        log,
        kind: AppendKind::Data,
        key: None,
        window: 5,
        count,
        max_timestamp: START_MS,
        digest: None,
        early: false,
        batch: Bytes::from(bytes),
    }
}

/// The same under an append key of `producer`.
fn keyed(log: LogId, producer: i64, sequence: i32, name: &str) -> Append {
    let key = AppendKey { producer_id: producer, producer_epoch: 0, sequence };
    Append { key: Some(key), ..batch(log, 1, name) }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(&bytes[16..]).into_owned()
}

/// Whether a ticket has its answer, without waiting.
async fn poll(ticket: &mut AppendTicket) -> Option<AppendResult> {
    std::future::poll_fn(|cx| {
        Poll::Ready(match std::pin::Pin::new(&mut *ticket).poll(cx) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        })
    })
    .await
}
