//! Reads over the chain.

use std::sync::Arc;

use interflow_meta::{LogId, Offset};

use super::metrics::add;
use super::service::Inner;
use super::sources;
use super::state::{Ready, SharedLog, segment};
use crate::core::chain::{Closed, Place};
use crate::store::{SegmentRead, SegmentReadOutcome, StoreError};
use crate::{Bounds, Read, ReadError, ReadOutcome};

/// The next thing to do for a read.
enum Step {
    /// Everything there is was looked at.
    End(Bounds),
    /// Nothing is here: go on at this offset.
    Skip(Offset),
    /// Read this segment up to `limit`; a segment without more goes on at `next_base`.
    Segment { read: SegmentRead, next_base: Offset, bounds: Bounds, closed: Option<Box<Closed>> },
}

/// Reads from the first segment, at or behind the offset, that has a batch which matches.
pub(super) async fn read(
    inner: &Arc<Inner>,
    log: &SharedLog,
    read: Read,
) -> Result<ReadOutcome, ReadError> {
    let mut offset = read.offset;
    let mut is_first = true;
    loop {
        let step = {
            let state = log.state.lock();
            let ready = state.ready().ok_or(ReadError::NoSuchLog)?;
            ready.step(log.id, &read, offset, is_first)?
        };
        is_first = false;
        let (request, next_base, bounds, closed) = match step {
            Step::End(bounds) => {
                return Ok(ReadOutcome { batches: Vec::new(), next_offset: offset, bounds });
            }
            Step::Skip(next) => {
                offset = next;
                continue;
            }
            Step::Segment { read, next_base, bounds, closed } => (read, next_base, bounds, closed),
        };
        let (id, from, end) = (request.id, request.offset, request.end);
        let elsewhere = closed.filter(|closed| !inner.has_all(id, closed));
        let outcome = if let Some(closed) = &elsewhere {
            add(&inner.metrics.peer_reads, 1);
            sources::read(inner, closed, &request).await
        } else if let Some(outcome) = inner.store.try_read(&request) {
            add(&inner.metrics.memory_reads, 1);
            outcome
        } else {
            add(&inner.metrics.disk_reads, 1);
            inner.store.read(request).await
        };
        let SegmentReadOutcome { batches, next_offset } =
            outcome.map_err(|error| read_error(error, from, end))?;
        // Offsets of a segment are dense: what it begins with was lost.
        let begins = batches.first().map_or(next_offset, |batch| batch.base_offset);
        if begins > from
            && elsewhere.is_none()
            && let Some(found) = inner.store.segment(id)
            && found.start > from
        {
            return Err(ReadError::Damaged { from, to: found.start.min(end) });
        }
        if !batches.is_empty() {
            let bytes: usize = batches.iter().map(|batch| batch.bytes.len()).sum();
            add(&inner.metrics.read_bytes, bytes as u64);
            let next_offset = next_offset.min(bounds.committed);
            return Ok(ReadOutcome { batches, next_offset, bounds });
        }
        if next_offset <= from {
            // Meta says that these offsets exist and the disk has nothing of them.
            return Err(ReadError::Damaged { from, to: end });
        }
        offset = if next_offset >= end { next_offset.max(next_base) } else { next_offset };
    }
}

impl Ready {
    fn step(
        &self,
        log: LogId,
        read: &Read,
        offset: Offset,
        is_first: bool,
    ) -> Result<Step, ReadError> {
        let bounds = self.bounds();
        let Bounds { start, committed, stable, .. } = bounds;
        if offset > committed || offset < start {
            if is_first {
                return Err(ReadError::OutOfRange { offset, start, committed });
            }
            // The start moved while the read went on.
            return Ok(if offset < start { Step::Skip(start) } else { Step::End(bounds) });
        }
        let limit = if read.stable_only { stable } else { committed };
        if offset >= limit {
            return Ok(Step::End(bounds));
        }
        match self.chain.find(offset) {
            Place::Segment { epoch, end, next_base } => {
                let end = end.min(limit);
                let request = SegmentRead {
                    id: segment(log, epoch),
                    offset,
                    end,
                    max_bytes: read.max_bytes,
                    filter: read.filter.clone(),
                };
                // The open segment has no next one; a limit inside a segment is its end for now.
                let next_base = if next_base > limit { end } else { next_base };
                let closed = self.chain.closed_segment(epoch).cloned().map(Box::new);
                Ok(Step::Segment { read: request, next_base, bounds, closed })
            }
            Place::Gap { next_base } => Ok(Step::Skip(next_base)),
            Place::Below => Err(ReadError::OutOfRange { offset, start, committed }),
        }
    }
}

fn read_error(error: StoreError, from: Offset, end: Offset) -> ReadError {
    match error {
        StoreError::Damaged(range) => {
            ReadError::Damaged { from: range.start.max(from), to: range.end.min(end).max(from) }
        }
        other => ReadError::Io(other.to_string()),
    }
}
