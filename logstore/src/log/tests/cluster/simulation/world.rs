//! The nodes, what happens to them, and the trace of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interflow_meta::{LogId, NodeId};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::super::super::metrics::LogMetrics;
use super::super::super::super::seals::{SEALS, Seals};
use super::super::super::store::MemStore;
use super::super::net::Net;
use super::super::oracle::{Disks, Oracle};
use super::super::registry::Chains;
use super::super::trace::Trace;
use super::super::{Cluster, Progress};
use crate::LogStore;
use crate::store::EntryStore;

/// All there is.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) cluster: Mutex<Cluster>,
    pub(super) net: Arc<Net>,
    pub(super) chains: Arc<Chains>,
    pub(super) oracle: Arc<Oracle>,
    pub(super) disks: Disks,
    down: Mutex<BTreeMap<NodeId, Arc<Progress>>>,
    /// Nodes that nobody reaches, though they are alive.
    pub(super) paused: Mutex<BTreeSet<NodeId>>,
    /// Nodes whose journal doesn't go on.
    pub(super) stalled: Mutex<BTreeSet<NodeId>>,
    pub(super) failed: Mutex<BTreeSet<NodeId>>,
    pub(super) is_over: AtomicBool,
    pub(super) is_healed: AtomicBool,
    metrics: Mutex<Vec<Arc<LogMetrics>>>,
    trace: Trace,
    start: tokio::time::Instant,
}

impl World {
    pub(super) fn new(seed: u64, cluster: Cluster, disks: Disks, oracle: Arc<Oracle>) -> Self {
        Self {
            seed,
            net: Arc::clone(&cluster.net),
            chains: Arc::clone(&cluster.chains),
            cluster: Mutex::new(cluster),
            oracle,
            disks,
            down: Mutex::default(),
            paused: Mutex::default(),
            stalled: Mutex::default(),
            failed: Mutex::default(),
            is_over: AtomicBool::new(false),
            is_healed: AtomicBool::new(false),
            metrics: Mutex::default(),
            trace: Trace::new(),
            start: tokio::time::Instant::now(),
        }
    }

