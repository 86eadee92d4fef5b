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

pub(super) fn decode_cluster(value: Bytes) -> Result<Cluster, MetaError> {
    let message: proto::Cluster = decode(value, "cluster")?;
    Ok(Cluster {
        id: uuid(&message.id, "cluster")?,
        feature_level: message.feature_level,
        created_ms: message.created_ms,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::TestBed;

    #[tokio::test]
    async fn the_first_to_join_creates() {
        let bed = TestBed::new();
        for n in [1, 2] {
            let cluster = bed
                .meta
                .transact(|tx| async move { join_or_create(&tx, Uuid::from_u128(n), 5).await })
                .await
                .unwrap();
            assert_eq!(cluster.id, Uuid::from_u128(1));
        }
    }

    #[tokio::test]
    async fn an_unknown_level_is_refused() {
        let bed = TestBed::new();
        let tx = bed.meta.begin();
        let newer = Cluster { id: Uuid::nil(), feature_level: 99, created_ms: 0 };
        tx.set(key(&tx), encode_cluster(&newer)).unwrap();
        let refused = join_or_create(&tx, Uuid::nil(), 0).await;
        assert!(matches!(refused, Err(ClusterError::UnsupportedLevel { found: 99, .. })));
    }

    proptest! {
        #[test]
        fn a_cluster_comes_back_as_it_was(id: u128, feature_level: u32, created_ms: i64) {
            let cluster = Cluster { id: Uuid::from_u128(id), feature_level, created_ms };
            prop_assert_eq!(decode_cluster(encode_cluster(&cluster)).unwrap(), cluster);
        }
    }
}
