//! The log node of a process: its disk, its place among the nodes, its log store.
//!
//! ```text
//!   formats known? ─► metadata ─► cluster, node ─► is the disk theirs? ─► seat ─► journal ─► log store
//! ```
//!
//! Nothing in the journal's folder is changed before the question is answered whose it is, and the
//! metadata knows the disk before it knows any segment on it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use interflow_logstore::clock::SystemClock;
use interflow_logstore::disk::Disk;
use interflow_logstore::store::{self, JournalStore};
use interflow_logstore::{
    Claim, GrpcPeers, Identity, LogConfig, LogStore, Marker, MarkerError, Progress,
};
use interflow_meta::cluster::Cluster;
use interflow_meta::members::{Members, Registration};
use interflow_meta::nodes::{self, NodeState};
use interflow_meta::{Meta, MetaError, NodeId};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::views::MemberLogNodes;
use super::{access, seat};
use crate::config::{Config, Role};

/// Appends in flight, and what they need of the disk, are finished within this at shutdown.
const FINISH: Duration = Duration::from_secs(4);
/// What others are to know of the disk is told again after so long, when it could not be.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// Logs are handed over to their other replicas within this, before.
const HAND_OVER: Duration = Duration::from_secs(5);

/// A log node. It must be ended with [`LogPart::stop`].
pub(super) struct LogPart {
    pub(super) cluster: Cluster,
    pub(super) members: Arc<Members>,
    pub(super) log: LogStore,
    /// The other log nodes, where there can be any.
    peers: Option<Arc<GrpcPeers>>,
    /// The size of the journal's disk, in bytes.
    pub(super) disk_bytes: u64,
}

/// A disk whose formats this build knows.
pub(super) struct KnownDisk {
    disk: Arc<dyn Disk>,
    has_extents: bool,
}

impl KnownDisk {
    /// Looks at the disk, and changes nothing.
    ///
    /// # Errors
    /// A format that this build doesn't know.
    pub(super) async fn check(config: &Config, disk: Arc<dyn Disk>) -> anyhow::Result<Self> {
        let asked = disk.clone();
        let asked = tokio::task::spawn_blocking(move || JournalStore::check_formats(&*asked));
        let has_extents = asked.await?.with_context(|| cannot_open(config))?;
        Ok(Self { disk, has_extents })
    }
}

