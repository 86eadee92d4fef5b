//! The start: footers, then scans of the extents without one, then a fresh extent to write to.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::disk::{Disk, DiskFile};
use crate::journal::core::{Core, Sizes};
use crate::journal::entries::{IndexEntry, RunIndex};
use crate::journal::footer::{BlockRef, MARK, Mark, RunStats, RunSummary, Summary};
use crate::journal::format::{self, EntryHead};
use crate::journal::recovery::{Footered, Scanned, Verdict, judge};
use crate::journal::{ExtentId, ExtentKey, ExtentKind, scan};
use crate::{Offset, store::SegmentId};

use super::files::{Files, IndexCache};
use super::index::{Extent, Index, RunPlace};
use super::keeper::{self, Relations};
use super::rewrite;
use super::shared::{Shared, State};
use super::{Options, Position, StoreEvents};

/// Why a journal could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It was written by a newer version, which this one can't read.
    #[error("{file} has format {found}; this version reads formats up to {known}")]
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
fn trying(what: impl Into<String>) -> impl FnOnce(io::Error) -> OpenError {
    move |error| OpenError::Io { what: what.into(), error }
}

struct Loaded {
    key: ExtentKey,
    kind: ExtentKind,
    mark: Mark,
    summary: Summary,
    len: u64,
}

