//! Which node a log's sequencer is, and how that node is reached: from meta. And who goes on with a
//! log whose sequencer is down.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use hashbrown::HashMap;
use interflow_meta::grpc::{ClientTls, Dial, Gather, Remote, Token};
use interflow_meta::logs::{LogHead, OpenSegment};
use interflow_meta::nodes::Node;
use interflow_meta::{Epoch, LogId, Meta, MetaError, NodeId, logs, nodes};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::closed;
use crate::{
    AppendError, Doubts, LogClient, LogError, LogReplicas, NodeClient, ReadError, RemoteLogs,
    RemoteLogsOptions, ReplicaDescription,
};

/// Logs that are looked up in one transaction, and how many of those there are at a time.
const MAX_LOOKED_UP: usize = 100;
const LOOK_UPS: usize = 4;

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

    /// Where `log` is kept: all that are to have it, as if they were in sync.
    async fn replicas(&self, log: LogId) -> Result<LogReplicas, RouteError>;

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
    /// By what connections are made.
    pub dial: Dial,
}

impl NodeAccess {
    pub(crate) fn remote(self, host: &str, port: u16) -> Remote {
        let Self { token, tls, dial } = self;
        Remote { host: host.to_owned(), port, token, tls, dial }
    }
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

/// A log's open segment, as a directory has to know it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) epoch: Epoch,
    pub(crate) leader_epoch: u32,
    pub(crate) sequencer: NodeId,
    pub(crate) replicas: Vec<NodeId>,
    /// How many there are to be.
    pub(crate) replication_factor: u32,
}

/// A log's open segment, and the address of its sequencer.
pub(crate) type Placed = (Place, Option<String>);

/// What a directory looks up, and meta knows.
#[async_trait]
pub(crate) trait Places: Send + Sync + 'static {
    /// Where each log is, and the address of its sequencer if that is known.
    async fn places(&self, logs: &[LogId]) -> Vec<Result<Placed, RouteError>>;

    /// A node's address, if it is known.
    async fn address(&self, node: NodeId) -> Result<Option<String>, RouteError>;

    /// A number for a client.
    fn random(&self) -> u64;
}

#[async_trait]
impl Places for Meta {
    async fn places(&self, logs: &[LogId]) -> Vec<Result<Placed, RouteError>> {
        let found = self
            .transact(|tx| async move {
                let heads = logs.iter().map(|log| logs::load_head(&tx, *log));
                let heads = try_join_all(heads).await?;
                let mut ids: Vec<_> =
                    heads.iter().flatten().map(|head| head.open.sequencer).collect();
                ids.sort_unstable();
                ids.dedup();
                let nodes = try_join_all(ids.iter().map(|id| nodes::get(&tx, *id))).await?;
                let address = |(id, node): (NodeId, Option<Node>)| Some((id, node?.address));
                let addresses = ids.into_iter().zip(nodes).filter_map(address);
                Ok::<_, MetaError>((heads, addresses.collect::<HashMap<_, _>>()))
            })
            .await;
        let (heads, addresses) = match found {
            Ok(found) => found,
            Err(error) => return vec![Err(of_meta(error)); logs.len()],
        };
        let placed = |head: Option<LogHead>| {
            let LogHead { open, replication_factor, .. } = head.ok_or(RouteError::NoSuchLog)?;
            let address = addresses.get(&open.sequencer).cloned();
            let OpenSegment { epoch, leader_epoch, sequencer, replicas, .. } = open;
            let place = Place { epoch, leader_epoch, sequencer, replicas, replication_factor };
            Ok((place, address))
        };
        heads.into_iter().map(placed).collect()
    }

    async fn address(&self, node: NodeId) -> Result<Option<String>, RouteError> {
        let found = self.transact(|tx| async move { nodes::get(&tx, node).await }).await;
        Ok(found.map_err(of_meta)?.map(|node| node.address))
    }

    fn random(&self) -> u64 {
        self.random_u64()
    }
}

struct Known {
    address: String,
    logs: Arc<RemoteLogs>,
}

