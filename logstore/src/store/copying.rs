//! One extent that is being written anew: runs are copied into it, one after the other.

use std::io;
use std::sync::Arc;

use crate::disk::DiskFile;
use crate::journal::entries::{IndexEntry, RunIndex};
use crate::journal::footer::{self, RunSummary};
use crate::journal::format::{self, ALIGN, EXTENT_HEADER, GROUP_HEADER, GroupHeader};
use crate::journal::{ExtentId, ExtentKey, ExtentKind};

use super::Position;
use super::index::{Extent, Rewritten};
use super::plan::{Wanted, stretches};
use super::read::{self, FetchError, Wait};
use super::shared::Shared;

/// What the name of an extent that is still being written ends with.
pub(crate) const UNFINISHED: &str = ".tmp";
/// Bytes read or written at a time.
pub(crate) const STEP_BYTES: u32 = 1 << 20;
/// After so many bytes what was written is synced, so that no sync of the journal's has to wait
/// for much of it.
const SYNC_BYTES: u32 = 8 << 20;

/// An extent on its way.
pub(crate) struct NewExtent {
    pub(crate) key: ExtentKey,
    /// Runs still to be copied, the next one last.
    runs: Vec<OldRun>,
    /// The run that is being copied.
    copying: Option<Copying>,
    done: Vec<(Rewritten, RunIndex)>,
    file: Option<Arc<dyn DiskFile>>,
    at: u32,
    unsynced: u32,
}

pub(crate) struct OldRun {
    pub(crate) extent: ExtentId,
    pub(crate) summary: RunSummary,
}

struct Copying {
    run: OldRun,
    old: Arc<RunIndex>,
    /// Entries of `old` that were looked at.
    next: usize,
    index: RunIndex,
    snapshot: Option<IndexEntry>,
}

impl NewExtent {
    /// An extent for `runs`, the first one last.
    pub(crate) fn new(runs: Vec<OldRun>) -> Self {
        Self {
            key: ExtentKey { id: ExtentId::default(), salt: 0 },
            runs,
            copying: None,
            done: Vec::new(),
            file: None,
            at: EXTENT_HEADER,
            unsynced: 0,
        }
    }

    fn name(&self) -> String {
        self.key.file_name(ExtentKind::Rewritten)
    }

    fn unfinished_name(&self) -> String {
        format!("{}{UNFINISHED}", self.name())
    }

    fn file(&mut self, shared: &Shared) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = &self.file {
            return Ok(Arc::clone(file));
        }
        let file = shared.disk.create(&self.unfinished_name())?;
        file.write_at(&format::encode_extent(self.key), 0)?;
        self.file = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Copies a piece and returns its length; `None` when all is copied.
    ///
    /// # Errors
    /// The disk's. Nothing has changed but for the unfinished file.
    pub(crate) fn step(&mut self, shared: &Shared) -> io::Result<Option<u64>> {
        let file = self.file(shared)?;
        if self.copying.is_none() {
            let Some(run) = self.runs.pop() else { return Ok(None) };
            self.copying = begin(shared, run)?;
        }
        let Some(mut copying) = self.copying.take() else { return Ok(Some(0)) };
        let wrote = self.copy(shared, &*file, &mut copying)?;
        if copying.next < copying.old.entries().len() {
            self.copying = Some(copying);
        } else {
            let Copying { run, index, snapshot, .. } = copying;
            let summary = RunSummary { snapshot, ..run.summary };
            self.done.push((Rewritten { from: run.extent, summary }, index));
        }
        self.unsynced = self.unsynced.saturating_add(wrote);
        if self.unsynced >= SYNC_BYTES {
            file.sync()?;
            self.unsynced = 0;
        }
        Ok(Some(u64::from(wrote)))
    }

