//! What a restart makes of a log: how far it goes, and who appended what.

use bytes::Bytes;
use interflow_meta::{Durability, Epoch, LogId, Offset};

use super::service::Inner;
use super::sources;
use super::state::{Recovered, segment};
use crate::core::chain::{Chain, Open};
use crate::core::producers::{ProducerLimits, Producers};
use crate::core::sequencer::MAX_AHEAD;
use crate::store::{EntryHeader, EntryKind, FoundSegment, StoreError};

/// What is on the disk of the open segment of an earlier incarnation.
///
/// On one machine the only replica's end is the tail (F = 1).
pub(super) async fn examine(
    inner: &Inner,
    log: LogId,
    open: &Open,
    durability: Durability,
) -> Result<Recovered, StoreError> {
    let id = segment(log, open.epoch);
    let found = inner.store.segment(id);
    let found_end = found.as_ref().map_or(open.base, |found| found.end.max(open.base));
    let damaged_end = match &found {
        Some(found) => damaged_end(inner, open, found),
        // What was in it may be in what the disk doesn't give back.
        None => inner.store.may_lack_segments().then(|| last_end(inner, open, open.base)),
    };
    let is_clean = match durability {
        Durability::Durable => true,
        Durability::Replicated | Durability::Volatile => {
            match inner.store.last_snapshot(id).await {
                Ok(Some((header, payload))) => {
                    header.base_offset == found_end
                        && Producers::decode(&payload).is_ok_and(|(_, is_last)| is_last)
                }
                Ok(None) | Err(StoreError::Damaged(_)) => false,
                Err(error) => return Err(error),
            }
        }
    };
    let end = damaged_end.unwrap_or(found_end);
    Ok(Recovered {
        end,
        // I3: past anything that was committed before it was durable.
        next_base: if is_clean { end } else { end.max(found_end.saturating_add(MAX_AHEAD)) },
        bytes: found.as_ref().map_or(0, |found| found.bytes),
        max_timestamp: found
            .map(|found| found.max_timestamp)
            .filter(|timestamp| *timestamp != i64::MIN),
        is_lossy: damaged_end.is_some() || !is_clean,
        is_opening: false,
    })
}

/// Where the offsets that are quarantined at the segment's end stop, if there are any. When it
/// isn't known how many were lost, that is where the sequencer would have stopped at the latest.
fn damaged_end(inner: &Inner, open: &Open, found: &FoundSegment) -> Option<Offset> {
    let last = found.damaged.last().filter(|range| range.end >= found.end)?;
    if last.end < Offset::MAX {
        return Some(last.end);
    }
    Some(last_end(inner, open, found.end))
}

/// Where the sequencer would have stopped at the latest, if the segment is known up to `end`.
fn last_end(inner: &Inner, open: &Open, end: Offset) -> Offset {
    let longest = open.base.saturating_add(inner.config.max_segment_offsets);
    longest.max(end.saturating_add(MAX_AHEAD))
}

/// What is to be replayed of a segment, up to an offset.
enum Behind {
    /// It is on this disk: from this offset.
    Here(Epoch, Offset),
    /// What another node has said.
    Told(Vec<(EntryHeader, Bytes)>),
}

