//! The log stores of a seed, what they keep, and what everybody knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use interflow_meta::grpc::ServeOptions;
use interflow_meta::logs::Policy;
use interflow_meta::{Durability, LogId, NodeId};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::super::super::metrics::LogMetrics;
use super::super::super::super::seals::Seals;
use super::super::super::super::service::{Identity, LogStore, Parts};
use super::super::super::START_MS;
use super::super::super::store::MemStore;
use super::super::oracle::{Disks, Oracle};
use super::super::registry::{Chains, Handle};
use super::super::trace::Trace;
use super::clients::Producer;
use super::network::{self, Listener};
use crate::clock::Clock;
use crate::peers::LogNode;
use crate::{ClusterView, GrpcPeers, LogConfig, LogServerOptions, Progress, serve_logs};

/// All there is.
pub(super) struct World {
    seed: u64,
    pub(super) chains: Arc<Chains>,
    pub(super) oracle: Oracle,
    disks: Disks,
    /// The events of disks whose node is about to start.
    fresh: Mutex<BTreeMap<NodeId, Arc<Progress>>>,
    /// The nodes that count as live; those that are down only until their lease ends.
    live: Mutex<BTreeMap<NodeId, Option<u64>>>,
    live_changed: Notify,
    lease_ms: u64,
    now_ms: AtomicU64,
    pub(super) trace: Trace,
    metrics: Mutex<Vec<Arc<LogMetrics>>>,
    is_healed: AtomicBool,
    pub(super) is_over: AtomicBool,
    /// Gateways whose producers are not done.
    pub(super) producing: AtomicU32,
    /// What each producer has sent in the end.
    pub(super) sent: Mutex<BTreeMap<u32, (LogId, Vec<String>)>>,
    /// Who isn't done, and with what.
    waiting: Mutex<BTreeSet<String>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Arc<Self> {
        let disks = Disks::default();
        let world = Arc::new(Self {
            seed,
            chains: Chains::new(seed, 3, 5),
            oracle: Oracle::new(Arc::clone(&disks)),
            disks,
            fresh: Mutex::default(),
            live: Mutex::default(),
            live_changed: Notify::new(),
            lease_ms: StdRng::seed_from_u64(seed).random_range(500..=6_000),
            now_ms: AtomicU64::new(0),
            trace: Trace::new(),
            metrics: Mutex::default(),
            is_healed: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            producing: AtomicU32::new(super::GATEWAYS),
            sent: Mutex::default(),
            waiting: Mutex::default(),
        });
        let watcher = Arc::downgrade(&world);
        world.chains.watch(Arc::new(move |log, before, closed, after| {
            let Some(world) = watcher.upgrade() else { return };
            let (epoch, end, next) = (closed.epoch, closed.end, &after.replicas);
            world.note(format_args!("closed {log} {epoch} at {end}, next at {next:?}"));
            world.trace.count("closes", 1);
            world.oracle.closed(log, before, closed, after);
        }));
        world
    }

