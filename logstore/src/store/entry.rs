//! One entry of a segment.

use crate::{AppendKey, KeyDigest, Offset};

use super::SegmentId;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A batch of records.
    Data = 0,
    /// A transaction's commit marker.
    Commit = 1,
    /// A transaction's abort marker.
    Abort = 2,
    /// A snapshot of the producer table; takes no offset.
    Snapshot = 3,
}

/// All of an entry but its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// The segment.
    pub id: SegmentId,
    /// What it is.
    pub kind: EntryKind,
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Offsets that it takes; 0 for a snapshot.
    pub count: u32,
    /// The largest timestamp of its records, milliseconds since 1970.
    pub max_timestamp: i64,
    /// The append key.
    pub key: Option<AppendKey>,
    /// The duplicate window that the producer declared.
    pub window: u16,
    /// What filtered reads skip by.
    pub digest: Option<KeyDigest>,
}

/// An entry on its way into the store.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its header.
    pub header: EntryHeader,
    /// Its payload: a RecordBatch v2, or a snapshot.
    pub payload: &'a [u8],
    /// Written over the first 16 bytes of the payload's copy: base offset (8 bytes) and, after
    /// the 4 length bytes, the leader epoch. `None` for a snapshot.
    pub leader_epoch: Option<u32>,
}
