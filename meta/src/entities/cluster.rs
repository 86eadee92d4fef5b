//! The cluster itself: `("config", "cluster")`.

use std::ops::RangeInclusive;

use bytes::Bytes;
use interflow_proto::meta as proto;
use uuid::Uuid;

use super::codec::{decode, encode, uuid};
use crate::error::{MetaError, TransactError};
use crate::transaction::Transaction;

/// The feature levels that this build can work with. A level is raised, explicitly, when all nodes
/// know it; what an older build would misread comes with a new level.
pub const SUPPORTED_LEVELS: RangeInclusive<u32> = 1..=1;

/// What is known of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Its id.
    pub id: Uuid,
    /// The formats in use.
    pub feature_level: u32,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

/// Why a cluster can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// A newer or too old build wrote the metadata.
    #[error(
        "the metadata has feature level {found}; this build works with {} to {}",
        .supported.start(), .supported.end()
    )]
    UnsupportedLevel {
        /// The level found.
        found: u32,
        /// The levels of this build.
        supported: RangeInclusive<u32>,
    },
    /// Meta's own.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl TransactError for ClusterError {
    fn as_meta(&self) -> Option<&MetaError> {
        match self {
            Self::Meta(error) => Some(error),
            Self::UnsupportedLevel { .. } => None,
        }
    }
}

fn key(tx: &Transaction) -> Vec<u8> {
    tx.root().pack(&("config", "cluster"))
}

/// The cluster, if it was set up.
///
/// # Errors
/// Meta's own.
pub async fn get(tx: &Transaction) -> Result<Option<Cluster>, MetaError> {
    let Some(value) = tx.get(&key(tx)).await? else {
        return Ok(None);
    };
    decode_cluster(value).map(Some)
}

/// The cluster; set up with `new_id` at this build's level if there was none.
///
/// # Errors
/// [`ClusterError::UnsupportedLevel`]; meta's own.
pub async fn join_or_create(
    tx: &Transaction,
    new_id: Uuid,
    now_ms: i64,
) -> Result<Cluster, ClusterError> {
    if let Some(cluster) = get(tx).await? {
        if !SUPPORTED_LEVELS.contains(&cluster.feature_level) {
            return Err(ClusterError::UnsupportedLevel {
                found: cluster.feature_level,
                supported: SUPPORTED_LEVELS,
            });
        }
        return Ok(cluster);
    }
    let cluster =
        Cluster { id: new_id, feature_level: *SUPPORTED_LEVELS.end(), created_ms: now_ms };
    tx.set(key(tx), encode_cluster(&cluster))?;
    Ok(cluster)
}

fn encode_cluster(cluster: &Cluster) -> Bytes {
    encode(&proto::Cluster {
        id: Bytes::copy_from_slice(cluster.id.as_bytes()),
        feature_level: cluster.feature_level,
        created_ms: cluster.created_ms,
    })
}

fn decode_cluster(value: Bytes) -> Result<Cluster, MetaError> {
    let message: proto::Cluster = decode(value, "cluster")?;
    Ok(Cluster {
        id: uuid(&message.id, "cluster")?,
        feature_level: message.feature_level,
        created_ms: message.created_ms,
    })
}