impl LogPart {
    /// Takes the disk and the node's place, and opens the journal, which may scan files after a
    /// crash.
    ///
    /// # Errors
    /// What is wrong, with what cures it.
    pub(super) async fn open(
        config: &Config,
        role: Role,
        known: KnownDisk,
        meta: &Meta,
        registration: Registration,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Self> {
        let KnownDisk { disk, has_extents } = known;
        let (cluster, is_new) = seat::join_cluster(meta).await?;
        let id = registration.id.context("a log store needs an id")?;
        let node = meta.transact(|tx| async move { nodes::get(&tx, id).await }).await;
        let node = node.map_err(|error: MetaError| error)?;
        // One that was removed begins anew.
        let known = node.filter(|node| node.state != NodeState::Gone).and_then(|node| node.disk);
        let claim = Claim { cluster: cluster.id, is_new, node: id, disk: known };
        let asked = disk.clone();
        let claimed = tokio::task::spawn_blocking(move || {
            let marker = Marker::claim(&*asked, claim, has_extents, Uuid::new_v4())?;
            Ok::<_, MarkerError>((marker, asked.space()?.total))
        });
        let (marker, disk_bytes) = match claimed.await? {
            Err(MarkerError::OtherDisk) if role == Role::Logstore => {
                return Err(lost(meta, id, Duration::from_millis(config.node.lease_ms)).await);
            }
            claimed => claimed.with_context(|| cannot_open(config))?,
        };
        let registration = Registration { disk: Some(marker.disk), disk_bytes, ..registration };
        let members = seat::take(config, meta, registration, shutdown).await?;
        let (log, peers) = open_log(config, role, disk, meta, &members).await?;
        tokio::spawn(tell_of_full_disk(log.clone(), Arc::clone(&members), shutdown.clone()));
        Ok(Self { cluster, members, log, peers, disk_bytes })
    }

    /// Hands logs over to their other replicas, as long as the log service is still there for those
    /// who use them.
    pub(super) async fn hand_over(&self) {
        if self.peers.is_some()
            && tokio::time::timeout(HAND_OVER, self.log.hand_over()).await.is_err()
        {
            // Others find out, and recover what is still here.
            tracing::warn!("not all logs could be handed over in time");
        }
    }

    /// Finishes appends in flight. Others see from now on that the node is gone.
    ///
    /// # Errors
    /// What could not be finished in time.
    pub(super) async fn stop(&self) -> anyhow::Result<()> {
        let finished = tokio::time::timeout(FINISH, self.log.shutdown()).await;
        if let Some(peers) = &self.peers {
            peers.close().await;
        }
        self.members.leave().await;
        finished.context("appends in flight could not be finished in time")
    }
}

async fn open_log(
    config: &Config,
    role: Role,
    disk: Arc<dyn Disk>,
    meta: &Meta,
    members: &Arc<Members>,
) -> anyhow::Result<(LogStore, Option<Arc<GrpcPeers>>)> {
    let storage = &config.storage;
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
    let progress = Progress::new();
    let events = progress.clone();
    let opened = tokio::task::spawn_blocking(move || JournalStore::open(disk, options, events));
    let journal = Arc::new(opened.await?.with_context(|| cannot_open(config))?);
    let me = members.me();
    let identity = Identity { node: me.id, incarnation: me.incarnation };
    let log_config = LogConfig {
        retention_interval: Duration::from_secs(storage.retention_interval_s.max(1)),
        scrub_interval: Duration::from_secs(storage.scrub_interval_s.max(1)),
        scrub_bytes_per_second: storage.scrub_bytes_per_second,
        ..LogConfig::default()
    };
    let clock = Arc::new(SystemClock::new());
    if role == Role::Standalone {
        let log = LogStore::open(meta.clone(), journal, progress, identity, log_config, clock);
        return Ok((log, None));
    }
    let view = MemberLogNodes::new(members.clone());
    let peers = GrpcPeers::new(identity, view, access::node_access(&config.logstore)?);
    let opened = LogStore::open_cluster(
        meta.clone(),
        journal,
        progress,
        identity,
        log_config,
        clock,
        peers.clone(),
    );
    let log = opened.await.with_context(|| cannot_open(config))?;
    Ok((log, Some(peers)))
}

/// Lets others know while the disk takes nothing, so that they put nothing here.
async fn tell_of_full_disk(log: LogStore, members: Arc<Members>, shutdown: CancellationToken) {
    let mut out = log.watch_out_of_disk();
    let telling = async {
        loop {
            let is_out = *out.borrow_and_update();
            match members.set_full(is_out).await {
                Ok(()) if out.changed().await.is_err() => return,
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "could not tell whether the disk takes anything");
                    tokio::time::sleep(TELL_AGAIN).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(telling).await;
}

fn cannot_open(config: &Config) -> String {
    format!("cannot open the data folder {}", config.data_dir.0.display())
}

/// The node's disk isn't there. Others are told, so that they count on it no more, unless a process
/// has it elsewhere; then what is wrong is this one's folder.
async fn lost(meta: &Meta, id: NodeId, lease: Duration) -> anyhow::Error {
    match mark_lost(meta, id, lease).await {
        Ok(()) => anyhow::anyhow!(
            "the disk of node {id} is lost: this folder doesn't hold what the metadata knows of it. \
             The node is marked as data-loss. Put its disk back (see --data-dir) and start it; or \
             give it up by `interflow node remove {id}`, and start it with an empty folder"
        ),
        Err(error) => error,
    }
}

async fn mark_lost(meta: &Meta, id: NodeId, lease: Duration) -> anyhow::Result<()> {
    let tx = meta.begin();
    let seen = nodes::get(&tx, id).await?.context("the node is gone")?;
    let watch = nodes::watch(&tx, id).await?;
    tx.commit().await?;
    let lease = lease.max(seen.lease_time);
    if !seen.is_stopped && tokio::time::timeout(lease, watch.changed()).await.is_ok() {
        bail!(
            "node {id} runs elsewhere, and this folder isn't its own: choose another --node-id or \
             --data-dir"
        );
    }
    meta.transact(|tx| async move {
        match nodes::get(&tx, id).await? {
            Some(node) if node.lease == seen.lease => {
                nodes::set_state(&tx, id, NodeState::DataLoss).await.map(|_| ())
            }
            _ => Ok::<_, MetaError>(()),
        }
    })
    .await?;
    Ok(())
}
