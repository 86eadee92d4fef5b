//! The client: the logs of one node, somewhere else.

pub(super) mod asked;
mod calls;
mod lane;
mod node;
mod observed;
pub(crate) mod queues;
mod reading;
mod recoveries;
mod replicas;
mod stream;
mod watching;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use interflow_meta::grpc::{Credentials, Remote, told};
use interflow_meta::{Epoch, LogId, NodeId, Offset};
use interflow_proto::log as proto;
use proto::log_client::LogClient as Client;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use self::calls::Calls;
use self::lane::Lane;
pub use self::node::{Doubt, Doubts, NodeClient, Unanswered};
use self::queues::QueueLimits;
use self::reading::{ReadLimits, Reading};
use self::recoveries::Recoveries;
use self::replicas::Replicas;
use self::watching::Watching;
use super::{MAX_BATCH_BYTES, MAX_MESSAGE_BYTES, PROTOCOL};
use crate::client::only;
use crate::{
    Append, AppendTicket, Bounds, LogClient, LogDescription, LogError, LogObserver, LogReplicas,
    NodeAccess, Observation, Read, ReadError, ReadOutcome,
};

/// The generated client, with what goes on each call.
type Grpc = Client<InterceptedService<Channel, Credentials>>;

/// Where a node is, and how long it is waited for.
#[derive(Clone, Debug)]
pub struct RemoteLogsOptions {
    /// Its address, and how to get in.
    pub remote: Remote,
    /// The node that is meant; another one there is refused. `None` takes whoever is there.
    pub node: Option<NodeId>,
    /// Tells this client's streams from others'; never used twice.
    pub client: u64,
    /// An append that isn't answered for so long is given up: as unavailable if it was never sent,
    /// else as unknown.
    pub append_timeout: Duration,
    /// A call is given up after this time …
    pub call_timeout: Duration,
    /// … and after this one if the node can't be reached.
    pub patience: Duration,
    /// Bytes of unanswered appends in all; beyond it they are refused as busy …
    pub max_queued_bytes: usize,
    /// … and of one log.
    pub max_log_queued_bytes: usize,
    /// Bytes of reads that are asked for, or were answered and aren't taken by their callers.
    pub read_window_bytes: usize,
    /// A stream that the node doesn't welcome for so long is one that can't be made.
    pub connect_timeout: Duration,
    /// An append that isn't answered for so long makes a doubt, and again after as long.
    pub silence: Duration,
    /// Told when the node may not be the one that serves a log. If somebody hears of them, they see
    /// to appends that the node refuses as another's, which wait until then.
    pub doubts: Doubts,
}

impl RemoteLogsOptions {
    /// The node at `host` and `port`, without token and TLS. `client` is a random number.
    #[must_use]
    pub fn new(host: &str, port: u16, client: u64) -> Self {
        Self {
            remote: NodeAccess::default().remote(host, port),
            node: None,
            client,
            append_timeout: Duration::from_secs(20),
            call_timeout: Duration::from_secs(20),
            patience: Duration::from_secs(5),
            max_queued_bytes: 128 << 20,
            max_log_queued_bytes: 32 << 20,
            read_window_bytes: 64 << 20,
            connect_timeout: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            doubts: Doubts::default(),
        }
    }
}

/// The address or the certificates of a node are none.
#[derive(Debug, thiserror::Error)]
#[error("the node's address or certificate: {0}")]
pub struct RemoteLogsError(String);

/// The logs of one node. It connects when it is used, and anew when a connection is lost.
#[derive(Debug)]
pub struct RemoteLogs {
    lane: Arc<Lane>,
    watching: Arc<Watching>,
    reading: Arc<Reading>,
    calls: Arc<Calls>,
    recoveries: Recoveries,
    replicas: Replicas,
    node: NodeId,
    closing: CancellationToken,
    tasks: TaskTracker,
    call_timeout: Duration,
}

