//! Questions about a log: times and its chain.

use interflow_meta::{Epoch, Offset};

use super::service::Inner;
use super::sources;
use super::state::{Active, Ready, SharedLog, segment};
use crate::core::chain::Closed;
use crate::store::StoreError;
use crate::{LogDescription, LogError, SegmentDescription};

/// A part of the chain that can be searched: a segment, from and up to an offset.
#[derive(Clone)]
struct Part {
    epoch: Epoch,
    start: Offset,
    end: Offset,
    /// Not the open segment.
    closed: Option<Closed>,
}

impl Part {
    /// The segment, if another node has it.
    fn elsewhere(&self, inner: &Inner, log: &SharedLog) -> Option<&Closed> {
        let id = segment(log.id, self.epoch);
        self.closed.as_ref().filter(|closed| !inner.has_all(id, closed))
    }
}

/// The first batch at or behind the log's start whose largest timestamp is at or after
/// `timestamp`, with its largest timestamp.
pub(super) async fn batch_at_time(
    inner: &Inner,
    log: &SharedLog,
    timestamp: i64,
) -> Result<Option<(Offset, i64)>, LogError> {
    for part in parts(log)? {
        let id = segment(log.id, part.epoch);
        if part.elsewhere(inner, log).is_some() {
            let found = scan(inner, log, &part, |max| max >= timestamp).await?;
            if found.is_some() {
                return Ok(found);
            }
            continue;
        }
        if inner.store.segment(id).is_none_or(|found| found.max_timestamp < timestamp) {
            continue;
        }
        let found = inner.store.seek_time(id, timestamp, part.end).await.map_err(log_error)?;
        match found {
            Some((base, _)) if base < part.start => {
                // Below the log's start. What is behind it has to be looked through.
                let found = scan(inner, log, &part, |max| max >= timestamp).await?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            Some(found) => return Ok(Some(found)),
            None => {}
        }
    }
    Ok(None)
}

/// The first batch that holds the largest timestamp of the log.
pub(super) async fn batch_of_max_time(
    inner: &Inner,
    log: &SharedLog,
) -> Result<Option<(Offset, i64)>, LogError> {
    let mut best: Option<(Offset, i64)> = None;
    for part in parts(log)? {
        let id = segment(log.id, part.epoch);
        if part.elsewhere(inner, log).is_some() {
            let candidate = scan_max(inner, log, &part).await?;
            best = best.into_iter().chain(candidate).reduce(later);
            continue;
        }
        let Some(found) = inner.store.segment(id) else { continue };
        if best.is_some_and(|(_, max)| max >= found.max_timestamp) {
            continue;
        }
        let of_all = (found.max_timestamp_offset, found.max_timestamp);
        let candidate = if part.start <= of_all.0 && of_all.0 < part.end {
            Some(of_all)
        } else {
            // The segment's largest is in flight yet, or below the log's start.
            scan_max(inner, log, &part).await?
        };
        if let Some((base, timestamp)) = candidate
            && best.is_none_or(|(_, max)| timestamp > max)
        {
            best = Some((base, timestamp));
        }
    }
    Ok(best)
}

/// The log as operators see it.
pub(super) fn describe(inner: &Inner, log: &SharedLog) -> Result<LogDescription, LogError> {
    let state = log.state.lock();
    let ready = state.ready().ok_or(LogError::NoSuchLog)?;
    let description = |epoch, leader_epoch, base, end| {
        let found = inner.store.segment(segment(log.id, epoch));
        SegmentDescription {
            epoch: epoch.0,
            leader_epoch,
            base,
            end,
            bytes: found.as_ref().map_or(0, |found| found.bytes),
            damaged: found.map_or_else(Vec::new, |found| {
                found.damaged.iter().map(|range| (range.start, range.end)).collect()
            }),
        }
    };
    let open = ready.chain.open();
    let segments = ready
        .chain
        .closed()
        .map(|closed| description(closed.epoch, closed.leader_epoch, closed.base, Some(closed.end)))
        .chain([description(open.epoch, open.leader_epoch, open.base, None)])
        .collect();
    let producers =
        ready.active().map_or(0, |active| active.replication.sequencer().producers().len());
    let replicas = ready.active().map_or_else(Vec::new, Active::describe_replicas);
    Ok(LogDescription { bounds: ready.bounds(), segments, replicas, producers })
}

/// The segments that hold committed offsets at or behind the start.
fn parts(log: &SharedLog) -> Result<Vec<Part>, LogError> {
    let state = log.state.lock();
    let ready = state.ready().ok_or(LogError::NoSuchLog)?;
    Ok(ready.parts())
}

impl Ready {
    fn parts(&self) -> Vec<Part> {
        let (start, committed) = (self.start(), self.committed());
        let open = self.chain.open();
        self.chain
            .closed()
            .map(|closed| (closed.epoch, closed.base, closed.end, Some(closed.clone())))
            .chain([(open.epoch, open.base, committed, None)])
            .map(|(epoch, base, end, closed)| Part { epoch, start: base.max(start), end, closed })
            .filter(|part| part.start < part.end)
            .collect()
    }
}

/// The first batch of a part whose largest timestamp is as wanted.
async fn scan(
    inner: &Inner,
    log: &SharedLog,
    part: &Part,
    is_wanted: impl Fn(i64) -> bool,
) -> Result<Option<(Offset, i64)>, LogError> {
    Ok(timestamps(inner, log, part).await?.into_iter().find(|(_, max)| is_wanted(*max)))
}

/// The first batch of a part that has its largest timestamp.
async fn scan_max(
    inner: &Inner,
    log: &SharedLog,
    part: &Part,
) -> Result<Option<(Offset, i64)>, LogError> {
    let all = timestamps(inner, log, part).await?;
    Ok(all.into_iter().reduce(later))
}

/// The one with the larger timestamp; the first of equals.
fn later(best: (Offset, i64), next: (Offset, i64)) -> (Offset, i64) {
    if next.1 > best.1 { next } else { best }
}

/// The batches of a part with their largest timestamps; the first may begin below it.
async fn timestamps(
    inner: &Inner,
    log: &SharedLog,
    part: &Part,
) -> Result<Vec<(Offset, i64)>, LogError> {
    let id = segment(log.id, part.epoch);
    let headers = match part.elsewhere(inner, log) {
        Some(closed) => sources::headers(inner, id, closed, part.start).await,
        None => inner
            .store
            .headers(id, part.start)
            .await
            .map(|headers| headers.into_iter().map(|(header, _)| header).collect()),
    };
    Ok(headers
        .map_err(log_error)?
        .into_iter()
        .filter(|header| {
            let end = header.base_offset.saturating_add(u64::from(header.count));
            header.count > 0 && end > part.start && header.base_offset < part.end
        })
        .map(|header| (header.base_offset, header.max_timestamp))
        .collect())
}

pub(super) fn log_error(error: StoreError) -> LogError {
    match error {
        StoreError::Failed(_) => LogError::Stopped("the journal failed".into()),
        other => LogError::Io(other.to_string()),
    }
}
