//! Rewrites extents: what is alive of them goes into new ones, segment by segment, so that later
//! reads of it are in sequence, and what dies at the same time is together.
//!
//! ```text
//!   read whole (where it is interleaved) ─► new extent of each class of lives:
//!     copy to "….tmp", a piece at a time ─► footer, sync ─► rename, sync folder
//!          ─► runs point to the new extent
//!   ─► with the last of them, whose footer says so, the old ones are removed
//! ```
//!
//! Reads go on all the time: before the switch from the old extents, after it from the new ones.
//! A start that finds some of the new extents and the old ones uses the old ones.

use std::io;

use rand::RngExt;

use crate::journal::footer::RunSummary;
use crate::journal::{ExtentId, ExtentKey};

use super::copying::{NewExtent, OldRun, STEP_BYTES};
use super::index::Extent;
use super::lives::{LifeClass, class};
use super::pace::Pace;
use super::shared::{Shared, State};
use super::victims;

/// The rewriting under way, and its share of the disk.
#[derive(Default)]
pub(crate) struct Keeping {
    pub(crate) rewrite: Option<Rewrite>,
    pub(crate) pace: Pace,
}

/// One rewriting.
pub(crate) struct Rewrite {
    victims: Vec<ExtentId>,
    /// How far an interleaved extent was read.
    reading: Option<(ExtentId, u64)>,
    /// Extents still to be written, the next one last.
    parts: Vec<NewExtent>,
}

/// What a step did.
pub(crate) enum Step {
    /// Read or wrote so many bytes; there is more to do.
    Moved(u64),
    /// All is in place: these extents can be removed.
    Done(Vec<Extent>),
}

/// Why extents are rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Little of them is alive.
    Dead,
    /// Nearly all of it is alive, in the order in which it came.
    Interleaved,
}

impl Rewrite {
    pub(crate) fn plan(
        shared: &Shared,
        state: &mut State,
        victims: &[ExtentId],
        reason: Reason,
    ) -> Self {
        let now_ms = shared.clock.wall_ms();
        let mut runs: Vec<(LifeClass, OldRun)> = Vec::new();
        for extent in victims {
            for (summary, _) in state.index.runs_of(*extent) {
                let lives = class(state.index.left_ms(summary.id, now_ms));
                runs.push((lives, OldRun { extent: *extent, summary }));
            }
        }
        let order = |run: &RunSummary| (run.id, run.stats.first);
        runs.sort_by_key(|(lives, run)| (*lives, order(&run.summary)));
        let sizes: Vec<_> =
            runs.iter().map(|(lives, run)| (*lives, run.summary.stats.disk_bytes)).collect();
        let mut parts = Vec::new();
        for start in victims::parts(&sizes, &shared.options).into_iter().rev() {
            let mut runs: Vec<OldRun> = runs.drain(start..).map(|(_, run)| run).collect();
            runs.sort_by_key(|run| std::cmp::Reverse(order(&run.summary)));
            parts.push(NewExtent::new(runs));
        }
        // Written in the order of their numbers.
        for part in parts.iter_mut().rev() {
            part.key = ExtentKey { id: state.new_extent(), salt: state.rng.random() };
        }
        let reading = victims.first().filter(|_| reason == Reason::Interleaved);
        Self { victims: victims.to_vec(), reading: reading.map(|extent| (*extent, 0)), parts }
    }

    /// Reads or copies a piece, or puts a new extent in place.
    ///
    /// # Errors
    /// The disk's. All that was there is still found, in old extents or new ones.
    pub(crate) fn step(&mut self, shared: &Shared) -> io::Result<Step> {
        if let Some((extent, at)) = self.reading.take() {
            let bytes = read_on(shared, extent, at);
            if bytes > 0 {
                self.reading = Some((extent, at + bytes));
                return Ok(Step::Moved(bytes));
            }
        }
        let is_last = self.parts.len() <= 1;
        let Some(part) = self.parts.last_mut() else { return Ok(Step::Done(Vec::new())) };
        if let Some(bytes) = part.step(shared)? {
            return Ok(Step::Moved(bytes));
        }
        // Only what comes with everything else replaces anything.
        let victims = if is_last { self.victims.as_slice() } else { &[] };
        let removed = part.finish(shared, victims)?;
        self.parts.pop();
        Ok(if is_last { Step::Done(removed) } else { Step::Moved(0) })
    }

    /// Removes what is not in place. What is stays in use.
    pub(crate) fn abandon(self, shared: &Shared) {
        for part in self.parts {
            part.abandon(shared);
        }
    }
}

/// Reads a piece of an extent, in sequence, so that it is cached when it is copied in another
/// order. Returns how much; 0 at the end, and where it can't be read: copying will say why.
fn read_on(shared: &Shared, extent: ExtentId, at: u64) -> u64 {
    let Some(extent) = shared.extent(extent) else { return 0 };
    let mut bytes = vec![0; STEP_BYTES as usize];
    let read = shared.file(extent.key, extent.kind).and_then(|file| file.read_at(&mut bytes, at));
    read.map_or(0, |n| n as u64)
}
