//! The journal's head: where the next entry goes, what the next write takes, what is durable.
//!
//! No I/O and no clock; the store's threads (or a test) move it along:
//! `append … take → (write) → written → (sync) → synced`.

use std::collections::VecDeque;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::store::{EntryHeader, Position, StoreError};

use super::arena::Arena;
use super::format::{self, EXTENT_HEADER, GROUP_HEADER, GroupHeader};
use super::window::Window;
use super::{ExtentId, ExtentKey};

/// A group this large is not added to: another thread can write what comes next.
const MAX_GROUP: u32 = 4 << 20;
const ZEROS: [u8; format::ALIGN as usize] = [0; format::ALIGN as usize];

/// Sizes, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) extent: u32,
    pub(crate) chunk: usize,
    pub(crate) tail: usize,
    pub(crate) in_flight: u64,
}

#[derive(Debug)]
pub(crate) struct Core {
    sizes: Sizes,
    arena: Arena,
    window: Window,
    current: Option<Current>,
    spare: Option<ExtentKey>,
    /// An entry didn't fit into the current extent and found no spare one.
    is_spare_awaited: bool,
    /// The group that entries are added to.
    open: Option<OpenGroup>,
    /// Full groups that nobody has taken yet.
    ready: VecDeque<OpenGroup>,
    /// Groups taken and not durable: their ends and sizes.
    unsynced: VecDeque<(Position, u64)>,
    in_flight: u64,
    writers: usize,
    /// The end of the last group with entries.
    data_end: Position,
    /// The largest `synced` of a group that was taken.
    stated: Position,
    failed: Option<String>,
    is_full: bool,
}

#[derive(Debug)]
struct Current {
    key: ExtentKey,
    /// Where the next group starts.
    next: u32,
    previous: Position,
}

#[derive(Debug)]
struct OpenGroup {
    key: ExtentKey,
    start: u32,
    bytes: u32,
    previous: Position,
    pieces: SmallVec<[Bytes; 2]>,
}

/// A group on its way to the disk.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) key: ExtentKey,
    pub(crate) start: u32,
    pub(crate) end: u32,
    header: [u8; GROUP_HEADER as usize],
    pieces: SmallVec<[Bytes; 2]>,
    padding: usize,
}

/// Where an entry went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) extent: ExtentId,
    pub(crate) at: u32,
    /// Just past it: durable up to there means that it is durable.
    pub(crate) position: Position,
    /// The extent that ended, if this entry began another.
    pub(crate) ended: Option<(ExtentId, u32)>,
}

/// An entry on its way in; its checksum was made before any lock.
pub(crate) struct Incoming<'a> {
    pub(crate) header: &'a EntryHeader,
    /// The payload in two parts: what is patched, and the rest.
    pub(crate) payload: [&'a [u8]; 2],
    pub(crate) crc: u32,
}

impl Group {
    /// What is written, in order, at [`Group::start`].
    pub(crate) fn parts(&self) -> Vec<&[u8]> {
        let mut parts: Vec<&[u8]> = Vec::with_capacity(self.pieces.len() + 2);
        parts.push(&self.header);
        parts.extend(self.pieces.iter().map(|piece| piece.as_ref()));
        parts.push(ZEROS.get(..self.padding).unwrap_or_default());
        parts
    }

    pub(crate) fn len(&self) -> u64 {
        u64::from(self.end - self.start)
    }
}

