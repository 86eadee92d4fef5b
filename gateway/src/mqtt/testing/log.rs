//! Logs in memory. Appends commit at once, or when the test says so.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use interflow_logstore::{
    Append, AppendError, AppendReply, AppendTicket, Appended, Bounds, EarlyBatch, LogClient,
    LogDescription, LogError, LogId, LogObserver, Observation, Offset, Read, ReadError,
    ReadOutcome, StoredBatch,
};
use parking_lot::Mutex;
use tokio::sync::watch;

#[derive(Default)]
struct Log {
    batches: Vec<StoredBatch>,
    digests: Vec<Option<Arc<[u32]>>>,
    waiting: VecDeque<(Append, AppendReply)>,
    next: u64,
    observers: Vec<Arc<dyn LogObserver>>,
}

impl Log {
    fn bounds(&self) -> Bounds {
        Bounds { start: 0, committed: self.next, stable: self.next, leader_epoch: 0 }
    }
}

/// The fake.
#[derive(Default)]
pub(crate) struct FakeLog {
    logs: Mutex<HashMap<LogId, Log>>,
    holds: Mutex<bool>,
    read_error: Mutex<Option<ReadError>>,
    holds_reads: watch::Sender<bool>,
}

impl FakeLog {
    /// From now on appends wait for [`FakeLog::commit`] (or no longer do).
    pub(crate) fn hold(&self, holds: bool) {
        *self.holds.lock() = holds;
        if !holds {
            self.commit();
        }
    }

    /// From now on reads fail so (or no longer do).
    pub(crate) fn fail_reads(&self, error: Option<ReadError>) {
        *self.read_error.lock() = error;
    }

    /// From now on reads wait (or no longer do).
    pub(crate) fn hold_reads(&self, holds: bool) {
        self.holds_reads.send_replace(holds);
    }

    /// Commits everything that waits.
    pub(crate) fn commit(&self) {
        loop {
            let logs: Vec<LogId> = self.logs.lock().keys().copied().collect();
            if !logs.into_iter().any(|log| self.commit_one(log)) {
                return;
            }
        }
    }

    /// Commits the oldest append of one log.
    pub(crate) fn commit_one(&self, id: LogId) -> bool {
        let mut logs = self.logs.lock();
        let Some(log) = logs.get_mut(&id) else { return false };
        let Some((append, reply)) = log.waiting.pop_front() else { return false };
        let base = log.next;
        log.next += u64::from(append.count);
        let mut bytes = BytesMut::from(&*append.batch);
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        log.batches.push(StoredBatch {
            base_offset: base,
            count: append.count,
            max_timestamp: append.max_timestamp,
            kind: append.kind,
            key: append.key,
            bytes: bytes.freeze(),
        });
        log.digests.push(append.digest.map(|digest| digest.0));
        let (bounds, observers) = (log.bounds(), log.observers.clone());
        drop(logs);
        observers.iter().for_each(|observer| observer.advanced(id, bounds));
        reply.send(Ok(Appended { base_offset: base, log_start: 0, duplicate: false }));
        true
    }

    /// Refuses everything that waits.
    pub(crate) fn refuse(&self, error: &AppendError) {
        for log in self.logs.lock().values_mut() {
            log.waiting.drain(..).for_each(|(_, reply)| reply.send(Err(error.clone())));
        }
    }

    /// Records of each append that waits.
    pub(crate) fn waiting(&self, id: LogId) -> Vec<u32> {
        let logs = self.logs.lock();
        logs.get(&id).into_iter().flat_map(|log| &log.waiting).map(|(it, _)| it.count).collect()
    }

    /// A batch of a Kafka producer.
    pub(crate) fn produce(&self, log: LogId, count: u32, batch: Bytes) -> AppendTicket {
        self.append(Append {
            log,
            kind: interflow_logstore::AppendKind::Data,
            key: None,
            window: 5,
            count,
            max_timestamp: 0,
            digest: None,
            early: false,
            batch,
        })
    }
}

#[async_trait]
impl LogClient for FakeLog {
    fn append(&self, append: Append) -> AppendTicket {
        let id = append.log;
        let (reply, ticket) = AppendTicket::pair();
        let early = append
            .key
            .filter(|_| append.early)
            .map(|key| EarlyBatch { key, bytes: append.batch.clone() });
        let observers = {
            let mut logs = self.logs.lock();
            let log = logs.entry(id).or_default();
            log.waiting.push_back((append, reply));
            log.observers.clone()
        };
        if let Some(early) = early {
            observers.iter().for_each(|observer| observer.early(id, &early));
        }
        if !*self.holds.lock() {
            self.commit();
        }
        ticket
    }

    async fn bounds(&self, log: LogId) -> Result<Bounds, LogError> {
        Ok(self.logs.lock().entry(log).or_default().bounds())
    }

    async fn read(&self, read: Read) -> Result<ReadOutcome, ReadError> {
        let _ = self.holds_reads.subscribe().wait_for(|holds| !holds).await;
        match &*self.read_error.lock() {
            Some(ReadError::Damaged { to, .. }) if read.offset >= *to => {}
            Some(error) => return Err(error.clone()),
            None => {}
        }
        let logs = self.logs.lock();
        let log = logs.get(&read.log).ok_or(ReadError::NoSuchLog)?;
        let mut outcome =
            ReadOutcome { batches: Vec::new(), next_offset: read.offset, bounds: log.bounds() };
        let mut bytes = 0;
        for (batch, digest) in log.batches.iter().zip(&log.digests) {
            let end = batch.base_offset + u64::from(batch.count);
            if end <= read.offset {
                continue;
            }
            let skip = match (&read.filter, digest) {
                (Some(filter), Some(digest)) => !filter.iter().any(|hash| digest.contains(hash)),
                _ => false,
            };
            if !skip {
                if bytes > 0 && bytes + batch.bytes.len() > read.max_bytes {
                    break;
                }
                bytes += batch.bytes.len();
                outcome.batches.push(batch.clone());
            }
            outcome.next_offset = end;
        }
        Ok(outcome)
    }

    async fn observe(
        &self,
        id: LogId,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Observation, LogError> {
        let mut logs = self.logs.lock();
        let log = logs.entry(id).or_default();
        log.observers.push(observer.clone());
        let bounds = log.bounds();
        drop(logs);
        observer.advanced(id, bounds);
        Ok(Observation::new(|| {}))
    }

    async fn batch_at_time(&self, _: LogId, _: i64) -> Result<Option<(Offset, i64)>, LogError> {
        Ok(None)
    }

    async fn batch_of_max_time(&self, _: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        Ok(None)
    }

    async fn end_of_leader_epoch(
        &self,
        _: LogId,
        _: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        Ok(None)
    }

    async fn trim(&self, _: LogId, before: Offset) -> Result<Offset, LogError> {
        Ok(before)
    }

    async fn refresh(&self, _: LogId) -> Result<(), LogError> {
        Ok(())
    }

    async fn describe(&self, log: LogId) -> Result<LogDescription, LogError> {
        let bounds = self.bounds(log).await?;
        Ok(LogDescription { bounds, segments: Vec::new(), replicas: Vec::new(), producers: 0 })
    }
}
