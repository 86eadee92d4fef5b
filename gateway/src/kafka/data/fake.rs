//! A log service in memory and a data plane over it, for tests.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use interflow_logstore::{
    Append, AppendError, AppendReply, AppendResult, AppendTicket, Appended, Bounds, LogClient,
    LogDescription, LogError, LogId, LogObserver, Observation, Offset, Read, ReadError,
    ReadOutcome, StoredBatch,
};
use parking_lot::Mutex;
use uuid::Uuid;

use super::{Body, DataLimits, DataPlane, ProducerIdError, ProducerIdSource};
use crate::records::{BatchBuilder, BuiltBatch};
use crate::topics::{Topic, TopicConfig, Topics};

/// One log.
#[derive(Default)]
struct FakeLog {
    start: Offset,
    next: Offset,
    committed: Offset,
    leader_epoch: u32,
    batches: Vec<StoredBatch>,
    observers: Vec<Arc<dyn LogObserver>>,
    held: Vec<(AppendReply, Appended, Offset)>,
}

impl FakeLog {
    fn bounds(&self) -> Bounds {
        Bounds {
            start: self.start,
            committed: self.committed,
            stable: self.committed,
            leader_epoch: self.leader_epoch,
        }
    }
}

/// Logs in memory. Appends commit at once, or when they are released.
#[derive(Default)]
pub(crate) struct FakeLogs {
    logs: Mutex<HashMap<LogId, FakeLog>>,
    appends: Mutex<Vec<Append>>,
    refuse: Mutex<Option<AppendError>>,
    hold: Mutex<bool>,
    is_mute: Mutex<bool>,
    /// Reads so far.
    pub(crate) reads: AtomicUsize,
    /// Reads of these logs wait until all of them are being read.
    pub(crate) together: Mutex<Option<(Vec<LogId>, Arc<tokio::sync::Barrier>)>>,
}

impl FakeLogs {
    /// Logs with these ids, all empty.
    pub(crate) fn new(logs: impl IntoIterator<Item = u64>) -> Arc<Self> {
        let fake = Self::default();
        for log in logs {
            fake.logs.lock().insert(LogId(log), FakeLog::default());
        }
        Arc::new(fake)
    }

    /// The appends so far, in order.
    pub(crate) fn appends(&self) -> Vec<Append> {
        self.appends.lock().clone()
    }

    /// Refuses all appends from now on.
    pub(crate) fn refuse(&self, error: Option<AppendError>) {
        *self.refuse.lock() = error;
    }

    /// Keeps appends in flight from now on, until [`FakeLogs::release`].
    pub(crate) fn hold(&self) {
        *self.hold.lock() = true;
    }

    /// Commits what is in flight.
    pub(crate) fn release(&self) {
        *self.hold.lock() = false;
        let logs: Vec<_> = self.logs.lock().keys().copied().collect();
        for log in logs {
            let held = {
                let mut logs = self.logs.lock();
                let fake = logs.get_mut(&log).unwrap();
                let held = std::mem::take(&mut fake.held);
                if let Some((_, _, end)) = held.last() {
                    fake.committed = *end;
                }
                held
            };
            if !held.is_empty() {
                self.tell(log);
            }
            for (reply, appended, _) in held {
                reply.send(Ok(appended));
            }
        }
    }

    /// Moves a log's start.
    pub(crate) fn set_start(&self, log: u64, start: Offset) {
        self.logs.lock().get_mut(&LogId(log)).unwrap().start = start;
        self.tell(LogId(log));
    }

    /// Sets a log's leader epoch.
    pub(crate) fn set_leader_epoch(&self, log: u64, epoch: u32) {
        self.logs.lock().get_mut(&LogId(log)).unwrap().leader_epoch = epoch;
        self.tell(LogId(log));
    }

    /// Leaves a range of offsets without records at the log's end.
    pub(crate) fn jump(&self, log: u64, by: Offset) {
        {
            let mut logs = self.logs.lock();
            let fake = logs.get_mut(&LogId(log)).unwrap();
            fake.next += by;
            fake.committed = fake.next;
        }
        self.tell(LogId(log));
    }

