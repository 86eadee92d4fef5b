//! This process's place among the nodes.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use interflow_gateway::net::Bound;
use interflow_meta::cluster::{self, Cluster, ClusterError};
use interflow_meta::levels::Levels;
use interflow_meta::members::{Members, MembersOptions, Registration};
use interflow_meta::nodes::{self, KafkaEndpoint, Node, NodeKind, NodeState};
use interflow_meta::{Meta, NodeId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::{Config, Role};
use crate::meta_store::MetaAddress;

/// The node of a standalone that says no other.
const FIRST: NodeId = NodeId(1);

/// Joins the cluster of `meta`, or creates one: `true` if it is new.
pub(super) async fn join_cluster(meta: &Meta) -> Result<(Cluster, bool), ClusterError> {
    let (new_id, now_ms) = (Uuid::new_v4(), now_ms());
    let cluster = meta
        .transact(|tx| async move {
            cluster::join_or_create(&tx, new_id, now_ms, Levels::SUPPORTED).await
        })
        .await?;
    Ok((cluster, cluster.id == new_id))
}

/// The id that the configuration gives this process.
pub(super) fn id(config: &Config, role: Role) -> Option<NodeId> {
    match (config.node.id, role) {
        (Some(id), _) => Some(NodeId(id)),
        (None, Role::Standalone) => Some(FIRST),
        (None, _) => None,
    }
}

/// What this process says of itself, without a disk.
pub(super) fn registration(config: &Config, role: Role) -> Registration {
    Registration {
        id: id(config, role),
        kind: match role {
            Role::Standalone => NodeKind::Both,
            Role::Logstore => NodeKind::LogStore,
            Role::Gateway => NodeKind::Gateway,
        },
        address: String::new(),
        endpoints: Vec::new(),
        rack: config.node.rack.clone(),
        disk: None,
        disk_bytes: 0,
        started_ms: now_ms(),
    }
}

/// Where clients reach the Kafka listeners.
pub(super) fn endpoints(config: &Config, kafka: &[Bound]) -> Vec<KafkaEndpoint> {
    let host = config.advertise.as_deref().unwrap_or("localhost");
    let endpoint = |bound: &Bound| KafkaEndpoint {
        listener: bound.name().to_string(),
        host: host.to_owned(),
        port: bound.addresses().first().map_or(0, std::net::SocketAddr::port),
    };
    kafka.iter().map(endpoint).collect()
}

/// Begins a new life of the node. One whose metadata nobody else can have needs no lease.
///
/// # Errors
/// An id that is another node's; meta's own.
pub(super) async fn take(
    config: &Config,
    meta: &Meta,
    registration: Registration,
    shutdown: &CancellationToken,
) -> anyhow::Result<Arc<Members>> {
    if config.meta.store == MetaAddress::Embedded {
        return alone(meta, registration).await;
    }
    let options = MembersOptions::lease(Duration::from_millis(config.node.lease_ms));
    Ok(Members::start(meta.clone(), registration, options, shutdown).await?)
}

async fn alone(meta: &Meta, registration: Registration) -> anyhow::Result<Arc<Members>> {
    let id = registration.id.unwrap_or(FIRST);
    let node = &Node {
        state: NodeState::ReadWrite,
        kind: registration.kind,
        endpoints: registration.endpoints,
        rack: registration.rack,
        started_ms: registration.started_ms,
        disk: registration.disk,
        disk_bytes: registration.disk_bytes,
        levels: Levels::SUPPORTED,
        ..Node::default()
    };
    let node = meta.transact(|tx| async move { nodes::register(&tx, id, node).await }).await?;
    Ok(Members::alone(id, node))
}

/// Waits until the default number of log stores take new logs; after the time of a lease, fewer
/// will do.
pub(super) async fn log_stores(config: &Config, members: &Members) {
    let wanted = usize::try_from(config.default_replication_factor(Role::Gateway));
    let wanted = wanted.unwrap_or(usize::MAX).max(1);
    let mut changes = members.changes();
    let count = || members.view().candidates().count();
    let all = changes.wait_for(|_| count() >= wanted);
    if tokio::time::timeout(Duration::from_millis(config.node.lease_ms), all).await.is_ok() {
        return;
    }
    let enough = wanted.min(2);
    if count() < enough {
        tracing::info!(have = count(), want = enough, "waiting for log stores");
    }
    // An error: the members are followed no more, and the process ends.
    let _ = changes.wait_for(|_| count() >= enough).await;
}

/// What the disks of all log stores come to, in bytes, each message being kept as often as the
/// default says; `None` if one of them isn't known.
pub(super) fn disk_bytes(config: &Config, members: &Members) -> Option<u64> {
    let replicas = u64::from(config.default_replication_factor(Role::Gateway).max(1));
    let view = members.view();
    let sizes: Option<Vec<u64>> = view
        .candidates()
        .map(|member| Some(member.node.disk_bytes).filter(|bytes| *bytes > 0))
        .collect();
    sizes.map(|sizes| sizes.iter().sum::<u64>() / replicas).filter(|bytes| *bytes > 0)
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
