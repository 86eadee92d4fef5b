//! The start: footers, then scans of the extents without one, then a fresh extent to write to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::clock::Clock;
use crate::disk::{Disk, is_unreadable};
use crate::journal::core::{Core, Sizes};
use crate::journal::entries::{IndexEntry, RunIndex};
use crate::journal::footer::{BlockRef, RunStats, RunSummary};
use crate::journal::format::EntryHead;
use crate::journal::recovery::{Footered, Verdict, judge};
use crate::journal::{ExtentId, ExtentKey, ExtentKind};
use crate::{Offset, store::SegmentId};

use super::copying;
use super::files::{Files, IndexCache};
use super::index::{Extent, Index, RunPlace};
use super::keeper::{self, Relations};
use super::shared::{Shared, State};
use super::survey::{Loaded, Survey, survey};
use super::{Options, Position, StoreEvents, recycle};

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It was written by a newer version, which this one can't read.
    #[error(
        "{file} has format {found}; this build reads formats up to {known}: start the version of \
         interflow that wrote it, or a later one"
    )]
    NewerFormat {
        /// The file.
        file: String,
        /// Its format.
        found: u16,
        /// The newest format that is known.
        known: u16,
    },
    /// Another process, or another store of this one, uses the folder.
    #[error("the folder is in use by another process")]
    Locked,
    /// The disk could not be read or written.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What the disk said.
        error: io::Error,
    },
}

/// For `map_err`: says what was tried.
pub(super) fn trying(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    move |error| OpenError::Io { what: what.into(), error }
}

/// Opens the journal of a folder; all that was reported durable is there, or is known to be
/// damaged.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    options: Options,
    events: Arc<dyn StoreEvents>,
    clock: Arc<dyn Clock>,
) -> Result<Shared, OpenError> {
    let lock = disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => trying("locking the folder")(error),
    })?;
    let Survey { names, extents, loaded, scanned } = survey(&*disk)?;
    let footers: Vec<Footered> = loaded
        .iter()
        .map(|Loaded { key, kind, mark, .. }| Footered {
            id: key.id,
            kind: *kind,
            end: mark.end,
            previous: mark.previous,
            void_to: mark.void_to,
        })
        .collect();
    let replaced: BTreeSet<ExtentId> =
        loaded.iter().flat_map(|loaded| loaded.summary.replaces.iter().copied()).collect();
    let mut scanned = scanned;
    scanned.retain(|extent| !replaced.contains(&extent.id));
    let verdicts = judge(scanned, &footers);

    let mut index = Index::default();
    for Loaded { key, kind, mark, summary, len } in loaded {
        if replaced.contains(&key.id) {
            continue;
        }
        let mut extent = Extent::new(key, kind, mark.previous);
        extent.is_closed = true;
        extent.total = len;
        index.extents.insert(key.id, extent);
        for run in summary.runs {
            let block = run.block;
            index.load(key.id, run, RunPlace::Footer(block));
        }
    }
    for verdict in &verdicts {
        if let Some((key, kind)) = extents.get(&verdict.id)
            && !verdict.is_void
        {
            index.extents.insert(key.id, Extent::new(*key, *kind, verdict.previous));
            load_kept(&mut index, verdict);
        }
    }
    let (unreadable, readable): (Vec<&Verdict>, Vec<&Verdict>) =
        verdicts.iter().partition(|verdict| verdict.is_unreadable);
    for verdict in readable {
        note_holes(&mut index, verdict);
    }

    let last = extents.keys().next_back().copied().unwrap_or_default();
    let free = recycle::adopt(&*disk, &names, options.recycled_extents);
    let known = footers.iter().map(|footer| footer.void_to).max().unwrap_or_default();
    #[allow(clippy::disallowed_methods, reason = "no seed given: salts only have to differ")]
    let seed = options.seed.unwrap_or_else(rand::random);
    let sizes = Sizes {
        extent: options.extent_bytes,
        chunk: options.chunk_bytes,
        tail: options.tail_cache_bytes,
        in_flight: options.max_in_flight_bytes,
    };
    let indexes = IndexCache::new(options.index_cache_bytes);
    let shared = Shared {
        disk,
        events,
        clock,
        state: Mutex::new(State {
            core: Core::new(sizes),
            index,
            rng: StdRng::seed_from_u64(seed),
            next_extent: ExtentId(last.max(known).max(recycle::newest(&names)).0.saturating_add(1)),
            ended: Default::default(),
            is_closing: false,
            is_stopped: false,
            idle_workers: 0,
            is_waking: false,
            is_watching_idle: false,
            is_keeper_needed: false,
            recheck_space: false,
            waits_for_spare: false,
            is_reporting: false,
            must_report: false,
            reported: Position::default(),
            unchecked_bytes: 0,
            free,
            rewrites_are_off: false,
        }),
        options,
        work: Condvar::new(),
        chores: Condvar::new(),
        keeping: Mutex::default(),
        settled: Default::default(),
        files: Files::default(),
        indexes,
        ahead: Default::default(),
        flights: Default::default(),
        buffers: Default::default(),
        lock: Mutex::new(Some(lock)),
        may_lack_segments: unreadable.iter().any(|verdict| !verdict.holes.is_empty()),
    };
    settle(&shared, &verdicts, last).map_err(trying("closing the extents of the last run"))?;
    {
        // In no footer: the next start finds as much, or less if the disk then gives back more.
        let index = &mut shared.state.lock().index;
        index.note_gaps();
        for verdict in unreadable {
            note_holes(index, verdict);
        }
    }
    for name in names.iter().filter(|name| name.ends_with(copying::UNFINISHED)) {
        let _ = shared.disk.remove(name);
    }
    let replaced = replaced.iter().filter_map(|id| extents.get(id));
    for (key, kind) in replaced {
        let _ = shared.disk.remove(&key.file_name(*kind));
    }
    keeper::make_spare(&shared);
    if let Some(reason) = shared.state.lock().core.failed() {
        return Err(trying("starting")(io::Error::other(reason.to_owned())));
    }
    Ok(shared)
}