    /// Deletes a log.
    pub(crate) fn delete(&self, log: u64) {
        let gone = self.logs.lock().remove(&LogId(log)).unwrap();
        for observer in gone.observers {
            observer.ended(LogId(log));
        }
    }

    /// Who observes a log.
    pub(crate) fn observers(&self, log: u64) -> usize {
        self.logs.lock().get(&LogId(log)).unwrap().observers.len()
    }

    /// Tells observers nothing for a while, and all at its end.
    pub(crate) fn mute(&self, is_mute: bool) {
        *self.is_mute.lock() = is_mute;
        let logs: Vec<_> = self.logs.lock().keys().copied().collect();
        logs.into_iter().for_each(|log| self.tell(log));
    }

    fn tell(&self, log: LogId) {
        if *self.is_mute.lock() {
            return;
        }
        let (observers, bounds) = {
            let logs = self.logs.lock();
            let fake = logs.get(&log).unwrap();
            (fake.observers.clone(), fake.bounds())
        };
        for observer in observers {
            observer.advanced(log, bounds);
        }
    }

    fn with<T>(&self, log: LogId, f: impl FnOnce(&FakeLog) -> T) -> Result<T, LogError> {
        self.logs.lock().get(&log).map(f).ok_or(LogError::NoSuchLog)
    }
}

/// The batch with its offset and epoch.
fn stamped(batch: &Bytes, base: Offset, epoch: u32) -> Bytes {
    let mut bytes = BytesMut::from(&batch[..]);
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
    bytes.freeze()
}

#[async_trait]
impl LogClient for FakeLogs {
    fn append(&self, append: Append) -> AppendTicket {
        self.appends.lock().push(append.clone());
        if let Some(error) = self.refuse.lock().clone() {
            return AppendTicket::ready(Err(error));
        }
        let hold = *self.hold.lock();
        let result: AppendResult = {
            let mut logs = self.logs.lock();
            let Some(log) = logs.get_mut(&append.log) else {
                return AppendTicket::ready(Err(AppendError::NoSuchLog));
            };
            let base_offset = log.next;
            log.next += Offset::from(append.count);
            log.batches.push(StoredBatch {
                base_offset,
                count: append.count,
                max_timestamp: append.max_timestamp,
                kind: append.kind,
                key: append.key,
                bytes: stamped(&append.batch, base_offset, log.leader_epoch),
            });
            let appended = Appended { base_offset, log_start: log.start, duplicate: false };
            if hold {
                let (reply, ticket) = AppendTicket::pair();
                let end = log.next;
                log.held.push((reply, appended, end));
                return ticket;
            }
            log.committed = log.next;
            Ok(appended)
        };
        self.tell(append.log);
        AppendTicket::ready(result)
    }

    async fn bounds(&self, log: LogId) -> Result<Bounds, LogError> {
        self.with(log, FakeLog::bounds)
    }

