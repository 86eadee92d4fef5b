//! The value of a node.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use interflow_proto::meta as proto;
use uuid::Uuid;

use crate::entities::codec::{corrupt, decode, encode};
use crate::entities::levels::Levels;
use crate::error::MetaError;

/// How long a lease lasts: longer than a recovery of FoundationDB, which is usually over within 5 s
/// and during which nobody can bump.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(6);

/// What a node may be used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// Not yet used.
    #[default]
    Provisioning,
    /// Takes new segments.
    ReadWrite,
    /// Serves what it has.
    ReadOnly,
    /// Lost what it had: its answers don't count.
    DataLoss,
    /// Never comes back.
    Gone,
}

impl NodeState {
    fn code(self) -> u32 {
        match self {
            Self::Provisioning => 0,
            Self::ReadWrite => 1,
            Self::ReadOnly => 2,
            Self::DataLoss => 3,
            Self::Gone => 4,
        }
    }

    pub(super) fn from_code(code: u32) -> Result<Self, MetaError> {
        [Self::Provisioning, Self::ReadWrite, Self::ReadOnly, Self::DataLoss, Self::Gone]
            .into_iter()
            .find(|state| state.code() == code)
            .ok_or_else(|| corrupt("node", "unknown state"))
    }
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Provisioning => "provisioning",
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
            Self::DataLoss => "data-loss",
            Self::Gone => "gone",
        })
    }
}

/// Which parts run in a node's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeKind {
    /// Log store and gateway.
    #[default]
    Both,
    /// A log store.
    LogStore,
    /// A gateway.
    Gateway,
}

impl NodeKind {
    /// It keeps logs.
    #[must_use]
    pub fn has_logs(self) -> bool {
        self != Self::Gateway
    }

    /// It serves clients.
    #[must_use]
    pub fn has_gateway(self) -> bool {
        self != Self::LogStore
    }

    fn code(self) -> u32 {
        match self {
            Self::Both => 0,
            Self::LogStore => 1,
            Self::Gateway => 2,
        }
    }

    pub(super) fn from_code(code: u32) -> Result<Self, MetaError> {
        [Self::Both, Self::LogStore, Self::Gateway]
            .into_iter()
            .find(|kind| kind.code() == code)
            .ok_or_else(|| corrupt("node", "unknown kind"))
    }
}

impl fmt::Display for NodeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Both => "standalone",
            Self::LogStore => "logstore",
            Self::Gateway => "gateway",
        })
    }
}

/// Where a Kafka listener is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaEndpoint {
    /// The listener's name.
    pub listener: String,
    /// A name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Which life of the node: rises each time its process starts.
    pub incarnation: u64,
    /// What it may be used for.
    pub state: NodeState,
    /// What runs in it.
    pub kind: NodeKind,
    /// Where its logs are reached, `HOST:PORT`; empty where others can't reach them.
    pub address: String,
    /// Where its Kafka listeners are reached.
    pub endpoints: Vec<KafkaEndpoint>,
    /// Where it stands.
    pub rack: String,
    /// When it started, milliseconds since 1970.
    pub started_ms: i64,
    /// The disk that its segments are on; none before it has one.
    pub disk: Option<Uuid>,
    /// The size of that disk, in bytes; 0 if it isn't known.
    pub disk_bytes: u64,
    /// The feature levels that it can work with.
    pub levels: Levels,
    /// Rises as long as the node lives: who sees it stand still for `lease_time`, by its own
    /// clock, takes the node for dead.
    pub lease: u64,
    /// How long the lease lasts after a rise, in whole milliseconds.
    pub lease_time: Duration,
    /// Its process has ended in order: nobody needs to wait for the lease.
    pub is_stopped: bool,
    /// Its disk is full or has failed: it takes no new segments until it says otherwise.
    pub is_full: bool,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            incarnation: 0,
            state: NodeState::default(),
            kind: NodeKind::default(),
            address: String::new(),
            endpoints: Vec::new(),
            rack: String::new(),
            started_ms: 0,
            disk: None,
            disk_bytes: 0,
            levels: Levels::default(),
            lease: 0,
            lease_time: DEFAULT_LEASE,
            is_stopped: false,
            is_full: false,
        }
    }
}

impl Node {
    pub(super) fn encode(&self) -> Bytes {
        encode(&proto::Node {
            incarnation: self.incarnation,
            state: self.state.code(),
            kind: self.kind.code(),
            address: self.address.clone(),
            endpoints: self.endpoints.iter().map(endpoint_message).collect(),
            rack: self.rack.clone(),
            started_ms: self.started_ms,
            disk: self.disk.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
            disk_bytes: self.disk_bytes,
            min_level: self.levels.min(),
            max_level: self.levels.max(),
            lease: self.lease,
            lease_ms: u64::try_from(self.lease_time.as_millis()).unwrap_or(u64::MAX),
            is_stopped: self.is_stopped,
            is_full: self.is_full,
        })
    }

    pub(in crate::entities) fn decode(value: Bytes) -> Result<Self, MetaError> {
        let message: proto::Node = decode(value, "node")?;
        Ok(Self {
            incarnation: message.incarnation,
            state: NodeState::from_code(message.state)?,
            kind: NodeKind::from_code(message.kind)?,
            address: message.address,
            endpoints: message.endpoints.into_iter().map(endpoint).collect::<Result<_, _>>()?,
            rack: message.rack,
            started_ms: message.started_ms,
            disk: disk_of(&message.disk)?,
            disk_bytes: message.disk_bytes,
            levels: match (message.min_level, message.max_level) {
                (0, 0) => Levels::UNSAID,
                (min, max) => Levels::new(min, max)
                    .ok_or_else(|| corrupt("node", "its feature levels are no range"))?,
            },
            lease: message.lease,
            lease_time: match message.lease_ms {
                0 => DEFAULT_LEASE,
                ms => Duration::from_millis(ms),
            },
            is_stopped: message.is_stopped,
            is_full: message.is_full,
        })
    }
}

fn endpoint_message(endpoint: &KafkaEndpoint) -> proto::KafkaEndpoint {
    proto::KafkaEndpoint {
        listener: endpoint.listener.clone(),
        host: endpoint.host.clone(),
        port: u32::from(endpoint.port),
    }
}

fn endpoint(message: proto::KafkaEndpoint) -> Result<KafkaEndpoint, MetaError> {
    let port = u16::try_from(message.port).map_err(|_| corrupt("node", "a port is none"))?;
    Ok(KafkaEndpoint { listener: message.listener, host: message.host, port })
}

fn disk_of(bytes: &[u8]) -> Result<Option<Uuid>, MetaError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Uuid::from_slice(bytes).map(Some).map_err(|_| corrupt("node", "its disk is no UUID"))
}
