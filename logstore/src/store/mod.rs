//! Where entries are kept: the contract between the logs above and the journal below.
//!
//! ```text
//!   logs (chain, sequencer, producers, reads) ──► EntryStore ──► journal, extents, index, disk
//! ```
//!
//! The store knows entries of segments, in order; it knows nothing of commits, producers or
//! what lives: the chain in meta says which segments exist, and the store is told.

mod ahead;
mod buffers;
mod close;
mod copying;
mod entry;
mod files;
mod flights;
mod index;
mod journal_store;
pub(crate) mod keeper;
mod lives;
mod open;
mod options;
mod pace;
mod plan;
mod read;
mod recycle;
mod rewrite;
pub(crate) mod shared;
mod streams;
mod survey;
#[cfg(test)]
mod tests;
mod victims;
mod worker;

pub use entry::{Entry, EntryHeader, EntryKind};
pub use journal_store::JournalStore;
pub use open::OpenError;
pub use options::Options;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{Epoch, LogId, Offset, StoredBatch};

/// A place in the journal. Later entries have larger positions; a restart begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

/// A segment replica's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId {
    /// The log.
    pub log: LogId,
    /// The segment's number in it.
    pub epoch: Epoch,
}

/// Why the store refused an entry or a read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum StoreError {
    /// Free space is below the floor; reads go on, and so does writing once there is space.
    #[error("the disk is full")]
    DiskFull,
    /// The memory for entries not yet written is used up; wait for the next [`StoreEvents::durable`].
    #[error("too much is in flight")]
    Busy,
    /// A write or a sync failed, or the store was closed: it never takes an entry again.
    #[error("the journal failed: {0}")]
    Failed(String),
    /// The entry is larger than an extent takes.
    #[error("the entry is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit of payload bytes.
        max_bytes: usize,
    },
    /// These offsets are damaged.
    #[error("offsets {0:?} are damaged")]
    Damaged(Range<Offset>),
    /// The disk could not be read.
    #[error("could not read: {0}")]
    Io(String),
}

/// Is told of the journal's progress, on the thread that made it: must not block.
pub trait StoreEvents: Send + Sync {
    /// Every entry up to and including `position` is durable. Positions never fall; the same one
    /// again says that there is room again after [`StoreError::Busy`]. Never called from within
    /// [`EntryStore::append`].
    fn durable(&self, position: Position);
    /// The journal failed for good: what was not reported durable never will be.
    fn failed(&self, reason: &str);
    /// Entries are refused from now on since the disk is full ([`StoreError::DiskFull`]), or are taken again.
    fn full(&self, _is_full: bool) {}
}

/// What a start found of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundSegment {
    /// Which segment.
    pub id: SegmentId,
    /// The offset of its first entry here.
    pub start: Offset,
    /// One past its last offset here.
    pub end: Offset,
    /// Payload bytes.
    pub bytes: u64,
    /// The largest timestamp; `i64::MIN` without any.
    pub max_timestamp: i64,
    /// The base offset of the first batch that has it.
    pub max_timestamp_offset: Offset,
    /// Offsets that are lost to damage, ascending. A range that ends at `Offset::MAX` says that
    /// entries past [`FoundSegment::end`] may have been lost and it is not known how many.
    pub damaged: Vec<Range<Offset>>,
}

/// A read of one segment.
#[derive(Clone, Debug)]
pub struct SegmentRead {
    /// Which segment.
    pub id: SegmentId,
    /// Begin with the entry that holds this offset.
    pub offset: Offset,
    /// Entries at or past this offset are not returned.
    pub end: Offset,
    /// Stop before the entry that would pass this many payload bytes; the first comes anyway.
    pub max_bytes: usize,
    /// Skip entries whose digest has none of these hashes (sorted).
    pub filter: Option<Arc<[u32]>>,
}

/// What a segment read found.
#[derive(Clone, Debug, Default)]
pub struct SegmentReadOutcome {
    /// Data and marker entries in offset order (never entries that take no offset).
    pub batches: Vec<StoredBatch>,
    /// Where to go on: past the last batch and past what was skipped.
    pub next_offset: Offset,
}

