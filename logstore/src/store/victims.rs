//! Which extents are rewritten, and what of them goes together. Decides only.
//!
//! ```text
//!   mostly dead, many small ones ──► first: it frees space
//!   interleaved, long-lived      ──► then, once: it makes scans fast
//! ```
//!
//! What is appended is written once. An extent is rewritten for being interleaved only as the
//! journal wrote it, and only if next to nothing of it dies soon; one that is mostly dead has at
//! most a share p of its bytes (`rewrite_live_percent`) left to copy. So of n bytes that were
//! appended fewer than n · (1 + p + p² + …) are copied: with p = ¼ the disk takes 2⅓ n at most.
//! What restarts leave behind, small extents and unfinished copies, comes on top.

use crate::journal::entries::SEEK_BYTES;
use crate::journal::{ExtentId, ExtentKind};

use super::Options;
use super::index::{Extent, Index};
use super::lives::LifeClass;

/// Extents below this share of a whole one, in percent, are small: several become one.
const SMALL_PERCENT: u64 = 6;
/// So many small ones are put together.
const MANY_SMALL: usize = 8;
/// An extent of which more than this part dies soon is left as it is until then.
const SHORT_PART: u64 = 8;
/// A class of lives gets an extent of its own from this part of a whole one on.
const OWN_EXTENT_PART: u64 = 8;

/// How full an extent is, and how it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) id: ExtentId,
    pub(crate) is_closed: bool,
    /// It is as the journal wrote it.
    pub(crate) is_original: bool,
    pub(crate) live: u64,
    pub(crate) total: u64,
    /// Runs that are alive, and what scans of them cost, see [`scan_bytes`].
    ///
    /// [`scan_bytes`]: crate::journal::entries::RunIndex::scan_bytes
    pub(crate) runs: u64,
    pub(crate) scan_bytes: u64,
    /// Bytes alive that die soon or of whose life nothing is known; `None`: not judged yet.
    pub(crate) short: Option<u64>,
}

/// What to do about interleaved extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interleaved {
    /// Nothing.
    None,
    /// Find out how much of it dies soon, and ask again.
    Judge(ExtentId),
    /// Rewrite it.
    Rewrite(ExtentId),
}

pub(crate) fn usage(index: &Index) -> Vec<Usage> {
    let version = index.lives.version();
    let of = |extent: &Extent| Usage {
        id: extent.key.id,
        is_closed: extent.is_closed,
        is_original: extent.kind == ExtentKind::Journal,
        live: extent.live,
        // Padding and footer would make a small one look dead for ever: what was rewritten is
        // measured by what it then held.
        total: match extent.kind {
            ExtentKind::Journal => extent.total,
            ExtentKind::Rewritten => extent.stored,
        },
        runs: extent.runs,
        scan_bytes: extent.scan_bytes,
        short: extent.judged.filter(|judged| judged.version == version).map(|judged| judged.short),
    };
    index.extents.values().map(of).collect()
}

impl Usage {
    fn is_small(&self, options: &Options) -> bool {
        self.total * 100 <= u64::from(options.extent_bytes) * SMALL_PERCENT
    }

    fn is_mostly_dead(&self, options: &Options) -> bool {
        self.live * 100 <= self.total * options.rewrite_live_percent
    }

    /// Whether scans take many times as long as they need.
    fn is_interleaved(&self, options: &Options) -> bool {
        let least = self.runs.saturating_mul(u64::from(SEEK_BYTES)).saturating_add(self.live);
        self.scan_bytes >= least.saturating_mul(options.rewrite_scan_factor)
    }
}

/// The extents to put together: those with the least alive first, as many as fit into one.
/// None if it isn't worth it. Wholly dead ones need no rewriting.
pub(crate) fn choose(extents: &[Usage], options: &Options) -> Vec<ExtentId> {
    let whole = u64::from(options.extent_bytes);
    let closed = || extents.iter().filter(|extent| extent.is_closed && extent.live > 0);

    let many_small = closed().filter(|extent| extent.is_small(options)).count() >= MANY_SMALL;
    let mut victims: Vec<&Usage> = closed()
        .filter(|extent| {
            let is_small = extent.is_small(options);
            extent.is_mostly_dead(options) && !is_small || many_small && is_small
        })
        .collect();
    victims.sort_by_key(|extent| (extent.live * 1000 / extent.total.max(1), extent.id));
    let mut room = whole;
    victims
        .into_iter()
        .map_while(|extent| {
            room = room.checked_sub(extent.live)?;
            Some(extent.id)
        })
        .collect()
}

/// The newest interleaved extent that is worth it: it is the likeliest to be cached, and lives
/// longest. Small ones wait until they are put together; the mostly dead are not for this.
pub(crate) fn interleaved(extents: &[Usage], options: &Options) -> Interleaved {
    let candidates = extents.iter().rev().filter(|extent| {
        extent.is_closed
            && extent.is_original
            && extent.live > 0
            && !extent.is_small(options)
            && !extent.is_mostly_dead(options)
            && extent.is_interleaved(options)
    });
    for extent in candidates {
        match extent.short {
            None => return Interleaved::Judge(extent.id),
            Some(short) if short.saturating_mul(SHORT_PART) <= extent.live => {
                return Interleaved::Rewrite(extent.id);
            }
            Some(_) => {}
        }
    }
    Interleaved::None
}

/// Cuts a sequence of (class, bytes) that is sorted by class into parts, each for an extent of
/// its own, so that extents die whole; returns where each begins. A class that is too small for
/// an extent shares with the next.
pub(crate) fn parts(sorted: &[(LifeClass, u64)], options: &Options) -> Vec<usize> {
    let least = u64::from(options.extent_bytes) / OWN_EXTENT_PART;
    let mut rest: u64 = sorted.iter().map(|(_, bytes)| bytes).sum();
    let mut starts: Vec<usize> = (!sorted.is_empty()).then_some(0).into_iter().collect();
    let mut bytes = 0;
    let mut before = None;
    for (i, (class, of_one)) in sorted.iter().enumerate() {
        let is_next_class = before.is_some_and(|before| before != *class);
        if is_next_class && bytes >= least && rest >= least {
            starts.push(i);
            bytes = 0;
        }
        before = Some(*class);
        bytes += of_one;
        rest -= of_one;
    }
    starts
}

#[cfg(test)]
#[path = "tests/victims.rs"]
mod tests;
