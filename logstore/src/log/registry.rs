//! What the log service asks of meta: a log's chain, and the transactions that change it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use interflow_meta::logs::{
    self, Chain, ChainError, ClosedSegment, Closing, LogHead, Opening, Policy,
};
use interflow_meta::nodes::{self, NodeState};
use interflow_meta::{Epoch, LogId, Meta, MetaError, NodeId, Offset, Transaction};

use crate::core::chain::{Closed, Open};
use crate::core::segment::{Factor, Head, Life, Nodes};

/// Heads or chains that are read or written in one transaction.
pub(super) const HEADS: usize = 100;

/// A log as meta knows it.
#[derive(Clone, Debug)]
pub(crate) struct LogRecord {
    pub(crate) head: Head,
    pub(crate) closed: Vec<Closed>,
    pub(crate) trim: Offset,
    pub(crate) policy: Policy,
    /// How many replicas its segments are to have.
    pub(crate) factor: Factor,
}

impl LogRecord {
    /// The segment at the chain's end.
    pub(crate) fn open(&self) -> Open {
        let Head { epoch, leader_epoch, base, .. } = self.head;
        Open { epoch, leader_epoch, base }
    }
}

/// One transaction: the head is still the segment `closed.epoch`, which is closed, and `open` is
/// opened behind it.
#[derive(Clone, Debug)]
pub(crate) struct Roll {
    pub(crate) log: LogId,
    pub(crate) closed: Closed,
    /// The largest timestamp of the closed segment's records.
    pub(crate) max_timestamp: Option<i64>,
    pub(crate) open: Open,
    /// Who stores the new segment; the first is to be its sequencer.
    pub(crate) replicas: Nodes,
    /// Who asks.
    pub(crate) me: Life,
    /// Drawn at random, once for all attempts: the caller knows its own commit again by it.
    pub(crate) token: u64,
    pub(crate) now_ms: i64,
}

/// What became of a roll.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RollOutcome {
    /// As asked; this is the head.
    Rolled(Head),
    /// The head is another segment: whoever closed it first has won.
    Lost(Head),
    /// There is no such log.
    NoSuchLog,
    /// The new sequencer's node takes no segments: nothing was written.
    NodeIsOut,
}

/// Meta can't be read or written now. What was to be written may have been.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct RegistryError(pub(crate) String);

/// The chains of logs, kept transactionally.
#[async_trait]
pub(crate) trait Registry: Send + Sync + 'static {
    /// The log's head and closed segments; `None` if there is no such log.
    async fn load(&self, log: LogId) -> Result<Option<LogRecord>, RegistryError>;

    /// The same of several logs, in their order.
    async fn load_many(&self, logs: &[LogId]) -> Vec<Result<Option<LogRecord>, RegistryError>> {
        let mut records = Vec::with_capacity(logs.len());
        for log in logs {
            records.push(self.load(*log).await);
        }
        records
    }

    /// The log's head; `None` if there is no such log.
    async fn head(&self, log: LogId) -> Result<Option<Head>, RegistryError> {
        Ok(self.load(log).await?.map(|record| record.head))
    }

    /// The heads of several logs, in their order.
    async fn heads(&self, logs: &[LogId]) -> Vec<Result<Option<Head>, RegistryError>> {
        let mut heads = Vec::with_capacity(logs.len());
        for log in logs {
            heads.push(self.head(*log).await);
        }
        heads
    }

    /// Closes and opens in one transaction.
    async fn roll(&self, roll: &Roll) -> Result<RollOutcome, RegistryError>;

    /// The same of several, each as if it were alone: one that has lost is no hindrance to others.
    async fn roll_many(&self, rolls: &[Roll]) -> Vec<Result<RollOutcome, RegistryError>> {
        let mut outcomes = Vec::with_capacity(rolls.len());
        for roll in rolls {
            outcomes.push(self.roll(roll).await);
        }
        outcomes
    }

    /// Makes `before` the log's first offset unless it is further already, and takes the closed
    /// segments that lie wholly below out of the chain. Returns the trim offset as it is then;
    /// `None`: no such log.
    async fn trim(&self, log: LogId, before: Offset) -> Result<Option<Offset>, RegistryError>;

    /// Says who has all of a closed segment; `false` if there is no such segment any more.
    async fn set_replicas(
        &self,
        log: LogId,
        closed: &Closed,
        replicas: &[NodeId],
    ) -> Result<bool, RegistryError>;

    /// Up to `limit` logs by their id, behind `after`, with their heads; fewer mean that there are no
    /// more.
    async fn logs(
        &self,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<(LogId, Head)>, RegistryError>;

    /// A number that nobody else draws.
    fn token(&self) -> u64;
}

