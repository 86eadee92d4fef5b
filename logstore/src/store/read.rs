//! Reads: memory, then the page cache, then the disk.

use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::is_unreadable;
use crate::journal::ExtentId;
use crate::journal::entries::{RunIndex, intersects};
use crate::journal::footer::{BlockRef, RunStats};
use crate::journal::format::{self, EntryHead};
use crate::{AppendKind, Offset, StoredBatch};

use super::flights::Block;
use super::index::RunPlace;
use super::plan::{Plan, Wanted, plan, stretches};
use super::shared::Shared;
use super::streams::DiskRead;
use super::{EntryHeader, EntryKind, SegmentId, SegmentRead, SegmentReadOutcome, StoreError};

/// How often a read begins anew because what it wanted was moved meanwhile.
const MAX_ATTEMPTS: usize = 8;
/// Entries fetched at a time when headers are wanted.
const HEADERS_AT_A_TIME: usize = 256;

/// Whether a read may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    No,
    Yes,
}

/// An entry as it was read.
pub(crate) struct Fetched {
    pub(crate) head: EntryHead,
    pub(crate) payload: Bytes,
}

/// Why entries could not be fetched.
pub(crate) enum FetchError {
    /// It would have to wait for the disk.
    WouldWait,
    /// The extent is gone: plan again.
    Moved,
    Io(io::Error),
}

/// What was fetched, in order, and the first entry that is damaged.
#[derive(Default)]
pub(crate) struct Batch {
    pub(crate) fetched: Vec<Fetched>,
    pub(crate) damaged: Option<Wanted>,
    /// What came from the disk, or from the kernel's cache of it.
    disk_bytes: u64,
    /// The first entry that is not in memory, if the rest would have had to wait.
    stopped: Option<Offset>,
}

/// Reads a segment; `None` if that has to wait for the disk and must not.
pub(crate) fn read(
    shared: &Shared,
    read: &SegmentRead,
    wait: Wait,
) -> Option<Result<SegmentReadOutcome, StoreError>> {
    for _ in 0..MAX_ATTEMPTS {
        let mut state = shared.state.lock();
        let Some(segment) = state.index.segment(read.id) else {
            return Some(Ok(empty(read.offset)));
        };
        let plan = plan(segment, read, |extent, block| shared.indexes.get(extent, block));
        let (wanted, next_offset) = match plan {
            Plan::Damaged(range) => return Some(Err(StoreError::Damaged(range))),
            Plan::Needs(extent, block) => {
                drop(state);
                if wait == Wait::No {
                    return None;
                }
                match load_index(shared, read.id, extent, block) {
                    Ok(_) | Err(FetchError::Moved | FetchError::WouldWait) => continue,
                    Err(FetchError::Io(error)) => return Some(Err(io_error(&error))),
                }
            }
            Plan::Entries { wanted, next_offset } => (wanted, next_offset),
        };
        let in_memory = wanted
            .iter()
            .map(|Wanted { extent, entry }| state.core.get(*extent, entry.at, entry.len() as usize))
            .collect();
        drop(state);
        match fetch(shared, &wanted, in_memory, wait) {
            Ok(batch) => {
                let disk_bytes = batch.disk_bytes;
                let outcome = outcome(shared, read, batch, next_offset);
                if let Ok(SegmentReadOutcome { next_offset: next, .. }) = outcome
                    && disk_bytes > 0
                {
                    let (id, from, bytes) = (read.id, read.offset, disk_bytes);
                    let made = DiskRead { id, from, next, bytes };
                    let now_ms = shared.clock.monotonic_ms();
                    shared.ahead.note(read, &made, &shared.options, now_ms);
                }
                return Some(outcome);
            }
            Err(FetchError::WouldWait) => return None,
            Err(FetchError::Moved) => {}
            Err(FetchError::Io(error)) => return Some(Err(io_error(&error))),
        }
    }
    Some(Err(StoreError::Io("the segment is being moved".to_owned())))
}

