//! Nodes: `("node", id)`.

use bytes::Bytes;
use interflow_proto::meta as proto;
use uuid::Uuid;

use super::cluster::{self, ClusterError};
use super::codec::{bad_key, corrupt, decode, encode};
use super::levels::Levels;
use crate::error::MetaError;
use crate::ids::NodeId;
use crate::store::KeyRange;
use crate::transaction::Transaction;

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

    fn from_code(code: u32) -> Result<Self, MetaError> {
        [Self::Provisioning, Self::ReadWrite, Self::ReadOnly, Self::DataLoss, Self::Gone]
            .into_iter()
            .find(|state| state.code() == code)
            .ok_or_else(|| corrupt("node", "unknown state"))
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Which life of the node: rises each time its process starts.
    pub incarnation: u64,
    /// What it may be used for.
    pub state: NodeState,
    /// Where it is reached.
    pub address: String,
    /// Where it stands.
    pub rack: String,
    /// When it started, milliseconds since 1970.
    pub started_ms: i64,
    /// The disk that its segments are on; none before it has one.
    pub disk: Option<Uuid>,
    /// The feature levels that it can work with.
    pub levels: Levels,
    /// Rises as long as the node lives: who sees it stand still for the time of a lease, by its own
    /// clock, takes the node for dead.
    pub lease: u64,
}

impl Node {
    fn encode(&self) -> Bytes {
        encode(&proto::Node {
            incarnation: self.incarnation,
            state: self.state.code(),
            address: self.address.clone(),
            rack: self.rack.clone(),
            started_ms: self.started_ms,
            disk: self.disk.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
            min_level: self.levels.min(),
            max_level: self.levels.max(),
            lease: self.lease,
        })
    }

    pub(super) fn decode(value: Bytes) -> Result<Self, MetaError> {
        let message: proto::Node = decode(value, "node")?;
        Ok(Self {
            incarnation: message.incarnation,
            state: NodeState::from_code(message.state)?,
            address: message.address,
            rack: message.rack,
            started_ms: message.started_ms,
            disk: disk_of(&message.disk)?,
            levels: match (message.min_level, message.max_level) {
                (0, 0) => Levels::UNSAID,
                (min, max) => Levels::new(min, max)
                    .ok_or_else(|| corrupt("node", "its feature levels are no range"))?,
            },
            lease: message.lease,
        })
    }
}

fn disk_of(bytes: &[u8]) -> Result<Option<Uuid>, MetaError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Uuid::from_slice(bytes).map(Some).map_err(|_| corrupt("node", "its disk is no UUID"))
}

fn key(tx: &Transaction, id: NodeId) -> Vec<u8> {
    tx.root().pack(&("node", id.0))
}

/// Begins a new life of node `id`: the incarnation of `node` is the next one, and its lease has
/// risen, whatever it says. An attempt that runs twice skips a number; none is given twice.
///
/// # Errors
/// [`ClusterError::NewerLevel`], [`ClusterError::OlderLevel`] if the level in use is none of the
/// node's; [`ClusterError::NoCluster`]; meta's own.
pub async fn register(tx: &Transaction, id: NodeId, node: &Node) -> Result<Node, ClusterError> {
    cluster::get(tx).await?.ok_or(ClusterError::NoCluster)?.check(node.levels)?;
    let before = get(tx, id).await?.unwrap_or_default();
    let incarnation = before.incarnation.checked_add(1);
    let node = Node {
        incarnation: incarnation.ok_or_else(|| corrupt("node", "its incarnations are used up"))?,
        lease: before.lease.wrapping_add(1),
        ..node.clone()
    };
    tx.set(key(tx, id), node.encode())?;
    Ok(node)
}

/// Says that life `incarnation` of node `id` goes on; returns the lease's new number. `None` when that
/// life is over: another has begun, or the node is gone.
///
/// # Errors
/// Meta's own.
pub async fn bump_lease(
    tx: &Transaction,
    id: NodeId,
    incarnation: u64,
) -> Result<Option<u64>, MetaError> {
    let Some(mut node) = get(tx, id).await? else { return Ok(None) };
    if node.incarnation != incarnation || node.state == NodeState::Gone {
        return Ok(None);
    }
    node.lease = node.lease.wrapping_add(1);
    tx.set(key(tx, id), node.encode())?;
    Ok(Some(node.lease))
}

/// The node `id`.
///
/// # Errors
/// Meta's own.
pub async fn get(tx: &Transaction, id: NodeId) -> Result<Option<Node>, MetaError> {
    tx.get(&key(tx, id)).await?.map(Node::decode).transpose()
}

/// Changes the state of node `id`; `false` when there is none, or it is gone: then it must register
/// anew, for the feature level may have left it behind.
///
/// # Errors
/// Meta's own.
pub async fn set_state(tx: &Transaction, id: NodeId, state: NodeState) -> Result<bool, MetaError> {
    let Some(mut node) = get(tx, id).await? else {
        return Ok(false);
    };
    if node.state == NodeState::Gone {
        return Ok(state == NodeState::Gone);
    }
    if node.state != state {
        node.state = state;
        tx.set(key(tx, id), node.encode())?;
    }
    Ok(true)
}

