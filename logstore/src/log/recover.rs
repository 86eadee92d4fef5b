//! What a restart makes of a log: how far it goes, and who appended what.

use interflow_meta::{Durability, Epoch, LogId, Offset};

use super::service::Inner;
use super::state::{Recovered, segment};
use crate::core::chain::{Chain, Open};
use crate::core::producers::{ProducerLimits, Producers};
use crate::store::{EntryHeader, FoundSegment, StoreError};

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
    let end = found.as_ref().map_or(open.base, |found| found.end.max(open.base));
    let is_lossy = match durability {
        // Damage at the very end: what lay behind it is not known.
        Durability::Durable => found.as_ref().is_some_and(is_damaged_at_end),
        Durability::Replicated | Durability::Volatile => {
            match inner.store.last_snapshot(id).await {
                Ok(Some((header, payload))) => {
                    let is_last = Producers::decode(&payload).is_ok_and(|(_, is_last)| is_last);
                    !is_last || header.base_offset != end
                }
                Ok(None) | Err(StoreError::Damaged(_)) => true,
                Err(error) => return Err(error),
            }
        }
    };
    Ok(Recovered {
        end,
        bytes: found.as_ref().map_or(0, |found| found.bytes),
        max_timestamp: found
            .filter(|found| found.end > found.start)
            .map(|found| found.max_timestamp),
        is_lossy,
        is_opening: false,
    })
}

fn is_damaged_at_end(found: &FoundSegment) -> bool {
    found.damaged.last().is_some_and(|range| range.end >= found.end)
}

/// The producer table at `end` of the open segment: the last snapshot and the headers behind it,
/// from the newest segment that has either. `superseded` are segments on the disk that are not in
/// the chain (they hold no offsets, but may hold a snapshot).
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
    for (epoch, end) in epochs.into_iter().rev() {
        if epoch > open.epoch {
            continue;
        }
        let id = segment(log, epoch);
        let Some(found) = inner.store.segment(id) else { continue };
        let snapshot = match inner.store.last_snapshot(id).await {
            Ok(snapshot) => snapshot,
            Err(StoreError::Damaged(_)) => None,
            Err(error) => return Err(error),
        };
        let (mut producers, from) = match snapshot {
            Some((header, payload)) => match Producers::decode(&payload) {
                Ok((producers, _)) => (producers, header.base_offset),
                Err(error) => {
                    tracing::warn!(%log, %epoch, %error, "a producer snapshot is not readable");
                    (Producers::default(), found.start)
                }
            },
            None if found.end > found.start => (Producers::default(), found.start),
            None => continue,
        };
        match inner.store.headers(id, from).await {
            Ok(entries) => {
                for (header, _) in &entries {
                    if header.base_offset >= from && header.base_offset < end {
                        replay(&mut producers, header, inner.clock.wall_ms(), limits);
                    }
                }
            }
            Err(StoreError::Damaged(range)) => tracing::warn!(
                %log, %epoch, ?range,
                "headers are damaged: producers may be able to append a batch twice"
            ),
            Err(error) => return Err(error),
        }
        return Ok(producers);
    }
    Ok(Producers::default())
}

fn replay(producers: &mut Producers, header: &EntryHeader, now_ms: i64, limits: &ProducerLimits) {
    if header.count > 0
        && let Some(key) = &header.key
    {
        let batch = (header.base_offset, header.count);
        producers.record(key, batch, header.window, now_ms, limits);
    }
}
