//! Nodes: `("node", id)`.
//!
//! A node's row changes each time that its lease is bumped. What else changes of it (a new life, its
//! state) also adds one to `("change", "node", id)`, so that a transaction that depends on those
//! alone is not in conflict with every bump.

mod value;

#[cfg(test)]
mod tests;

use super::cluster::{self, ClusterError};
use super::codec::{bad_key, corrupt};
use crate::error::MetaError;
use crate::ids::NodeId;
use crate::store::KeyRange;
use crate::transaction::{RangeOptions, Transaction, Watch};
pub use value::{DEFAULT_LEASE, KafkaEndpoint, Node, NodeKind, NodeState};

/// Gateways that were given no id are numbered from here.
pub const FIRST_ALLOCATED: NodeId = NodeId(1_000_000);
/// The last id: Kafka's broker ids are numbers of 32 bits with a sign.
pub const LAST_ID: NodeId = NodeId(i32::MAX as u32);

fn key(tx: &Transaction, id: NodeId) -> Vec<u8> {
    tx.root().pack(&("node", id.0))
}

fn change_key(tx: &Transaction, id: NodeId) -> Vec<u8> {
    tx.root().pack(&("change", "node", id.0))
}

/// Writes a node of which more than the lease has changed.
fn put(tx: &Transaction, id: NodeId, node: &Node) -> Result<(), MetaError> {
    tx.set(key(tx, id), node.encode())?;
    tx.add(change_key(tx, id), 1)
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
    put(tx, id, &node)?;
    Ok(node)
}

/// An id for a gateway that has none of its own: the lowest from [`FIRST_ALLOCATED`] up that no
/// process has, or is known to have left. Register under it in the same transaction.
///
/// # Errors
/// [`MetaError::Corrupt`] when all are in use; meta's own.
pub async fn allocate(tx: &Transaction) -> Result<NodeId, MetaError> {
    let end = tx.root().subspace(&"node").range().1;
    // A snapshot: whoever takes the same id is in conflict on its row, and nobody else is.
    let range = KeyRange::new(key(tx, FIRST_ALLOCATED), end);
    let mut next = FIRST_ALLOCATED.0;
    for (id, node) in rows(tx, range, RangeOptions::default().snapshot()).await? {
        if id.0 != next || node.state == NodeState::Gone || node.is_stopped {
            break;
        }
        next += 1;
    }
    if next > LAST_ID.0 {
        return Err(corrupt("node", "all ids are in use"));
    }
    Ok(NodeId(next))
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
    node.is_stopped = false;
    tx.set(key(tx, id), node.encode())?;
    Ok(Some(node.lease))
}

/// Says that life `incarnation` of node `id` has ended in order; `false` when it was over already.
///
/// # Errors
/// Meta's own.
pub async fn leave(tx: &Transaction, id: NodeId, incarnation: u64) -> Result<bool, MetaError> {
    match get(tx, id).await? {
        Some(node) if node.incarnation == incarnation => {
            put(tx, id, &Node { is_stopped: true, ..node })?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// Takes node `id` for stopped if its lease is still `lease`, which was seen to stand still for its
/// time; `false` when it has risen.
///
/// # Errors
/// Meta's own.
pub async fn bury(tx: &Transaction, id: NodeId, lease: u64) -> Result<bool, MetaError> {
    match get(tx, id).await? {
        Some(node) if node.lease == lease => {
            put(tx, id, &Node { is_stopped: true, ..node })?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

/// The node `id`.
///
/// # Errors
/// Meta's own.
pub async fn get(tx: &Transaction, id: NodeId) -> Result<Option<Node>, MetaError> {
    tx.get(&key(tx, id)).await?.map(Node::decode).transpose()
}

/// The node `id`, for a transaction that depends on its life and its state, but not on its lease.
///
/// # Errors
/// Meta's own.
pub async fn get_life(tx: &Transaction, id: NodeId) -> Result<Option<Node>, MetaError> {
    tx.add_read_conflict(KeyRange::key(&change_key(tx, id)))?;
    tx.get_snapshot(&key(tx, id)).await?.map(Node::decode).transpose()
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
        put(tx, id, &node)?;
    }
    Ok(true)
}

/// Life `incarnation` of node `id` says whether its disk takes anything; nothing is written when that is known,
/// or that life is over.
///
/// # Errors
/// Meta's own.
pub async fn set_full(
    tx: &Transaction,
    id: NodeId,
    incarnation: u64,
    is_full: bool,
) -> Result<(), MetaError> {
    match get(tx, id).await? {
        Some(node) if node.incarnation == incarnation && node.is_full != is_full => {
            put(tx, id, &Node { is_full, ..node })
        }
        _ => Ok(()),
    }
}

/// All nodes by id.
///
/// # Errors
/// Meta's own.
pub async fn list(tx: &Transaction) -> Result<Vec<(NodeId, Node)>, MetaError> {
    let (begin, end) = tx.root().subspace(&"node").range();
    rows(tx, KeyRange::new(begin, end), RangeOptions::default()).await
}

/// All nodes by id; later changes of them are no conflict.
///
/// # Errors
/// Meta's own.
pub async fn list_snapshot(tx: &Transaction) -> Result<Vec<(NodeId, Node)>, MetaError> {
    let (begin, end) = tx.root().subspace(&"node").range();
    rows(tx, KeyRange::new(begin, end), RangeOptions::default().snapshot()).await
}

async fn rows(
    tx: &Transaction,
    range: KeyRange,
    options: RangeOptions,
) -> Result<Vec<(NodeId, Node)>, MetaError> {
    let mut scan = tx.scan(range, options);
    let mut nodes = Vec::new();
    while let Some(page) = scan.next_page().await? {
        for (key, value) in page {
            let (_, id): (String, u32) = tx.root().unpack(&key).map_err(bad_key("node"))?;
            nodes.push((NodeId(id), Node::decode(value)?));
        }
    }
    Ok(nodes)
}

/// Tells of the next change of node `id`, its lease included, after what this transaction sees.
///
/// # Errors
/// Meta's own.
pub async fn watch(tx: &Transaction, id: NodeId) -> Result<Watch, MetaError> {
    tx.watch(key(tx, id)).await
}
