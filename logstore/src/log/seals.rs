//! The seals of this node, kept in its journal: segments that take no more from a sequencer, for
//! ever (I9).
//!
//! The set is written whole, as an entry of a log that no gateway knows: the newest entry is the
//! set. Entries are numbered, one offset each, so that a lost one shows as a gap. Seals that come
//! while one is being written share the next.

use std::collections::BTreeSet;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use interflow_meta::{Epoch, LogId, Offset};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::service::Inner;
use crate::store::{Entry, EntryHeader, EntryKind, EntryStore, SegmentId, StoreError};

/// The log that seals are kept in.
pub(super) const SEALS: LogId = LogId(u64::MAX);
/// The version that is written.
const VERSION: u8 = 1;
/// A segment of the log is left for the next one after so many entries.
const MAX_ENTRIES: Offset = 1_000;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Seals {
    book: Mutex<Book>,
    /// A flush has ended.
    flushed: Notify,
}

#[derive(Debug)]
struct Book {
    sealed: BTreeSet<SegmentId>,
    /// How often the set was changed, and which of its versions is durable.
    version: u64,
    durable: u64,
    is_flushing: bool,
    epoch: Epoch,
    next: Offset,
    /// The set could not be read at the start: nobody knows what was sealed.
    is_lost: bool,
}

impl Seals {
    /// The seals that `store` has.
    ///
    /// # Errors
    /// The store's own.
    pub(super) async fn load(store: &dyn EntryStore) -> Result<Self, StoreError> {
        let segments = store.segments();
        let mut own: Vec<_> = segments.iter().filter(|found| found.id.log == SEALS).collect();
        own.sort_by_key(|found| found.id.epoch);
        let mut book = Book { is_lost: store.may_lack_segments(), ..Book::default() };
        if let Some(last) = own.last() {
            book.epoch = Epoch(last.id.epoch.0.saturating_add(1));
            match store.last_snapshot(last.id).await {
                Ok(Some((header, payload)))
                    if last.damaged.is_empty()
                        && header.base_offset.saturating_add(1) == last.end =>
                {
                    match decode(&payload) {
                        Some(sealed) => book.sealed = sealed,
                        None => book.is_lost = true,
                    }
                }
                Ok(_) | Err(StoreError::Damaged(_)) => book.is_lost = true,
                Err(error) => return Err(error),
            }
        }
        // What was read is written again before what it was read from goes.
        book.version = u64::from(!book.sealed.is_empty());
        Ok(Self { book: Mutex::new(book), flushed: Notify::new() })
    }

    /// Whether the segment is sealed here, and that is durable or was asked for.
    pub(super) fn has(&self, id: SegmentId) -> bool {
        self.book.lock().sealed.contains(&id)
    }

    /// Whether it isn't known what was sealed before this start.
    pub(super) fn is_lost(&self) -> bool {
        self.book.lock().is_lost
    }

    /// Seals a segment; when this returns, that is durable.
    ///
    /// # Errors
    /// The journal failed or is closed.
    pub(super) async fn seal(&self, inner: &Inner, id: SegmentId) -> Result<(), StoreError> {
        let version = {
            let mut book = self.book.lock();
            if book.sealed.insert(id) {
                book.version += 1;
            }
            book.version
        };
        self.flush(inner, version).await
    }

    /// Forgets seals of segments that meta has closed: who asks for one of them is told so.
    pub(super) fn forget(&self, ids: &[SegmentId]) {
        let mut book = self.book.lock();
        let before = book.sealed.len();
        for id in ids {
            book.sealed.remove(id);
        }
        // Written with the next seal.
        book.version += u64::from(book.sealed.len() != before);
    }