/// All nodes by id.
///
/// # Errors
/// Meta's own.
pub async fn list(tx: &Transaction) -> Result<Vec<(NodeId, Node)>, MetaError> {
    let (begin, end) = tx.root().subspace(&"node").range();
    let rows = tx.get_all(&KeyRange::new(begin, end)).await?;
    rows.into_iter()
        .map(|(key, value)| {
            let (_, id): (String, u32) = tx.root().unpack(&key).map_err(bad_key("node"))?;
            Ok((NodeId(id), Node::decode(value)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::TestBed;

    #[tokio::test]
    async fn each_life_of_a_node_has_its_own_number() {
        let bed = TestBed::new();
        let refused = register(&bed.meta.begin(), NodeId(7), &Node::default()).await;
        assert!(matches!(refused, Err(ClusterError::NoCluster)), "{refused:?}");
        bed.meta
            .transact(|tx| async move {
                cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await
            })
            .await
            .unwrap();
        let node = Node {
            state: NodeState::ReadWrite,
            address: "localhost:1".to_owned(),
            ..Node::default()
        };
        let node = &node;
        for incarnation in 1..4 {
            let registered = bed
                .meta
                .transact(|tx| async move { register(&tx, NodeId(7), node).await })
                .await
                .unwrap();
            assert_eq!(registered.incarnation, incarnation);
        }
        let changed = bed
            .meta
            .transact(|tx| async move { set_state(&tx, NodeId(7), NodeState::Gone).await })
            .await
            .unwrap();
        assert!(changed);
        let tx = bed.meta.begin();
        assert!(!set_state(&tx, NodeId(8), NodeState::Gone).await.unwrap());
        let nodes = list(&tx).await.unwrap();
        let [(NodeId(7), node)] = &nodes[..] else {
            panic!("{nodes:?}");
        };
        assert_eq!((node.incarnation, node.state), (3, NodeState::Gone));
        // It comes back by its process only.
        assert!(!set_state(&tx, NodeId(7), NodeState::ReadWrite).await.unwrap());
        assert_eq!(get(&tx, NodeId(7)).await.unwrap().unwrap().state, NodeState::Gone);
        register(&tx, NodeId(7), &Node { state: NodeState::ReadWrite, ..Node::default() })
            .await
            .unwrap();
        assert!(set_state(&tx, NodeId(7), NodeState::ReadOnly).await.unwrap());
    }

    #[tokio::test]
    async fn a_lease_rises_while_its_life_goes_on() {
        let bed = TestBed::new();
        let (tx, id) = (bed.meta.begin(), NodeId(7));
        assert_eq!(bump_lease(&tx, id, 1).await.unwrap(), None);
        cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await.unwrap();
        let first = register(&tx, id, &Node::default()).await.unwrap();
        let mut last = first.lease;
        for _ in 0..3 {
            let lease = bump_lease(&tx, id, first.incarnation).await.unwrap().unwrap();
            assert!(lease > last);
            last = lease;
        }
        // Nothing else of the node changes.
        assert_eq!(get(&tx, id).await.unwrap(), Some(Node { lease: last, ..first.clone() }));
        // The next life has risen above the last, which can't go on.
        let next = register(&tx, id, &Node::default()).await.unwrap();
        assert!(next.lease > last);
        assert_eq!(bump_lease(&tx, id, first.incarnation).await.unwrap(), None);
        assert!(bump_lease(&tx, id, next.incarnation).await.unwrap().is_some());
        assert!(set_state(&tx, id, NodeState::Gone).await.unwrap());
        assert_eq!(bump_lease(&tx, id, next.incarnation).await.unwrap(), None);
    }

    /// A bump and the transaction of one who takes the node for dead: one of them wins.
    #[tokio::test]
    async fn a_late_bump_is_in_conflict_with_who_saw_no_bump() {
        let bed = TestBed::new();
        let id = NodeId(7);
        let node = bed
            .meta
            .transact(|tx| async move {
                cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await?;
                register(&tx, id, &Node::default()).await
            })
            .await
            .unwrap();
        let (bump, takeover) = (bed.meta.begin(), bed.meta.begin());
        assert_eq!(get(&takeover, id).await.unwrap().unwrap().lease, node.lease);
        takeover.set(b"taken".to_vec(), Bytes::new()).unwrap();
        bump_lease(&bump, id, node.incarnation).await.unwrap().unwrap();
        bump.commit().await.unwrap();
        assert!(takeover.commit().await.is_err());
    }

    /// A value as it was written before nodes said which feature levels they work with.
    #[test]
    fn a_node_that_does_not_say_works_with_the_first_level() {
        let old = b"\x08\x05\x10\x01\x1a\x01a\x22\x01r\x28\x07\x32\x10AAAAAAAAAAAAAAAA";
        let node = Node::decode(Bytes::from_static(old)).unwrap();
        let expected = Node {
            incarnation: 5,
            state: NodeState::ReadWrite,
            address: "a".to_owned(),
            rack: "r".to_owned(),
            started_ms: 7,
            disk: Some(Uuid::from_bytes([b'A'; 16])),
            levels: Levels::new(1, 1).unwrap(),
            lease: 0,
        };
        assert_eq!(node, expected);
    }

    #[test]
    fn levels_that_are_no_range_are_damage() {
        for (min_level, max_level) in [(0, 1), (2, 1), (1, 0)] {
            let value = encode(&proto::Node { min_level, max_level, ..proto::Node::default() });
            let refused = Node::decode(value);
            assert!(matches!(refused, Err(MetaError::Corrupt(_))), "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn a_node_comes_back_as_it_was(
            incarnation: u64, state in 0_u32..5, address in ".{0,9}", rack in ".{0,9}",
            started_ms: i64, disk in proptest::option::of(0..u128::MAX),
            min_level in 1..u32::MAX, more: u32, lease: u64,
        ) {
            let state = NodeState::from_code(state).unwrap();
            let disk = disk.map(Uuid::from_u128);
            let levels = Levels::new(min_level, min_level.saturating_add(more)).unwrap();
            let node = Node { incarnation, state, address, rack, started_ms, disk, levels, lease };
            prop_assert_eq!(Node::decode(node.encode()).unwrap(), node);
        }
    }
}
