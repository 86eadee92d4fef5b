//! What is where: segments, their runs, and the extents that hold them.
//!
//! ```text
//!   segment ─► run (extent 3) ─► run (extent 4) ─► run (extent 7, open)
//!              footer: block      footer: block     in memory: entries
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::journal::entries::{IndexEntry, RunIndex};
use crate::journal::footer::{BlockRef, RunStats, RunSummary};
use crate::journal::{ExtentId, ExtentKey, ExtentKind};
use crate::{Epoch, LogId, Offset};

use super::lives::Lives;
use super::{FoundSegment, Position, SegmentId};

#[derive(Debug, Default)]
pub(crate) struct Index {
    segments: HashMap<SegmentId, Segment, foldhash::fast::RandomState>,
    /// Their names in order, for what asks about one log.
    names: BTreeSet<SegmentId>,
    pub(crate) extents: BTreeMap<ExtentId, Extent>,
    pub(crate) lives: Lives,
}

#[derive(Debug, Default)]
pub(crate) struct Segment {
    /// In offset order.
    pub(crate) runs: Vec<Run>,
    /// Ascending, apart from one another.
    pub(crate) damaged: Vec<Range<Offset>>,
    pub(crate) snapshot: Option<(ExtentId, IndexEntry)>,
}

/// The consecutive entries of a segment in one extent.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) extent: ExtentId,
    pub(crate) stats: RunStats,
    pub(crate) place: RunPlace,
    /// What a scan of it costs; 0 until its extent has a footer.
    pub(crate) scan_bytes: u64,
}

/// Where a run's index is.
#[derive(Clone, Debug)]
pub(crate) enum RunPlace {
    Memory(Arc<RunIndex>),
    Footer(BlockRef),
}

#[derive(Clone, Debug)]
pub(crate) struct Extent {
    pub(crate) key: ExtentKey,
    pub(crate) kind: ExtentKind,
    pub(crate) previous: Position,
    /// Its footer is durable.
    pub(crate) is_closed: bool,
    /// Bytes of entries of segments that are here.
    pub(crate) live: u64,
    /// Bytes of entries that were here when it was closed.
    pub(crate) stored: u64,
    /// Bytes of the file, all in all.
    pub(crate) total: u64,
    /// Runs of segments that are here, and what scans of them cost; 0 until there is a footer.
    pub(crate) runs: u64,
    pub(crate) scan_bytes: u64,
    /// How much of it dies soon, once that was looked at.
    pub(crate) judged: Option<Judged>,
    /// The segments that have, or had, runs here.
    pub(crate) segments: Vec<SegmentId>,
}

/// What was found out of an extent's lives, as long as nothing of it is dropped.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Judged {
    /// Which [`Lives::version`] it is true of.
    pub(crate) version: u64,
    /// Bytes alive that die soon, or of whose life nothing is known.
    pub(crate) short: u64,
}

/// A run that was copied to another extent.
#[derive(Clone, Debug)]
pub(crate) struct Rewritten {
    /// Where it was.
    pub(crate) from: ExtentId,
    /// What it is now.
    pub(crate) summary: RunSummary,
}

impl Extent {
    pub(crate) fn new(key: ExtentKey, kind: ExtentKind, previous: Position) -> Self {
        Self {
            key,
            kind,
            previous,
            is_closed: false,
            live: 0,
            stored: 0,
            total: 0,
            runs: 0,
            scan_bytes: 0,
            judged: None,
            segments: Vec::new(),
        }
    }

    /// A run is alive here.
    fn gain(&mut self, disk_bytes: u64, scan_bytes: u64) {
        self.live += disk_bytes;
        self.scan_bytes += scan_bytes;
        self.runs += u64::from(scan_bytes > 0);
        self.judged = None;
    }

    /// It isn't any more.
    fn lose(&mut self, run: &Run) {
        self.live = self.live.saturating_sub(run.stats.disk_bytes);
        self.scan_bytes = self.scan_bytes.saturating_sub(run.scan_bytes);
        self.runs = self.runs.saturating_sub(u64::from(run.scan_bytes > 0));
        self.judged = None;
    }
}

impl Segment {
    /// One past its last offset here.
    pub(crate) fn end(&self) -> Offset {
        self.runs.last().map_or(0, |run| run.stats.end)
    }

    /// Notes that offsets are lost.
    pub(crate) fn damage(&mut self, range: Range<Offset>) {
        if range.is_empty() {
            return;
        }
        self.damaged.push(range);
        self.damaged.sort_by_key(|range| range.start);
        self.damaged.dedup_by(|next, kept| {
            let joins = next.start <= kept.end;
            if joins {
                kept.end = kept.end.max(next.end);
            }
            joins
        });
    }

