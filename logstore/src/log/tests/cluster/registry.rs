//! Meta for a test without threads: chains in memory, with delays, outages and unknown outcomes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use interflow_meta::logs::Policy;
use interflow_meta::{Durability, Epoch, LogId, NodeId, Offset};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::super::super::registry::{LogRecord, Registry, RegistryError, Roll, RollOutcome};
use crate::core::chain::Closed;
use crate::core::segment::{Factor, Head, Life, Nodes};

/// What all nodes share.
pub(super) struct Chains {
    state: Mutex<State>,
}

struct State {
    logs: BTreeMap<LogId, LogRecord>,
    incarnations: BTreeMap<NodeId, u64>,
    rng: StdRng,
    max_delay_ms: u64,
    /// Of a thousand transactions so many have an unknown outcome.
    unknowns: u32,
    is_down: bool,
    told_unknown: u64,
    /// That read or wrote heads.
    transactions: u64,
    closes: u64,
    /// Nodes that don't reach it.
    cut: BTreeSet<NodeId>,
    /// Told of each close: the segment, how it was closed, what was opened.
    watch: Option<Watch>,
}

pub(super) type Watch = Arc<dyn Fn(LogId, &Head, &Closed, &Head) + Send + Sync>;

impl Chains {
    pub(super) fn new(seed: u64, max_delay_ms: u64, unknowns: u32) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                logs: BTreeMap::new(),
                incarnations: BTreeMap::new(),
                rng: StdRng::seed_from_u64(seed ^ 0x5eed),
                max_delay_ms,
                unknowns,
                is_down: false,
                told_unknown: 0,
                transactions: 0,
                closes: 0,
                cut: BTreeSet::new(),
                watch: None,
            }),
        })
    }

    pub(super) fn create(
        &self,
        log: LogId,
        replicas: &[NodeId],
        factor: usize,
        durability: Durability,
        policy: Policy,
    ) {
        let mut state = self.state.lock();
        let node = replicas[0];
        let incarnation = state.incarnations[&node];
        let head = Head {
            epoch: Epoch(0),
            base: 0,
            leader_epoch: 0,
            durability,
            sequencer: Life { node, incarnation },
            replicas: Nodes::from_slice(replicas),
            acks: interflow_meta::logs::acks(replicas.len(), policy.min_acks),
            token: 1,
        };
        let factor = Factor { replicas: factor, least: policy.min_acks };
        let record = LogRecord { head, closed: Vec::new(), trim: 0, policy, factor };
        state.logs.insert(log, record);
    }

    /// So many replicas must have an append from the next segment on.
    pub(super) fn set_min_acks(&self, log: LogId, min_acks: u32) {
        let mut state = self.state.lock();
        let record = state.logs.get_mut(&log).expect("a log");
        (record.policy.min_acks, record.factor.least) = (min_acks, min_acks);
    }

    /// The next life of a node.
    pub(super) fn register(&self, node: NodeId) -> Life {
        let mut state = self.state.lock();
        let incarnation = state.incarnations.entry(node).or_insert(0);
        *incarnation += 1;
        Life { node, incarnation: *incarnation }
    }

    pub(super) fn record(&self, log: LogId) -> LogRecord {
        self.state.lock().logs[&log].clone()
    }

    pub(super) fn delete(&self, log: LogId) {
        self.state.lock().logs.remove(&log);
    }

    pub(super) fn watch(&self, watch: Watch) {
        self.state.lock().watch = Some(watch);
    }

    pub(super) fn set_max_delay(&self, max_delay_ms: u64) {
        self.state.lock().max_delay_ms = max_delay_ms;
    }

    pub(super) fn set_unknowns(&self, unknowns: u32) {
        self.state.lock().unknowns = unknowns;
    }

    /// The node reaches it, or doesn't.
    pub(super) fn set_cut(&self, node: NodeId, is_cut: bool) {
        let mut state = self.state.lock();
        if is_cut {
            state.cut.insert(node);
        } else {
            state.cut.remove(&node);
        }
    }

    pub(super) fn logs(&self) -> Vec<LogId> {
        self.state.lock().logs.keys().copied().collect()
    }

    /// Transactions that read or wrote heads.
    pub(super) fn transactions(&self) -> u64 {
        self.state.lock().transactions
    }

    pub(super) fn set_down(&self, is_down: bool) {
        self.state.lock().is_down = is_down;
    }

    /// Transactions of unknown outcome, and segments closed.
    pub(super) fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.told_unknown, state.closes)
    }
}