/// Consecutive entries of a segment as a scan found them.
struct Gathered {
    summary: RunSummary,
    index: RunIndex,
}

impl Gathered {
    fn new(id: SegmentId) -> Self {
        let (stats, block) = (RunStats::default(), BlockRef::default());
        let summary =
            RunSummary { id, stats, snapshot: None, block, scan_bytes: 0, damaged: Vec::new() };
        Self { summary, index: RunIndex::default() }
    }

    fn add(&mut self, entry: &IndexEntry, head: &EntryHead, is_good: bool) {
        let RunSummary { stats, snapshot, damaged, .. } = &mut self.summary;
        if is_good {
            stats.add(entry);
            self.index.push(*entry, head.header.digest.as_ref().map(|digest| &*digest.0));
            if entry.is_snapshot() {
                *snapshot = Some(*entry);
            }
        } else {
            stats.cover(entry);
            damaged.push(entry.offset..entry.end());
        }
    }
}

/// Puts what was kept of a scanned extent into the index, run by run. After a gap a new run
/// begins: what was rewritten may have several of one segment, with others' between them.
fn load_kept(index: &mut Index, verdict: &Verdict) {
    let mut all: Vec<_> = verdict.kept.iter().map(|(entry, head)| (entry, head, true)).collect();
    all.extend(verdict.damaged.iter().map(|(entry, head)| (entry, head, false)));
    all.sort_by_key(|(entry, ..)| entry.at);
    let mut runs: BTreeMap<SegmentId, Vec<Gathered>> = BTreeMap::new();
    for (entry, head, is_good) in all {
        let id = head.header.id;
        let of_segment = runs.entry(id).or_default();
        let goes_on = of_segment.last().is_some_and(|run| run.summary.stats.end == entry.offset);
        if !goes_on {
            of_segment.push(Gathered::new(id));
        }
        if let Some(run) = of_segment.last_mut() {
            run.add(entry, head, is_good);
        }
    }
    for Gathered { summary, index: entries } in runs.into_values().flatten() {
        for range in summary.damaged.iter().filter(|range| !range.is_empty()) {
            let (log, epoch) = (summary.id.log.0, summary.id.epoch.0);
            tracing::error!(log, epoch, ?range, "offsets are damaged");
        }
        index.load(verdict.id, summary, RunPlace::Memory(Arc::new(entries)));
    }
}

/// What is bad may have been entries of any segment of the extent; what the disk does not give
/// back, of any segment at all. Where a later entry goes on where the segment stood, nothing is
/// lost; else its end is unknown.
fn note_holes(index: &mut Index, verdict: &Verdict) {
    let Some((_, last_to)) = verdict.holes.last().copied() else { return };
    for (from, to) in &verdict.holes {
        tracing::error!(extent = verdict.id.0, from, to, "bytes of an extent are damaged");
    }
    // An entry behind the last hole is behind all of them.
    let found = verdict.kept.iter().chain(&verdict.damaged);
    let proven: BTreeSet<SegmentId> =
        found.filter(|(entry, _)| entry.at >= last_to).map(|(_, head)| head.header.id).collect();
    let here: BTreeSet<SegmentId> = match index.extents.get(&verdict.id) {
        Some(extent) => extent.segments.iter().copied().collect(),
        None => BTreeSet::new(),
    };
    for (id, segment) in index.segments_mut() {
        let may_be_hit = verdict.is_unreadable || here.contains(id);
        let goes_on = segment.runs.last().is_some_and(|run| run.extent > verdict.id);
        if may_be_hit && !goes_on && !proven.contains(id) {
            let end = segment.end();
            tracing::error!(log = id.log.0, epoch = id.epoch.0, end, "its end may be lost");
            segment.damage(end..Offset::MAX);
        }
    }
}

