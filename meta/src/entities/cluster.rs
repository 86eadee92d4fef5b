//! The cluster itself: `("config", "cluster")`.

use bytes::Bytes;
use interflow_proto::meta as proto;
use uuid::Uuid;

use super::codec::{decode, encode, uuid};
use super::levels::Levels;
use crate::error::{MetaError, TransactError};
use crate::transaction::Transaction;

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

impl Cluster {
    /// A build that works with `supported` may use it.
    ///
    /// # Errors
    /// [`ClusterError::NewerLevel`], [`ClusterError::OlderLevel`].
    pub(super) fn check(&self, supported: Levels) -> Result<(), ClusterError> {
        let found = self.feature_level;
        if found > supported.max() {
            return Err(ClusterError::NewerLevel { found, supported });
        }
        if found < supported.min() {
            return Err(ClusterError::OlderLevel { found, supported });
        }
        Ok(())
    }
}

/// Why a cluster can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Formats are in use that came later than this build.
    #[error(
        "the metadata has feature level {found}; this build works with {supported}: start the \
         version of interflow that raised it, or a later one"
    )]
    NewerLevel {
        /// The level found.
        found: u32,
        /// The levels of this build.
        supported: Levels,
    },
    /// Formats are in use that this build has forgotten.
    #[error(
        "the metadata has feature level {found}; this build works with {supported}: start an \
         earlier version of interflow, and raise the level by its `interflow meta upgrade`"
    )]
    OlderLevel {
        /// The level found.
        found: u32,
        /// The levels of this build.
        supported: Levels,
    },
    /// Nobody has set up a cluster here.
    #[error("there is no cluster in this metadata")]
    NoCluster,
    /// Meta's own.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl TransactError for ClusterError {
    fn as_meta(&self) -> Option<&MetaError> {
        match self {
            Self::Meta(error) => Some(error),
            _ => None,
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

/// The cluster; set up with `new_id` at the highest level that is `supported` if there was none.
///
/// # Errors
/// [`ClusterError::NewerLevel`], [`ClusterError::OlderLevel`]; meta's own.
pub async fn join_or_create(
    tx: &Transaction,
    new_id: Uuid,
    now_ms: i64,
    supported: Levels,
) -> Result<Cluster, ClusterError> {
    if let Some(cluster) = get(tx).await? {
        cluster.check(supported)?;
        return Ok(cluster);
    }
    let cluster = Cluster { id: new_id, feature_level: supported.max(), created_ms: now_ms };
    put(tx, &cluster)?;
    Ok(cluster)
}

pub(super) fn put(tx: &Transaction, cluster: &Cluster) -> Result<(), MetaError> {
    tx.set(key(tx), encode_cluster(cluster))
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
                .transact(|tx| async move {
                    join_or_create(&tx, Uuid::from_u128(n), 5, Levels::SUPPORTED).await
                })
                .await
                .unwrap();
            assert_eq!(cluster.id, Uuid::from_u128(1));
            assert_eq!(cluster.feature_level, Levels::SUPPORTED.max());
        }
    }

    /// Both numbers are named, and what cures it.
    #[tokio::test]
    async fn a_level_that_is_not_supported_is_refused() {
        let bed = TestBed::new();
        let tx = bed.meta.begin();
        let supported = Levels::new(3, 5).unwrap();
        for (level, told) in [
            (2, Some("level 2; this build works with 3 to 5: start an earlier version")),
            (3, None),
            (5, None),
            (6, Some("level 6; this build works with 3 to 5: start the version of interflow that")),
        ] {
            put(&tx, &Cluster { id: Uuid::nil(), feature_level: level, created_ms: 0 }).unwrap();
            let joined = join_or_create(&tx, Uuid::nil(), 0, supported).await;
            match (joined, told) {
                (Ok(cluster), None) => assert_eq!(cluster.feature_level, level),
                (Err(error), Some(told)) => {
                    assert!(error.to_string().contains(told), "{error}");
                }
                (joined, told) => panic!("{joined:?} instead of {told:?}"),
            }
        }
    }

    proptest! {
        #[test]
        fn a_cluster_comes_back_as_it_was(id: u128, feature_level: u32, created_ms: i64) {
            let cluster = Cluster { id: Uuid::from_u128(id), feature_level, created_ms };
            prop_assert_eq!(decode_cluster(encode_cluster(&cluster)).unwrap(), cluster);
        }
    }
}
