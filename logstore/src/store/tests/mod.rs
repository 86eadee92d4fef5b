//! The store over the fault disk, moved along step by step.

mod basics;
mod crashes;
mod damage;
mod interleaving;
mod reading;
mod recycling;
mod rewriting;
mod threads;
mod unreadable;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::ManualClock;
use crate::disk::{Disk, FaultDisk, FaultFolder};
use crate::{Epoch, LogId, Offset};

use super::read::{Wait, read};
use super::shared::WorkerFile;
use super::*;

/// Remembers what the store told of.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) durable: Mutex<Position>,
    pub(super) failed: Mutex<Option<String>>,
    /// How often it was told what is durable.
    pub(super) told: Mutex<u64>,
}

impl StoreEvents for Recorder {
    fn durable(&self, position: Position) {
        let mut last = self.durable.lock();
        assert!(position >= *last, "positions only rise");
        *last = position;
        *self.told.lock() += 1;
    }

    fn failed(&self, reason: &str) {
        let before = self.failed.lock().replace(reason.to_owned());
        assert_eq!(before, None, "told once");
    }
}

pub(super) struct Harness {
    pub(super) disk: FaultDisk,
    pub(super) folder: FaultFolder,
    pub(super) events: Arc<Recorder>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) store: JournalStore,
}

pub(super) fn options() -> Options {
    Options {
        extent_bytes: 32 << 10,
        sync_depth: 3,
        max_in_flight_bytes: 16 << 10,
        chunk_bytes: 4 << 10,
        tail_cache_bytes: 8 << 10,
        index_cache_bytes: 4 << 10,
        read_ahead_bytes: 4 << 10,
        max_read_ahead_bytes: 16 << 10,
        min_free_bytes: 0,
        min_free_percent: 0,
        rewrite_live_percent: 50,
        rewrite_scan_factor: 2,
        rewrite_min_life: Duration::from_secs(3600),
        rewrite_bytes_per_second: u64::MAX,
        recycled_extents: 0,
        idle_after: Duration::from_millis(1),
        seed: Some(1),
        threads: false,
    }
}

pub(super) fn segment(log: u64) -> SegmentId {
    SegmentId { log: LogId(log), epoch: Epoch(1) }
}

pub(super) fn header(log: u64, base_offset: Offset, count: u32) -> EntryHeader {
    EntryHeader {
        id: segment(log),
        kind: EntryKind::Data,
        base_offset,
        count,
        max_timestamp: i64::try_from(base_offset).unwrap(),
        key: None,
        window: 5,
        digest: None,
    }
}

pub(super) fn whole(log: u64) -> SegmentRead {
    SegmentRead {
        id: segment(log),
        offset: 0,
        end: Offset::MAX,
        max_bytes: usize::MAX,
        filter: None,
    }
}

impl Harness {
    pub(super) fn new() -> Self {
        Self::over(FaultDisk::new(), options())
    }

    pub(super) fn over(disk: FaultDisk, options: Options) -> Self {
        let folder = disk.folder("journal");
        let events = Arc::new(Recorder::default());
        let clock = Arc::new(ManualClock::new(0));
        let at = Arc::new(folder.clone());
        let store = JournalStore::open_with(at, options, events.clone(), clock.clone()).unwrap();
        Self { disk, folder, events, clock, store }
    }

    /// Cuts the power and starts anew.
    pub(super) fn crash(self, seed: u64) -> Self {
        let options = Options { seed: Some(seed), ..self.store.shared.options.clone() };
        self.disk.crash(seed);
        let disk = self.disk.clone();
        drop(self);
        Self::over(disk, options)
    }

    pub(super) fn append(
        &self,
        log: u64,
        offset: Offset,
        payload: &[u8],
    ) -> Result<Position, StoreError> {
        self.store.append(&Entry { header: header(log, offset, 1), payload, leader_epoch: None })
    }

    /// Appends, making room as long as there is none.
    pub(super) fn must_append(&self, log: u64, offset: Offset, payload: &[u8]) -> Position {
        loop {
            match self.append(log, offset, payload) {
                Ok(position) => return position,
                Err(StoreError::Busy) => self.settle(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Does all that there is to do.
    pub(super) fn settle(&self) {
        super::close::drain(&self.store.shared);
        self.keep();
    }

    pub(super) fn keep(&self) {
        while keeper::keep_one(&self.store.shared).is_some() {}
    }

    /// What an idle journal does once.
    pub(super) fn idle(&self) {
        let marker = self.store.shared.state.lock().core.take_marker();
        if let Some(group) = marker {
            let mut file = WorkerFile::default();
            let written = self.store.shared.write(&group, &mut file).unwrap();
            self.store.shared.sync(&written);
        }
    }

    pub(super) fn read(&self, wanted: &SegmentRead) -> Result<SegmentReadOutcome, StoreError> {
        read(&self.store.shared, wanted, Wait::Yes).unwrap()
    }

    /// All payloads of a log that can be read.
    pub(super) fn payloads(&self, log: u64) -> Vec<Bytes> {
        let mut wanted = whole(log);
        wanted.offset = self.store.segment(segment(log)).map_or(0, |found| found.start);
        let mut all = Vec::new();
        loop {
            wanted.max_bytes = 3000;
            let outcome = self.read(&wanted).unwrap();
            if outcome.batches.is_empty() {
                return all;
            }
            assert!(outcome.next_offset > wanted.offset);
            wanted.offset = outcome.next_offset;
            all.extend(outcome.batches.into_iter().map(|batch| batch.bytes));
        }
    }

    pub(super) fn extents(&self) -> Vec<String> {
        self.disk.folder("journal").list().unwrap()
    }
}