/// The producer table at `end` of the open segment: the last snapshot and the headers behind it,
/// from the newest segment that has either. `superseded` are segments on the disk that are not in
/// the chain (they hold no offsets, but may hold a snapshot).
///
/// # Errors
/// A segment can't be read now: of a log with one replica that has moved, where it was before.
pub(super) async fn producers(
    inner: &Inner,
    log: LogId,
    chain: &Chain,
    superseded: &[Epoch],
    limits: &ProducerLimits,
) -> Result<Producers, StoreError> {
    let open = chain.open();
    let mut epochs: Vec<(Epoch, Offset)> =
        chain.closed().map(|closed| (closed.epoch, closed.end)).collect();
    epochs.extend(superseded.iter().map(|epoch| (*epoch, open.base)));
    epochs.push((open.epoch, Offset::MAX));
    epochs.sort_unstable();
    let mut producers = Producers::default();
    // What is to be replayed, the newest first.
    let mut behind = Vec::new();
    for (epoch, end) in epochs.into_iter().rev() {
        if epoch > open.epoch {
            continue;
        }
        let id = segment(log, epoch);
        if let Some(closed) = chain.closed_segment(epoch)
            && closed.end > closed.base
            && !inner.has_all(id, closed)
        {
            match sources::since_snapshot(inner, id, closed).await {
                Ok(headers) => {
                    let snapshot = snapshot_of(&headers);
                    let is_first = begins_at(&headers, closed.base);
                    behind.push((Behind::Told(headers), closed.end));
                    match snapshot {
                        Some(snapshot) => producers = snapshot,
                        // It began without one: nobody was known then.
                        None if is_first => {}
                        None => continue,
                    }
                    break;
                }
                Err(StoreError::Damaged(range)) => {
                    warn_of_headers(log, epoch, &range);
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        let Some(found) = inner.store.segment(id) else { continue };
        let snapshot = match inner.store.last_snapshot(id).await {
            Ok(Some((header, payload))) => match Producers::decode(&payload) {
                Ok((snapshot, _)) => Some((snapshot, header.base_offset)),
                Err(error) => {
                    tracing::warn!(%log, %epoch, %error, "a producer snapshot is not readable");
                    None
                }
            },
            Ok(None) if found.end > found.start => {
                // It began without a snapshot: nobody was known then.
                behind.push((Behind::Here(epoch, found.start), end));
                break;
            }
            Ok(None) => continue,
            Err(StoreError::Damaged(_)) => {
                tracing::warn!(%log, %epoch, "a producer snapshot is damaged");
                None
            }
            Err(error) => return Err(error),
        };
        match snapshot {
            Some((snapshot, from)) => {
                producers = snapshot;
                behind.push((Behind::Here(epoch, from), end));
                break;
            }
            // Who was known when it began stands in the segment before it.
            None => behind.push((Behind::Here(epoch, found.start), end)),
        }
    }
    for (what, end) in behind.into_iter().rev() {
        let (headers, from) = match what {
            Behind::Told(headers) => (headers.into_iter().map(|(header, _)| header).collect(), 0),
            Behind::Here(epoch, from) => {
                match inner.store.headers(segment(log, epoch), from).await {
                    Ok(headers) => {
                        let headers = headers.into_iter().map(|(header, _)| header);
                        (headers.collect::<Vec<_>>(), from)
                    }
                    Err(StoreError::Damaged(range)) => {
                        warn_of_headers(log, epoch, &range);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        for header in headers.iter().filter(|at| (from..end).contains(&at.base_offset)) {
            replay(&mut producers, header, inner.clock.wall_ms(), limits);
        }
    }
    Ok(producers)
}

fn warn_of_headers(log: LogId, epoch: Epoch, range: &std::ops::Range<Offset>) {
    tracing::warn!(
        %log, %epoch, ?range,
        "headers are damaged: producers may be able to append a batch twice"
    );
}

/// The snapshot that headers begin with, if they do.
fn snapshot_of(headers: &[(EntryHeader, Bytes)]) -> Option<Producers> {
    let (header, payload) = headers.first()?;
    let is_snapshot = header.kind == EntryKind::Snapshot;
    is_snapshot.then(|| Producers::decode(payload).ok())?.map(|(producers, _)| producers)
}

fn begins_at(headers: &[(EntryHeader, Bytes)], base: Offset) -> bool {
    headers.first().is_some_and(|(header, _)| header.base_offset == base)
}

/// The producer table at the end of the closed segments of a log with several replicas: the newest
/// snapshot and the headers behind it. `superseded` are segments on this disk without offsets.
///
/// # Errors
/// A segment can't be read now; another look may have more luck.
pub(super) async fn replicated_producers(
    inner: &Inner,
    log: LogId,
    chain: &Chain,
    superseded: &[Epoch],
    limits: &ProducerLimits,
) -> Result<Producers, StoreError> {
    let newest = chain.closed().next_back().map(|closed| closed.epoch);
    let mut empty: Vec<_> =
        superseded.iter().filter(|epoch| newest.is_none_or(|newest| **epoch > newest)).collect();
    empty.sort_unstable();
    for epoch in empty.into_iter().rev() {
        let found = inner.store.last_snapshot(segment(log, *epoch)).await;
        if let Ok(Some((header, payload))) = found
            && header.base_offset == chain.open().base
            && let Ok((producers, _)) = Producers::decode(&payload)
        {
            return Ok(producers);
        }
    }
    let mut producers = Producers::default();
    let mut behind = Vec::new();
    for closed in chain.closed().rev() {
        let id = segment(log, closed.epoch);
        let headers = match sources::since_snapshot(inner, id, closed).await {
            Ok(headers) => headers,
            Err(StoreError::Damaged(range)) => {
                warn_of_headers(log, closed.epoch, &range);
                continue;
            }
            Err(error) => return Err(error),
        };
        let (snapshot, is_first) = (snapshot_of(&headers), begins_at(&headers, closed.base));
        behind.push((closed.end, headers));
        if let Some(snapshot) = snapshot {
            producers = snapshot;
            break;
        }
        if is_first {
            // It began without a snapshot: nobody was known then.
            break;
        }
    }
    for (end, headers) in behind.into_iter().rev() {
        for (header, _) in headers.iter().filter(|(header, _)| header.base_offset < end) {
            replay(&mut producers, header, inner.clock.wall_ms(), limits);
        }
    }
    Ok(producers)
}

fn replay(producers: &mut Producers, header: &EntryHeader, now_ms: i64, limits: &ProducerLimits) {
    if header.count > 0
        && let Some(key) = &header.key
    {
        let batch = (header.base_offset, header.count);
        producers.record(key, batch, header.window, now_ms, limits);
    }
}