impl RemoteLogs {
    /// The node that `options` name, whether it can be reached or not. Belongs to the runtime that
    /// it is called on.
    ///
    /// # Errors
    /// The address or the certificates are none.
    pub fn open(options: RemoteLogsOptions) -> Result<Self, RemoteLogsError> {
        let credentials = Credentials::new(PROTOCOL, options.remote.token.as_ref());
        let grpc = || -> Result<Grpc, RemoteLogsError> {
            let channel = options.remote.channel();
            let channel = channel.map_err(|error| RemoteLogsError(told(&error)))?;
            Ok(Client::with_interceptor(channel, credentials.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES))
        };
        // A connection of their own for appends: a large read doesn't hold them up.
        let (appends, others) = (grpc()?, grpc()?);
        let limits = QueueLimits {
            max_bytes: options.max_queued_bytes,
            max_log_bytes: options.max_log_queued_bytes,
            max_batch_bytes: MAX_BATCH_BYTES,
            timeout: options.append_timeout,
            silence: options.silence,
            is_routed: options.doubts.is_heard(),
        };
        let id = options.node.unwrap_or(NodeId(0));
        let hello = proto::Hello {
            node: options.node.map_or(0, |node| node.0),
            client: options.client,
            stream: 0,
        };
        let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
        let doubts = options.doubts;
        let lane = Arc::new(Lane::new(limits, options.connect_timeout, id, doubts.clone()));
        tasks.spawn(Arc::clone(&lane).run(appends, hello, closing.clone()));
        tasks.spawn(Arc::clone(&lane).look_for_late(closing.clone()));
        let watching = Arc::new(Watching::new(options.connect_timeout, id, doubts.clone()));
        tasks.spawn(Arc::clone(&watching).run(others.clone(), hello, closing.clone()));
        let limits = ReadLimits {
            timeout: options.call_timeout,
            patience: options.patience,
            connect_timeout: options.connect_timeout,
            window_bytes: options.read_window_bytes,
        };
        let reading = Arc::new(Reading::new(limits, id, doubts.clone()));
        tasks.spawn(Arc::clone(&reading).run(others.clone(), hello, closing.clone()));
        let calls = Calls::new(others, options.call_timeout, options.patience, (id, doubts));
        let calls = Arc::new(calls);
        Ok(Self {
            lane,
            watching,
            reading,
            recoveries: Recoveries::new(Arc::clone(&calls)),
            replicas: Replicas::new(Arc::clone(&calls)),
            calls,
            node: id,
            closing,
            tasks,
            call_timeout: options.call_timeout,
        })
    }

    /// Gives up what is unanswered, and ends all tasks.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn spawn(&self, calls: BoxFuture<'static, ()>) {
        let closing = self.closing.clone();
        self.tasks.spawn(async move { closing.run_until_cancelled(calls).await });
    }

    async fn until_closed<T>(
        &self,
        asking: impl Future<Output = Result<T, LogError>>,
    ) -> Result<T, LogError> {
        let closed = || Err(LogError::Unavailable("the node's client is closed".to_owned()));
        self.closing.run_until_cancelled(asking).await.unwrap_or_else(closed)
    }
}

impl Drop for RemoteLogs {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl NodeClient for RemoteLogs {
    /// 0 if any node was meant.
    fn node(&self) -> NodeId {
        self.node
    }

    fn send(&self, append: Unanswered) {
        self.lane.send(append);
    }

    fn take_back(&self, log: LogId) -> VecDeque<Unanswered> {
        self.lane.take_back(log)
    }

    fn resume(&self, log: LogId) {
        self.lane.resume(log);
    }

    fn has_unanswered(&self, log: LogId) -> bool {
        self.lane.has_unanswered(log)
    }
}

#[async_trait]
impl LogClient for RemoteLogs {
    fn append(&self, append: Append) -> AppendTicket {
        self.lane.append(append)
    }

    async fn bounds(&self, log: LogId) -> Result<Bounds, LogError> {
        self.calls.bounds(log).await
    }

    async fn replicas(&self, log: LogId) -> Result<LogReplicas, LogError> {
        self.until_closed(self.replicas.of(log, |calls| self.spawn(calls))).await
    }

    async fn read(&self, read: Read) -> Result<ReadOutcome, ReadError> {
        self.reading.read(read).await
    }

    async fn observe(
        &self,
        log: LogId,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Observation, LogError> {
        self.watching.observe(log, observer, self.call_timeout).await
    }

    async fn batch_at_time(
        &self,
        log: LogId,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        self.calls.batch_at_time(log, timestamp).await
    }

    async fn batch_of_max_time(&self, log: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        self.calls.batch_of_max_time(log).await
    }

    async fn end_of_leader_epoch(
        &self,
        log: LogId,
        leader_epoch: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        self.calls.end_of_leader_epoch(log, leader_epoch).await
    }

    async fn trim(&self, log: LogId, before: Offset) -> Result<Offset, LogError> {
        self.calls.trim(log, before).await
    }

    async fn refresh(&self, log: LogId) -> Result<(), LogError> {
        self.calls.refresh(log).await
    }

    async fn describe(&self, log: LogId) -> Result<LogDescription, LogError> {
        only(self.calls.describe_many(&[log], self.call_timeout).await)
    }

    async fn describe_many(
        &self,
        logs: &[LogId],
        patience: Duration,
    ) -> Vec<Result<LogDescription, LogError>> {
        self.calls.describe_many(logs, patience).await
    }

    async fn recover(&self, log: LogId, epoch: Epoch) -> Result<(), LogError> {
        self.until_closed(self.recoveries.recover(log, epoch, |calls| self.spawn(calls))).await
    }
}
