//! Logs: `("log", log)` is a log's head, with its open segment; `("segment", log, base)` are its
//! closed segments. Together they are its *chain*.
//!
//! ```text
//!   trim            closed segments              open segment (the head)
//!     |---- base … end ----|---- base … end ----|---- base …
//! ```
//!
//! A segment closes once, in the transaction that opens the next (I3, I10).

mod value;

#[cfg(test)]
mod tests;

use crate::entities::codec::{bad_key, corrupt, encode};
use crate::error::{MetaError, TransactError};
use crate::ids::{Epoch, LogId, NodeId, Offset};
use crate::store::KeyRange;
use crate::transaction::{RangeOptions, Transaction};
pub use value::{Chain, ClosedSegment, LogHead, OpenSegment, PLAIN_ACKS, Policy, acks};

/// Why a change of a log's chain was refused.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// There is no such log (any more).
    #[error("no such log")]
    NotFound,
    /// Another has closed the segment: go on with what it opened.
    #[error("the segment was closed by another; epoch {} is open", .0.open.epoch)]
    Moved(Box<LogHead>),
    /// The end lies before the segment's base, or the next base before the end.
    #[error("a segment's end or the next one's base goes back")]
    GoesBack,
    /// Meta's own.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl TransactError for ChainError {
    fn as_meta(&self) -> Option<&MetaError> {
        match self {
            Self::Meta(error) => Some(error),
            _ => None,
        }
    }
}

/// How the open segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// The segment that the caller knows as open.
    pub expected_epoch: Epoch,
    /// One past its last offset.
    pub end: Offset,
    /// Milliseconds since 1970.
    pub closed_ms: i64,
    /// The largest timestamp of its records, where known.
    pub max_timestamp_ms: Option<i64>,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Fewer replicas than a quorum hold all of it.
    pub is_short: bool,
}

/// The segment to be opened next; its epoch is the next number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its first offset: the end of the one before, or greater after a crash close of a log that
    /// isn't durable.
    pub base: Offset,
    /// Kafka's leader epoch.
    pub leader_epoch: u32,
    /// Who gives out offsets.
    pub sequencer: NodeId,
    /// Which life of that node.
    pub incarnation: u64,
    /// Who stores it.
    pub replicas: Vec<NodeId>,
    /// Drawn at random, once for all attempts.
    pub token: u64,
    /// Milliseconds since 1970.
    pub opened_ms: i64,
}

fn head_key(tx: &Transaction, log: LogId) -> Vec<u8> {
    tx.root().pack(&("log", log.0))
}

fn segment_key(tx: &Transaction, log: LogId, base: Offset) -> Vec<u8> {
    tx.root().pack(&("segment", log.0, base))
}

fn segments_of(tx: &Transaction, log: LogId) -> KeyRange {
    let (begin, end) = tx.root().subspace(&("segment", log.0)).range();
    KeyRange::new(begin, end)
}

/// The head of `log`.
///
/// # Errors
/// Meta's own.
pub async fn load_head(tx: &Transaction, log: LogId) -> Result<Option<LogHead>, MetaError> {
    let value = tx.get(&head_key(tx, log)).await?;
    value.map(LogHead::decode).transpose()
}

/// Head and closed segments of `log`, in offset order.
///
/// # Errors
/// Meta's own.
pub async fn load_chain(tx: &Transaction, log: LogId) -> Result<Option<Chain>, MetaError> {
    let Some(head) = load_head(tx, log).await? else {
        return Ok(None);
    };
    let mut closed = Vec::new();
    for (key, value) in tx.get_all(&segments_of(tx, log)).await? {
        let (_, _, base): (String, u64, Offset) =
            tx.root().unpack(&key).map_err(bad_key("segment"))?;
        closed.push(ClosedSegment::decode(base, value)?);
    }
    Ok(Some(Chain { head, closed }))
}

