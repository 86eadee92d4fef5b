//! A store of entries in memory, whose journal goes on only when the test says so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use interflow_meta::LogId;
use parking_lot::Mutex;

use crate::store::{
    Entry, EntryHeader, EntryKind, EntryStore, FoundSegment, Position, SegmentId, SegmentRead,
    SegmentReadOutcome, StoreError, StoreEvents,
};
use crate::{AppendKind, Offset, Progress, StoredBatch};

#[derive(Clone)]
struct Stored {
    position: u64,
    header: EntryHeader,
    payload: Bytes,
    /// It was flipped, and its checksum says so.
    is_bad: bool,
}

#[derive(Default)]
struct Contents {
    segments: BTreeMap<SegmentId, Vec<Stored>>,
    next_position: u64,
    durable: Option<u64>,
    refuse: Option<StoreError>,
    damaged: BTreeMap<SegmentId, Vec<std::ops::Range<Offset>>>,
    dropped: Vec<SegmentId>,
    bad_snapshots: BTreeSet<SegmentId>,
    lives: BTreeMap<LogId, Duration>,
}

pub(super) struct MemStore {
    contents: Mutex<Contents>,
    events: Arc<Progress>,
    /// Everything is durable soon after it was appended.
    is_eager: AtomicBool,
    /// What the start is to say about what it could not read.
    may_lack: AtomicBool,
    this: Weak<Self>,
}

impl MemStore {
    pub(super) fn new(events: &Arc<Progress>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            contents: Mutex::default(),
            events: Arc::clone(events),
            is_eager: AtomicBool::new(false),
            may_lack: AtomicBool::new(false),
            this: this.clone(),
        })
    }

    pub(super) fn eager(&self, is_eager: bool) {
        self.is_eager.store(is_eager, Ordering::SeqCst);
    }

    /// Everything that was appended is durable now.
    pub(super) fn sync(&self) {
        let position = {
            let mut contents = self.contents.lock();
            contents.durable = contents.next_position.checked_sub(1);
            contents.durable
        };
        if let Some(position) = position {
            self.events.durable(Position(position));
        }
    }

    /// The first `count` entries that aren't durable become so.
    pub(super) fn sync_some(&self, count: u64) {
        let position = {
            let mut contents = self.contents.lock();
            let next = contents.durable.map_or(0, |durable| durable + 1) + count;
            contents.durable = next.min(contents.next_position).checked_sub(1);
            contents.durable
        };
        if let Some(position) = position {
            self.events.durable(Position(position));
        }
    }

    pub(super) fn fail(&self) {
        self.contents.lock().refuse = Some(StoreError::Failed("a test".to_owned()));
        self.events.failed("a test");
    }

    /// The disk is full, or isn't any more.
    pub(super) fn fill(&self, is_full: bool) {
        self.contents.lock().refuse = is_full.then_some(StoreError::DiskFull);
        self.events.full(is_full);
    }

    pub(super) fn refuse(&self, error: Option<StoreError>) {
        self.contents.lock().refuse = error;
    }

    pub(super) fn damage(&self, id: SegmentId, range: std::ops::Range<Offset>) {
        self.contents.lock().damaged.entry(id).or_default().push(range);
    }

    /// A bit of the entry at `offset` is another from now on; whether or not its checksum says so,
    /// nobody knows before it is read.
    pub(super) fn flip(&self, id: SegmentId, offset: Offset, is_noticed: bool) {
        let mut contents = self.contents.lock();
        let entries = contents.segments.get_mut(&id).expect("it is there");
        let entry = entries.iter_mut().find(|entry| end(&entry.header) > offset).expect("an entry");
        let mut payload = entry.payload.to_vec();
        *payload.last_mut().expect("not empty") ^= 4;
        entry.payload = payload.into();
        entry.is_bad = is_noticed;
    }

    pub(super) fn lack_segments(&self) {
        self.may_lack.store(true, Ordering::SeqCst);
    }

    /// The segment's first entry is gone.
    pub(super) fn lose_first(&self, id: SegmentId) {
        self.contents.lock().segments.get_mut(&id).expect("it is there").remove(0);
    }

    /// The segment is gone, as if the disk didn't give it back.
    pub(super) fn lose(&self, id: SegmentId) {
        self.contents.lock().segments.remove(&id);
    }

    /// The segment's last snapshot is damaged from now on.
    pub(super) fn damage_snapshot(&self, id: SegmentId) {
        self.contents.lock().bad_snapshots.insert(id);
    }

    pub(super) fn unsynced(&self) -> u64 {
        let contents = self.contents.lock();
        contents.next_position - contents.durable.map_or(0, |durable| durable + 1)
    }

    /// Whether the durable entry with offsets that begins at `offset` is `payload`.
    pub(super) fn has_durable(&self, id: SegmentId, offset: Offset, payload: &[u8]) -> bool {
        let contents = self.contents.lock();
        let durable = contents.durable.map_or(0, |durable| durable + 1);
        let Some(entries) = contents.segments.get(&id) else { return false };
        let from = entries.partition_point(|entry| entry.header.base_offset < offset);
        entries[from..].iter().find(|entry| entry.header.count > 0).is_some_and(|entry| {
            entry.header.base_offset == offset
                && entry.position < durable
                && entry.payload[16..] == payload[16..]
        })
    }

    /// One past the last offset of a segment that is durable.
    pub(super) fn durable_end(&self, id: SegmentId) -> Offset {
        let contents = self.contents.lock();
        let durable = contents.durable.map_or(0, |durable| durable + 1);
        let entries = contents.segments.get(&id).into_iter().flatten();
        entries
            .take_while(|entry| entry.position < durable)
            .last()
            .map_or(0, |entry| end(&entry.header))
    }

    pub(super) fn life(&self, log: LogId) -> Option<Duration> {
        self.contents.lock().lives.get(&log).copied()
    }

    pub(super) fn dropped(&self) -> Vec<SegmentId> {
        self.contents.lock().dropped.clone()
    }

    /// What a restart finds after a crash that kept `extra` entries that weren't reported durable.
    pub(super) fn crash(&self, extra: u64, events: &Arc<Progress>) -> Arc<Self> {
        let contents = self.contents.lock();
        let kept = contents.durable.map_or(0, |durable| durable + 1) + extra;
        let mut next = Contents { damaged: contents.damaged.clone(), ..Contents::default() };
        for (id, entries) in &contents.segments {
            let entries: Vec<_> =
                entries.iter().filter(|entry| entry.position < kept).cloned().collect();
            if !entries.is_empty() {
                next.segments.insert(*id, entries);
            }
        }
        next.next_position = contents.next_position;
        next.durable = contents.next_position.checked_sub(1);
        Arc::new_cyclic(|this| Self {
            contents: Mutex::new(next),
            events: Arc::clone(events),
            is_eager: AtomicBool::new(self.is_eager.load(Ordering::SeqCst)),
            may_lack: AtomicBool::new(false),
            this: this.clone(),
        })
    }
}