impl State {
    fn roll(&mut self, roll: &Roll) -> RollOutcome {
        let sequencer = *roll.replicas.first().unwrap();
        let incarnation = match sequencer == roll.me.node {
            true => roll.me.incarnation,
            false => self.incarnations[&sequencer],
        };
        let Some(record) = self.logs.get_mut(&roll.log) else { return RollOutcome::NoSuchLog };
        if record.head.epoch != roll.closed.epoch {
            let follows = roll.closed.epoch.0 + 1 == record.head.epoch.0;
            if follows && record.head.token == roll.token {
                return RollOutcome::Rolled(record.head.clone());
            }
            return RollOutcome::Lost(record.head.clone());
        }
        let before = record.head.clone();
        let mut closed = roll.closed.clone();
        // I3
        assert!(closed.end >= record.head.base && roll.open.base >= closed.end);
        closed.replicas = record.head.replicas.clone();
        closed.acks = record.head.acks;
        if closed.end > closed.base {
            record.closed.push(closed.clone());
        }
        record.head = Head {
            epoch: Epoch(record.head.epoch.0 + 1),
            base: roll.open.base,
            leader_epoch: roll.open.leader_epoch,
            durability: record.head.durability,
            sequencer: Life { node: sequencer, incarnation },
            replicas: roll.replicas.clone(),
            acks: record.factor.acks(roll.replicas.len()),
            token: roll.token,
        };
        self.closes += 1;
        if let Some(watch) = &self.watch {
            watch(roll.log, &before, &closed, &record.head);
        }
        RollOutcome::Rolled(record.head.clone())
    }
}

/// Meta as one life of a node reaches it.
pub(super) struct Handle {
    pub(super) chains: Arc<Chains>,
    /// The node has died: nothing that it still wants is done.
    pub(super) is_dead: Arc<AtomicBool>,
    pub(super) node: NodeId,
}

impl Handle {
    async fn come(&self) -> Result<(), RegistryError> {
        let (delay, is_down) = {
            let mut state = self.chains.state.lock();
            let max = state.max_delay_ms;
            let delay = if max == 0 { 0 } else { state.rng.random_range(0..=max) };
            (delay, state.is_down || state.cut.contains(&self.node))
        };
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if self.is_dead.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if is_down { Err(RegistryError("it is down".to_owned())) } else { Ok(()) }
    }
}

#[async_trait]
impl Registry for Handle {
    async fn load(&self, log: LogId) -> Result<Option<LogRecord>, RegistryError> {
        self.come().await?;
        Ok(self.chains.state.lock().logs.get(&log).cloned())
    }

    async fn roll(&self, roll: &Roll) -> Result<RollOutcome, RegistryError> {
        let rolled = self.roll_many(std::slice::from_ref(roll)).await.pop();
        rolled.expect("an outcome for each")
    }

    async fn load_many(&self, logs: &[LogId]) -> Vec<Result<Option<LogRecord>, RegistryError>> {
        if let Err(error) = self.come().await {
            return logs.iter().map(|_| Err(error.clone())).collect();
        }
        let mut state = self.chains.state.lock();
        state.transactions += 1;
        logs.iter().map(|log| Ok(state.logs.get(log).cloned())).collect()
    }

    async fn heads(&self, logs: &[LogId]) -> Vec<Result<Option<Head>, RegistryError>> {
        if let Err(error) = self.come().await {
            return logs.iter().map(|_| Err(error.clone())).collect();
        }
        let mut state = self.chains.state.lock();
        state.transactions += 1;
        logs.iter().map(|log| Ok(state.logs.get(log).map(|known| known.head.clone()))).collect()
    }

    async fn roll_many(&self, rolls: &[Roll]) -> Vec<Result<RollOutcome, RegistryError>> {
        let all = |error: RegistryError| rolls.iter().map(|_| Err(error.clone())).collect();
        if let Err(error) = self.come().await {
            return all(error);
        }
        let (is_known, outcomes) = {
            let mut state = self.chains.state.lock();
            state.transactions += 1;
            let unknowns = state.unknowns;
            let is_unknown = unknowns > 0 && state.rng.random_range(0..1000) < unknowns;
            let is_written = !is_unknown || state.rng.random_bool(0.5);
            state.told_unknown += u64::from(is_unknown);
            let wanted = rolls.iter().filter(|_| is_written);
            (!is_unknown, wanted.map(|roll| Ok(state.roll(roll))).collect())
        };
        match self.come().await {
            Ok(()) if is_known => outcomes,
            Ok(()) => all(RegistryError("commit unknown result".to_owned())),
            Err(error) => all(error),
        }
    }

    async fn trim(&self, log: LogId, before: Offset) -> Result<Option<Offset>, RegistryError> {
        self.come().await?;
        let mut state = self.chains.state.lock();
        let Some(record) = state.logs.get_mut(&log) else { return Ok(None) };
        record.trim = record.trim.max(before);
        let trim = record.trim;
        record.closed.retain(|closed| closed.end > trim);
        Ok(Some(trim))
    }

    async fn set_replicas(
        &self,
        log: LogId,
        closed: &Closed,
        replicas: &[NodeId],
    ) -> Result<bool, RegistryError> {
        self.come().await?;
        let mut state = self.chains.state.lock();
        let Some(record) = state.logs.get_mut(&log) else { return Ok(false) };
        let found = record.closed.iter_mut().find(|found| found.epoch == closed.epoch);
        let Some(found) = found else { return Ok(false) };
        found.replicas = Nodes::from_slice(replicas);
        found.is_short = false;
        Ok(true)
    }

    async fn logs(
        &self,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<(LogId, Head)>, RegistryError> {
        self.come().await?;
        let state = self.chains.state.lock();
        let behind = state.logs.iter().filter(|(log, _)| after.is_none_or(|after| **log > after));
        Ok(behind.take(limit).map(|(log, record)| (*log, record.head.clone())).collect())
    }

    fn token(&self) -> u64 {
        self.chains.state.lock().rng.random()
    }
}
