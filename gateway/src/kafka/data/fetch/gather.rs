//! Reads what is there for a list of partitions.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use interflow_logstore::{Bounds, LogError, LogId, Read, ReadError};
use kafka_protocol::ResponseError;
use tokio::sync::Notify;

use super::ahead::Ahead;
use super::feed::Feed;
use super::request::Wanted;
use super::response::PartitionAnswer;
use crate::kafka::data::topic::TopicKey;
use crate::kafka::data::{DataPlane, errors};
use crate::records::BatchHeader;

/// A partition to read, and how far that has come.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) wanted: Wanted,
    feed: Option<Arc<Feed>>,
    /// What this response says of it.
    pub(super) answer: PartitionAnswer,
    /// Where to read on for this response.
    next: i64,
    /// The news that `answer` takes into account.
    seen: Option<Bounds>,
    /// No more fits, by its own limit.
    is_full: bool,
    /// What the last response said: high watermark and log start.
    told: Option<(i64, i64)>,
    /// A read that began before its turn.
    ahead: Option<Ahead>,
}

/// The limits of one response, and what it holds so far.
#[derive(Debug)]
pub(super) struct Gathering {
    pub(super) read_committed: bool,
    pub(super) max_bytes: usize,
    /// Bytes of batches so far.
    pub(super) bytes: usize,
    /// Bytes of batches that the last read brought.
    pub(super) last_read: usize,
    /// A partition has an error, so there is nothing to wait for.
    pub(super) has_error: bool,
}

impl Entry {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            feed: None,
            answer: PartitionAnswer::default(),
            next: 0,
            seen: None,
            is_full: false,
            told: None,
            ahead: None,
        }
    }

    pub(super) fn key(&self) -> (TopicKey, i32) {
        (self.wanted.topic.clone(), self.wanted.partition)
    }

    /// Begins a response.
    pub(super) fn begin(&mut self) {
        self.answer = PartitionAnswer {
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            ..PartitionAnswer::default()
        };
        self.next = self.wanted.offset;
        self.seen = None;
        self.is_full = false;
        self.ahead = None;
    }

    /// Ends a response that says what `answer` is: it is told from now on, and lets go of what
    /// was read.
    pub(super) fn end(&mut self) {
        let has_error = self.answer.error_code != 0;
        self.told = (!has_error).then_some((self.answer.high_watermark, self.answer.log_start));
        self.answer = PartitionAnswer::default();
        self.ahead = None;
    }

    /// Says something that the last response didn't.
    pub(super) fn is_news(&self) -> bool {
        self.answer.bytes > 0
            || self.answer.error_code != 0
            || self.told != Some((self.answer.high_watermark, self.answer.log_start))
    }

    /// Has `waiter` notified when there may be more for this partition. `false`: there is already.
    pub(super) fn wait(&self, waiter: &Arc<Notify>) -> bool {
        match (&self.feed, self.seen) {
            (Some(feed), Some(seen)) if !self.is_full => feed.wait_past(seen, waiter),
            _ => true,
        }
    }

    /// `waiter` waits no more.
    pub(super) fn forget(&self, waiter: &Arc<Notify>) {
        if let Some(feed) = &self.feed {
            feed.forget(waiter);
        }
    }

    fn fail(&mut self, error: ResponseError, gathering: &mut Gathering) {
        gathering.has_error = true;
        self.answer.error_code = error.code();
    }

    /// Adds what is there now and wasn't read yet, within the limits.
    pub(super) async fn gather(&mut self, plane: &DataPlane, gathering: &mut Gathering) {
        if let Err(error) = self.try_gather(plane, gathering).await {
            // What was gathered before is still good: the error comes with the next fetch.
            if self.answer.bytes == 0 {
                self.fail(error, gathering);
            }
        }
    }

    async fn try_gather(
        &mut self,
        plane: &DataPlane,
        gathering: &mut Gathering,
    ) -> Result<(), ResponseError> {
        let (feed, mut bounds) = self.follow(plane).await?;
        if self.seen == Some(bounds) {
            return Ok(());
        }
        if u64::try_from(self.next).is_ok_and(|next| next >= bounds.committed) {
            bounds = feed.ask(plane.log().as_ref()).await.map_err(|error| self.of_log(&error))?;
        }
        self.see(bounds);
        if self.wanted.leader_epoch >= 0 && epoch(bounds) < self.wanted.leader_epoch {
            return Err(ResponseError::UnknownLeaderEpoch);
        }
        let limit = gathering.limit(bounds);
        let from = u64::try_from(self.next).map_err(|_| ResponseError::OffsetOutOfRange)?;
        if from < bounds.start || from > bounds.committed {
            return Err(ResponseError::OffsetOutOfRange);
        }
        let mut next = from;
        while next < limit && !self.is_full {
            next = self.read_on(plane, gathering, feed.log(), next).await?;
            self.next = offset(next);
        }
        Ok(())
    }

    /// Reads once from `from`; returns where to read on.
    async fn read_on(
        &mut self,
        plane: &DataPlane,
        gathering: &mut Gathering,
        log: LogId,
        from: u64,
    ) -> Result<u64, ResponseError> {
        let own_room = self.wanted.max_bytes.saturating_sub(self.answer.bytes);
        let room = gathering.room().min(own_room);
        if room == 0 && gathering.bytes > 0 {
            self.is_full = true;
            return Ok(from);
        }
        let begun = match self.ahead.take() {
            Some(ahead) => ahead.take(from, room).await,
            None => None,
        };
        let (outcome, room) = match begun {
            Some(begun) => begun,
            None => (plane.log().read(gathering.read(log, from, room)).await, room),
        };
        let outcome = outcome.map_err(|error| self.of_read(&error))?;
        self.see_outcome(outcome.bounds);
        let mut read_bytes = 0;
        for batch in outcome.batches {
            // A batch larger than the limits is sent only where there is nothing else.
            if gathering.bytes > 0 && read_bytes + batch.bytes.len() > room {
                self.is_full = true;
                return Ok(batch.base_offset.max(from));
            }
            read_bytes += batch.bytes.len();
            self.push(batch.bytes, gathering);
        }
        gathering.last_read = read_bytes;
        if read_bytes == 0 && outcome.next_offset > from {
            self.push(gap(from, outcome.next_offset, outcome.bounds.leader_epoch), gathering);
        }
        let end = gathering.limit(outcome.bounds);
        // A read that came to most of the room and left something has left what fits no more.
        let is_most = read_bytes > room / 2 && outcome.next_offset < end;
        self.is_full = is_most || outcome.next_offset <= from;
        Ok(outcome.next_offset)
    }

    /// Begins to read before its turn, with all the room that it may take.
    pub(super) async fn read_ahead(&mut self, plane: &DataPlane, gathering: &Gathering) {
        if self.ahead.is_some() || self.seen.is_some() {
            return;
        }
        // What is wrong is told in its turn.
        let Ok((feed, bounds)) = self.follow(plane).await else { return };
        let Ok(from) = u64::try_from(self.next) else { return };
        if from >= bounds.start && from < gathering.limit(bounds) {
            let read = gathering.read(feed.log(), from, self.wanted.max_bytes);
            self.ahead = Some(Ahead::begin(plane, read));
        }
    }

    fn push(&mut self, batch: Bytes, gathering: &mut Gathering) {
        gathering.bytes += batch.len();
        self.answer.bytes += batch.len();
        self.answer.records.push(batch);
    }

    fn see(&mut self, bounds: Bounds) {
        self.seen = Some(bounds);
        self.answer.high_watermark = offset(bounds.committed);
        self.answer.last_stable = offset(bounds.stable);
        self.answer.log_start = offset(bounds.start);
    }

    /// Takes the bounds of a read, which may be newer than the news: batches past the high
    /// watermark that is told would confuse.
    fn see_outcome(&mut self, bounds: Bounds) {
        self.answer.high_watermark = self.answer.high_watermark.max(offset(bounds.committed));
        self.answer.last_stable = self.answer.last_stable.max(offset(bounds.stable));
        self.answer.log_start = self.answer.log_start.max(offset(bounds.start));
    }

    fn of_read(&mut self, error: &ReadError) -> ResponseError {
        match *error {
            ReadError::NoSuchLog => self.wanted.topic.unknown(),
            ReadError::OutOfRange { start, committed, .. } => {
                self.answer.log_start = offset(start);
                self.answer.high_watermark = offset(committed);
                ResponseError::OffsetOutOfRange
            }
            _ => {
                tracing::debug!(%error, partition = self.wanted.partition, "a fetch failed");
                errors::of_read(error)
            }
        }
    }

    fn of_log(&self, error: &LogError) -> ResponseError {
        match error {
            LogError::NoSuchLog => self.wanted.topic.unknown(),
            error => errors::of_log(error),
        }
    }

    /// The log's feed, found once and then held, and its news.
    async fn follow(&mut self, plane: &DataPlane) -> Result<(Arc<Feed>, Bounds), ResponseError> {
        if let Some(feed) = &self.feed {
            if let Some(bounds) = feed.bounds() {
                return Ok((feed.clone(), bounds));
            }
            self.feed = None; // it has ended; its topic may exist again
        }
        let topic = self.wanted.topic.find(plane.topics());
        let log = self.wanted.topic.log(topic.as_deref(), self.wanted.partition)?;
        let feed = plane.feeds().get(log).await.map_err(|error| self.of_log(&error))?;
        let bounds = feed.bounds().ok_or_else(|| self.wanted.topic.unknown())?;
        self.feed = Some(feed.clone());
        Ok((feed, bounds))
    }
}

