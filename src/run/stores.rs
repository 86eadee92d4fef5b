//! Opens what a standalone keeps things in, and makes sure that it belongs together.
//!
//! ```text
//!   formats known? ─► metadata ─► cluster, node ─► is the journal theirs? ─► journal
//! ```
//!
//! Nothing in the journal's folder is changed before the last question is answered, and the metadata
//! knows the disk before it knows any segment on it.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use interflow_logstore::store::{self, JournalStore};
use interflow_logstore::{Claim, Identity, Marker, Progress};
use interflow_meta::cluster::{self, Cluster, ClusterError};
use interflow_meta::levels::Levels;
use interflow_meta::nodes::{self, Node, NodeState};
use interflow_meta::{Env, Meta, NodeId, Store};
use uuid::Uuid;

use super::disks::Disks;
use super::metadata;
use crate::config::Config;
use crate::meta_store::META_ROOT;

/// The only node of a standalone.
pub(super) const NODE: NodeId = NodeId(1);

/// What a standalone keeps things in.
pub(super) struct Stores {
    pub(super) metadata: Arc<dyn Store>,
    /// The handle on it.
    pub(super) meta: Meta,
    pub(super) cluster: Cluster,
    pub(super) identity: Identity,
    pub(super) journal: Arc<JournalStore>,
    pub(super) progress: Arc<Progress>,
    /// The size of the journal's disk, in bytes.
    pub(super) space: u64,
}

/// Opens the metadata store and the journal; both may scan files after a crash.
///
/// # Errors
/// What is wrong, with what cures it.
pub(super) async fn open(config: &Config, disks: Disks) -> anyhow::Result<Stores> {
    let folder = config.data_dir.0.display().to_string();
    let cannot = || format!("cannot open the data folder {folder}");
    let disk = disks.journal.clone();
    let asked = tokio::task::spawn_blocking(move || JournalStore::check_formats(&*disk));
    let has_extents = asked.await?.with_context(cannot)?;

    let env = Env::default();
    let metadata = metadata::open(config, disks.meta, env.clone()).await?;
    let meta = Meta::new(metadata.clone(), env, META_ROOT);
    let (cluster, claim) = join(&meta).await?;
    let disk = disks.journal.clone();
    let claimed = tokio::task::spawn_blocking(move || {
        Marker::claim(&*disk, claim, has_extents, Uuid::new_v4())
    });
    let marker = claimed.await?.with_context(cannot)?;
    let identity = register(&meta, marker).await?;

    let storage = config.storage.clone();
    let opened = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let options = store::Options {
            extent_bytes: storage.extent_bytes,
            sync_depth: storage.sync_depth,
            recycled_extents: storage.recycled_extents,
            tail_cache_bytes: storage.tail_cache_bytes,
            min_free_bytes: storage.min_free_bytes,
            min_free_percent: storage.min_free_percent,
            rewrite_bytes_per_second: storage.rewrite_bytes_per_second,
            ..store::Options::default()
        };
        let space = disks.journal.space()?.total;
        let progress = Progress::new();
        let journal = JournalStore::open(disks.journal, options, progress.clone())?;
        Ok((Arc::new(journal), progress, space))
    });
    let (journal, progress, space) = opened.await?.with_context(cannot)?;
    Ok(Stores { metadata, meta, cluster, identity, journal, progress, space })
}

/// The cluster, and what its metadata says of this node's disk.
async fn join(meta: &Meta) -> anyhow::Result<(Cluster, Claim)> {
    let (new_id, now_ms) = (Uuid::new_v4(), now_ms());
    let (cluster, node) = meta
        .transact(|tx| async move {
            let cluster = cluster::join_or_create(&tx, new_id, now_ms, Levels::SUPPORTED).await?;
            Ok::<_, ClusterError>((cluster, nodes::get(&tx, NODE).await?))
        })
        .await?;
    let disk = node.and_then(|node| node.disk);
    let claim = Claim { cluster: cluster.id, is_new: cluster.id == new_id, node: NODE, disk };
    Ok((cluster, claim))
}

/// Begins a new incarnation of the one node, on its disk.
async fn register(meta: &Meta, marker: Marker) -> anyhow::Result<Identity> {
    let node = &Node {
        state: NodeState::ReadWrite,
        started_ms: now_ms(),
        disk: Some(marker.disk),
        levels: Levels::SUPPORTED,
        ..Node::default()
    };
    let node = meta.transact(|tx| async move { nodes::register(&tx, NODE, node).await }).await?;
    Ok(Identity { node: NODE, incarnation: node.incarnation })
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
