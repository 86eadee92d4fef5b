//! The store over a journal: [`EntryStore`] for one disk.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::{Clock, SystemClock};
use crate::disk::Disk;
use crate::{LogId, Offset};

use super::flights::Seat;
use super::open::OpenError;
use super::read::{self, Wait};
use super::shared::Shared;
use super::{
    Entry, EntryHeader, EntryStore, FoundSegment, Options, Position, SegmentId, SegmentRead,
    SegmentReadOutcome, StoreError, StoreEvents, ahead, close, keeper, open, survey, worker,
};

/// Keeps entries in the journal of one folder.
pub struct JournalStore {
    pub(crate) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl JournalStore {
    /// Whether this build can read what is on `disk`, for asking before anything is changed; says
    /// whether there are any extents.
    ///
    /// # Errors
    /// [`OpenError::NewerFormat`], [`OpenError::Io`].
    pub fn check_formats(disk: &dyn Disk) -> Result<bool, OpenError> {
        survey::check_formats(disk)
    }

    /// Opens the journal of `disk`, an empty one if there is none, and takes the folder for
    /// itself. Blocks on the disk.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        disk: Arc<dyn Disk>,
        options: Options,
        events: Arc<dyn StoreEvents>,
    ) -> Result<Self, OpenError> {
        Self::open_with(disk, options, events, Arc::new(SystemClock::new()))
    }

    /// [`JournalStore::open`] with a clock of the caller's.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open_with(
        disk: Arc<dyn Disk>,
        options: Options,
        events: Arc<dyn StoreEvents>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let has_threads = options.threads;
        let depth = options.sync_depth.max(1);
        let shared = Arc::new(open::open(disk, options, events, clock)?);
        let mut store = Self { shared, threads: Mutex::default() };
        if has_threads {
            for _ in 0..depth {
                store.start("journal", worker::run)?;
            }
            store.start("journal-keeper", keeper::run)?;
            store.start("journal-ahead", ahead::run)?;
        }
        Ok(store)
    }

    fn start(&mut self, name: &str, run: fn(&Shared)) -> Result<(), OpenError> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(512 << 10)
            .spawn(move || run(&shared))
            .map_err(|error| OpenError::Io { what: "starting a thread".to_owned(), error })?;
        self.threads.get_mut().push(thread);
        Ok(())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || work(&shared))
            .await
            .map_err(|_| StoreError::Io("the store stops".to_owned()))
    }
}

impl Drop for JournalStore {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state.lock();
            state.is_stopped = true;
            state.is_closing = true;
            self.shared.work.notify_all();
            self.shared.chores.notify_all();
            self.shared.ahead.stop();
        }
        let this = std::thread::current().id();
        for thread in self.threads.get_mut().drain(..) {
            // Dropped by a callback, on a thread of its own, it can't wait for that one.
            if thread.thread().id() != this {
                let _ = thread.join();
            }
        }
    }
}

#[async_trait]
impl EntryStore for JournalStore {
    fn append(&self, entry: &Entry<'_>) -> Result<Position, StoreError> {
        self.shared.append(entry)
    }

    fn try_read(&self, read: &SegmentRead) -> Option<Result<SegmentReadOutcome, StoreError>> {
        read::read(&self.shared, read, Wait::No)
    }

    async fn read(&self, read: SegmentRead) -> Result<SegmentReadOutcome, StoreError> {
        if let Some(outcome) = self.try_read(&read) {
            return outcome;
        }
        let flight =
            match read::first_cold(&self.shared, &read).map(|b| self.shared.flights.board(b)) {
                Some(Seat::Pilot(flight)) => Some(flight),
                Some(Seat::Passenger(landed)) => {
                    landed.cancelled().await;
                    if let Some(outcome) = self.try_read(&read) {
                        return outcome;
                    }
                    // It went elsewhere, or nothing stays cached here: each for itself.
                    None
                }
                None => None,
            };
        let offset = read.offset;
        // The flight ends with the work, also when nobody waits for that any more.
        let fly = move |shared: &Shared| {
            let outcome = read::read(shared, &read, Wait::Yes);
            drop(flight);
            outcome
        };
        let outcome = self.blocking(fly).await?;
        // A read that may wait always has an answer.
        outcome.unwrap_or(Ok(SegmentReadOutcome { batches: Vec::new(), next_offset: offset }))
    }

    async fn headers(
        &self,
        id: SegmentId,
        from: Offset,
    ) -> Result<Vec<(EntryHeader, Option<Bytes>)>, StoreError> {
        self.blocking(move |shared| read::headers(shared, id, from)).await?
    }

    async fn entries(
        &self,
        id: SegmentId,
        from: Offset,
        until: Offset,
        max_bytes: u64,
    ) -> Result<(Vec<(EntryHeader, Bytes)>, bool), StoreError> {
        self.blocking(move |shared| read::entries(shared, id, from..until, max_bytes)).await?
    }

    async fn last_snapshot(
        &self,
        id: SegmentId,
    ) -> Result<Option<(EntryHeader, Bytes)>, StoreError> {
        self.blocking(move |shared| read::last_snapshot(shared, id)).await?
    }

    async fn seek_time(
        &self,
        id: SegmentId,
        timestamp: i64,
        end: Offset,
    ) -> Result<Option<(Offset, i64)>, StoreError> {
        self.blocking(move |shared| read::seek_time(shared, id, timestamp, end)).await?
    }

    fn segment(&self, id: SegmentId) -> Option<FoundSegment> {
        self.shared.state.lock().index.describe(id)
    }

    fn segments(&self) -> Vec<FoundSegment> {
        self.shared.state.lock().index.describe_all()
    }

    fn segments_of(&self, log: LogId) -> Vec<FoundSegment> {
        self.shared.state.lock().index.describe_log(log)
    }

    fn may_lack_segments(&self) -> bool {
        self.shared.may_lack_segments
    }

    fn close_segment(&self, id: SegmentId) {
        self.shared.state.lock().index.close_segment(id);
    }

    fn drop_segment(&self, id: SegmentId) {
        let mut state = self.shared.state.lock();
        if state.index.drop_segment(id) {
            state.rewrites_are_off = false;
            self.shared.wake_keeper(&mut state);
        }
    }

    fn expect_lives(&self, lives: &[(LogId, Option<Duration>)]) {
        let mut state = self.shared.state.lock();
        let mut is_news = false;
        for (log, life) in lives {
            is_news |= state.index.lives.expect(*log, *life);
        }
        if is_news {
            self.shared.wake_keeper(&mut state);
        }
    }

    fn knows_life(&self, log: LogId) -> bool {
        self.shared.state.lock().index.lives.knows(log)
    }

    fn look_for_room(&self) {
        let mut state = self.shared.state.lock();
        state.recheck_space = true;
        self.shared.wake_keeper(&mut state);
    }

    async fn close(&self) {
        let has_threads = self.shared.options.threads;
        close::close(&self.shared, has_threads).await;
        let threads = std::mem::take(&mut *self.threads.lock());
        if has_threads && threads.is_empty() {
            // Another call joins them.
            return;
        }
        // A thread may still be telling of what it made durable, and so own its listener.
        let _ = self
            .blocking(move |shared| {
                for thread in threads {
                    let _ = thread.join();
                }
                *shared.lock.lock() = None;
            })
            .await;
    }
}
