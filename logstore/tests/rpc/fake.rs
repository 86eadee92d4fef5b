//! A log service that answers when it is told to.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use interflow_logstore::{
    Append, AppendReply, AppendTicket, Appended, Bounds, LogClient, LogDescription, LogError,
    LogId, LogObserver, Observation, Offset, Read, ReadError, ReadOutcome,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Keeps the appends of one log unanswered; answers all others at once.
pub(crate) struct Holding {
    pub(crate) held: LogId,
    pub(crate) replies: Mutex<VecDeque<AppendReply>>,
    /// Bytes of batches that are held.
    pub(crate) bytes: watch::Sender<usize>,
}

impl Holding {
    pub(crate) fn new(held: LogId) -> Arc<Self> {
        Arc::new(Self { held, replies: Mutex::default(), bytes: watch::Sender::default() })
    }

    /// Answers the oldest that is held.
    pub(crate) fn answer(&self, bytes: usize) -> bool {
        let reply = self.replies.lock().pop_front();
        if reply.is_some() {
            self.bytes.send_modify(|held| *held -= bytes);
        }
        reply.map(|reply| reply.send(Ok(APPENDED))).is_some()
    }
}

const APPENDED: Appended = Appended { base_offset: 0, log_start: 0, duplicate: false };

#[async_trait]
impl LogClient for Holding {
    fn append(&self, append: Append) -> AppendTicket {
        if append.log != self.held {
            return AppendTicket::ready(Ok(APPENDED));
        }
        let (reply, ticket) = AppendTicket::pair();
        self.replies.lock().push_back(reply);
        self.bytes.send_modify(|held| *held += append.batch.len());
        ticket
    }

    async fn bounds(&self, _: LogId) -> Result<Bounds, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn read(&self, _: Read) -> Result<ReadOutcome, ReadError> {
        Err(ReadError::NoSuchLog)
    }

    async fn observe(&self, _: LogId, _: Arc<dyn LogObserver>) -> Result<Observation, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn batch_at_time(&self, _: LogId, _: i64) -> Result<Option<(Offset, i64)>, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn batch_of_max_time(&self, _: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn end_of_leader_epoch(
        &self,
        _: LogId,
        _: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn trim(&self, _: LogId, _: Offset) -> Result<Offset, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn refresh(&self, _: LogId) -> Result<(), LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn describe(&self, _: LogId) -> Result<LogDescription, LogError> {
        Err(LogError::NoSuchLog)
    }
}