    fn found(&self, id: SegmentId) -> FoundSegment {
        let mut found = FoundSegment {
            id,
            start: self.runs.first().map_or(0, |run| run.stats.first),
            end: self.end(),
            bytes: 0,
            max_timestamp: i64::MIN,
            damaged: self.damaged.clone(),
            max_timestamp_offset: 0,
        };
        for Run { stats, .. } in &self.runs {
            found.bytes += stats.bytes;
            if stats.max_timestamp > found.max_timestamp {
                found.max_timestamp = stats.max_timestamp;
                found.max_timestamp_offset = stats.max_at;
            }
        }
        found
    }
}

impl Index {
    /// The next entry of a segment.
    pub(crate) fn push(
        &mut self,
        id: SegmentId,
        extent: ExtentId,
        entry: IndexEntry,
        digest: Option<&[u32]>,
    ) {
        let segment = self.segments.entry(id).or_default();
        if segment.runs.last().is_none_or(|run| run.extent != extent) {
            let place = RunPlace::Memory(Arc::default());
            let stats = RunStats::default();
            segment.runs.push(Run { extent, stats, place, scan_bytes: 0 });
            self.names.insert(id);
            if let Some(extent) = self.extents.get_mut(&extent) {
                extent.segments.push(id);
            }
        }
        if let Some(run) = segment.runs.last_mut() {
            run.stats.add(&entry);
            if let RunPlace::Memory(index) = &mut run.place {
                // Nobody shares the index of a run that grows.
                Arc::make_mut(index).push(entry, digest);
            }
        }
        if entry.is_snapshot() {
            segment.snapshot = Some((extent, entry));
        }
        if let Some(extent) = self.extents.get_mut(&extent) {
            extent.live += u64::from(entry.len());
        }
    }

    /// A run that a start has found. Runs of what was rewritten may come twice: the
    /// larger one stays.
    pub(crate) fn load(&mut self, extent: ExtentId, summary: RunSummary, place: RunPlace) {
        let RunSummary { id, stats, snapshot, damaged, scan_bytes, .. } = summary;
        self.names.insert(id);
        let segment = self.segments.entry(id).or_default();
        for range in damaged {
            segment.damage(range);
        }
        let covers =
            |a: &RunStats, b: &RunStats| b.first < b.end && a.first <= b.first && b.end <= a.end;
        if segment.runs.iter().any(|run| covers(&run.stats, &stats)) {
            return;
        }
        segment.runs.retain(|run| {
            let is_covered = covers(&stats, &run.stats);
            if is_covered && let Some(extent) = self.extents.get_mut(&run.extent) {
                extent.lose(run);
            }
            !is_covered
        });
        let at = segment
            .runs
            .partition_point(|run| (run.stats.first, run.stats.end) < (stats.first, stats.end));
        segment.runs.insert(at, Run { extent, stats, place, scan_bytes });
        if let Some(snapshot) = snapshot
            && segment.snapshot.is_none_or(|(_, last)| last.offset <= snapshot.offset)
        {
            segment.snapshot = Some((extent, snapshot));
        }
        if let Some(extent) = self.extents.get_mut(&extent) {
            extent.gain(stats.disk_bytes, scan_bytes);
            extent.stored += stats.disk_bytes;
            extent.segments.push(id);
        }
    }

    pub(crate) fn segment(&self, id: SegmentId) -> Option<&Segment> {
        self.segments.get(&id)
    }

    pub(crate) fn segment_mut(&mut self, id: SegmentId) -> Option<&mut Segment> {
        self.segments.get_mut(&id)
    }

    pub(crate) fn segments_mut(&mut self) -> impl Iterator<Item = (&SegmentId, &mut Segment)> {
        self.segments.iter_mut()
    }

    pub(crate) fn describe(&self, id: SegmentId) -> Option<FoundSegment> {
        self.segments.get(&id).map(|segment| segment.found(id))
    }

    pub(crate) fn describe_all(&self) -> Vec<FoundSegment> {
        let mut all: Vec<_> =
            self.segments.iter().map(|(id, segment)| segment.found(*id)).collect();
        all.sort_unstable_by_key(|found| found.id);
        all
    }

    /// Those of one log, by their epoch.
    pub(crate) fn describe_log(&self, log: LogId) -> Vec<FoundSegment> {
        let first = SegmentId { log, epoch: Epoch(0) };
        let last = SegmentId { log, epoch: Epoch(u32::MAX) };
        self.names.range(first..=last).filter_map(|id| self.describe(*id)).collect()
    }

    /// The segment takes no more entries: its memory need not grow any more.
    pub(crate) fn close_segment(&mut self, id: SegmentId) {
        if let Some(segment) = self.segments.get_mut(&id) {
            segment.runs.shrink_to_fit();
        }
    }

    /// Forgets a segment; returns whether an extent has nothing alive any more.
    pub(crate) fn drop_segment(&mut self, id: SegmentId) -> bool {
        let Some(segment) = self.segments.remove(&id) else { return false };
        self.names.remove(&id);
        let mut frees = false;
        for run in &segment.runs {
            if let Some(extent) = self.extents.get_mut(&run.extent) {
                extent.lose(run);
                frees |= extent.is_closed;
            }
        }
        frees
    }