/// Opens the journal of a folder; all that was reported durable is there, or is known to be
/// damaged.
pub(crate) fn open(
    disk: Arc<dyn Disk>,
    options: Options,
    events: Arc<dyn StoreEvents>,
) -> Result<Shared, OpenError> {
    let lock = disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked,
        _ => trying("locking the folder")(error),
    })?;
    let names = disk.list().map_err(trying("listing the folder"))?;
    let extents: BTreeMap<ExtentId, (ExtentKey, ExtentKind)> = names
        .iter()
        .filter_map(|name| ExtentKey::parse_name(name))
        .map(|(key, kind)| (key.id, (key, kind)))
        .collect();

    let mut loaded = Vec::new();
    let mut scanned = Vec::new();
    for (key, kind) in extents.values() {
        let name = key.file_name(*kind);
        let read = || -> Result<_, OpenError> {
            let file = disk.open(&name).map_err(trying(format!("opening {name}")))?;
            check_version(&*file, &name)?;
            let footer = read_footer(&*file, *key).map_err(trying(format!("reading {name}")))?;
            let len = file.len().map_err(trying(format!("reading {name}")))?;
            Ok((file, footer, len))
        };
        let (file, footer, len) = read()?;
        match footer {
            Some((mark, summary)) => {
                loaded.push(Loaded { key: *key, kind: *kind, mark, summary, len });
            }
            None => {
                let found = scan::scan(&*file, *key).map_err(trying(format!("reading {name}")))?;
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                scanned.push(Scanned { id: key.id, kind: *kind, found, len });
            }
        }
    }
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
    index.note_gaps();
    for verdict in &verdicts {
        note_holes(&mut index, verdict);
    }

    let last = extents.keys().next_back().copied().unwrap_or_default();
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
        state: Mutex::new(State {
            core: Core::new(sizes),
            index,
            rng: StdRng::seed_from_u64(seed),
            next_extent: ExtentId(last.max(known).0.saturating_add(1)),
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
            rewrites_are_off: false,
        }),
        options,
        work: Condvar::new(),
        chores: Condvar::new(),
        keeping: Mutex::new(None),
        settled: Default::default(),
        files: Files::default(),
        indexes,
        lock: Mutex::new(Some(lock)),
    };
    settle(&shared, &verdicts, last).map_err(trying("closing the extents of the last run"))?;
    for name in names.iter().filter(|name| name.ends_with(rewrite::UNFINISHED)) {
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

fn check_version(file: &dyn DiskFile, name: &str) -> Result<(), OpenError> {
    let mut header = [0; 64];
    let n = file.read_at(&mut header, 0).map_err(trying(format!("reading {name}")))?;
    match format::decode_extent_version(header.get(..n).unwrap_or_default()) {
        Some(found) if found > format::VERSION => {
            Err(OpenError::NewerFormat { file: name.to_owned(), found, known: format::VERSION })
        }
        // The name says all that is needed to read an extent whose header is damaged.
        _ => Ok(()),
    }
}

fn read_footer(file: &dyn DiskFile, key: ExtentKey) -> io::Result<Option<(Mark, Summary)>> {
    let len = file.len()?;
    let Some(at) = len.checked_sub(MARK as u64) else { return Ok(None) };
    let mut bytes = [0; MARK];
    file.read_at(&mut bytes, at)?;
    let Some(mark) = Mark::decode(&bytes, key) else { return Ok(None) };
    if u64::from(mark.summary_at) + u64::from(mark.summary_len) != at {
        return Ok(None);
    }
    let mut bytes = vec![0; mark.summary_len as usize];
    file.read_at(&mut bytes, u64::from(mark.summary_at))?;
    Ok(mark.summary(key, &bytes).map(|summary| (mark, summary)))
}

/// Consecutive entries of a segment as a scan found them.
struct Gathered {
    summary: RunSummary,
    index: RunIndex,
}

impl Gathered {
    fn new(id: SegmentId) -> Self {
        let (stats, block) = (RunStats::default(), BlockRef::default());
        let summary = RunSummary { id, stats, snapshot: None, block, damaged: Vec::new() };
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

/// What can't be read may have been entries of any segment of the extent. Where a later entry
/// goes on where the segment stood, nothing is lost; else its end is unknown.
fn note_holes(index: &mut Index, verdict: &Verdict) {
    for (from, to) in &verdict.holes {
        tracing::error!(extent = verdict.id.0, from, to, "bytes of an extent are damaged");
        let last_at = |id: SegmentId| {
            let kept = verdict.kept.iter().chain(&verdict.damaged);
            kept.filter(|(_, head)| head.header.id == id).map(|(entry, _)| entry.at).max()
        };
        let ids = index.extents.get(&verdict.id).map(|extent| extent.segments.clone());
        for id in ids.unwrap_or_default() {
            let is_proven = last_at(id).is_some_and(|at| at >= *to);
            let Some(segment) = index.segment_mut(id) else { continue };
            let end = segment.end();
            let goes_on = segment.runs.last().is_some_and(|run| run.extent > verdict.id);
            if !is_proven && !goes_on {
                tracing::error!(log = id.log.0, epoch = id.epoch.0, end, "its end may be lost");
                segment.damage(end..Offset::MAX);
            }
        }
    }
}

/// Closes what was scanned, so that what was cut never comes back, and removes what is void.
fn settle(shared: &Shared, verdicts: &[Verdict], last: ExtentId) -> io::Result<()> {
    let has_void = verdicts.iter().any(|verdict| verdict.is_void);
    let mut removed = false;
    let mut remove = |id: ExtentId| -> io::Result<()> {
        let Some((key, kind)) = find(shared, id)? else { return Ok(()) };
        removed = true;
        shared.disk.remove(&key.file_name(kind))
    };
    for verdict in verdicts.iter().filter(|verdict| !verdict.is_void) {
        let is_empty = verdict.kept.is_empty()
            && verdict.damaged.is_empty()
            && verdict.holes.is_empty()
            && !(verdict.is_cut && has_void);
        if is_empty {
            shared.state.lock().index.extents.remove(&verdict.id);
            remove(verdict.id)?;
            continue;
        }
        write_again(shared, verdict)?;
        let void_to = if verdict.is_cut { last } else { ExtentId::default() };
        let relations = Relations { void_to, replaces: Vec::new() };
        keeper::close_extent(shared, verdict.id, verdict.end, &relations)?;
    }
    for verdict in verdicts.iter().filter(|verdict| verdict.is_void) {
        remove(verdict.id)?;
    }
    if removed { shared.disk.sync_folder() } else { Ok(()) }
}

fn find(shared: &Shared, id: ExtentId) -> io::Result<Option<(ExtentKey, ExtentKind)>> {
    let names = shared.disk.list()?;
    Ok(names.iter().filter_map(|name| ExtentKey::parse_name(name)).find(|(key, _)| key.id == id))
}

/// Writes once more what was never reported durable: after a failed sync such pages may look
/// clean without being on the disk, and a sync alone would not write them.
fn write_again(shared: &Shared, verdict: &Verdict) -> io::Result<()> {
    const STEP: u32 = 1 << 20;
    let Some(extent) = shared.extent(verdict.id) else { return Ok(()) };
    let file = shared.disk.open(&extent.key.file_name(extent.kind))?;
    let mut at = verdict.unreported_from;
    while at < verdict.end {
        let len = STEP.min(verdict.end - at);
        let mut bytes = vec![0; len as usize];
        let n = file.read_at(&mut bytes, u64::from(at))?;
        file.write_at(bytes.get(..n).unwrap_or_default(), u64::from(at))?;
        at += len;
    }
    Ok(())
}