impl Core {
    pub(crate) fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            arena: Arena::new(sizes.chunk, sizes.tail),
            window: Window::default(),
            current: None,
            spare: None,
            is_spare_awaited: false,
            open: None,
            ready: VecDeque::new(),
            unsynced: VecDeque::new(),
            in_flight: 0,
            writers: 0,
            data_end: Position::default(),
            stated: Position::default(),
            failed: None,
            is_full: false,
        }
    }

    /// The most payload bytes that an entry with this header may have.
    pub(crate) fn max_payload(&self, header: &EntryHeader) -> usize {
        let head = format::head_len(header);
        (self.sizes.extent.saturating_sub(EXTENT_HEADER + GROUP_HEADER) as usize)
            .saturating_sub(head)
    }

    /// Copies the entry into memory and fixes its place.
    ///
    /// # Errors
    /// Those of [`crate::store::EntryStore::append`]; nothing has changed then, but that
    /// [`Core::needs_spare`] may be true.
    pub(crate) fn append(&mut self, entry: &Incoming<'_>) -> Result<Placed, StoreError> {
        if let Some(reason) = &self.failed {
            return Err(StoreError::Failed(reason.clone()));
        }
        let [patched, rest] = entry.payload;
        let head = format::head_len(entry.header);
        let payload_len = patched.len() + rest.len();
        let max_bytes = self.max_payload(entry.header);
        if payload_len > max_bytes {
            return Err(StoreError::TooLarge { max_bytes });
        }
        if self.is_full {
            return Err(StoreError::DiskFull);
        }
        let size = head + payload_len;
        if self.in_flight > 0 && self.in_flight + size as u64 > self.sizes.in_flight {
            return Err(StoreError::Busy);
        }
        let too_large = StoreError::TooLarge { max_bytes };
        let size = u32::try_from(size).map_err(|_| too_large.clone())?;
        let len = u32::try_from(payload_len).map_err(|_| too_large)?;

        let ended = if self.fits_extent(size) { None } else { self.switch_extent()? };
        let Some(key) = self.current.as_ref().map(|current| current.key) else {
            return Err(StoreError::Busy);
        };
        if self.open.as_ref().is_some_and(|group| group.bytes >= MAX_GROUP) {
            self.close_group();
        }
        if !self.arena.fits(size as usize) {
            self.cut();
            self.arena.renew(size as usize);
        }
        let group = self.open_group()?;
        let at = group.start + GROUP_HEADER + group.bytes;
        group.bytes += size;
        let fill = |out: &mut [u8]| {
            format::encode_entry(out, entry.header, len, entry.crc, key, at);
        };
        self.arena.put(Position::new(key.id, at), head, fill, entry.payload);
        self.in_flight += u64::from(size);
        let position = Position::new(key.id, at + size);
        Ok(Placed { extent: key.id, at, position, ended })
    }

    fn fits_extent(&self, size: u32) -> bool {
        let at = match (&self.open, &self.current) {
            (Some(group), _) if group.bytes < MAX_GROUP => group.start + GROUP_HEADER + group.bytes,
            (Some(group), _) => {
                format::align(group.start + GROUP_HEADER + group.bytes) + GROUP_HEADER
            }
            (None, Some(current)) => current.next + GROUP_HEADER,
            (None, None) => return false,
        };
        at.checked_add(size).is_some_and(|end| end <= self.sizes.extent)
    }

    /// Goes on in the spare extent; returns where the one before ended.
    fn switch_extent(&mut self) -> Result<Option<(ExtentId, u32)>, StoreError> {
        let Some(key) = self.spare.take() else {
            self.is_spare_awaited = true;
            return Err(StoreError::Busy);
        };
        self.close_group();
        let ended = self.current.as_ref().map(|current| (current.key.id, current.next));
        let previous = ended.map_or_else(Position::default, |(id, end)| Position::new(id, end));
        if let Some((id, end)) = ended {
            self.window.close(id, end);
        }
        self.window.open(key.id, EXTENT_HEADER);
        self.current = Some(Current { key, next: EXTENT_HEADER, previous });
        Ok(ended)
    }

    fn open_group(&mut self) -> Result<&mut OpenGroup, StoreError> {
        let Some(current) = &self.current else { return Err(StoreError::Busy) };
        Ok(self.open.get_or_insert_with(|| OpenGroup {
            key: current.key,
            start: current.next,
            bytes: 0,
            previous: current.previous,
            pieces: SmallVec::new(),
        }))
    }

    fn cut(&mut self) {
        if let Some(piece) = self.arena.cut()
            && let Some(group) = &mut self.open
        {
            group.pieces.push(piece);
        }
    }

    /// Nothing more is added to the open group.
    fn close_group(&mut self) {
        self.cut();
        if let Some(group) = self.open.take() {
            if let Some(current) = &mut self.current {
                current.next = format::align(group.start + GROUP_HEADER + group.bytes);
            }
            self.ready.push_back(group);
        }
    }

    /// Whether [`Core::take`] would return something.
    pub(crate) fn has_work(&self) -> bool {
        self.failed.is_none() && (self.open.is_some() || !self.ready.is_empty())
    }

    /// The next group to write: all that has arrived.
    pub(crate) fn take(&mut self) -> Option<Group> {
        if self.failed.is_some() {
            return None;
        }
        if self.ready.is_empty() {
            self.close_group();
        }
        let group = self.ready.pop_front()?;
        let group = self.seal(group);
        self.data_end = Position::new(group.key.id, group.end);
        Some(group)
    }

    /// Whether a group that only states what is synced should follow, because nothing else will
    /// state it and the journal is idle.
    pub(crate) fn wants_marker(&self) -> bool {
        self.writers == 0
            && self.failed.is_none()
            && !self.has_work()
            && self.stated < self.data_end
            && self.durable() >= self.data_end
            && self.current.as_ref().is_some_and(|c| c.next + format::ALIGN <= self.sizes.extent)
    }

    /// That group, if it is still wanted.
    pub(crate) fn take_marker(&mut self) -> Option<Group> {
        if !self.wants_marker() {
            return None;
        }
        let current = self.current.as_mut()?;
        let group = OpenGroup {
            key: current.key,
            start: current.next,
            bytes: 0,
            previous: current.previous,
            pieces: SmallVec::new(),
        };
        current.next += format::ALIGN;
        Some(self.seal(group))
    }

    fn seal(&mut self, group: OpenGroup) -> Group {
        let OpenGroup { key, start, bytes, previous, pieces } = group;
        let synced = self.durable();
        self.stated = self.stated.max(synced);
        self.writers += 1;
        let header = GroupHeader { bytes, synced, previous }.encode(key, start);
        let data_end = start + GROUP_HEADER + bytes;
        let end = format::align(data_end);
        self.unsynced.push_back((Position::new(key.id, end), u64::from(bytes)));
        Group { key, start, end, header, pieces, padding: (end - data_end) as usize }
    }

    /// The group is written. Returns what a sync of its extent covers that begins now.
    pub(crate) fn written(&mut self, group: &Group) -> u32 {
        self.window.written(group.key.id, group.start, group.end)
    }

    /// That sync succeeded. Returns whether more is durable than before.
    pub(crate) fn synced(&mut self, extent: ExtentId, covers: u32) -> bool {
        if self.failed.is_some() {
            // No result counts any more: another call may have failed over the same pages.
            return false;
        }
        self.writers -= 1;
        let before = self.durable();
        self.window.synced(extent, covers);
        let durable = self.durable();
        while let Some((end, bytes)) = self.unsynced.front()
            && *end <= durable
        {
            self.in_flight -= bytes;
            self.unsynced.pop_front();
        }
        self.arena.evict(durable);
        durable > before
    }

    /// Everything below is durable.
    pub(crate) fn durable(&self) -> Position {
        self.window.durable().unwrap_or_default()
    }

    /// Everything that was appended is durable.
    pub(crate) fn is_settled(&self) -> bool {
        self.failed.is_some() || (!self.has_work() && self.unsynced.is_empty())
    }

    pub(crate) fn is_past(&self, extent: ExtentId) -> bool {
        self.window.is_past(extent)
    }

    /// The bytes at a place, if they are in memory.
    pub(crate) fn get(&mut self, extent: ExtentId, at: u32, len: usize) -> Option<Bytes> {
        let at = Position::new(extent, at);
        if self.arena.is_open(at) {
            self.cut();
        }
        self.arena.get(at, len)
    }

    /// Nothing is taken, written or acknowledged any more. The first reason stays.
    pub(crate) fn fail(&mut self, reason: String) -> bool {
        let first = self.failed.is_none();
        self.failed.get_or_insert(reason);
        first
    }

    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.is_full
    }

    pub(crate) fn set_full(&mut self, is_full: bool) {
        self.is_full = is_full;
    }

    /// Whether it is time to prepare the next extent: there is none, and the current one is
    /// half full, or an entry was refused that needs more than is left of it.
    pub(crate) fn needs_spare(&self) -> bool {
        let used = match (&self.open, &self.current) {
            (Some(group), _) => group.start.saturating_add(group.bytes),
            (None, Some(current)) => current.next,
            (None, None) => u32::MAX,
        };
        let is_wanted = self.is_spare_awaited || used > self.sizes.extent / 2;
        self.spare.is_none() && self.failed.is_none() && is_wanted
    }

    /// An empty, durable extent to go on in.
    pub(crate) fn set_spare(&mut self, key: ExtentKey) {
        self.spare = Some(key);
        self.is_spare_awaited = false;
        if self.current.is_none() {
            // Without one to leave, switching cannot fail.
            let _ = self.switch_extent();
        }
    }

    /// Ends writing: the current extent and its end, and the spare one.
    pub(crate) fn retire(&mut self) -> (Option<(ExtentId, u32)>, Option<ExtentKey>) {
        let current = self.current.take().map(|current| (current.key.id, current.next));
        (current, self.spare.take())
    }
}

#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;
