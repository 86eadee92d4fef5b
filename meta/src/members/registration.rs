//! How a process becomes a member.

use uuid::Uuid;

use crate::cluster::ClusterError;
use crate::error::{MetaError, TransactError};
use crate::ids::NodeId;
use crate::levels::Levels;
use crate::nodes::{self, KafkaEndpoint, Node, NodeKind, NodeState};
use crate::transaction::Transaction;

/// What a process says of itself.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its id; `None` has one allocated, which is for gateways.
    pub id: Option<NodeId>,
    /// What runs in it.
    pub kind: NodeKind,
    /// Where its logs are reached, `HOST:PORT`; empty where others can't reach them.
    pub address: String,
    /// Where its Kafka listeners are reached.
    pub endpoints: Vec<KafkaEndpoint>,
    /// Where it stands.
    pub rack: String,
    /// Its disk.
    pub disk: Option<Uuid>,
    /// The size of that disk, in bytes.
    pub disk_bytes: u64,
    /// Milliseconds since 1970.
    pub started_ms: i64,
}

/// Why a process is no member.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The id belongs to a node of another kind.
    #[error(
        "node {id} of this cluster is a {found}: choose another --node-id (log stores and \
         gateways share one range of numbers)"
    )]
    OtherKind {
        /// The id.
        id: NodeId,
        /// What it is.
        found: &'static str,
    },
    /// The cluster's own.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl From<MetaError> for RegisterError {
    fn from(error: MetaError) -> Self {
        Self::Cluster(error.into())
    }
}

impl TransactError for RegisterError {
    fn as_meta(&self) -> Option<&MetaError> {
        match self {
            Self::Cluster(error) => error.as_meta(),
            Self::OtherKind { .. } => None,
        }
    }
}

impl Registration {
    /// Begins a new life. It is [provisioning](NodeState::Provisioning) until it is ready; one that
    /// was drained stays read-only.
    pub(super) async fn register(
        &self,
        tx: &Transaction,
        lease_time: std::time::Duration,
    ) -> Result<(NodeId, Node), RegisterError> {
        let id = match self.id {
            Some(id) => id,
            None => nodes::allocate(tx).await?,
        };
        let before = nodes::get(tx, id).await?.filter(|node| node.state != NodeState::Gone);
        if let Some(before) = &before
            && before.kind.has_logs() != self.kind.has_logs()
        {
            let found = if before.kind.has_logs() { "log store" } else { "gateway" };
            return Err(RegisterError::OtherKind { id, found });
        }
        let node = Node {
            state: match before.map(|before| before.state) {
                Some(NodeState::ReadOnly) => NodeState::ReadOnly,
                _ => NodeState::Provisioning,
            },
            kind: self.kind,
            address: self.address.clone(),
            endpoints: self.endpoints.clone(),
            rack: self.rack.clone(),
            started_ms: self.started_ms,
            disk: self.disk,
            disk_bytes: self.disk_bytes,
            levels: Levels::SUPPORTED,
            lease_time,
            ..Node::default()
        };
        let node = nodes::register(tx, id, &node).await?;
        Ok((id, node))
    }
}
