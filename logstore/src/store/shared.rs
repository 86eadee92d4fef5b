//! What the store's threads share, and the steps that they take.
//!
//! ```text
//!   append ─► core + index        one short lock
//!   worker:  take ─► write ─► sync ─► finish ─► StoreEvents::durable
//!   keeper:  next extent · footers · freeing · rewriting
//! ```
//!
//! A worker writes what it took and then syncs it, so a group crosses no thread in between;
//! while it does, the next group gathers for the next worker.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use rand::rngs::StdRng;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::disk::{Disk, DiskFile, FolderLock};
use crate::journal::core::{Core, Group, Incoming};
use crate::journal::entries::IndexEntry;
use crate::journal::{ExtentId, ExtentKey, ExtentKind, format};

use super::ahead::Ahead;
use super::buffers::Buffers;
use super::files::{Files, IndexCache};
use super::flights::Flights;
use super::index::{Extent, Index};
use super::rewrite::Keeping;
use super::{Entry, Options, Position, StoreError, StoreEvents};

/// The disk is asked for its free space each time this much was written.
const SPACE_CHECK_BYTES: u64 = 64 << 20;

pub(crate) struct Shared {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) options: Options,
    pub(crate) events: Arc<dyn StoreEvents>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state: Mutex<State>,
    /// For workers: there is a group to write.
    pub(crate) work: Condvar,
    /// For the keeper: there is a chore.
    pub(crate) chores: Condvar,
    /// Held while extents are made, closed, rewritten or removed.
    pub(crate) keeping: Mutex<Keeping>,
    /// For `close`: all that was appended is durable, or never will be.
    pub(crate) settled: Notify,
    pub(crate) files: Files,
    pub(crate) indexes: IndexCache,
    pub(crate) ahead: Ahead,
    pub(crate) flights: Flights,
    pub(crate) buffers: Buffers,
    /// Let go when the store was closed: from then on it only reads.
    pub(crate) lock: Mutex<Option<Box<dyn FolderLock>>>,
    /// See [`super::EntryStore::may_lack_segments`].
    pub(crate) may_lack_segments: bool,
}

pub(crate) struct State {
    pub(crate) core: Core,
    pub(crate) index: Index,
    pub(crate) rng: StdRng,
    pub(crate) next_extent: ExtentId,
    /// Extents that nothing is appended to any more, without a footer yet; oldest first.
    pub(crate) ended: VecDeque<(ExtentId, u32)>,
    pub(crate) is_closing: bool,
    pub(crate) is_stopped: bool,
    pub(crate) idle_workers: usize,
    pub(crate) is_waking: bool,
    pub(crate) is_watching_idle: bool,
    pub(crate) is_keeper_needed: bool,
    /// An append was refused for want of space: look again.
    pub(crate) recheck_space: bool,
    /// Somebody was told `Busy` because the next extent wasn't ready.
    pub(crate) waits_for_spare: bool,
    pub(crate) is_reporting: bool,
    /// Say what is durable, even if it was said before.
    pub(crate) must_report: bool,
    pub(crate) reported: Position,
    pub(crate) unchecked_bytes: u64,
    /// Names of files that are to be written over.
    pub(crate) free: Vec<String>,
    /// One failed; none is tried until more is dropped.
    pub(crate) rewrites_are_off: bool,
}

impl State {
    /// A number for an extent that is to be made.
    pub(crate) fn new_extent(&mut self) -> ExtentId {
        let id = self.next_extent;
        self.next_extent = ExtentId(id.0.saturating_add(1));
        id
    }
}

/// A worker's own description of the extent that it last wrote to: of a write-back error each
/// description is told once, so no two calls in flight may share one.
#[derive(Default)]
pub(crate) struct WorkerFile(Option<(ExtentId, Arc<dyn DiskFile>)>);

/// A written group whose sync is due.
pub(crate) struct Written {
    extent: ExtentId,
    covers: u32,
    pub(crate) file: Arc<dyn DiskFile>,
}