    /// Random numbers of one actor, which no other one disturbs.
    pub(super) fn rng(&self, actor: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(actor))
    }

    pub(super) fn set_now(&self, now: Duration) {
        self.now_ms.store(now.as_millis().try_into().expect("a short run"), Ordering::SeqCst);
    }

    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    /// Something has happened: it goes into the trace.
    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.now_ms().into(), what);
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = self.trace.counts();
        let sum = |of: fn(&LogMetrics) -> u64| self.metrics.lock().iter().map(|m| of(m)).sum();
        counts.insert("recoveries", sum(|m| m.crash_closes.load(Ordering::Relaxed)));
        counts.insert("duplicate retries", sum(|m| m.duplicates.load(Ordering::Relaxed)));
        counts
    }

    /// Somebody is about to do something, until the guard is dropped.
    pub(super) fn doing(self: &Arc<Self>, what: String) -> impl Drop + use<> {
        struct Done(Arc<World>, String);
        impl Drop for Done {
            fn drop(&mut self) {
                self.0.waiting.lock().remove(&self.1);
            }
        }
        self.waiting.lock().insert(what.clone());
        Done(Arc::clone(self), what)
    }

    pub(super) fn waiting(&self) -> String {
        self.waiting.lock().iter().cloned().collect::<Vec<_>>().join("; ")
    }

    /// The nodes, with empty disks.
    pub(super) fn begin(&self, stores: u32) -> Vec<NodeId> {
        let all: Vec<_> = (1..=stores).map(NodeId).collect();
        for node in &all {
            let progress = Progress::new();
            self.disks.lock().insert(*node, MemStore::new(&progress));
            self.fresh.lock().insert(*node, progress);
            self.live.lock().insert(*node, None);
            self.chains.register(*node);
        }
        all
    }

    /// The logs and their producers.
    pub(super) fn people(&self, stores: u32, rng: &mut StdRng) -> Vec<Producer> {
        let mut producers = Vec::new();
        for log in (1..=rng.random_range(2..=4)).map(LogId) {
            let first = rng.random_range(0..stores);
            let replicas: Vec<_> = (0..3).map(|n| NodeId((first + n) % stores + 1)).collect();
            let segment_bytes = [400, 4_000, 1 << 30][rng.random_range(0..3)];
            let policy = Policy { segment_bytes, ..Policy::default() };
            self.chains.create(log, &replicas, 3, Durability::Durable, policy);
            self.oracle.created(log, &self.chains.record(log).head);
            for is_keyed in [true, false] {
                producers.push(Producer {
                    id: 10 + u32::try_from(producers.len()).expect("few"),
                    log,
                    is_keyed,
                    in_flight: rng.random_range(1..=5),
                    max_pause_ms: rng.random_range(40..=400),
                });
            }
        }
        producers
    }

    /// The next life of a node, to its end.
    pub(super) async fn serve(self: Arc<Self>, node: NodeId) -> turmoil::Result {
        let life = self.chains.register(node);
        let store = Arc::clone(&self.disks.lock()[&node]);
        let progress = self.fresh.lock().remove(&node).expect("its disk is fresh");
        self.note(format_args!("start {node}"));
        let handle = || Handle {
            chains: Arc::clone(&self.chains),
            is_dead: Arc::new(AtomicBool::new(false)),
            node,
        };
        let identity = Identity { node, incarnation: life.incarnation };
        let view: Arc<dyn ClusterView> = Arc::new(View(Arc::clone(&self)));
        let seals = Seals::load(&*store).await.expect("seals");
        let logs = LogStore::start(Parts {
            registry: Arc::new(handle()),
            upkeep: Arc::new(handle()),
            store: Arc::clone(&store) as Arc<dyn crate::store::EntryStore>,
            progress,
            clock: Arc::new(WorldClock(Arc::clone(&self))),
            config: LogConfig::default(),
            identity,
            peers: GrpcPeers::new(identity, view, network::access()),
            seals,
            rules: Default::default(),
        });
        logs.start_timers();
        logs.start_mending();
        self.metrics.lock().push(Arc::clone(logs.metrics()));
        let rng = self.rng(1_000 * life.incarnation + u64::from(node.0));
        tokio::spawn(Arc::clone(&self).keep_journal(store, rng));
        let access = ServeOptions { token: Some(network::token()), tls: None };
        let options = LogServerOptions { access, ..LogServerOptions::default() };
        serve_logs(Listener::bind().await?, &logs, options, CancellationToken::new()).await?;
        Ok(())
    }

    /// A journal goes on in small steps, for as long as its node lives.
    async fn keep_journal(self: Arc<Self>, store: Arc<MemStore>, mut rng: StdRng) {
        while !self.is_over.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..=12))).await;
            if store.unsynced() > 0 {
                store.sync_some(rng.random_range(1..=10));
            }
        }
    }

    /// A node has died; of what wasn't synced so many percent are kept.
    pub(super) fn died(&self, node: NodeId, keep: u64) {
        let disk = Arc::clone(&self.disks.lock()[&node]);
        let unsynced = disk.unsynced();
        let kept = unsynced * keep / 100;
        let progress = Progress::new();
        let store = disk.crash(kept, &progress);
        self.trace.count("lost unsynced entries", unsynced - kept);
        self.note(format_args!("crash {node} unsynced {unsynced} kept {kept}"));
        self.disks.lock().insert(node, store);
        self.fresh.lock().insert(node, progress);
        self.live.lock().insert(node, Some(self.now_ms() + self.lease_ms));
        self.live_changed.notify_waiters();
    }

    /// It is about to start again.
    pub(super) fn comes_back(&self, node: NodeId) {
        self.live.lock().insert(node, None);
        self.live_changed.notify_waiters();
    }

    /// No more faults.
    pub(super) fn heal(&self) {
        self.note(format_args!("heal"));
        self.chains.set_unknowns(0);
        self.is_healed.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_healed(&self) -> bool {
        self.is_healed.load(Ordering::SeqCst)
    }
}

struct WorldClock(Arc<World>);

impl Clock for WorldClock {
    fn monotonic_ms(&self) -> u64 {
        self.0.now_ms()
    }

    fn wall_ms(&self) -> i64 {
        START_MS + i64::try_from(self.0.now_ms()).expect("a short run")
    }
}

/// The nodes as they find one another.
struct View(Arc<World>);

#[async_trait]
impl ClusterView for View {
    fn candidates(&self) -> Vec<LogNode> {
        let now = self.0.now_ms();
        let live = self.0.live.lock();
        let live = live.iter().filter(|(_, until)| until.is_none_or(|until| until > now));
        live.map(|(node, _)| LogNode { node: *node, rack: String::new() }).collect()
    }

    fn is_gone(&self, _: NodeId) -> bool {
        false
    }

    fn address(&self, node: NodeId) -> Option<String> {
        Some(network::address(node))
    }

    async fn changed(&self) {
        self.0.live_changed.notified().await;
    }
}
