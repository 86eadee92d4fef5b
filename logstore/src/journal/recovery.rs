//! Torn or damaged: what is kept, cut and lost of the extents without a valid footer.
//!
//! ```text
//!   |############ reported durable ############|###### unsynced ######|
//!   |  good | DAMAGE | good | good | good      S  good | bad → CUT HERE | good, dropped
//! ```
//!
//! S is the largest valid `synced`. After a power cut good entries lie behind bad ones in any
//! order above S, and that is no damage: nothing there was reported. Below S all was reported.
//!
//! What the disk doesn't give back may have held a larger `synced`, so S is taken to be at least
//! the end of what can't be read: better damage that is told than a cut that isn't.

use std::collections::BTreeMap;

use crate::store::Position;

use super::entries::IndexEntry;
use super::format::{self, EXTENT_HEADER, EntryHead};
use super::scan::Found;
use super::{ExtentId, ExtentKind};

/// An extent without a valid footer, as it was found.
#[derive(Clone, Debug)]
pub(crate) struct Scanned {
    pub(crate) id: ExtentId,
    pub(crate) kind: ExtentKind,
    pub(crate) found: Vec<Found>,
    /// The length of the file.
    pub(crate) len: u32,
    /// What the disk does not give back; found as bad.
    pub(crate) unreadable: Vec<(u32, u32)>,
}

impl Scanned {
    /// Up to where a group could have stood that the disk does not give back: to the end of
    /// what can't be read, and of the group that it begins in if something stands behind that.
    fn unknown_to(&self) -> u32 {
        let ends = self.unreadable.iter().map(|(_, end)| *end);
        let groups =
            self.found.iter().zip(self.found.iter().skip(1)).filter_map(|(found, _)| match found {
                Found::Bad { from, to } if self.overlaps(*from, *to) => Some(*to),
                _ => None,
            });
        ends.chain(groups).max().unwrap_or(0)
    }

    fn overlaps(&self, from: u32, to: u32) -> bool {
        self.unreadable.iter().any(|(start, end)| *start < to && from < *end)
    }
}

/// A valid footer, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Footered {
    pub(crate) id: ExtentId,
    pub(crate) kind: ExtentKind,
    pub(crate) end: u32,
    pub(crate) previous: Position,
    pub(crate) void_to: ExtentId,
}

/// What becomes of a scanned extent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) id: ExtentId,
    /// Nothing in it counts: remove it.
    pub(crate) is_void: bool,
    /// The entries that are kept.
    pub(crate) kept: Vec<(IndexEntry, EntryHead)>,
    /// Entries whose header is good and whose payload is lost.
    pub(crate) damaged: Vec<(IndexEntry, EntryHead)>,
    /// Places that can't be read and were reported durable.
    pub(crate) holes: Vec<(u32, u32)>,
    /// Where the data ends.
    pub(crate) end: u32,
    /// From here on nothing was reported durable before.
    pub(crate) unreported_from: u32,
    /// Everything behind the end, in this and later extents, was dropped.
    pub(crate) is_cut: bool,
    /// Where the extent before it ended, as its groups say.
    pub(crate) previous: Position,
    /// The disk does not give back all of it, up to its end.
    pub(crate) is_unreadable: bool,
}