impl Shared {
    pub(crate) fn append(&self, entry: &Entry<'_>) -> Result<Position, StoreError> {
        // Patched and summed up before the lock: base offset and leader epoch lie in the first
        // 16 bytes of a record batch.
        let mut prefix;
        let payload = match (entry.leader_epoch, entry.payload.split_first_chunk::<16>()) {
            (Some(leader_epoch), Some((head, rest))) => {
                prefix = *head;
                for (to, from) in prefix.iter_mut().zip(entry.header.base_offset.to_be_bytes()) {
                    *to = from;
                }
                for (to, from) in prefix.iter_mut().skip(12).zip(leader_epoch.to_be_bytes()) {
                    *to = from;
                }
                [&prefix[..], rest]
            }
            _ => [&[][..], entry.payload],
        };
        let crc = crc32c::crc32c_append(crc32c::crc32c(payload[0]), payload[1]);
        let incoming = Incoming { header: &entry.header, payload, crc };

        let mut state = self.state.lock();
        if state.is_closing && state.core.failed().is_none() {
            return Err(StoreError::Failed("closed".to_owned()));
        }
        let placed = match state.core.append(&incoming) {
            Ok(placed) => placed,
            Err(error) => {
                match error {
                    StoreError::DiskFull => state.recheck_space = true,
                    StoreError::Busy if state.core.needs_spare() => state.waits_for_spare = true,
                    _ => return Err(error),
                }
                self.wake_keeper(&mut state);
                return Err(error);
            }
        };
        let header = &entry.header;
        let index_entry = IndexEntry {
            offset: header.base_offset,
            max_timestamp: header.max_timestamp,
            at: placed.at,
            payload_len: u32::try_from(entry.payload.len()).unwrap_or(u32::MAX),
            count: header.count,
            head_len: u16::try_from(format::head_len(header)).unwrap_or(u16::MAX),
            kind: header.kind,
        };
        let digest = header.digest.as_ref().map(|digest| &*digest.0);
        state.index.push(header.id, placed.extent, index_entry, digest);
        if let Some((id, end)) = placed.ended {
            state.ended.push_back((id, end));
            if let Some(extent) = state.index.extents.get_mut(&placed.extent) {
                extent.previous = Position::new(id, end);
            }
        }
        if state.core.needs_spare() {
            self.wake_keeper(&mut state);
        }
        self.wake_worker(&mut state);
        Ok(placed.position)
    }

    /// Wakes one idle worker, unless one is on its way: it will take everything.
    pub(crate) fn wake_worker(&self, state: &mut State) {
        if state.idle_workers > 0 && !state.is_waking {
            state.is_waking = self.work.notify_one();
        }
    }

    pub(crate) fn wake_keeper(&self, state: &mut State) {
        if !state.is_keeper_needed {
            state.is_keeper_needed = true;
            self.chores.notify_one();
        }
    }

    /// Writes a group. `None` if that failed: then the journal has.
    pub(crate) fn write(&self, group: &Group, files: &mut WorkerFile) -> Option<Written> {
        let extent = group.key.id;
        let written = files.get(&*self.disk, group.key).and_then(|file| {
            file.write_vectored_at(&group.parts(), u64::from(group.start)).map(|()| file)
        });
        match written {
            Ok(file) => {
                let covers = self.state.lock().core.written(group);
                Some(Written { extent, covers, file })
            }
            Err(error) => {
                self.fail(&format!("a write failed: {error}"));
                None
            }
        }
    }

    /// Syncs what was written, and reports what is durable.
    pub(crate) fn sync(&self, written: &Written) {
        match written.file.sync() {
            Ok(()) => self.finish(written),
            Err(error) => self.fail(&format!("a sync failed: {error}")),
        }
    }