    async fn flush(&self, inner: &Inner, version: u64) -> Result<(), StoreError> {
        loop {
            let flushed = self.flushed.notified();
            tokio::pin!(flushed);
            flushed.as_mut().enable();
            let turn = {
                let mut book = self.book.lock();
                if book.durable >= version {
                    return Ok(());
                }
                let is_mine = !std::mem::replace(&mut book.is_flushing, true);
                is_mine.then(|| book.next_entry())
            };
            let Some((id, offset, payload, writing)) = turn else {
                flushed.await;
                continue;
            };
            let written = write(inner, id, offset, &payload).await;
            {
                let mut book = self.book.lock();
                book.is_flushing = false;
                if written.is_err() && book.next == offset + 1 {
                    // No entry has this number. (Where the journal failed nothing follows.)
                    book.next = offset;
                }
                if written.is_ok() {
                    book.durable = book.durable.max(writing);
                }
            }
            self.flushed.notify_waiters();
            written?;
            if offset == 0 {
                drop_others(inner, id);
            }
        }
    }
}

impl Default for Book {
    fn default() -> Self {
        Self {
            sealed: BTreeSet::new(),
            version: 0,
            durable: 0,
            is_flushing: false,
            epoch: Epoch(0),
            next: 0,
            is_lost: false,
        }
    }
}

impl Book {
    /// Where the set as it is now is to be written, and its version.
    fn next_entry(&mut self) -> (SegmentId, Offset, Bytes, u64) {
        if self.next >= MAX_ENTRIES {
            self.epoch = Epoch(self.epoch.0.saturating_add(1));
            self.next = 0;
        }
        let offset = self.next;
        self.next += 1;
        (SegmentId { log: SEALS, epoch: self.epoch }, offset, encode(&self.sealed), self.version)
    }
}

/// Writes an entry, waiting for room, and until it is durable.
async fn write(
    inner: &Inner,
    id: SegmentId,
    offset: Offset,
    payload: &Bytes,
) -> Result<(), StoreError> {
    let header = EntryHeader {
        id,
        kind: EntryKind::Snapshot,
        base_offset: offset,
        count: 1,
        max_timestamp: inner.clock.wall_ms(),
        key: None,
        window: 0,
        digest: None,
    };
    let entry = Entry { header, payload, leader_epoch: None };
    loop {
        let reported = inner.progress.next_report();
        match inner.store.append(&entry) {
            Ok(position) => {
                inner.progress.appended(position);
                return inner.progress.wait_durable(position).await;
            }
            Err(StoreError::Busy) => reported.await,
            Err(error) => return Err(error),
        }
    }
}

/// Earlier segments of the seals are not needed any more.
fn drop_others(inner: &Inner, id: SegmentId) {
    for found in inner.store.segments_of(SEALS) {
        if found.id != id {
            inner.store.drop_segment(found.id);
        }
    }
}

/// `version u8 | { log u64 | epoch u32 }*`, big-endian; the entry has a checksum of its own.
fn encode(sealed: &BTreeSet<SegmentId>) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + sealed.len() * 12);
    out.put_u8(VERSION);
    for id in sealed {
        out.put_u64(id.log.0);
        out.put_u32(id.epoch.0);
    }
    out.freeze()
}

fn decode(payload: &Bytes) -> Option<BTreeSet<SegmentId>> {
    let mut bytes = payload.clone();
    if bytes.try_get_u8().ok()? != VERSION || !bytes.len().is_multiple_of(12) {
        return None;
    }
    let mut sealed = BTreeSet::new();
    while bytes.has_remaining() {
        let (log, epoch) = (LogId(bytes.get_u64()), Epoch(bytes.get_u32()));
        sealed.insert(SegmentId { log, epoch });
    }
    Some(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seals_come_back_as_they_were_and_others_are_refused() {
        let id = |log, epoch| SegmentId { log: LogId(log), epoch: Epoch(epoch) };
        for sealed in [vec![], vec![id(1, 2)], vec![id(7, 0), id(7, 1), id(u64::MAX - 1, 9)]] {
            let sealed: BTreeSet<_> = sealed.into_iter().collect();
            let bytes = encode(&sealed);
            assert_eq!(decode(&bytes), Some(sealed));
            assert_eq!(decode(&bytes.slice(..bytes.len() - 1)), None);
        }
        assert_eq!(decode(&Bytes::from_static(&[2])), None);
    }
}