/// The number after `epoch`.
pub(crate) fn next_epoch(epoch: Epoch) -> Epoch {
    Epoch(epoch.0.saturating_add(1))
}

#[async_trait]
impl Registry for Meta {
    async fn load(&self, log: LogId) -> Result<Option<LogRecord>, RegistryError> {
        let loaded = self.load_many(&[log]).await.pop();
        loaded.unwrap_or_else(|| Err(RegistryError("no record".to_owned())))
    }

    async fn load_many(&self, logs: &[LogId]) -> Vec<Result<Option<LogRecord>, RegistryError>> {
        let load = |tx| async move {
            try_join_all(logs.iter().map(|log| logs::load_chain(&tx, *log))).await
        };
        match self.transact(load).await {
            Ok(chains) => chains.iter().map(|chain| Ok(chain.as_ref().map(record))).collect(),
            Err(error) => logs.iter().map(|_| Err(of_meta(&error))).collect(),
        }
    }

    async fn head(&self, log: LogId) -> Result<Option<Head>, RegistryError> {
        let found = self.transact(|tx| async move { logs::load_head(&tx, log).await }).await;
        let found = found.map_err(|error: MetaError| RegistryError(error.to_string()))?;
        Ok(found.as_ref().map(head))
    }

    async fn heads(&self, logs: &[LogId]) -> Vec<Result<Option<Head>, RegistryError>> {
        let found = self
            .transact(|tx| async move {
                try_join_all(logs.iter().map(|log| logs::load_head(&tx, *log))).await
            })
            .await;
        match found {
            Ok(heads) => heads.iter().map(|found| Ok(found.as_ref().map(head))).collect(),
            Err(error) => logs.iter().map(|_| Err(of_meta(&error))).collect(),
        }
    }

    async fn roll(&self, roll: &Roll) -> Result<RollOutcome, RegistryError> {
        let rolled = self.roll_many(std::slice::from_ref(roll)).await.pop();
        rolled.unwrap_or_else(|| Err(RegistryError("no outcome".to_owned())))
    }

    async fn roll_many(&self, rolls: &[Roll]) -> Vec<Result<RollOutcome, RegistryError>> {
        let outcomes: Result<Vec<_>, _> = self
            .transact(|tx| async move {
                // Logs side by side; two rolls of one see each other.
                let mut logs: BTreeMap<LogId, Vec<(usize, &Roll)>> = BTreeMap::new();
                for (n, roll) in rolls.iter().enumerate() {
                    logs.entry(roll.log).or_default().push((n, roll));
                }
                let tx = &tx;
                let each = logs.into_values().map(|rolls| async move {
                    let mut outcomes = Vec::with_capacity(rolls.len());
                    for (n, roll) in rolls {
                        outcomes.push((n, roll_one(tx, roll).await?));
                    }
                    Ok::<_, MetaError>(outcomes)
                });
                let mut outcomes = try_join_all(each).await?.concat();
                outcomes.sort_unstable_by_key(|(n, _)| *n);
                Ok::<_, MetaError>(outcomes.into_iter().map(|(_, outcome)| outcome).collect())
            })
            .await;
        match outcomes {
            Ok(outcomes) => outcomes,
            Err(error) => rolls.iter().map(|_| Err(RegistryError(error.to_string()))).collect(),
        }
    }

    async fn set_replicas(
        &self,
        log: LogId,
        closed: &Closed,
        replicas: &[NodeId],
    ) -> Result<bool, RegistryError> {
        let (base, epoch) = (closed.base, closed.epoch);
        self.transact(|tx| async move { logs::set_replicas(&tx, log, base, epoch, replicas).await })
            .await
            .map_err(|error: MetaError| RegistryError(error.to_string()))
    }

    async fn logs(
        &self,
        after: Option<LogId>,
        limit: usize,
    ) -> Result<Vec<(LogId, Head)>, RegistryError> {
        let found =
            self.transact(|tx| async move { logs::all_logs(&tx, after, limit).await }).await;
        let found = found.map_err(|error: MetaError| RegistryError(error.to_string()))?;
        Ok(found.iter().map(|(log, found)| (*log, head(found))).collect())
    }

    fn token(&self) -> u64 {
        self.random_u64()
    }

    async fn trim(&self, log: LogId, before: Offset) -> Result<Option<Offset>, RegistryError> {
        let outcome = self
            .transact(|tx| async move {
                logs::trim(&tx, log, before).await?;
                let head = logs::load_head(&tx, log).await?;
                Ok::<_, ChainError>(head.map(|head| head.trim))
            })
            .await;
        match outcome {
            Ok(trim) => Ok(trim),
            Err(ChainError::NotFound) => Ok(None),
            Err(error) => Err(RegistryError(error.to_string())),
        }
    }
}