/// Closes the open segment of `log` and opens the next one. A segment without records leaves no
/// trace. Done already by an earlier attempt (known by the token): answers as if done now.
///
/// # Errors
/// [`ChainError::Moved`] when another was quicker, [`ChainError::NotFound`],
/// [`ChainError::GoesBack`]; meta's own.
pub async fn close_and_open(
    tx: &Transaction,
    log: LogId,
    closing: &Closing,
    opening: &Opening,
) -> Result<LogHead, ChainError> {
    let Some(mut head) = load_head(tx, log).await? else {
        return Err(ChainError::NotFound);
    };
    if head.open.epoch != closing.expected_epoch {
        let follows = closing.expected_epoch.0.checked_add(1) == Some(head.open.epoch.0);
        if follows && head.open.token == opening.token {
            return Ok(head);
        }
        return Err(ChainError::Moved(Box::new(head)));
    }
    if closing.end < head.open.base || opening.base < closing.end {
        return Err(ChainError::GoesBack);
    }
    let epoch = head.open.epoch.0.checked_add(1);
    let epoch = epoch.ok_or_else(|| corrupt("log", "its epochs are used up"))?;
    if closing.end > head.open.base {
        let closed = head.open.close(closing);
        tx.set(segment_key(tx, log, closed.base), closed.encode())?;
    }
    head.open = OpenSegment::new(Epoch(epoch), opening, &head.policy);
    tx.set(head_key(tx, log), head.encode())?;
    Ok(head)
}

/// Makes `before` the first readable offset of `log`, unless it is already further. Removes the
/// closed segments that lie wholly below and returns them: their bytes can go.
///
/// # Errors
/// [`ChainError::NotFound`]; meta's own.
pub async fn trim(
    tx: &Transaction,
    log: LogId,
    before: Offset,
) -> Result<Vec<ClosedSegment>, ChainError> {
    let Some(mut chain) = load_chain(tx, log).await? else {
        return Err(ChainError::NotFound);
    };
    if before > chain.head.trim {
        chain.head.trim = before;
        tx.set(head_key(tx, log), chain.head.encode())?;
    }
    let trim = chain.head.trim;
    let gone: Vec<_> = chain.closed.into_iter().filter(|segment| segment.end <= trim).collect();
    for segment in &gone {
        tx.clear(segment_key(tx, log, segment.base))?;
    }
    Ok(gone)
}

/// Says who stores the closed segment of `log` that begins at `base`: all of it is there, so it is
/// not short any more. `false` when there is no such segment of that epoch.
///
/// # Errors
/// Meta's own.
pub async fn set_replicas(
    tx: &Transaction,
    log: LogId,
    base: Offset,
    epoch: Epoch,
    replicas: &[NodeId],
) -> Result<bool, MetaError> {
    let key = segment_key(tx, log, base);
    let Some(value) = tx.get(&key).await? else { return Ok(false) };
    let mut segment = ClosedSegment::decode(base, value)?;
    if segment.epoch != epoch {
        return Ok(false);
    }
    segment.replicas = replicas.to_vec();
    segment.is_short = false;
    tx.set(key, segment.encode())?;
    Ok(true)
}

/// Changes how `log` is kept; its open segment stays as it is.
///
/// # Errors
/// [`ChainError::NotFound`]; meta's own.
pub async fn set_policy(tx: &Transaction, log: LogId, policy: Policy) -> Result<(), ChainError> {
    let Some(mut head) = load_head(tx, log).await? else {
        return Err(ChainError::NotFound);
    };
    if head.policy != policy {
        head.policy = policy;
        tx.set(head_key(tx, log), head.encode())?;
    }
    Ok(())
}

/// Up to `limit` logs with their heads, by id, behind `after`; fewer mean that there are no more.
/// Later changes of what was read are no conflict.
///
/// # Errors
/// Meta's own.
pub async fn all_logs(
    tx: &Transaction,
    after: Option<LogId>,
    limit: usize,
) -> Result<Vec<(LogId, LogHead)>, MetaError> {
    let (first, end) = tx.root().subspace(&"log").range();
    let begin = match after {
        Some(log) => crate::store::key_after(&head_key(tx, log)),
        None => first.into(),
    };
    let mut scan = tx.scan(KeyRange::new(begin, end), RangeOptions::limit(limit).snapshot());
    let mut logs = Vec::new();
    while let Some(rows) = scan.next_page().await? {
        for (key, value) in rows {
            let (_, log): (String, u64) = tx.root().unpack(&key).map_err(bad_key("log"))?;
            logs.push((LogId(log), LogHead::decode(value)?));
        }
    }
    Ok(logs)
}

/// Writes the head of a new log, its first segment open at offset 0.
pub(super) fn create(tx: &Transaction, log: LogId, head: &LogHead) -> Result<(), MetaError> {
    tx.set(head_key(tx, log), encode(&head.to_message()))
}

/// Removes `log` with its segments.
pub(super) fn remove(tx: &Transaction, log: LogId) -> Result<(), MetaError> {
    tx.clear(head_key(tx, log))?;
    tx.clear_range(segments_of(tx, log))
}