/// Closes what was scanned, so that what was cut never comes back, and removes what is void.
/// What can't be read everywhere stays as it is, without a footer, and each start judges it anew:
/// the disk may give it back one day.
fn settle(shared: &Shared, verdicts: &[Verdict], last: ExtentId) -> io::Result<()> {
    let has_void = verdicts.iter().any(|verdict| verdict.is_void);
    let remove_void = || -> io::Result<()> {
        // The last first: what is still there is then void for the next start, too.
        for verdict in verdicts.iter().rev().filter(|verdict| verdict.is_void) {
            remove(shared, verdict.id)?;
        }
        if has_void { shared.disk.sync_folder() } else { Ok(()) }
    };
    if verdicts.iter().any(|verdict| verdict.is_cut && verdict.is_unreadable) {
        // No footer will say that they are.
        remove_void()?;
    }
    let mut has_removed = false;
    for verdict in verdicts.iter().filter(|verdict| !verdict.is_void) {
        let is_empty = verdict.kept.is_empty()
            && verdict.damaged.is_empty()
            && verdict.holes.is_empty()
            && !(verdict.is_cut && has_void);
        if is_empty {
            shared.state.lock().index.extents.remove(&verdict.id);
            remove(shared, verdict.id)?;
            has_removed = true;
            continue;
        }
        if verdict.is_unreadable && verdict.kept.is_empty() && verdict.damaged.is_empty() {
            continue;
        }
        write_again(shared, verdict)?;
        if verdict.is_unreadable {
            leave(shared, verdict)?;
            continue;
        }
        let void_to = if verdict.is_cut { last } else { ExtentId::default() };
        let relations = Relations { void_to, replaces: Vec::new() };
        keeper::close_extent(shared, verdict.id, verdict.end, &relations)?;
    }
    remove_void()?;
    if has_removed { shared.disk.sync_folder() } else { Ok(()) }
}

/// Removes an extent, if it is there.
fn remove(shared: &Shared, id: ExtentId) -> io::Result<()> {
    let Some((key, kind)) = find(shared, id)? else { return Ok(()) };
    shared.disk.remove(&key.file_name(kind))
}

/// Makes what is kept of a file durable without a footer, and what was cut go.
fn leave(shared: &Shared, verdict: &Verdict) -> io::Result<()> {
    let Some(extent) = shared.extent(verdict.id) else { return Ok(()) };
    let file = shared.disk.open(&extent.key.file_name(extent.kind))?;
    if verdict.is_cut {
        file.set_len(u64::from(verdict.end))?;
    }
    file.sync()
}

fn find(shared: &Shared, id: ExtentId) -> io::Result<Option<(ExtentKey, ExtentKind)>> {
    let names = shared.disk.list()?;
    Ok(names.iter().filter_map(|name| ExtentKey::parse_name(name)).find(|(key, _)| key.id == id))
}

/// Writes once more what was never reported durable: after a failed sync such pages may look
/// clean without being on the disk, and a sync alone would not write them.
fn write_again(shared: &Shared, verdict: &Verdict) -> io::Result<()> {
    let step: u32 = if verdict.is_unreadable { 4096 } else { 1 << 20 };
    let Some(extent) = shared.extent(verdict.id) else { return Ok(()) };
    let mut at = verdict.unreported_from;
    if at >= verdict.end {
        return Ok(());
    }
    let file = shared.disk.open(&extent.key.file_name(extent.kind))?;
    while at < verdict.end {
        let len = step.min(verdict.end - at);
        let mut bytes = vec![0; len as usize];
        match file.read_at(&mut bytes, u64::from(at)) {
            Ok(n) => file.write_at(bytes.get(..n).unwrap_or_default(), u64::from(at))?,
            Err(error) if verdict.is_unreadable && is_unreadable(&error) => {}
            Err(error) => return Err(error),
        }
        at += len;
    }
    Ok(())
}
