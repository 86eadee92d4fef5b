//! Brings closed segments onto as many nodes as they are to be on.
//!
//! A segment is on fewer than that if a node was removed, or if it was opened while there were too
//! few. Those of the logs that this node is the sequencer of are looked at after a change of the nodes
//! and once in each interval of retention; a few are copied at a time. What less than a quorum has
//! doesn't wait for them: see `mend`.

use std::sync::Arc;

use futures_util::StreamExt;
use interflow_meta::{LogId, NodeId};
use tokio::time::Instant;

use super::mend::COPY_STAYS;
use super::metrics::add;
use super::pulling;
use super::service::Inner;
use super::state::segment;
use crate::core::chain::Closed;
use crate::core::place::order;
use crate::core::segment::Factor;
use crate::peers::{LogNode, Pull};

/// Segments that are copied at a time.
const AT_A_TIME: usize = 4;

/// Copies what is on too few nodes, until the service stops.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.mending.few_changed() => {}
        }
        let pass = futures_util::stream::iter(wounded(&inner))
            .map(|(log, factor, closed)| {
                let inner = Arc::clone(&inner);
                async move { heal(&inner, log, &closed, factor.replicas).await }
            })
            .buffer_unordered(AT_A_TIME)
            .for_each(|_| std::future::ready(()));
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = pass => {}
        }
    }
}

/// Closed segments of this node's logs that are on too few nodes. Short ones are not for here.
fn wounded(inner: &Inner) -> Vec<(LogId, Factor, Closed)> {
    let candidates = inner.peers.candidates();
    let mut all = Vec::new();
    for log in inner.all_logs() {
        let state = log.state.lock();
        let Some(ready) = state.ready() else { continue };
        let is_few = |closed: &&Closed| {
            let is_elsewhere = |node: &LogNode| !closed.replicas.contains(&node.node);
            let wants = closed.replicas.len() < ready.factor.replicas;
            is_wounded(inner, closed) || wants && candidates.iter().any(is_elsewhere)
        };
        let few = ready.chain.closed().filter(|closed| !closed.is_short).filter(is_few);
        all.extend(few.map(|closed| (log.id, ready.factor, closed.clone())));
    }
    all
}

/// Whether a closed segment is on fewer nodes than it had.
pub(super) fn is_wounded(inner: &Inner, closed: &Closed) -> bool {
    closed.is_short || closed.replicas.iter().any(|node| inner.peers.is_gone(*node))
}

/// Brings a closed segment onto `wanted` nodes, and never fewer than it had, without those that are
/// gone. Those that are only away stay: they mend what they lack when they are back. Says whether
/// its quorum has it, or it is over.
pub(super) async fn heal(inner: &Arc<Inner>, log: LogId, closed: &Closed, wanted: usize) -> bool {
    let wanted = wanted.max(closed.replicas.len());
    let begun = Instant::now();
    let live = closed.replicas.iter().filter(|node| !inner.peers.is_gone(**node));
    let live: Vec<_> = live.copied().collect();
    let (mut holders, mut away): (Vec<NodeId>, Vec<NodeId>) = (Vec::new(), Vec::new());
    for node in live.iter().copied() {
        match has_all(inner, log, closed, &live, node).await {
            true => holders.push(node),
            false => away.push(node),
        }
    }
    for node in others(inner, log, &live) {
        if holders.len() >= closed.acks && holders.len() + away.len() >= wanted {
            break;
        }
        if has_all(inner, log, closed, &live, node).await {
            add(&inner.metrics.copied_segments, 1);
            holders.push(node);
        }
    }
    // The first to have it may have dropped it, if the others took too long. The next time it is quick.
    if holders.len() < closed.acks || begun.elapsed() > COPY_STAYS / 2 {
        return false;
    }
    away.truncate(wanted.saturating_sub(holders.len()));
    holders.append(&mut away);
    let is_same = |node: &NodeId| closed.replicas.contains(node);
    let is_unchanged = holders.len() == closed.replicas.len() && holders.iter().all(is_same);
    if is_unchanged && !closed.is_short {
        return true;
    }
    match inner.upkeep.set_replicas(log, closed, &holders).await {
        Ok(true) => {
            if let Some(known) = inner.known(log)
                && let Some(ready) = known.state.lock().ready_mut()
            {
                ready.chain.set_replicas(closed.epoch, &holders);
            }
            true
        }
        Ok(false) => true,
        Err(error) => {
            tracing::warn!(%log, %error, "a copied segment is not in meta yet");
            false
        }
    }
}

/// Has a node copy what it lacks of a segment from one of `sources`; says whether it has all then.
async fn has_all(
    inner: &Arc<Inner>,
    log: LogId,
    closed: &Closed,
    sources: &[NodeId],
    node: NodeId,
) -> bool {
    let (id, base, until) = (segment(log, closed.epoch), closed.base, closed.end);
    // If there is no other, what it has may be all that there is.
    for source in sources.iter().copied().filter(|source| *source != node).chain([node]) {
        let pull = Pull { id, base, source, until, is_anew: false };
        match pulling::pull_at(inner, node, pull).await {
            Ok(end) if end >= until => return true,
            Ok(_) => {}
            Err(error) => tracing::debug!(%log, %error, "a segment could not be copied"),
        }
    }
    false
}

/// In which order the other nodes are to get a segment that is at `live`.
fn others(inner: &Inner, log: LogId, live: &[NodeId]) -> impl Iterator<Item = NodeId> + use<> {
    let nodes = inner.peers.candidates();
    let nodes = nodes.iter().map(LogNode::candidate);
    let (held, free): (Vec<_>, Vec<_>) = nodes.partition(|node| live.contains(&node.node));
    order(log, &free, &held)
}