    async fn read(&self, read: Read) -> Result<ReadOutcome, ReadError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let barrier = match &*self.together.lock() {
            Some((logs, barrier)) if logs.contains(&read.log) => Some(barrier.clone()),
            _ => None,
        };
        if let Some(barrier) = barrier {
            barrier.wait().await;
        }
        self.with(read.log, |log| {
            if read.offset < log.start || read.offset > log.committed {
                let (start, committed) = (log.start, log.committed);
                return Err(ReadError::OutOfRange { offset: read.offset, start, committed });
            }
            let mut batches = Vec::new();
            let mut bytes = 0;
            let mut next_offset = log.committed;
            for batch in &log.batches {
                let end = batch.base_offset + Offset::from(batch.count);
                if end <= read.offset || end > log.committed {
                    continue;
                }
                bytes += batch.bytes.len();
                if !batches.is_empty() && bytes > read.max_bytes {
                    next_offset = batch.base_offset;
                    break;
                }
                batches.push(batch.clone());
            }
            Ok(ReadOutcome { batches, next_offset, bounds: log.bounds() })
        })
        .map_err(|_| ReadError::NoSuchLog)?
    }

    async fn observe(
        &self,
        log: LogId,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Observation, LogError> {
        let mut logs = self.logs.lock();
        let fake = logs.get_mut(&log).ok_or(LogError::NoSuchLog)?;
        fake.observers.push(observer.clone());
        observer.advanced(log, fake.bounds());
        Ok(Observation::new(|| ()))
    }

    async fn batch_at_time(
        &self,
        log: LogId,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        self.with(log, |log| {
            let found = log.batches.iter().find(|batch| batch.max_timestamp >= timestamp);
            found.map(|batch| (batch.base_offset, batch.max_timestamp))
        })
    }

    async fn batch_of_max_time(&self, log: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        self.with(log, |log| {
            let found = log.batches.iter().rev().max_by_key(|batch| batch.max_timestamp);
            found.map(|batch| (batch.base_offset, batch.max_timestamp))
        })
    }

    async fn end_of_leader_epoch(
        &self,
        log: LogId,
        leader_epoch: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        self.with(log, |log| {
            (leader_epoch >= log.leader_epoch).then_some((log.leader_epoch, log.committed))
        })
    }

    async fn trim(&self, log: LogId, before: Offset) -> Result<Offset, LogError> {
        self.set_start(log.0, before);
        Ok(before)
    }

    async fn refresh(&self, _log: LogId) -> Result<(), LogError> {
        Ok(())
    }

    async fn describe(&self, log: LogId) -> Result<LogDescription, LogError> {
        self.with(log, |log| LogDescription {
            bounds: log.bounds(),
            segments: Vec::new(),
            replicas: Vec::new(),
            producers: 0,
        })
    }
}

/// The wall clock of [`plane`], milliseconds since 1970.
pub(crate) const NOW: i64 = 1_900_000_000_000;

/// Producer ids from 1000.
#[derive(Default)]
pub(crate) struct Ids(AtomicUsize);

#[async_trait]
impl ProducerIdSource for Ids {
    async fn next_producer_id(&self) -> Result<i64, ProducerIdError> {
        Ok(1000 + self.0.fetch_add(1, Ordering::Relaxed) as i64)
    }
}

/// The id of the topic `name` of [`plane`].
pub(crate) fn id_of(name: &str) -> Uuid {
    let mut id = [0; 16];
    id[..name.len()].copy_from_slice(name.as_bytes());
    Uuid::from_bytes(id)
}

/// A topic with these logs and options.
pub(crate) fn topic(name: &str, logs: &[u64], options: &[(&str, &str)]) -> Topic {
    let overrides = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Topic {
        id: id_of(name),
        name: name.into(),
        partitions: logs.iter().copied().map(LogId).collect(),
        config: TopicConfig::new(overrides).unwrap(),
    }
}

/// A data plane over `logs` at the time [`NOW`].
pub(crate) fn plane(logs: &Arc<FakeLogs>, topics: impl IntoIterator<Item = Topic>) -> DataPlane {
    plane_with(logs, topics, DataLimits::default())
}

/// The same with other limits.
pub(crate) fn plane_with(
    logs: &Arc<FakeLogs>,
    topics: impl IntoIterator<Item = Topic>,
    limits: DataLimits,
) -> DataPlane {
    DataPlane::new(logs.clone(), Topics::fixed(topics), Arc::new(Ids::default()), limits)
        .with_clock(|| NOW)
}

/// A batch of `values`, one millisecond apart, the last at [`NOW`].
pub(crate) fn batch(values: &[&str]) -> BuiltBatch {
    let mut builder = BatchBuilder::new();
    for (n, value) in values.iter().enumerate() {
        let timestamp = NOW - (values.len() - 1 - n) as i64;
        builder.append(None, Some(value.as_bytes()), std::iter::empty(), timestamp).unwrap();
    }
    builder.finish().unwrap()
}

/// The bytes of a body.
pub(crate) fn flat(body: &Body) -> Bytes {
    body.chunks().concat().into()
}