/// Judges the extents without footer, given those with one. `scanned` ascends.
pub(crate) fn judge(scanned: Vec<Scanned>, footers: &[Footered]) -> Vec<Verdict> {
    let is_void = |id: ExtentId| footers.iter().any(|f| id > f.id && id <= f.void_to);
    let journal = |e: &&Scanned| e.kind == ExtentKind::Journal && !is_void(e.id);

    let mut reported = Position::default();
    let mut ends = BTreeMap::new();
    for footer in footers.iter().filter(|footer| footer.kind == ExtentKind::Journal) {
        reported = reported.max(Position::new(footer.id, footer.end));
        ends.insert(footer.previous.extent(), footer.previous.at());
    }
    for found in scanned.iter().filter(journal).flat_map(|extent| &extent.found) {
        if let Found::Group { header, .. } = found {
            reported = reported.max(header.synced);
            ends.insert(header.previous.extent(), header.previous.at());
        }
    }

    let stated = reported;
    for extent in scanned.iter().filter(journal) {
        match extent.unknown_to() {
            0 => {}
            to => reported = reported.max(Position::new(extent.id, to)),
        }
    }

    let mut is_cut = false;
    scanned
        .into_iter()
        .map(|extent| {
            let is_journal = extent.kind == ExtentKind::Journal;
            if is_journal && (is_cut || is_void(extent.id)) {
                return Verdict { id: extent.id, is_void: true, ..Verdict::default() };
            }
            // What was rewritten was complete before it got its name.
            let whole = Position(u64::MAX);
            let (reported, stated) = if is_journal { (reported, stated) } else { (whole, whole) };
            let mut verdict = judge_one(extent, reported, &ends);
            verdict.unreported_from = below(stated, verdict.id).max(EXTENT_HEADER);
            is_cut |= is_journal && verdict.is_cut;
            verdict
        })
        .collect()
}

/// How much of the extent lies below `position`.
fn below(position: Position, extent: ExtentId) -> u32 {
    match position.extent().cmp(&extent) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => position.at(),
        std::cmp::Ordering::Greater => u32::MAX,
    }
}

fn judge_one(extent: Scanned, reported: Position, ends: &BTreeMap<ExtentId, u32>) -> Verdict {
    let Scanned { id, found, len, unreadable, .. } = extent;
    let reported_to = below(reported, id);
    let marked_end = found.iter().find_map(|found| match found {
        Found::End { at } => Some(*at),
        _ => None,
    });
    let known_end = marked_end.or_else(|| ends.get(&id).copied());
    let limit = known_end.unwrap_or(u32::MAX);

    let mut verdict = Verdict { id, ..Verdict::default() };
    let mut reached = EXTENT_HEADER;
    for found in found {
        match found {
            Found::Group { at, header } => {
                verdict.previous = header.previous;
                reached = reached.max(at);
                // A group without entries still takes its place.
                if header.bytes == 0 && at < limit {
                    reached = reached.max(at + format::ALIGN);
                    verdict.end = verdict.end.max(at + format::ALIGN);
                }
            }
            Found::Entry { at, .. } if at >= limit => break,
            Found::Entry { at, head, is_good } => {
                let entry = Found::index_entry(at, &head);
                if is_good {
                    verdict.kept.push((entry, head));
                } else if at < reported_to {
                    verdict.damaged.push((entry, head));
                } else {
                    verdict.is_cut = true;
                    break;
                }
                reached = reached.max(entry.after());
                verdict.end = verdict.end.max(entry.after());
            }
            // Its entries are there, so nothing is lost; but above S it is where to cut.
            Found::BadGroup { at } if at < reported_to && at < limit => {}
            Found::BadGroup { at } => {
                verdict.is_cut |= at < limit;
                break;
            }
            Found::Bad { from, .. } if from >= limit => break,
            Found::Bad { from, to } => {
                if from < reported_to {
                    let to = to.min(reported_to).min(limit);
                    verdict.holes.push((from, to));
                    verdict.end = verdict.end.max(to);
                    reached = reached.max(to);
                }
                if to > reported_to && reported_to < limit {
                    verdict.is_cut = true;
                    break;
                }
            }
            Found::End { .. } => break,
        }
    }
    // The file itself is shorter than what was written to it.
    let missing_to = known_end.unwrap_or(0).min(reported_to);
    if !verdict.is_cut && len < missing_to && reached < missing_to {
        verdict.holes.push((reached, missing_to));
    }
    verdict.end = format::align(verdict.end.max(EXTENT_HEADER).min(len));
    verdict.is_unreadable = unreadable.iter().any(|(from, _)| *from < verdict.end);
    verdict
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