/// The first block that a read needs from the disk, if that can be said.
pub(crate) fn first_cold(shared: &Shared, read: &SegmentRead) -> Option<Block> {
    let mut state = shared.state.lock();
    let segment = state.index.segment(read.id)?;
    match plan(segment, read, |extent, block| shared.indexes.get(extent, block)) {
        Plan::Damaged(_) => None,
        Plan::Needs(extent, block) => Some(Block::of(extent, block.at)),
        Plan::Entries { wanted, .. } => {
            let core = &mut state.core;
            let cold = wanted.iter().find(|Wanted { extent, entry }| {
                core.get(*extent, entry.at, entry.len() as usize).is_none()
            })?;
            Some(Block::of(cold.extent, cold.entry.at))
        }
    }
}

fn empty(offset: Offset) -> SegmentReadOutcome {
    SegmentReadOutcome { batches: Vec::new(), next_offset: offset }
}

fn io_error(error: &io::Error) -> StoreError {
    StoreError::Io(error.to_string())
}

fn outcome(
    shared: &Shared,
    read: &SegmentRead,
    batch: Batch,
    mut next_offset: Offset,
) -> Result<SegmentReadOutcome, StoreError> {
    if let Some(Wanted { entry, .. }) = batch.damaged {
        let range = note_damage(shared, read.id, entry.offset..entry.end());
        if batch.fetched.is_empty() {
            return Err(StoreError::Damaged(range));
        }
        next_offset = entry.offset;
    }
    next_offset = batch.stopped.unwrap_or(next_offset);
    let matches = |head: &EntryHead| match (&read.filter, &head.header.digest) {
        (Some(filter), Some(digest)) => intersects(&digest.0, filter),
        _ => true,
    };
    let batches = batch
        .fetched
        .into_iter()
        .filter(|fetched| matches(&fetched.head))
        .filter_map(|Fetched { head, payload }| {
            Some(StoredBatch {
                base_offset: head.header.base_offset,
                count: head.header.count,
                max_timestamp: head.header.max_timestamp,
                kind: match head.header.kind {
                    EntryKind::Data => AppendKind::Data,
                    EntryKind::Commit => AppendKind::Commit,
                    EntryKind::Abort => AppendKind::Abort,
                    EntryKind::Snapshot => return None,
                },
                key: head.header.key,
                bytes: payload,
            })
        })
        .collect();
    Ok(SegmentReadOutcome { batches, next_offset })
}

pub(crate) fn note_damage(
    shared: &Shared,
    id: SegmentId,
    range: std::ops::Range<Offset>,
) -> std::ops::Range<Offset> {
    tracing::error!(log = id.log.0, epoch = id.epoch.0, ?range, "offsets are damaged");
    let mut state = shared.state.lock();
    let Some(segment) = state.index.segment_mut(id) else { return range };
    segment.damage(range.clone());
    segment.damaged.iter().find(|all| all.contains(&range.start)).cloned().unwrap_or(range)
}

