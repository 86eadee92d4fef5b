//! A log service that answers when it is told to.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use interflow_logstore::{
    Append, AppendKind, AppendReply, AppendTicket, Appended, Bounds, Identity, LogClient,
    LogDescription, LogError, LogId, LogObserver, LogServer, LogServerOptions, Observation, Offset,
    Read, ReadError, ReadOutcome, StoredBatch,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::bed::NODE;

/// Reads of a [`Holding`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    pub(crate) begun: usize,
    /// Those that are done or were dropped.
    pub(crate) over: usize,
}

/// Keeps the appends and the reads of one log unanswered; answers all others at once. A read at an
/// offset brings one batch of so many bytes.
pub(crate) struct Holding {
    pub(crate) held: LogId,
    pub(crate) replies: Mutex<VecDeque<AppendReply>>,
    /// Bytes of batches that are held.
    pub(crate) bytes: watch::Sender<usize>,
    pub(crate) reads: watch::Sender<Reads>,
    /// As many held reads may go on.
    pub(crate) reads_allowed: Semaphore,
}

impl Holding {
    pub(crate) fn new(held: LogId) -> Arc<Self> {
        Arc::new(Self {
            held,
            replies: Mutex::default(),
            bytes: watch::Sender::default(),
            reads: watch::Sender::default(),
            reads_allowed: Semaphore::new(0),
        })
    }

    /// Serves it; its port, and its end.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        options: LogServerOptions,
    ) -> (u16, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let closing = CancellationToken::new();
        let identity = Identity { node: NODE, incarnation: 1 };
        let server = LogServer::new(self.clone(), identity, options, closing.clone());
        tokio::spawn(server.serve(listener));
        (port, closing)
    }

    /// Waits until as many reads have begun and are over.
    pub(crate) async fn reads(&self, begun: usize, over: usize) {
        let wanted = Reads { begun, over };
        self.reads.subscribe().wait_for(|reads| *reads == wanted).await.unwrap();
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

/// A read that has begun, until it is over.
struct Over<'a>(&'a Holding);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.reads.send_modify(|reads| reads.over += 1);
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

    async fn read(&self, read: Read) -> Result<ReadOutcome, ReadError> {
        self.reads.send_modify(|reads| reads.begun += 1);
        let _over = Over(self);
        if read.log == self.held {
            self.reads_allowed.acquire().await.unwrap().forget();
        }
        let batch = StoredBatch {
            base_offset: read.offset,
            count: 1,
            max_timestamp: 0,
            kind: AppendKind::Data,
            key: None,
            bytes: Bytes::from(vec![0; read.offset.try_into().unwrap()]),
        };
        let end = read.offset + 1;
        let bounds = Bounds { start: 0, committed: end, stable: end, leader_epoch: 0 };
        Ok(ReadOutcome { batches: vec![batch], next_offset: end, bounds })
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