/// What becomes of a roll in this transaction; meta's own failures are the transaction's.
async fn roll_one(
    tx: &Transaction,
    roll: &Roll,
) -> Result<Result<RollOutcome, RegistryError>, MetaError> {
    let sequencer = *roll.replicas.first().unwrap_or(&roll.me.node);
    let incarnation = if sequencer == roll.me.node {
        roll.me.incarnation
    } else {
        match nodes::get(tx, sequencer).await? {
            Some(node) if node.state == NodeState::ReadWrite && !node.is_full => node.incarnation,
            _ => return Ok(Ok(RollOutcome::NodeIsOut)),
        }
    };
    let closing = Closing {
        expected_epoch: roll.closed.epoch,
        end: roll.closed.end,
        closed_ms: roll.now_ms,
        max_timestamp_ms: roll.max_timestamp,
        bytes: roll.closed.bytes,
        is_short: roll.closed.is_short,
    };
    let opening = Opening {
        base: roll.open.base,
        leader_epoch: roll.open.leader_epoch,
        sequencer,
        incarnation,
        replicas: roll.replicas.to_vec(),
        token: roll.token,
        opened_ms: roll.now_ms,
    };
    Ok(match logs::close_and_open(tx, roll.log, &closing, &opening).await {
        Ok(found) => Ok(RollOutcome::Rolled(head(&found))),
        // A roll whose outcome nobody could find out then was made after all, or another one
        // opened the very same for this life.
        Err(ChainError::Moved(found)) if is_own(&found, roll) => {
            Ok(RollOutcome::Rolled(head(&found)))
        }
        Err(ChainError::Moved(found)) => Ok(RollOutcome::Lost(head(&found))),
        Err(ChainError::NotFound) => Ok(RollOutcome::NoSuchLog),
        Err(error @ ChainError::GoesBack) => Err(RegistryError(error.to_string())),
        Err(ChainError::Meta(error)) => return Err(error),
    })
}

fn is_own(found: &LogHead, roll: &Roll) -> bool {
    let sequencer = Life { node: found.open.sequencer, incarnation: found.open.incarnation };
    sequencer == roll.me && found.open.epoch == roll.open.epoch && found.open.base == roll.open.base
}

fn factor(head: &LogHead) -> Factor {
    Factor {
        replicas: usize::try_from(head.replication_factor).unwrap_or(usize::MAX).max(1),
        least: head.policy.min_acks,
    }
}

fn count(acks: u32) -> usize {
    usize::try_from(acks).unwrap_or(usize::MAX)
}

fn of_meta(error: &MetaError) -> RegistryError {
    RegistryError(error.to_string())
}

fn record(chain: &Chain) -> LogRecord {
    LogRecord {
        head: head(&chain.head),
        closed: chain.closed.iter().map(closed).collect(),
        trim: chain.head.trim,
        policy: chain.head.policy,
        factor: factor(&chain.head),
    }
}

fn head(head: &LogHead) -> Head {
    let open = &head.open;
    Head {
        epoch: open.epoch,
        base: open.base,
        leader_epoch: open.leader_epoch,
        durability: head.durability,
        sequencer: Life { node: open.sequencer, incarnation: open.incarnation },
        replicas: sequencer_first(open.sequencer, &open.replicas),
        acks: count(open.acks),
        token: open.token,
    }
}

/// The sequencer's node is the first of its segment's.
fn sequencer_first(sequencer: NodeId, replicas: &[NodeId]) -> Nodes {
    let others = replicas.iter().copied().filter(|node| *node != sequencer);
    std::iter::once(sequencer).chain(others).collect()
}

fn closed(segment: &ClosedSegment) -> Closed {
    Closed {
        epoch: segment.epoch,
        leader_epoch: segment.leader_epoch,
        base: segment.base,
        end: segment.end,
        bytes: segment.bytes,
        newest_ms: newest_ms(segment.max_timestamp_ms, segment.closed_ms),
        replicas: Nodes::from_slice(&segment.replicas),
        is_short: segment.is_short,
        acks: count(segment.acks),
    }
}

/// What a closed segment's age is judged by. Records without a timestamp have -1.
pub(crate) fn newest_ms(max_timestamp: Option<i64>, closed_ms: i64) -> i64 {
    max_timestamp.filter(|timestamp| *timestamp >= 0).unwrap_or(closed_ms)
}