/// A store of entries.
#[async_trait]
pub trait EntryStore: Send + Sync + 'static {
    /// Copies the entry into the journal's memory and fixes its position; it is written and
    /// synced in the background, and [`StoreEvents::durable`] tells when. Entries of one
    /// segment must come in offset order. Never blocks on the disk.
    ///
    /// # Errors
    /// Nothing is kept on an error.
    fn append(&self, entry: &Entry<'_>) -> Result<Position, StoreError>;

    /// Reads without waiting for the disk: from memory, or from the page cache where the
    /// kernel can say so. `None` if that needs the disk: then use [`EntryStore::read`].
    /// Entries can be read as soon as they were appended; the caller bounds `end`.
    fn try_read(&self, read: &SegmentRead) -> Option<Result<SegmentReadOutcome, StoreError>>;

    /// Reads, waiting for the disk where needed.
    async fn read(&self, read: SegmentRead) -> Result<SegmentReadOutcome, StoreError>;

    /// The headers of a segment's entries from offset `from` on, in journal order, entries that
    /// take no offset (snapshots) with their payload.
    async fn headers(
        &self,
        id: SegmentId,
        from: Offset,
    ) -> Result<Vec<(EntryHeader, Option<bytes::Bytes>)>, StoreError>;

    /// Entries of a segment in journal order, as they are stored: from the one that holds offset
    /// `from`, snapshots at `from` among them, to those before `until` and a snapshot there. Stops
    /// when `max_bytes` are passed. Says whether these are all.
    async fn entries(
        &self,
        id: SegmentId,
        from: Offset,
        until: Offset,
        max_bytes: u64,
    ) -> Result<(Vec<(EntryHeader, bytes::Bytes)>, bool), StoreError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for (header, snapshot) in self.headers(id, from).await? {
            let offset = header.base_offset;
            if offset >= until && (offset > until || snapshot.is_none()) {
                return Ok((entries, true));
            }
            if bytes >= max_bytes {
                return Ok((entries, false));
            }
            let payload = match snapshot {
                Some(payload) => payload,
                None => {
                    let end = offset.saturating_add(u64::from(header.count));
                    let read = SegmentRead { id, offset, end, max_bytes: 1, filter: None };
                    let batch = self.read(read).await?.batches.into_iter().next();
                    batch.ok_or(StoreError::Damaged(offset..end))?.bytes
                }
            };
            bytes += payload.len() as u64;
            entries.push((header, payload));
        }
        Ok((entries, true))
    }

    /// The last entry of the segment that takes no offset (a producer snapshot): its header and
    /// payload.
    async fn last_snapshot(
        &self,
        id: SegmentId,
    ) -> Result<Option<(EntryHeader, bytes::Bytes)>, StoreError>;

    /// The first data entry of the segment, below `end`, whose largest timestamp is at or after
    /// `timestamp`: its base offset and largest timestamp.
    async fn seek_time(
        &self,
        id: SegmentId,
        timestamp: i64,
        end: Offset,
    ) -> Result<Option<(Offset, i64)>, StoreError>;

    /// What is known of a segment; `None` if nothing of it is here.
    fn segment(&self, id: SegmentId) -> Option<FoundSegment>;

    /// All segments that are here.
    fn segments(&self) -> Vec<FoundSegment>;

    /// Those of one log, by their epoch.
    fn segments_of(&self, log: LogId) -> Vec<FoundSegment>;

    /// Whether the start found that the disk doesn't give back entries of which it isn't known
    /// whose they were: a segment that isn't here may have had some that were reported durable.
    fn may_lack_segments(&self) -> bool;

    /// The segment takes no more entries.
    fn close_segment(&self, id: SegmentId);

    /// The segment is not needed any more (deleted, or wholly below the trim offset): its space
    /// is freed in the background. Idempotent. After a restart the caller drops it again if it
    /// is still found: that is how a drop survives a crash.
    fn drop_segment(&self, id: SegmentId);

    /// Says how long segments of logs are likely to be kept after their newest record:
    /// `Duration::MAX` for ever; `None` if nothing is known, or not any more, which is also where
    /// every log begins. A hint: nothing is dropped because of it. What lives equally long is
    /// put together, and what lives long is put in order, see
    /// [`Options::rewrite_min_life`].
    fn expect_lives(&self, lives: &[(LogId, Option<Duration>)]);

    /// [`EntryStore::expect_lives`] of one.
    fn expect_life(&self, log: LogId, life: Option<Duration>) {
        self.expect_lives(&[(log, life)]);
    }

    /// Whether it was said how long segments of a log are likely to be kept.
    fn knows_life(&self, log: LogId) -> bool;

    /// While the disk is full: looks soon whether there is room again, which [`StoreEvents::full`] tells.
    fn look_for_room(&self);

    /// Writes and syncs all that was appended, then refuses entries. Resolves when done: all that
    /// is durable was told of, and another store may be opened over the same disk.
    async fn close(&self);
}