/// Gets entries: those that are not in memory with as few reads as may be.
fn fetch(
    shared: &Shared,
    wanted: &[Wanted],
    in_memory: Vec<Option<Bytes>>,
    wait: Wait,
) -> Result<Batch, FetchError> {
    let mut batch = Batch { fetched: Vec::with_capacity(wanted.len()), ..Batch::default() };
    let mut rest = wanted;
    let mut memory = in_memory.into_iter();
    while !rest.is_empty() {
        // What the arena has was never out of memory, so it is not checked.
        while let Some(bytes) = memory.as_slice().first().cloned().flatten() {
            memory.next();
            rest = rest.get(1..).unwrap_or_default();
            if let Some(fetched) = split(bytes) {
                batch.fetched.push(fetched);
            }
        }
        let cold = memory.as_slice().iter().take_while(|bytes| bytes.is_none()).count();
        let (on_disk, after) = rest.split_at(cold.min(rest.len()));
        rest = after;
        memory.by_ref().take(cold).for_each(drop);
        let stretches = stretches(on_disk);
        if wait == Wait::Yes && stretches.len() > 1 {
            // The disk may fetch all of them at once, while the first is waited for.
            for stretch in &stretches {
                will_read(shared, stretch);
            }
        }
        for stretch in stretches {
            match fetch_stretch(shared, stretch, wait, &mut batch) {
                Ok(true) => {}
                Ok(false) => return Ok(batch),
                // What was found already is an answer.
                Err(FetchError::WouldWait) if !batch.fetched.is_empty() => {
                    batch.stopped = stretch.first().map(|wanted| wanted.entry.offset);
                    return Ok(batch);
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(batch)
}

/// Reads entries that lie nearly side by side, and checks them. False if one is damaged.
pub(crate) fn fetch_stretch(
    shared: &Shared,
    stretch: &[Wanted],
    wait: Wait,
    batch: &mut Batch,
) -> Result<bool, FetchError> {
    let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { return Ok(true) };
    let extent = shared.extent(first.extent).ok_or(FetchError::Moved)?;
    let from = first.entry.at;
    let len = last.entry.after().saturating_sub(from);
    let bytes = match read_bytes(shared, &extent, from, len, wait) {
        // The bad page may be another's, between them.
        Err(FetchError::Io(error))
            if wait == Wait::Yes && stretch.len() > 1 && is_unreadable(&error) =>
        {
            for one in stretch.chunks(1) {
                if !fetch_stretch(shared, one, wait, batch)? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        bytes => bytes?,
    };
    batch.disk_bytes += bytes.len() as u64;
    for wanted in stretch {
        let start = (wanted.entry.at - from) as usize;
        let end = start + wanted.entry.len() as usize;
        let entry = (end <= bytes.len()).then(|| bytes.slice(start..end));
        let is_good = entry.as_ref().is_some_and(|entry| {
            format::decode_entry(entry, extent.key, wanted.entry.at).is_some_and(|head| {
                let payload = entry.get(head.head_len as usize..).unwrap_or_default();
                format::payload_is_good(&head, payload)
            })
        });
        match entry.filter(|_| is_good).and_then(split) {
            Some(fetched) => batch.fetched.push(fetched),
            // Another extent has been written over it meanwhile.
            None if shared.extent(first.extent).is_none() => return Err(FetchError::Moved),
            None => {
                batch.damaged = Some(*wanted);
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Asks the disk for entries that lie nearly side by side; returns how many bytes they are.
pub(crate) fn will_read(shared: &Shared, stretch: &[Wanted]) -> u64 {
    let (Some(first), Some(last)) = (stretch.first(), stretch.last()) else { return 0 };
    let Some(extent) = shared.extent(first.extent) else { return 0 };
    let Ok(file) = shared.file(extent.key, extent.kind) else { return 0 };
    let len = u64::from(last.entry.after().saturating_sub(first.entry.at));
    file.will_read(u64::from(first.entry.at), len);
    len
}

fn read_bytes(
    shared: &Shared,
    extent: &super::index::Extent,
    at: u32,
    len: u32,
    wait: Wait,
) -> Result<Bytes, FetchError> {
    let file = shared.file(extent.key, extent.kind).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            FetchError::Moved
        } else {
            FetchError::Io(error)
        }
    })?;
    let mut buffer = shared.buffers.take(len as usize);
    let n = match wait {
        Wait::No => file.try_read_at(buffer.bytes_mut(), u64::from(at)),
        Wait::Yes => file.read_at(buffer.bytes_mut(), u64::from(at)).map(Some),
    };
    let n = n.map_err(FetchError::Io)?.ok_or(FetchError::WouldWait)?;
    Ok(buffer.freeze(n))
}

fn split(mut bytes: Bytes) -> Option<Fetched> {
    let head = format::read_entry(&bytes)?;
    let payload = bytes.split_off((head.head_len as usize).min(bytes.len()));
    Some(Fetched { head, payload })
}

/// Reads the index of a run from its extent's footer.
pub(crate) fn load_index(
    shared: &Shared,
    id: SegmentId,
    extent: ExtentId,
    block: BlockRef,
) -> Result<Arc<RunIndex>, FetchError> {
    if let Some(index) = shared.indexes.get(extent, block) {
        return Ok(index);
    }
    let found = shared.extent(extent).ok_or(FetchError::Moved)?;
    let bytes = read_bytes(shared, &found, block.at, block.len, Wait::Yes)?;
    let index = match block.index(found.key, &bytes) {
        Some(index) => Arc::new(index),
        // Footers are as good as what they index: it is all there to make one again.
        None => Arc::new(rebuild(shared, &found, id, block)?),
    };
    shared.indexes.put(extent, block, Arc::clone(&index));
    Ok(index)
}

/// Makes the index of a damaged footer's run anew, from the entries themselves.
fn rebuild(
    shared: &Shared,
    extent: &super::index::Extent,
    id: SegmentId,
    block: BlockRef,
) -> Result<RunIndex, FetchError> {
    use crate::journal::scan::{Found, scan};
    tracing::warn!(extent = extent.key.id.0, "a footer is damaged: indexing its entries anew");
    let bounds = {
        let state = shared.state.lock();
        let segment = state.index.segment(id).ok_or(FetchError::Moved)?;
        let of_block = |place: &RunPlace| matches!(place, RunPlace::Footer(b) if *b == block);
        let run =
            segment.runs.iter().find(|run| run.extent == extent.key.id && of_block(&run.place));
        run.map(|run| run.stats.first..=run.stats.end).ok_or(FetchError::Moved)?
    };
    let file = shared.file(extent.key, extent.kind).map_err(FetchError::Io)?;
    let mut index = RunIndex::default();
    for found in scan(&*file, extent.key).map_err(FetchError::Io)? {
        if let Found::Entry { at, head, .. } = found
            && head.header.id == id
            && bounds.contains(&head.header.base_offset)
        {
            let digest = head.header.digest.as_ref().map(|digest| &*digest.0);
            index.push(Found::index_entry(at, &head), digest);
        }
    }
    // Gone, its file may have been written over meanwhile.
    shared.extent(extent.key.id).ok_or(FetchError::Moved)?;
    Ok(index)
}

/// Calls `attempt` again while what it wanted is being moved.
fn again<T>(
    attempt: impl Fn() -> Result<T, FetchError>,
    damaged: impl Fn() -> Option<StoreError>,
) -> Result<T, StoreError> {
    for _ in 0..MAX_ATTEMPTS {
        match attempt() {
            Ok(found) => return Ok(found),
            Err(FetchError::Io(error)) => return Err(damaged().unwrap_or_else(|| io_error(&error))),
            Err(FetchError::Moved | FetchError::WouldWait) => {}
        }
    }
    Err(StoreError::Io("the segment is being moved".to_owned()))
}

/// Gets whole entries, whatever they are, in order, up to the first that is damaged.
fn fetch_all(shared: &Shared, wanted: &[Wanted]) -> Result<Batch, FetchError> {
    let in_memory = {
        let mut state = shared.state.lock();
        let get = |w: &Wanted| state.core.get(w.extent, w.entry.at, w.entry.len() as usize);
        wanted.iter().map(get).collect()
    };
    fetch(shared, wanted, in_memory, Wait::Yes)
}

/// Calls `visit` with the index of each run whose stats it `wants`, in order, until it returns
/// true. The indexes of runs that grow are visited under the lock: they are never shared.
fn visit_runs(
    shared: &Shared,
    id: SegmentId,
    wants: impl Fn(&RunStats) -> bool,
    mut visit: impl FnMut(ExtentId, &RunIndex) -> bool,
) -> Result<(), FetchError> {
    let mut n = 0;
    loop {
        let (extent, block) = {
            let state = shared.state.lock();
            let Some(segment) = state.index.segment(id) else { return Ok(()) };
            let runs = segment.runs.iter().enumerate().skip(n);
            let Some((i, run)) = runs.into_iter().find(|(_, run)| wants(&run.stats)) else {
                return Ok(());
            };
            n = i + 1;
            match &run.place {
                RunPlace::Memory(index) => {
                    if visit(run.extent, index) {
                        return Ok(());
                    }
                    continue;
                }
                RunPlace::Footer(block) => (run.extent, *block),
            }
        };
        if visit(extent, &*load_index(shared, id, extent, block)?) {
            return Ok(());
        }
    }
}

/// See [`super::EntryStore::headers`].
pub(crate) fn headers(
    shared: &Shared,
    id: SegmentId,
    from: Offset,
) -> Result<Vec<(EntryHeader, Option<Bytes>)>, StoreError> {
    let damaged = Cell::new(None);
    let attempt = || {
        let mut wanted = Vec::new();
        visit_runs(
            shared,
            id,
            |stats| stats.end >= from,
            |extent, index| {
                let entries = index.entries().iter().filter(|entry| {
                    entry.end() > from || (entry.is_snapshot() && entry.offset >= from)
                });
                wanted.extend(entries.map(|entry| Wanted { extent, entry: *entry }));
                false
            },
        )?;
        let mut headers = Vec::with_capacity(wanted.len());
        for some in wanted.chunks(HEADERS_AT_A_TIME) {
            let batch = fetch_all(shared, some)?;
            if let Some(Wanted { entry, .. }) = batch.damaged {
                damaged.set(Some(entry.offset..entry.end()));
                return Err(FetchError::Io(io::ErrorKind::InvalidData.into()));
            }
            for fetched in batch.fetched {
                let is_snapshot = fetched.head.header.kind == EntryKind::Snapshot;
                headers.push((fetched.head.header, is_snapshot.then_some(fetched.payload)));
            }
        }
        Ok(headers)
    };
    again(attempt, || {
        damaged.take().map(|range| StoreError::Damaged(note_damage(shared, id, range)))
    })
}

/// See [`super::EntryStore::entries`].
pub(crate) fn entries(
    shared: &Shared,
    id: SegmentId,
    offsets: Range<Offset>,
    max_bytes: u64,
) -> Result<(Vec<(EntryHeader, Bytes)>, bool), StoreError> {
    let Range { start: from, end: until } = offsets;
    let damaged = Cell::new(None);
    let attempt = || {
        let (mut wanted, mut bytes, mut is_all) = (Vec::new(), 0, true);
        visit_runs(
            shared,
            id,
            |stats| stats.end >= from && stats.first <= until,
            |extent, index| {
                for entry in index.entries() {
                    let is_snapshot = entry.is_snapshot();
                    let is_before = entry.end() <= from && !(is_snapshot && entry.offset >= from);
                    if is_before || entry.offset > until || entry.offset == until && !is_snapshot {
                        continue;
                    }
                    if bytes >= max_bytes {
                        is_all = false;
                        return true;
                    }
                    bytes += u64::from(entry.len());
                    wanted.push(Wanted { extent, entry: *entry });
                }
                false
            },
        )?;
        let mut entries = Vec::with_capacity(wanted.len());
        for some in wanted.chunks(HEADERS_AT_A_TIME) {
            let batch = fetch_all(shared, some)?;
            if let Some(Wanted { entry, .. }) = batch.damaged {
                damaged.set(Some(entry.offset..entry.end()));
                return Err(FetchError::Io(io::ErrorKind::InvalidData.into()));
            }
            entries.extend(batch.fetched.into_iter().map(|f| (f.head.header, f.payload)));
        }
        Ok((entries, is_all))
    };
    again(attempt, || {
        damaged.take().map(|range| StoreError::Damaged(note_damage(shared, id, range)))
    })
}

/// See [`super::EntryStore::last_snapshot`].
pub(crate) fn last_snapshot(
    shared: &Shared,
    id: SegmentId,
) -> Result<Option<(EntryHeader, Bytes)>, StoreError> {
    let damaged = Cell::new(None);
    let attempt = || {
        let snapshot = shared.state.lock().index.segment(id).and_then(|s| s.snapshot);
        let Some((extent, entry)) = snapshot else { return Ok(None) };
        let mut batch = fetch_all(shared, &[Wanted { extent, entry }])?;
        if batch.damaged.is_some() {
            damaged.set(Some(entry.offset..entry.end()));
            return Err(FetchError::Io(io::ErrorKind::InvalidData.into()));
        }
        Ok(batch.fetched.pop().map(|fetched| (fetched.head.header, fetched.payload)))
    };
    again(attempt, || damaged.take().map(StoreError::Damaged))
}

/// See [`super::EntryStore::seek_time`].
pub(crate) fn seek_time(
    shared: &Shared,
    id: SegmentId,
    timestamp: i64,
    end: Offset,
) -> Result<Option<(Offset, i64)>, StoreError> {
    let attempt = || {
        let mut found = None;
        visit_runs(
            shared,
            id,
            |stats| stats.max_timestamp >= timestamp,
            |_, index| {
                let entry = index.entries().iter().find(|entry| {
                    entry.kind == EntryKind::Data && entry.max_timestamp >= timestamp
                });
                found = entry.map(|entry| (entry.offset, entry.max_timestamp));
                found.is_some()
            },
        )?;
        Ok(found.filter(|(offset, _)| *offset < end))
    };
    again(attempt, || None)
}
