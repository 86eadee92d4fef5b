//! Several nodes in one process: the service over stores in memory, a network and a meta that
//! fail as the test wants, in virtual time.

mod disks;
mod failover;
mod lagging;
mod leaving;
mod many;
mod mending;
mod net;
mod oracle;
mod panics;
mod quorums;
mod registry;
mod scrubbing;
mod simulation;
mod trace;
mod wired;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use interflow_meta::logs::Policy;
use interflow_meta::{Durability, LogId, NodeId};

use self::net::{Net, NetPeers};
use self::registry::{Chains, Handle};
use super::super::seals::Seals;
use super::super::service::{Identity, LogStore, Parts};
use super::super::{LogConfig, Progress};
use super::store::MemStore;
use super::{START_MS, read, text};
use crate::clock::Clock;
use crate::core::rules::Rules;
use crate::{AppendResult, LogClient, Offset};

/// The time that tokio's test clock shows.
struct VirtualClock {
    start: tokio::time::Instant,
    /// How far the wall clock has jumped.
    jump_ms: AtomicI64,
}

impl Clock for VirtualClock {
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).expect("a short test")
    }

    fn wall_ms(&self) -> i64 {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).expect("a short test");
        START_MS + elapsed + self.jump_ms.load(Ordering::SeqCst)
    }
}

/// One life of a node.
struct Member {
    logs: LogStore,
    store: Arc<MemStore>,
    is_dead: Arc<AtomicBool>,
}

struct Cluster {
    net: Arc<Net>,
    chains: Arc<Chains>,
    clock: Arc<VirtualClock>,
    members: BTreeMap<NodeId, Member>,
    config: LogConfig,
    rules: Rules,
}

fn node(id: u32) -> NodeId {
    NodeId(id)
}

impl Cluster {
    /// Nodes 1 to `count`, whose journals go on by themselves.
    async fn new(count: u32) -> Self {
        Self::with(count, Net::new(1, 0, 0), Chains::new(1, 0, 0), LogConfig::default()).await
    }

    /// The same with nodes that look after their segments.
    async fn mending(count: u32) -> Self {
        let cluster = Self::new(count).await;
        for member in cluster.members.values() {
            member.logs.start_mending();
        }
        cluster
    }

    async fn with(count: u32, net: Arc<Net>, chains: Arc<Chains>, config: LogConfig) -> Self {
        let mut cluster = Self::empty(net, chains, config, Rules::default());
        for id in 1..=count {
            let progress = Progress::new();
            let store = MemStore::new(&progress);
            store.eager(true);
            cluster.start(node(id), store, progress).await;
        }
        cluster
    }

    fn empty(net: Arc<Net>, chains: Arc<Chains>, config: LogConfig, rules: Rules) -> Self {
        let start = tokio::time::Instant::now();
        let clock = Arc::new(VirtualClock { start, jump_ms: AtomicI64::new(0) });
        Self { net, chains, clock, members: BTreeMap::new(), config, rules }
    }

    async fn start(&mut self, id: NodeId, store: Arc<MemStore>, progress: Arc<Progress>) {
        let seals = Seals::load(&*store).await.expect("seals");
        self.start_with(id, store, progress, seals);
    }

    fn start_with(
        &mut self,
        id: NodeId,
        store: Arc<MemStore>,
        progress: Arc<Progress>,
        seals: Seals,
    ) {
        let life = self.chains.register(id);
        let is_dead = Arc::new(AtomicBool::new(false));
        let handle =
            || Handle { chains: Arc::clone(&self.chains), is_dead: Arc::clone(&is_dead), node: id };
        let logs = LogStore::start(Parts {
            registry: Arc::new(handle()),
            upkeep: Arc::new(handle()),
            store: Arc::clone(&store) as Arc<dyn crate::store::EntryStore>,
            progress,
            clock: Arc::clone(&self.clock) as Arc<dyn Clock>,
            config: self.config.clone(),
            identity: Identity { node: id, incarnation: life.incarnation },
            peers: Arc::new(NetPeers { net: Arc::clone(&self.net), me: life }),
            seals,
            rules: self.rules,
        });
        logs.start_timers();
        self.net.join(life, &logs.inner);
        self.members.insert(id, Member { logs, store, is_dead });
    }

    /// The node's process is killed; its disk stays, with `extra` entries that weren't durable.
    fn kill(&mut self, id: u32, extra: u64) -> (Arc<MemStore>, Arc<Progress>) {
        let member = self.members.remove(&node(id)).expect("it is alive");
        member.is_dead.store(true, Ordering::SeqCst);
        self.net.leave(node(id));
        member.logs.inner.stop.cancel();
        let progress = Progress::new();
        let store = member.store.crash(extra, &progress);
        (store, progress)
    }

    async fn revive(&mut self, id: u32, (store, progress): (Arc<MemStore>, Arc<Progress>)) {
        self.start(node(id), store, progress).await;
        self.at(id).logs.start_mending();
    }

    fn create(&self, log: u64, replicas: &[u32]) -> LogId {
        let nodes: Vec<_> = replicas.iter().map(|id| node(*id)).collect();
        let (class, policy) = (Durability::Durable, Policy::default());
        self.chains.create(LogId(log), &nodes, nodes.len(), class, policy);
        LogId(log)
    }

    /// The same, where so many must have an append.
    fn create_with_acks(&self, log: u64, replicas: &[u32], min_acks: u32) -> LogId {
        let nodes: Vec<_> = replicas.iter().map(|id| node(*id)).collect();
        let (class, policy) = (Durability::Durable, Policy { min_acks, ..Policy::default() });
        self.chains.create(LogId(log), &nodes, nodes.len(), class, policy);
        LogId(log)
    }

    fn at(&self, id: u32) -> &Member {
        &self.members[&node(id)]
    }

    /// The node that meta names as the log's sequencer.
    fn sequencer(&self, log: LogId) -> NodeId {
        self.chains.record(log).head.sequencer.node
    }

    /// Appends again while it is unknown whether it is kept, for two minutes at most.
    async fn until_kept(&self, id: u32, append: impl Fn() -> crate::Append) -> crate::Appended {
        for _ in 0..120 {
            match self.append(id, append()).await {
                Err(crate::AppendError::Unknown) => {
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
                answer => return answer.expect("it is acknowledged"),
            }
        }
        panic!("it stays unknown");
    }

    async fn append(&self, id: u32, append: crate::Append) -> AppendResult {
        self.at(id).logs.append(append).await
    }

    async fn read_all(&self, id: u32, log: LogId) -> Vec<(Offset, String)> {
        let logs = &self.at(id).logs;
        let mut offset = logs.bounds(log).await.expect("bounds").start;
        let mut all = Vec::new();
        loop {
            let outcome = logs.read(read(log, offset)).await.expect("a read");
            for batch in &outcome.batches {
                all.push((batch.base_offset, text(&batch.bytes)));
            }
            if outcome.next_offset == offset {
                return all;
            }
            offset = outcome.next_offset;
        }
    }

    /// Entries with offsets that the node's disk has of a segment.
    fn stored(&self, id: u32, log: LogId, epoch: u32) -> Offset {
        use crate::store::EntryStore;
        let segment = super::super::state::segment(log, crate::Epoch(epoch));
        self.at(id).store.segment(segment).map_or(0, |found| found.end)
    }
}