    /// Copies the next entries of a run as one group. Those that are damaged are left out, and
    /// noted.
    fn copy(
        &mut self,
        shared: &Shared,
        file: &dyn DiskFile,
        copying: &mut Copying,
    ) -> io::Result<u32> {
        let id = copying.run.summary.id;
        let entries = copying.old.entries().get(copying.next..).unwrap_or_default();
        let mut budget = STEP_BYTES;
        let wanted: Vec<Wanted> = entries
            .iter()
            .enumerate()
            .map_while(|(i, entry)| {
                let left = budget.checked_sub(entry.len());
                budget = left.unwrap_or(0);
                (left.is_some() || i == 0)
                    .then_some(Wanted { extent: copying.run.extent, entry: *entry })
            })
            .collect();
        copying.next += wanted.len();

        let start = self.at;
        let mut group = vec![0; GROUP_HEADER as usize];
        let mut rest = wanted.as_slice();
        while !rest.is_empty() {
            let mut batch = read::Batch::default();
            for stretch in stretches(rest) {
                if !fetch(shared, stretch, &mut batch)? {
                    break;
                }
            }
            let (copied, after) = rest.split_at(batch.fetched.len().min(rest.len()));
            for (wanted, fetched) in copied.iter().zip(batch.fetched) {
                let at = start + u32::try_from(group.len()).unwrap_or(u32::MAX - start);
                let entry = IndexEntry { at, ..wanted.entry };
                let header = &fetched.head.header;
                let from = group.len();
                group.resize(from + fetched.head.head_len as usize, 0);
                let head = group.get_mut(from..).unwrap_or_default();
                let (len, crc) = (fetched.head.payload_len, fetched.head.payload_crc);
                format::encode_entry(head, header, len, crc, self.key, at);
                group.extend_from_slice(&fetched.payload);
                let digest = header.digest.as_ref().map(|digest| &*digest.0);
                copying.index.push(entry, digest);
                if entry.is_snapshot() {
                    copying.snapshot = Some(entry);
                }
            }
            rest = after;
            if let (Some(_), Some((lost, after))) = (batch.damaged, rest.split_first()) {
                read::note_damage(shared, id, lost.entry.offset..lost.entry.end());
                rest = after;
            }
        }
        let bytes = u32::try_from(group.len()).unwrap_or(u32::MAX) - GROUP_HEADER;
        let header =
            GroupHeader { bytes, synced: Position::default(), previous: Position::default() };
        for (to, from) in group.iter_mut().zip(header.encode(self.key, start)) {
            *to = from;
        }
        group.resize(group.len().next_multiple_of(ALIGN as usize), 0);
        file.write_at(&group, u64::from(start))?;
        let len = u32::try_from(group.len()).unwrap_or(u32::MAX);
        self.at = start.checked_add(len).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(len)
    }

    /// Puts the extent in place, complete and durable; `replaces` are removed with it. Returns
    /// those that nothing refers to any more.
    ///
    /// # Errors
    /// The disk's. Nothing has changed for readers.
    pub(crate) fn finish(
        &mut self,
        shared: &Shared,
        replaces: &[ExtentId],
    ) -> io::Result<Vec<Extent>> {
        let file = self.file(shared)?;
        {
            // Damage that was noted meanwhile must outlive the extents it was found in.
            let state = shared.state.lock();
            for (run, _) in &mut self.done {
                if let Some(segment) = state.index.segment(run.summary.id) {
                    run.summary.damaged.clone_from(&segment.damaged);
                }
            }
        }
        let mut runs: Vec<_> =
            self.done.iter().map(|(run, index)| (run.summary.clone(), index)).collect();
        let (previous, void_to) = (Position::default(), ExtentId::default());
        let bytes = footer::encode(self.key, self.at, previous, void_to, replaces, &mut runs);
        let summaries: Vec<RunSummary> = runs.into_iter().map(|(summary, _)| summary).collect();
        file.write_at(&bytes, u64::from(self.at))?;
        file.sync()?;
        shared.disk.rename(&self.unfinished_name(), &self.name())?;
        shared.disk.sync_folder()?;

        let mut extent = Extent::new(self.key, ExtentKind::Rewritten, previous);
        extent.is_closed = true;
        extent.total = u64::from(self.at) + bytes.len() as u64;
        let mut moved = Vec::with_capacity(self.done.len());
        for ((run, index), summary) in self.done.drain(..).zip(summaries) {
            shared.indexes.put(self.key.id, summary.block, Arc::new(index));
            moved.push(Rewritten { from: run.from, summary });
        }
        let mut state = shared.state.lock();
        Ok(state.index.move_runs(extent, &moved, replaces))
    }

    /// Removes what was written so far, also where it has its name already: as long as that is
    /// not durable the old extents count, on the disk as in memory.
    pub(crate) fn abandon(self, shared: &Shared) {
        // If even that fails, the next start removes it, or finds it whole.
        let _ = shared.disk.remove(&self.unfinished_name());
        let _ = shared.disk.remove(&self.name());
    }
}

/// `None` if the segment was dropped meanwhile.
fn begin(shared: &Shared, run: OldRun) -> io::Result<Option<Copying>> {
    let RunSummary { id, block, .. } = run.summary;
    match read::load_index(shared, id, run.extent, block) {
        Ok(old) => {
            let is_here = shared.state.lock().index.segment(id).is_some();
            let index = RunIndex::default();
            Ok(is_here.then_some(Copying { run, old, next: 0, index, snapshot: None }))
        }
        Err(FetchError::Moved | FetchError::WouldWait) => Ok(None),
        Err(FetchError::Io(error)) => Err(error),
    }
}

fn fetch(shared: &Shared, stretch: &[Wanted], batch: &mut read::Batch) -> io::Result<bool> {
    match read::fetch_stretch(shared, stretch, Wait::Yes, batch) {
        Ok(goes_on) => Ok(goes_on),
        Err(FetchError::Io(error)) => Err(error),
        // Only this thread moves or removes extents.
        Err(FetchError::Moved | FetchError::WouldWait) => Err(io::ErrorKind::NotFound.into()),
    }
}