    /// Random numbers of one actor, which no other one disturbs.
    pub(super) fn rng(&self, actor: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(1_000_003).wrapping_add(actor))
    }

    /// Something has happened: it goes into the trace.
    pub(super) fn note(&self, what: std::fmt::Arguments<'_>) {
        self.trace.note(self.start.elapsed().as_millis(), what);
    }

    pub(super) fn count(&self, what: &'static str, by: u64) {
        self.trace.count(what, by);
    }

    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = self.trace.counts();
        let sum = |of: fn(&LogMetrics) -> u64| self.metrics.lock().iter().map(|m| of(m)).sum();
        counts.insert("recoveries", sum(|m| m.crash_closes.load(Ordering::Relaxed)));
        counts.insert("planned rolls", sum(|m| m.rolls.load(Ordering::Relaxed)));
        counts.insert("duplicate retries", sum(|m| m.duplicates.load(Ordering::Relaxed)));
        counts.insert("reads from peers", sum(|m| m.peer_reads.load(Ordering::Relaxed)));
        let (broken, unanswered) = self.net.faults();
        counts.insert("broken connections", broken);
        counts.insert("unanswered calls", unanswered);
        counts.insert("unknown commits", self.chains.counts().0);
        counts.insert("resends after gaps", self.net.seen().gaps);
        counts
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.hash()
    }

    /// The service at a node, if anyone reaches it.
    pub(super) fn reach(&self, node: NodeId) -> Option<(LogStore, u64)> {
        if self.paused.lock().contains(&node) {
            return None;
        }
        let cluster = self.cluster.lock();
        let member = cluster.members.get(&node)?;
        Some((member.logs.clone(), member.logs.identity().incarnation))
    }

    pub(super) fn live(&self) -> Vec<NodeId> {
        self.cluster.lock().members.keys().copied().collect()
    }

    /// The first start of a node.
    pub(super) async fn begin(&self, node: NodeId) {
        let progress = Progress::new();
        let store = MemStore::new(&progress);
        self.disks.lock().insert(node, store);
        self.down.lock().insert(node, progress);
        self.restart(node).await;
    }

    /// A node's process is killed; of what wasn't synced `extra` entries are kept.
    pub(super) fn kill(&self, node: NodeId, keep: u32) {
        let mut cluster = self.cluster.lock();
        let Some(member) = cluster.members.get(&node) else { return };
        let unsynced = member.store.unsynced();
        // Its seals' entries are among them.
        let extra = unsynced * u64::from(keep) / 100;
        let (store, progress) = cluster.kill(node.0, extra);
        drop(cluster);
        self.count("lost unsynced entries", unsynced - extra);
        self.note(format_args!("kill {node} unsynced {unsynced} kept {extra}"));
        self.disks.lock().insert(node, store);
        self.down.lock().insert(node, progress);
        self.failed.lock().remove(&node);
    }

    pub(super) async fn restart(&self, node: NodeId) {
        let Some(progress) = self.down.lock().remove(&node) else { return };
        let Some(store) = self.disks.lock().get(&node).cloned() else { return };
        let seals = Seals::load(&*store).await.expect("seals");
        self.oracle.restarted(node, &self.net.seen(), |id| seals.has(id));
        self.note(format_args!("start {node}"));
        let mut cluster = self.cluster.lock();
        cluster.start_with(node, store, progress, seals);
        cluster.members[&node].logs.start_mending();
        self.metrics.lock().push(Arc::clone(cluster.members[&node].logs.metrics()));
    }

    pub(super) fn is_down(&self, node: NodeId) -> bool {
        self.down.lock().contains_key(&node)
    }

    /// Damages a part of a segment on the disk of a node that is down; says whether there is one.
    pub(super) fn damage(&self, node: NodeId, rng: &mut StdRng) -> bool {
        let Some(disk) = self.disks.lock().get(&node).cloned() else { return false };
        let all: Vec<_> = disk
            .segments()
            .into_iter()
            .filter(|found| found.id.log != SEALS && found.end > found.start)
            .filter(|found| self.oracle.can_be_damaged(node, found))
            .collect();
        let Some(last) = all.len().checked_sub(1) else { return false };
        let found = &all[rng.random_range(0..=last)];
        let from = rng.random_range(found.start..found.end);
        self.note(format_args!("damage {node} {:?} {from}..{}", found.id, found.end));
        self.oracle.damaged(node, found.id);
        disk.damage(found.id, from..found.end);
        true
    }

    /// The journal of a node goes on in small steps, for as long as the world is.
    pub(super) async fn keep_journal(self: Arc<Self>, node: NodeId, max_step_ms: u64) {
        let mut rng = self.rng(1000 + u64::from(node.0));
        while !self.is_over.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..=max_step_ms))).await;
            let store = {
                let cluster = self.cluster.lock();
                cluster.members.get(&node).map(|member| Arc::clone(&member.store))
            };
            let is_halted =
                self.stalled.lock().contains(&node) || self.failed.lock().contains(&node);
            if let Some(store) = store
                && !is_halted
                && store.unsynced() > 0
            {
                store.sync_some(rng.random_range(1..=10));
            }
        }
    }

    /// All faults end.
    pub(super) async fn heal(&self, nodes: u32) {
        self.note(format_args!("heal"));
        self.net.set_delay(2, 0);
        self.chains.set_unknowns(0);
        self.chains.set_max_delay(2);
        self.chains.set_down(false);
        self.paused.lock().clear();
        self.stalled.lock().clear();
        for id in (1..=nodes).map(NodeId) {
            self.chains.set_cut(id, false);
            self.net.set_writable(id, true);
            if self.failed.lock().contains(&id) {
                self.kill(id, 50);
            }
            self.restart(id).await;
            self.disks.lock()[&id].refuse(None);
        }
        self.net.heal();
        self.is_healed.store(true, Ordering::SeqCst);
    }

    /// Notes how each log stands at its sequencer: for a trace that ends without progress.
    pub(super) fn describe(&self) {
        for log in self.chains.logs() {
            let head = self.chains.record(log).head;
            let Some((logs, _)) = self.reach(head.sequencer.node) else { continue };
            let shared = logs.inner.log(log);
            let mut state = shared.state.lock();
            self.note(format_args!("log {log}: {head:?}"));
            if let Some(active) = state.active_mut() {
                let (stage, id) = (active.stage, active.id());
                self.note(format_args!("{stage:?} {id:?} {:?}", active.replication));
            }
        }
    }

    /// The log's sequencer, as meta names it.
    pub(super) fn sequencer(&self, log: LogId) -> NodeId {
        self.chains.record(log).head.sequencer.node
    }
}
