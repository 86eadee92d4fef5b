//! Which entries a read wants. Decides only; nothing is read here.

use std::ops::Range;
use std::sync::Arc;

use crate::Offset;
use crate::journal::ExtentId;
use crate::journal::entries::{BLOCK, IndexEntry, RunIndex};
use crate::journal::footer::BlockRef;

use super::SegmentRead;
use super::index::{RunPlace, Segment};

/// A filtered read goes through this many payload bytes before it answers.
const FILTER_SCAN_BYTES: usize = 1 << 20;

/// An entry to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) extent: ExtentId,
    pub(crate) entry: IndexEntry,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Read these; what lies between them and below `next_offset` is skipped.
    Entries { wanted: Vec<Wanted>, next_offset: Offset },
    /// First get this index.
    Needs(ExtentId, BlockRef),
    /// The first offset is lost.
    Damaged(Range<Offset>),
}

/// Plans a read of `segment`. `cached` gives the indexes that are in memory.
pub(crate) fn plan(
    segment: &Segment,
    read: &SegmentRead,
    cached: impl Fn(ExtentId, BlockRef) -> Option<Arc<RunIndex>>,
) -> Plan {
    let mut next_offset = read.offset;
    if let Some(range) = segment.damaged.iter().find(|range| range.contains(&read.offset))
        && read.offset < read.end
    {
        return Plan::Damaged(range.clone());
    }
    let next_damage = segment.damaged.iter().map(|range| range.start).find(|o| *o > read.offset);
    let limit = read.end.min(next_damage.unwrap_or(Offset::MAX));
    let budget = match read.filter {
        Some(_) => read.max_bytes.max(FILTER_SCAN_BYTES),
        None => read.max_bytes,
    };
    let mut wanted = Vec::new();
    let mut bytes = 0usize;

    let first = segment.runs.partition_point(|run| run.stats.end <= read.offset);
    for run in segment.runs.iter().skip(first) {
        if run.stats.first >= limit {
            break;
        }
        let held;
        let index: &RunIndex = match &run.place {
            RunPlace::Memory(index) => index,
            RunPlace::Footer(block) => match cached(run.extent, *block) {
                Some(index) => {
                    held = index;
                    &held
                }
                None if wanted.is_empty() && next_offset == read.offset => {
                    return Plan::Needs(run.extent, *block);
                }
                None => break,
            },
        };
        let entries = index.entries();
        let mut i = entries.partition_point(|entry| entry.end() <= next_offset);
        while let Some(entry) = entries.get(i) {
            if entry.offset >= limit {
                return Plan::Entries { wanted, next_offset };
            }
            if let Some(filter) = &read.filter
                && !index.block_may_match(i / BLOCK, filter)
            {
                let after = (i / BLOCK + 1) * BLOCK;
                let block = entries.get(i..after.min(entries.len())).unwrap_or_default();
                let end = block.last().map_or(entry.end(), IndexEntry::end);
                next_offset = next_offset.max(end.min(limit));
                i = after;
                continue;
            }
            i += 1;
            if entry.is_snapshot() {
                continue;
            }
            bytes = bytes.saturating_add(entry.payload_len as usize);
            if bytes > budget && !wanted.is_empty() {
                return Plan::Entries { wanted, next_offset };
            }
            wanted.push(Wanted { extent: run.extent, entry: *entry });
            next_offset = next_offset.max(entry.end());
        }
    }
    Plan::Entries { wanted, next_offset }
}

/// Groups entries whose bytes are worth one read of the disk: in one extent, in order, nearly
/// side by side, and not too much at once.
pub(crate) fn stretches(wanted: &[Wanted]) -> Vec<&[Wanted]> {
    const MAX_GAP: u32 = 8 << 10;
    const MAX_READ: u32 = 4 << 20;
    let mut out = Vec::new();
    let mut rest = wanted;
    while let Some(first) = rest.first() {
        let mut last = first;
        let mut n = 1;
        for next in rest.iter().skip(1) {
            let gap = next.entry.at.checked_sub(last.entry.after());
            let joins = next.extent == first.extent
                && gap.is_some_and(|gap| gap <= MAX_GAP)
                && next.entry.after().saturating_sub(first.entry.at) <= MAX_READ;
            if !joins {
                break;
            }
            last = next;
            n += 1;
        }
        let (stretch, after) = rest.split_at(n);
        out.push(stretch);
        rest = after;
    }
    out
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