    /// The sync succeeded.
    pub(crate) fn finish(&self, written: &Written) {
        let mut state = self.state.lock();
        let progressed = state.core.synced(written.extent, written.covers);
        if state.ended.front().is_some_and(|(id, _)| state.core.is_past(*id)) {
            self.wake_keeper(&mut state);
        }
        if state.core.is_settled() {
            self.settled.notify_waiters();
        }
        if progressed && !state.is_reporting {
            self.report(state);
        }
    }

    /// Tells of all that became durable. One thread at a time, so positions only rise.
    fn report(&self, mut state: parking_lot::MutexGuard<'_, State>) {
        state.is_reporting = true;
        while state.core.durable() > state.reported || std::mem::take(&mut state.must_report) {
            let durable = state.core.durable();
            state.reported = durable;
            parking_lot::MutexGuard::unlocked(&mut state, || self.events.durable(durable));
        }
        state.is_reporting = false;
    }

    /// Says again what is durable, for those who wait for room.
    pub(crate) fn nudge(&self) {
        let mut state = self.state.lock();
        state.must_report = true;
        if !state.is_reporting {
            self.report(state);
        }
    }

    /// The journal has failed, for good: after a failed sync the kernel may have dropped what
    /// it should have written, and a second try would say Ok over a hole.
    pub(crate) fn fail(&self, reason: &str) {
        let mut state = self.state.lock();
        let is_first = state.core.fail(reason.to_owned());
        self.settled.notify_waiters();
        drop(state);
        if is_first {
            tracing::error!(reason, "the journal failed; nothing is acknowledged any more");
            self.events.failed(reason);
        }
    }

    /// Counts what was written; looks at the free space now and then.
    pub(crate) fn count_written(&self, bytes: u64) {
        let mut state = self.state.lock();
        state.unchecked_bytes += bytes;
        if state.unchecked_bytes >= SPACE_CHECK_BYTES {
            state.unchecked_bytes = 0;
            drop(state);
            self.check_space();
        }
    }

    /// Asks the disk for its free space; returns whether there is enough to go on.
    pub(crate) fn check_space(&self) -> bool {
        let Ok(space) = self.disk.space() else { return true };
        let floor = self.floor(space.total);
        let is_full = space.free < floor;
        let mut state = self.state.lock();
        if is_full != state.core.is_full() {
            if is_full {
                tracing::warn!(free = space.free, floor, "the disk is full: appends are refused");
            } else {
                tracing::info!(free = space.free, "there is room again: appends are taken");
            }
        }
        self.set_full(&mut state, is_full);
        !is_full
    }

    /// Tells of it under the lock, so that what was told last is so.
    pub(crate) fn set_full(&self, state: &mut State, is_full: bool) {
        if state.core.is_full() != is_full {
            state.core.set_full(is_full);
            self.events.full(is_full);
        }
    }

    /// Whether so many bytes can be written on the side and enough is still free.
    pub(crate) fn has_room_for(&self, bytes: u64) -> bool {
        let Ok(space) = self.disk.space() else { return false };
        space.free.saturating_sub(bytes) >= self.floor(space.total)
    }

    /// With less free than this, appends are refused.
    fn floor(&self, total: u64) -> u64 {
        let share = total.saturating_mul(self.options.min_free_percent) / 100;
        self.options.min_free_bytes.max(share)
    }

    pub(crate) fn file(&self, key: ExtentKey, kind: ExtentKind) -> io::Result<Arc<dyn DiskFile>> {
        self.files.get(&*self.disk, key, kind)
    }

    /// The extent's key, if it is still there.
    pub(crate) fn extent(&self, id: ExtentId) -> Option<Extent> {
        self.state.lock().index.extents.get(&id).cloned()
    }
}

impl WorkerFile {
    fn get(&mut self, disk: &dyn Disk, key: ExtentKey) -> io::Result<Arc<dyn DiskFile>> {
        if let Some((id, file)) = &self.0
            && *id == key.id
        {
            return Ok(Arc::clone(file));
        }
        let file = disk.open(&key.file_name(ExtentKind::Journal))?;
        self.0 = Some((key.id, Arc::clone(&file)));
        Ok(file)
    }
}