impl Gathering {
    pub(super) fn room(&self) -> usize {
        self.max_bytes.saturating_sub(self.bytes)
    }

    /// Up to where this response reads.
    fn limit(&self, bounds: Bounds) -> u64 {
        if self.read_committed { bounds.stable } else { bounds.committed }
    }

    fn read(&self, log: LogId, offset: u64, room: usize) -> Read {
        let stable_only = self.read_committed;
        Read { log, offset, max_bytes: room.max(1), stable_only, filter: None }
    }
}

fn epoch(bounds: Bounds) -> i32 {
    i32::try_from(bounds.leader_epoch).unwrap_or(i32::MAX)
}

fn offset(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// A batch without records that spans offsets which have none, so that readers move past them.
fn gap(from: u64, to: u64, leader_epoch: u32) -> Bytes {
    let span = i32::try_from(to - from - 1).unwrap_or(i32::MAX);
    let mut batch = BytesMut::with_capacity(BatchHeader::LEN);
    batch.put_u64(from);
    batch.put_i32(49); // the bytes that follow
    batch.put_u32(leader_epoch);
    batch.put_i8(2);
    batch.put_u32(0);
    batch.put_i16(0);
    batch.put_i32(span);
    batch.put_i64(-1); // base and
    batch.put_i64(-1); // max timestamp
    batch.put_i64(-1); // producer id,
    batch.put_i16(-1); // epoch
    batch.put_i32(-1); // and sequence
    batch.put_i32(0);
    let crc = crc32c::crc32c(batch.get(BatchHeader::CRC_FROM..).unwrap_or_default());
    if let Some(place) = batch.get_mut(BatchHeader::CRC_AT..BatchHeader::CRC_FROM) {
        place.copy_from_slice(&crc.to_be_bytes());
    }
    batch.freeze()
}