fn end(header: &EntryHeader) -> Offset {
    header.base_offset + u64::from(header.count)
}

fn found(contents: &Contents, id: SegmentId) -> Option<FoundSegment> {
    let entries = contents.segments.get(&id)?;
    let data = || entries.iter().filter(|entry| entry.header.count > 0);
    let newest =
        data().max_by_key(|entry| (entry.header.max_timestamp, std::cmp::Reverse(entry.position)));
    Some(FoundSegment {
        id,
        start: entries.first()?.header.base_offset,
        end: end(&entries.last()?.header),
        bytes: data().map(|entry| entry.payload.len() as u64).sum(),
        max_timestamp: newest.map_or(i64::MIN, |entry| entry.header.max_timestamp),
        max_timestamp_offset: newest.map_or(0, |entry| entry.header.base_offset),
        damaged: contents.damaged.get(&id).cloned().unwrap_or_default(),
    })
}

#[async_trait]
impl EntryStore for MemStore {
    fn append(&self, entry: &Entry<'_>) -> Result<Position, StoreError> {
        let position = {
            let mut contents = self.contents.lock();
            if let Some(error) = &contents.refuse {
                return Err(error.clone());
            }
            let position = contents.next_position;
            contents.next_position += 1;
            let mut payload = entry.payload.to_vec();
            if let Some(leader_epoch) = entry.leader_epoch {
                payload[..8].copy_from_slice(&entry.header.base_offset.to_be_bytes());
                payload[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
            }
            let entries = contents.segments.entry(entry.header.id).or_default();
            if let Some(last) = entries.last() {
                assert_eq!(end(&last.header), entry.header.base_offset, "a hole in a segment (I6)");
            }
            entries.push(Stored {
                position,
                header: entry.header.clone(),
                payload: payload.into(),
                is_bad: false,
            });
            Position(position)
        };
        if self.is_eager.load(Ordering::SeqCst) {
            // Never from within the call: the log's lock is held.
            let this = self.this.clone();
            tokio::spawn(async move { this.upgrade().map(|store| store.sync()) });
        }
        Ok(position)
    }

    fn try_read(&self, read: &SegmentRead) -> Option<Result<SegmentReadOutcome, StoreError>> {
        let mut contents = self.contents.lock();
        let bad = contents.segments.get(&read.id).into_iter().flatten().find(|entry| {
            let header = &entry.header;
            entry.is_bad && end(header) > read.offset && header.base_offset < read.end
        });
        if let Some(bad) = bad {
            let range = bad.header.base_offset..end(&bad.header);
            let damaged = contents.damaged.entry(read.id).or_default();
            if !damaged.contains(&range) {
                damaged.push(range);
            }
        }
        if let Some(range) = contents
            .damaged
            .get(&read.id)
            .into_iter()
            .flatten()
            .find(|range| range.contains(&read.offset))
        {
            return Some(Err(StoreError::Damaged(range.clone())));
        }
        let mut outcome = SegmentReadOutcome { batches: Vec::new(), next_offset: read.offset };
        let mut bytes = 0;
        for entry in contents.segments.get(&read.id).into_iter().flatten() {
            let header = &entry.header;
            if header.count == 0 || end(header) <= read.offset || header.base_offset >= read.end {
                continue;
            }
            let is_match = match (&read.filter, &header.digest) {
                (Some(filter), Some(digest)) => filter.iter().any(|hash| digest.0.contains(hash)),
                _ => true,
            };
            if is_match {
                if bytes > 0 && bytes + entry.payload.len() > read.max_bytes {
                    break;
                }
                bytes += entry.payload.len();
                outcome.batches.push(StoredBatch {
                    base_offset: header.base_offset,
                    count: header.count,
                    max_timestamp: header.max_timestamp,
                    kind: match header.kind {
                        EntryKind::Commit => AppendKind::Commit,
                        EntryKind::Abort => AppendKind::Abort,
                        EntryKind::Data | EntryKind::Snapshot => AppendKind::Data,
                    },
                    key: header.key,
                    bytes: entry.payload.clone(),
                });
            }
            outcome.next_offset = end(header);
        }
        Some(Ok(outcome))
    }

    async fn read(&self, read: SegmentRead) -> Result<SegmentReadOutcome, StoreError> {
        self.try_read(&read).expect("always ready")
    }

    async fn headers(
        &self,
        id: SegmentId,
        from: Offset,
    ) -> Result<Vec<(EntryHeader, Option<Bytes>)>, StoreError> {
        let contents = self.contents.lock();
        Ok(contents
            .segments
            .get(&id)
            .into_iter()
            .flatten()
            .filter(|entry| end(&entry.header) > from || entry.header.base_offset >= from)
            .map(|entry| {
                let payload = (entry.header.count == 0).then(|| entry.payload.clone());
                (entry.header.clone(), payload)
            })
            .collect())
    }

    async fn last_snapshot(
        &self,
        id: SegmentId,
    ) -> Result<Option<(EntryHeader, Bytes)>, StoreError> {
        let contents = self.contents.lock();
        if contents.bad_snapshots.contains(&id) {
            return Err(StoreError::Damaged(0..0));
        }
        let snapshot = contents.segments.get(&id).and_then(|entries| {
            entries.iter().rev().find(|entry| entry.header.kind == EntryKind::Snapshot)
        });
        Ok(snapshot.map(|entry| (entry.header.clone(), entry.payload.clone())))
    }

    async fn seek_time(
        &self,
        id: SegmentId,
        timestamp: i64,
        limit: Offset,
    ) -> Result<Option<(Offset, i64)>, StoreError> {
        let contents = self.contents.lock();
        Ok(contents
            .segments
            .get(&id)
            .into_iter()
            .flatten()
            .map(|entry| &entry.header)
            .find(|header| {
                header.count > 0 && header.base_offset < limit && header.max_timestamp >= timestamp
            })
            .map(|header| (header.base_offset, header.max_timestamp)))
    }

    fn segment(&self, id: SegmentId) -> Option<FoundSegment> {
        found(&self.contents.lock(), id)
    }

    fn segments_of(&self, log: LogId) -> Vec<FoundSegment> {
        self.segments().into_iter().filter(|found| found.id.log == log).collect()
    }

    fn segments(&self) -> Vec<FoundSegment> {
        let contents = self.contents.lock();
        contents.segments.keys().filter_map(|id| found(&contents, *id)).collect()
    }

    fn may_lack_segments(&self) -> bool {
        self.may_lack.load(Ordering::SeqCst)
    }

    fn close_segment(&self, _id: SegmentId) {}

    fn drop_segment(&self, id: SegmentId) {
        let mut contents = self.contents.lock();
        contents.segments.remove(&id);
        contents.damaged.remove(&id);
        contents.dropped.push(id);
    }

    fn expect_lives(&self, lives: &[(LogId, Option<Duration>)]) {
        let mut contents = self.contents.lock();
        for (log, life) in lives.iter().copied() {
            match life {
                Some(life) => contents.lives.insert(log, life),
                None => contents.lives.remove(&log),
            };
        }
    }

    fn knows_life(&self, log: LogId) -> bool {
        self.contents.lock().lives.contains_key(&log)
    }

    fn look_for_room(&self) {}

    async fn close(&self) {
        self.sync();
        self.contents.lock().refuse = Some(StoreError::Failed("closed".to_owned()));
    }
}
