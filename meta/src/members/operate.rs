//! What operators do with nodes.

use super::run::Members;
use crate::error::{MetaError, TransactError};
use crate::ids::{LogId, NodeId};
use crate::logs;
use crate::meta::Meta;
use crate::nodes::{self, NodeState};

/// Heads of logs in one read of meta.
const PAGE: usize = 1_000;

/// Why a node stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// There is no such node.
    #[error("there is no node {0}")]
    NotFound(NodeId),
    /// It keeps no logs.
    #[error("node {0} is a gateway, which keeps nothing: stop its process")]
    Gateway(NodeId),
    /// It was removed, or lost its disk.
    #[error("node {id} can't be drained: its state is {state}")]
    State {
        /// The node.
        id: NodeId,
        /// Its state.
        state: NodeState,
    },
    /// Its process runs, as far as is known.
    #[error(
        "node {0} lives: stop its process first (one that crashed is known to be dead after a \
         lease), or force it"
    )]
    Live(NodeId),
    /// There is no other copy of what it keeps, or none is wanted yet.
    #[error(
        "node {id} is a replica of the open segments of {count} logs, log {first} among them: wait \
         until they have moved, or force it; it takes no new segments any more"
    )]
    HasLogs {
        /// The node.
        id: NodeId,
        /// How many logs.
        count: usize,
        /// One of them.
        first: LogId,
    },
    /// Meta's own.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl TransactError for OperateError {
    fn as_meta(&self) -> Option<&MetaError> {
        match self {
            Self::Meta(error) => Some(error),
            _ => None,
        }
    }
}

/// Drains log store `id`: it takes no new segments, and serves what it has. With `is_undone`, it
/// takes new ones again.
///
/// # Errors
/// [`OperateError::NotFound`], [`OperateError::Gateway`], [`OperateError::State`]; meta's own.
pub async fn drain(meta: &Meta, id: NodeId, is_undone: bool) -> Result<(), OperateError> {
    let wanted = if is_undone { NodeState::ReadWrite } else { NodeState::ReadOnly };
    meta.transact(|tx| async move {
        let node = nodes::get(&tx, id).await?.ok_or(OperateError::NotFound(id))?;
        match node.state {
            _ if !node.kind.has_logs() => Err(OperateError::Gateway(id)),
            state @ (NodeState::Gone | NodeState::DataLoss) => {
                Err(OperateError::State { id, state })
            }
            // It isn't ready yet, and will be read-write by itself.
            NodeState::Provisioning if is_undone => Ok(()),
            _ => {
                nodes::set_state(&tx, id, wanted).await?;
                Ok(())
            }
        }
    })
    .await
}

/// Removes node `id` for good; a process that registers under its id begins anew. With `is_forced`,
/// whether it lives or keeps logs that have no other copy: its process ends then.
///
/// # Errors
/// [`OperateError::NotFound`], [`OperateError::Live`], [`OperateError::HasLogs`]; meta's own.
pub async fn remove(
    meta: &Meta,
    members: &Members,
    id: NodeId,
    is_forced: bool,
) -> Result<(), OperateError> {
    let is_live = members.view().get(id).is_some_and(|member| member.is_live);
    if is_live && !is_forced {
        return Err(OperateError::Live(id));
    }
    // First nothing new comes to it; then what it has can be counted.
    let seen = meta
        .transact(|tx| async move {
            let node = nodes::get(&tx, id).await?.ok_or(OperateError::NotFound(id))?;
            if matches!(node.state, NodeState::ReadWrite | NodeState::Provisioning) {
                nodes::set_state(&tx, id, NodeState::ReadOnly).await?;
            }
            Ok::<_, OperateError>(node)
        })
        .await?;
    if !is_forced
        && seen.kind.has_logs()
        && let (count, Some(first)) = open_segments(meta, id).await?
    {
        return Err(OperateError::HasLogs { id, count, first });
    }
    meta.transact(|tx| async move {
        let node = nodes::get(&tx, id).await?.ok_or(OperateError::NotFound(id))?;
        if !is_forced && (node.lease, node.incarnation) != (seen.lease, seen.incarnation) {
            return Err(OperateError::Live(id));
        }
        nodes::set_state(&tx, id, NodeState::Gone).await?;
        Ok(())
    })
    .await
}

/// How many logs have `id` among the replicas of their open segment, and the first of them.
async fn open_segments(meta: &Meta, id: NodeId) -> Result<(usize, Option<LogId>), MetaError> {
    let (mut count, mut first, mut after) = (0, None, None);
    loop {
        let page =
            meta.transact(|tx| async move { logs::all_logs(&tx, after, PAGE).await }).await?;
        for (log, head) in &page {
            if head.open.replicas.contains(&id) {
                count += 1;
                first = first.or(Some(*log));
            }
        }
        match page.last() {
            Some((last, _)) if page.len() == PAGE => after = Some(*last),
            _ => return Ok((count, first)),
        }
    }
}
