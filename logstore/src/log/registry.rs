//! What the log service asks of meta: a log's chain, and the transactions that change it.

use async_trait::async_trait;
use interflow_meta::logs::{self, ChainError, ClosedSegment, Closing, LogHead, Opening, Policy};
use interflow_meta::{Durability, Epoch, LogId, Meta, MetaError, NodeId, Offset};

use crate::core::chain::{Closed, Open};

/// A log as meta knows it.
#[derive(Clone, Debug)]
pub(crate) struct LogRecord {
    pub(crate) open: Open,
    pub(crate) sequencer: (NodeId, u64),
    pub(crate) closed: Vec<Closed>,
    pub(crate) trim: Offset,
    pub(crate) durability: Durability,
    pub(crate) policy: Policy,
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
    /// Who is to be the new segment's sequencer.
    pub(crate) sequencer: (NodeId, u64),
    pub(crate) now_ms: i64,
}

/// What became of a roll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RollOutcome {
    /// As asked. The new segment's number is `Roll::open.epoch`.
    Rolled,
    /// The head is another segment: whoever closed it first has won.
    Lost,
    /// There is no such log.
    NoSuchLog,
}

/// Meta can't be read or written now.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub(crate) struct RegistryError(pub(crate) String);

/// The chains of logs, kept transactionally.
#[async_trait]
pub(crate) trait Registry: Send + Sync + 'static {
    /// The log's head and closed segments; `None` if there is no such log.
    async fn load(&self, log: LogId) -> Result<Option<LogRecord>, RegistryError>;

    /// Closes and opens in one transaction. An unknown outcome is found out before this returns.
    async fn roll(&self, roll: &Roll) -> Result<RollOutcome, RegistryError>;

    /// Makes `before` the log's first offset unless it is further already, and takes the closed
    /// segments that lie wholly below out of the chain. Returns the trim offset as it is then;
    /// `None`: no such log.
    async fn trim(&self, log: LogId, before: Offset) -> Result<Option<Offset>, RegistryError>;
}

/// The number after `epoch`.
pub(crate) fn next_epoch(epoch: Epoch) -> Epoch {
    Epoch(epoch.0.saturating_add(1))
}

#[async_trait]
impl Registry for Meta {
    async fn load(&self, log: LogId) -> Result<Option<LogRecord>, RegistryError> {
        let chain = self
            .transact(|tx| async move { logs::load_chain(&tx, log).await })
            .await
            .map_err(|error: MetaError| RegistryError(error.to_string()))?;
        Ok(chain.map(|chain| LogRecord {
            open: Open {
                epoch: chain.head.open.epoch,
                leader_epoch: chain.head.open.leader_epoch,
                base: chain.head.open.base,
            },
            sequencer: (chain.head.open.sequencer, chain.head.open.incarnation),
            closed: chain.closed.iter().map(closed).collect(),
            trim: chain.head.trim,
            durability: chain.head.durability,
            policy: chain.head.policy,
        }))
    }

    async fn roll(&self, roll: &Roll) -> Result<RollOutcome, RegistryError> {
        let (node, incarnation) = roll.sequencer;
        let closing = Closing {
            expected_epoch: roll.closed.epoch,
            end: roll.closed.end,
            closed_ms: roll.now_ms,
            max_timestamp_ms: roll.max_timestamp,
            bytes: roll.closed.bytes,
            is_short: false,
        };
        let opening = Opening {
            base: roll.open.base,
            leader_epoch: roll.open.leader_epoch,
            sequencer: node,
            incarnation,
            replicas: vec![node],
            token: self.random_u64(),
            opened_ms: roll.now_ms,
        };
        let (closing, opening) = (&closing, &opening);
        let log = roll.log;
        let outcome = self
            .transact(|tx| async move { logs::close_and_open(&tx, log, closing, opening).await })
            .await;
        match outcome {
            Ok(_) => Ok(RollOutcome::Rolled),
            // A roll whose outcome nobody could find out then was made after all: nobody else
            // opens segments for this incarnation of this node.
            Err(ChainError::Moved(head)) if is_own(&head, roll) => Ok(RollOutcome::Rolled),
            Err(ChainError::Moved(_)) => Ok(RollOutcome::Lost),
            Err(ChainError::NotFound) => Ok(RollOutcome::NoSuchLog),
            Err(error @ (ChainError::GoesBack | ChainError::Meta(_))) => {
                Err(RegistryError(error.to_string()))
            }
        }
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

fn is_own(head: &LogHead, roll: &Roll) -> bool {
    (head.open.sequencer, head.open.incarnation) == roll.sequencer
        && head.open.epoch == roll.open.epoch
        && head.open.base == roll.open.base
}

fn closed(segment: &ClosedSegment) -> Closed {
    Closed {
        epoch: segment.epoch,
        leader_epoch: segment.leader_epoch,
        base: segment.base,
        end: segment.end,
        bytes: segment.bytes,
        newest_ms: newest_ms(segment.max_timestamp_ms, segment.closed_ms),
    }
}

/// What a closed segment's age is judged by. Records without a timestamp have -1.
pub(crate) fn newest_ms(max_timestamp: Option<i64>, closed_ms: i64) -> i64 {
    max_timestamp.filter(|timestamp| *timestamp >= 0).unwrap_or(closed_ms)
}
