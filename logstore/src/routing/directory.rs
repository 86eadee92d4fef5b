//! Which node a log's sequencer is, and how that node is reached: from meta.

use std::sync::Arc;

use async_trait::async_trait;
use hashbrown::HashMap;
use interflow_meta::grpc::{ClientTls, Remote, Token};
use interflow_meta::{LogId, Meta, MetaError, NodeId, logs, nodes};
use parking_lot::Mutex;

use crate::{
    AppendError, LogClient, LogError, ReadError, RemoteLogs, RemoteLogsOptions, WrongNode,
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
    async fn client(&self, log: LogId) -> Result<Arc<dyn LogClient>, RouteError>;

    /// `forget` is to be called for a log whose node says that it isn't the sequencer.
    fn on_wrong_node(&self, forget: WrongNode);

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

struct Known {
    address: String,
    logs: Arc<RemoteLogs>,
}

/// The directory in meta. Nodes are reached at the addresses that they state there.
pub struct MetaDirectory {
    meta: Meta,
    access: NodeAccess,
    nodes: Mutex<HashMap<NodeId, Known>>,
    forget: Mutex<Option<WrongNode>>,
}

impl MetaDirectory {
    /// By `meta`.
    pub fn new(meta: Meta, access: NodeAccess) -> Self {
        Self { meta, access, nodes: Mutex::default(), forget: Mutex::default() }
    }

    fn open(&self, node: NodeId, address: &str) -> Result<Arc<RemoteLogs>, RouteError> {
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
        let NodeAccess { token, tls } = self.access.clone();
        let options = RemoteLogsOptions {
            remote: Remote { host: host.to_owned(), port, token, tls },
            node: Some(node),
            on_wrong_node: self.forget.lock().clone().unwrap_or_default(),
            ..RemoteLogsOptions::new(host, port, self.meta.random_u64())
        };
        let logs = RemoteLogs::open(options).map_err(|error| unavailable(error.to_string()))?;
        let logs = Arc::new(logs);
        // One at an earlier address ends when nobody holds it any more.
        nodes.insert(node, Known { address: address.to_owned(), logs: Arc::clone(&logs) });
        Ok(logs)
    }
}

#[async_trait]
impl Directory for MetaDirectory {
    async fn client(&self, log: LogId) -> Result<Arc<dyn LogClient>, RouteError> {
        let found = self
            .meta
            .transact(|tx| async move {
                let Some(head) = logs::load_head(&tx, log).await? else { return Ok(None) };
                let node = head.open.sequencer;
                Ok::<_, MetaError>(Some((node, nodes::get(&tx, node).await?)))
            })
            .await
            .map_err(|error| RouteError::Unavailable(format!("metadata: {error}")))?;
        let (id, node) = found.ok_or(RouteError::NoSuchLog)?;
        let node =
            node.ok_or_else(|| RouteError::Unavailable(format!("node {id} is not known")))?;
        Ok(self.open(id, &node.address)?)
    }

    fn on_wrong_node(&self, forget: WrongNode) {
        *self.forget.lock() = Some(forget);
    }

    async fn close(&self) {
        let nodes = std::mem::take(&mut *self.nodes.lock());
        for known in nodes.into_values() {
            known.logs.close().await;
        }
    }
}
