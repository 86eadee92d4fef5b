//! What the log service asks of meta: a log's chain, and the transactions that change it.

use async_trait::async_trait;
use interflow_meta::{Durability, Epoch, LogId, NodeId, Offset};

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

/// How a log wants to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) retention_ms: Option<u64>,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_ms: u64,
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
