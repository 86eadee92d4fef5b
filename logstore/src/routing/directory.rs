//! Which node a log's sequencer is, and how that node is reached: from meta. And who goes on with a
//! log whose sequencer is down.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hashbrown::HashMap;
use interflow_meta::grpc::{ClientTls, Remote, Token};
use interflow_meta::logs::OpenSegment;
use interflow_meta::nodes::Node;
use interflow_meta::{Epoch, LogId, Meta, MetaError, NodeId, logs, nodes};
use parking_lot::Mutex;

use crate::{
    AppendError, Doubts, LogClient, LogError, NodeClient, ReadError, RemoteLogs, RemoteLogsOptions,
};

/// Why a log has no route.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RouteError {
    /// No such log.
    #[error("the log does not exist")]
    NoSuchLog,
    /// Meta can't be read, or doesn't know where the log's node is.
    #[error("{0}")]
    Unavailable(String),
}

impl From<RouteError> for AppendError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NoSuchLog => Self::NoSuchLog,
            RouteError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<RouteError> for LogError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NoSuchLog => Self::NoSuchLog,
            RouteError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<RouteError> for ReadError {
    fn from(error: RouteError) -> Self {
        match error {
            RouteError::NoSuchLog => Self::NoSuchLog,
            RouteError::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

/// Where logs are.
#[async_trait]
pub trait Directory: Send + Sync + 'static {
    /// The client of the node that is the sequencer of `log` now.
    async fn client(&self, log: LogId) -> Result<Arc<dyn NodeClient>, RouteError>;

    /// Sees to it that `log` has a sequencer other than `suspect`, which doesn't answer: if meta
    /// still names that one, asks the other replicas in their order to recover the log, until one
    /// has. A log with one replica has nobody to ask: that is no error, it waits for its node.
    ///
    /// # Errors
    /// [`RouteError::Unavailable`] when meta can't be read or no replica has recovered the log.
    async fn fail_over(&self, log: LogId, suspect: NodeId) -> Result<(), RouteError>;

    /// The clients are to tell `doubts` of theirs. Called once, before any client is asked for.
    fn on_doubt(&self, doubts: Doubts);

    /// Closes all clients.
    async fn close(&self);
}

/// How nodes are got into: all by the same.
#[derive(Clone, Debug, Default)]
pub struct NodeAccess {
    /// What they want to know.
    pub token: Option<Token>,
    /// Speak TLS.
    pub tls: Option<ClientTls>,
}

/// How long nodes are waited for.
#[derive(Clone, Copy, Debug)]
pub struct NodeTimes {
    /// A connection that isn't made, or welcomed, in that time is one that can't be made.
    pub connect: Duration,
    /// An append that isn't answered for so long makes its log fail over.
    pub silence: Duration,
    /// A call that isn't answered for so long is as one to a node that can't be reached.
    pub call: Duration,
    /// A replica that is asked to recover a log is waited for so long.
    pub recover: Duration,
}

impl Default for NodeTimes {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            silence: Duration::from_secs(3),
            call: Duration::from_secs(10),
            recover: Duration::from_secs(3),
        }
    }
}

struct Known {
    address: String,
    logs: Arc<RemoteLogs>,
}

/// The directory in meta. Nodes are reached at the addresses that they state there.
pub struct MetaDirectory {
    meta: Meta,
    access: NodeAccess,
    times: NodeTimes,
    nodes: Mutex<HashMap<NodeId, Known>>,
    doubts: Mutex<Doubts>,
}

impl MetaDirectory {
    /// By `meta`.
    pub fn new(meta: Meta, access: NodeAccess, times: NodeTimes) -> Self {
        Self { meta, access, times, nodes: Mutex::default(), doubts: Mutex::default() }
    }

    /// The client of a node that meta told of.
    fn open(&self, node: NodeId, found: Option<Node>) -> Result<Arc<RemoteLogs>, RouteError> {
        let not_known = || RouteError::Unavailable(format!("node {node} is not known"));
        let address = &found.ok_or_else(not_known)?.address;
        let mut nodes = self.nodes.lock();
        if let Some(known) = nodes.get(&node)
            && known.address == *address
        {
            return Ok(Arc::clone(&known.logs));
        }
        let unavailable = |why: String| RouteError::Unavailable(format!("node {node}: {why}"));
        let (host, port) = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .ok_or_else(|| unavailable(format!("`{address}` is no address")))?;
        let NodeAccess { token, tls } = self.access.clone();
        let options = RemoteLogsOptions {
            remote: Remote { host: host.to_owned(), port, token, tls },
            node: Some(node),
            // Who routes makes calls again elsewhere, and looks there soon.
            patience: Duration::ZERO,
            call_timeout: self.times.call,
            connect_timeout: self.times.connect,
            silence: self.times.silence,
            doubts: self.doubts.lock().clone(),
            ..RemoteLogsOptions::new(host, port, self.meta.random_u64())
        };
        let logs = RemoteLogs::open(options).map_err(|error| unavailable(error.to_string()))?;
        let logs = Arc::new(logs);
        // One at an earlier address ends when nobody holds it any more.
        nodes.insert(node, Known { address: address.clone(), logs: Arc::clone(&logs) });
        Ok(logs)
    }
}

fn of_meta(error: MetaError) -> RouteError {
    RouteError::Unavailable(format!("metadata: {error}"))
}

impl MetaDirectory {
    async fn head(&self, log: LogId) -> Result<OpenSegment, RouteError> {
        let head = self.meta.transact(|tx| async move { logs::load_head(&tx, log).await }).await;
        Ok(head.map_err(of_meta)?.ok_or(RouteError::NoSuchLog)?.open)
    }

    async fn recover(&self, node: NodeId, log: LogId, epoch: Epoch) -> Result<(), RouteError> {
        let unavailable = |why: String| RouteError::Unavailable(format!("node {node}: {why}"));
        let recovering = async {
            let found = self.meta.transact(|tx| async move { nodes::get(&tx, node).await }).await;
            let logs = self.open(node, found.map_err(of_meta)?)?;
            logs.recover(log, epoch).await.map_err(|error| unavailable(error.to_string()))
        };
        let recovered = tokio::time::timeout(self.times.recover, recovering).await;
        recovered.unwrap_or_else(|_| Err(unavailable("it doesn't answer".to_owned())))
    }
}

#[async_trait]
impl Directory for MetaDirectory {
    async fn client(&self, log: LogId) -> Result<Arc<dyn NodeClient>, RouteError> {
        let found = self
            .meta
            .transact(|tx| async move {
                let Some(head) = logs::load_head(&tx, log).await? else { return Ok(None) };
                let node = head.open.sequencer;
                Ok::<_, MetaError>(Some((node, nodes::get(&tx, node).await?)))
            })
            .await
            .map_err(of_meta)?;
        let (id, node) = found.ok_or(RouteError::NoSuchLog)?;
        Ok(self.open(id, node)?)
    }

    async fn fail_over(&self, log: LogId, suspect: NodeId) -> Result<(), RouteError> {
        let head = self.head(log).await?;
        if head.sequencer != suspect {
            return Ok(());
        }
        let mut failed = None;
        for replica in head.replicas.into_iter().filter(|replica| *replica != suspect) {
            match self.recover(replica, log, head.epoch).await {
                Ok(()) => return Ok(()),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn on_doubt(&self, doubts: Doubts) {
        *self.doubts.lock() = doubts;
    }

    async fn close(&self) {
        let nodes = std::mem::take(&mut *self.nodes.lock());
        for known in nodes.into_values() {
            known.logs.close().await;
        }
    }
}