    /// After all runs were loaded: entries of a segment are dense, so a gap is damage.
    pub(crate) fn note_gaps(&mut self) {
        for segment in self.segments.values_mut() {
            let mut end = segment.runs.first().map_or(0, |run| run.stats.first);
            let mut gaps = Vec::new();
            for run in &segment.runs {
                gaps.push(end..run.stats.first);
                end = end.max(run.stats.end);
            }
            for gap in gaps {
                segment.damage(gap);
            }
        }
    }

    /// The runs of an extent, for its footer.
    pub(crate) fn runs_of(&self, extent: ExtentId) -> Vec<(RunSummary, RunPlace)> {
        let Some(found) = self.extents.get(&extent) else { return Vec::new() };
        let mut ids = found.segments.clone();
        ids.sort_unstable();
        ids.dedup();
        let mut runs = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(segment) = self.segments.get(&id) else { continue };
            let here = || segment.runs.iter().filter(|run| run.extent == extent);
            let last = here().count();
            for (i, run) in here().enumerate() {
                let is_last = i + 1 == last;
                let snapshot = segment.snapshot.filter(|(place, _)| is_last && *place == extent);
                // What was found when this extent was scanned goes with its first run.
                let damaged = if i == 0 { segment.damaged.clone() } else { Vec::new() };
                let block = match &run.place {
                    RunPlace::Footer(block) => *block,
                    RunPlace::Memory(_) => BlockRef::default(),
                };
                runs.push((
                    RunSummary {
                        id,
                        stats: run.stats,
                        snapshot: snapshot.map(|(_, entry)| entry),
                        block,
                        scan_bytes: run.scan_bytes,
                        damaged,
                    },
                    run.place.clone(),
                ));
            }
        }
        runs
    }

    /// The extent's footer is durable: its runs are found there from now on.
    pub(crate) fn close_extent(&mut self, extent: ExtentId, runs: &[RunSummary], total: u64) {
        let (mut alive, mut scan_bytes) = (0, 0);
        for summary in runs {
            let Some(segment) = self.segments.get_mut(&summary.id) else { continue };
            for run in segment.runs.iter_mut() {
                if run.extent == extent && run.stats == summary.stats {
                    run.place = RunPlace::Footer(summary.block);
                    run.scan_bytes = summary.scan_bytes;
                    alive += 1;
                    scan_bytes += summary.scan_bytes;
                }
            }
        }
        if let Some(extent) = self.extents.get_mut(&extent) {
            extent.is_closed = true;
            extent.total = total;
            (extent.runs, extent.scan_bytes) = (alive, scan_bytes);
        }
    }

    /// Finds out how much of an extent dies within `soon_ms`, see [`Extent::judged`].
    pub(crate) fn judge(&mut self, extent: ExtentId, soon_ms: u64, now_ms: i64) {
        let short = self
            .runs_of(extent)
            .iter()
            .filter(|(run, _)| self.left_ms(run.id, now_ms).is_none_or(|left| left < soon_ms))
            .map(|(run, _)| run.stats.disk_bytes)
            .sum();
        let version = self.lives.version();
        if let Some(extent) = self.extents.get_mut(&extent) {
            extent.judged = Some(Judged { version, short });
        }
    }

    /// How long a segment is likely to be kept from now on.
    pub(crate) fn left_ms(&self, id: SegmentId, now_ms: i64) -> Option<u64> {
        let runs = self.segments.get(&id).map(|segment| segment.runs.as_slice());
        let newest = runs.unwrap_or_default().iter().map(|run| run.stats.max_timestamp).max();
        self.lives.left_ms(id.log, newest.unwrap_or(-1), now_ms)
    }

    /// The runs are in `to` from now on; returns the extents of `left`, which nothing refers to
    /// any more.
    pub(crate) fn move_runs(
        &mut self,
        mut to: Extent,
        moved: &[Rewritten],
        left: &[ExtentId],
    ) -> Vec<Extent> {
        for Rewritten { from, summary } in moved {
            to.stored += summary.stats.disk_bytes;
            // Dropped meanwhile: its copy is dead from the beginning.
            let Some(segment) = self.segments.get_mut(&summary.id) else { continue };
            let run = segment
                .runs
                .iter_mut()
                .find(|run| run.extent == *from && run.stats == summary.stats);
            let Some(run) = run else { continue };
            if let Some(from) = self.extents.get_mut(from) {
                from.lose(run);
            }
            run.extent = to.key.id;
            run.place = RunPlace::Footer(summary.block);
            run.scan_bytes = summary.scan_bytes;
            to.gain(summary.stats.disk_bytes, summary.scan_bytes);
            to.segments.push(summary.id);
            if let (Some((extent, last)), Some(copy)) = (segment.snapshot, summary.snapshot)
                && extent == *from
                && last.offset == copy.offset
            {
                segment.snapshot = Some((to.key.id, copy));
            }
        }
        self.extents.insert(to.key.id, to);
        left.iter().filter_map(|id| self.extents.remove(id)).collect()
    }
}