/// The directory in meta. Nodes are reached at the addresses that they state there.
pub struct MetaDirectory {
    places: Arc<dyn Places>,
    access: NodeAccess,
    times: NodeTimes,
    nodes: Mutex<HashMap<NodeId, Known>>,
    doubts: Mutex<Doubts>,
    /// Logs that are looked up.
    looked_up: Arc<Gather<LogId, Result<Placed, RouteError>>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl MetaDirectory {
    /// By `meta`.
    pub fn new(meta: Meta, access: NodeAccess, times: NodeTimes) -> Self {
        Self::by(Arc::new(meta), access, times)
    }

    pub(crate) fn by(places: Arc<dyn Places>, access: NodeAccess, times: NodeTimes) -> Self {
        Self {
            places,
            access,
            times,
            nodes: Mutex::default(),
            doubts: Mutex::default(),
            looked_up: Gather::new(MAX_LOOKED_UP, LOOK_UPS),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Where the log is, looked up with others.
    async fn place(&self, log: LogId) -> Result<Placed, RouteError> {
        let places = Arc::clone(&self.places);
        let call = move |logs: Vec<LogId>| {
            let places = Arc::clone(&places);
            async move { places.places(&logs).await }
        };
        let spawn = |calls| {
            let closing = self.closing.clone();
            self.tasks.spawn(async move { closing.run_until_cancelled(calls).await });
        };
        let looked_up = self.looked_up.ask(spawn, log, call);
        let placed = self.closing.run_until_cancelled(looked_up).await.flatten();
        placed.unwrap_or_else(|| Err(closed()))
    }

    /// The client of a node at its address.
    fn open(&self, node: NodeId, address: Option<String>) -> Result<Arc<RemoteLogs>, RouteError> {
        let not_known = || RouteError::Unavailable(format!("node {node} is not known"));
        let address = address.ok_or_else(not_known)?;
        let mut nodes = self.nodes.lock();
        if let Some(known) = nodes.get(&node)
            && known.address == address
        {
            return Ok(Arc::clone(&known.logs));
        }
        let unavailable = |why: String| RouteError::Unavailable(format!("node {node}: {why}"));
        let (host, port) = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .ok_or_else(|| unavailable(format!("`{address}` is no address")))?;
        let options = RemoteLogsOptions {
            remote: self.access.clone().remote(host, port),
            node: Some(node),
            // Who routes makes calls again elsewhere, and looks there soon.
            patience: Duration::ZERO,
            call_timeout: self.times.call,
            connect_timeout: self.times.connect,
            silence: self.times.silence,
            doubts: self.doubts.lock().clone(),
            ..RemoteLogsOptions::new(host, port, self.places.random())
        };
        let logs = RemoteLogs::open(options).map_err(|error| unavailable(error.to_string()))?;
        let logs = Arc::new(logs);
        // One at an earlier address ends when nobody holds it any more.
        nodes.insert(node, Known { address, logs: Arc::clone(&logs) });
        Ok(logs)
    }
}

fn of_meta(error: MetaError) -> RouteError {
    RouteError::Unavailable(format!("metadata: {error}"))
}

impl MetaDirectory {
    async fn recover(&self, node: NodeId, log: LogId, epoch: Epoch) -> Result<(), RouteError> {
        let unavailable = |why: String| RouteError::Unavailable(format!("node {node}: {why}"));
        let recovering = async {
            let logs = self.open(node, self.places.address(node).await?)?;
            logs.recover(log, epoch).await.map_err(|error| unavailable(error.to_string()))
        };
        let recovered = tokio::time::timeout(self.times.recover, recovering).await;
        recovered.unwrap_or_else(|_| Err(unavailable("it doesn't answer".to_owned())))
    }
}

#[async_trait]
impl Directory for MetaDirectory {
    async fn client(&self, log: LogId) -> Result<Arc<dyn NodeClient>, RouteError> {
        let (place, address) = self.place(log).await?;
        Ok(self.open(place.sequencer, address)?)
    }

    async fn replicas(&self, log: LogId) -> Result<LogReplicas, RouteError> {
        let (Place { leader_epoch, replicas, replication_factor, .. }, _) = self.place(log).await?;
        let replica = |node| ReplicaDescription { node, lag: 0, is_in_sync: true };
        let replicas = replicas.into_iter().map(replica).collect();
        Ok(LogReplicas { leader_epoch, replicas, replication_factor })
    }

    async fn fail_over(&self, log: LogId, suspect: NodeId) -> Result<(), RouteError> {
        let (head, _) = self.place(log).await?;
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
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let nodes = std::mem::take(&mut *self.nodes.lock());
        for known in nodes.into_values() {
            known.logs.close().await;
        }
    }
}
