//! Does what a closing wants done: nodes for the next segment, the transaction, reading the head.

use std::sync::Arc;
use std::time::Duration;

use interflow_meta::{LogId, NodeId, Offset};
use tokio::sync::futures::Notified;

use super::registry::{Roll, RollOutcome, newest_ms, next_epoch};
use super::service::Inner;
use super::state::SharedLog;
use crate::core::chain::{Closed, Open};
use crate::core::closing::{Close, Effect, Event, Outcome};
use crate::core::place::place;
use crate::core::segment::{Factor, Nodes};
use crate::peers::LogNode;

/// What failed is tried again after so long, or when somebody waits for it.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What is known of the segment that is closed.
#[derive(Clone, Debug)]
pub(super) struct Filled {
    pub(super) base: Offset,
    pub(super) leader_epoch: u32,
    pub(super) replicas: Nodes,
    pub(super) acks: usize,
    pub(super) bytes: u64,
    pub(super) max_timestamp: Option<i64>,
}

/// Does `effect`, which is not the last, and returns what came of it. `None`: the service stops.
pub(super) async fn perform(
    inner: &Arc<Inner>,
    log: &SharedLog,
    effect: Effect,
    filled: &Filled,
    factor: Factor,
    nudged: Option<Notified<'_>>,
) -> Option<Event> {
    match effect {
        Effect::Place => Some(Event::Placed(inner.place(log.id, factor, &filled.replicas, &[]))),
        Effect::Transact(close) => {
            Some(Event::Transacted(transact(inner, log.id, &close, filled).await))
        }
        Effect::ReadHead => Some(match inner.head(log.id).await {
            Ok(head) => Event::Head(head),
            Err(_) => Event::HeadUnread,
        }),
        Effect::Later => {
            let nudged = async {
                match nudged {
                    Some(nudged) => nudged.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = inner.stop.cancelled() => None,
                () = nudged => Some(Event::Tick),
                () = tokio::time::sleep(RETRY_AFTER) => Some(Event::Tick),
            }
        }
        Effect::Finished(_) => None,
    }
}

/// The transaction of a close.
pub(super) async fn transact(
    inner: &Arc<Inner>,
    log: LogId,
    close: &Close,
    filled: &Filled,
) -> Outcome {
    let now_ms = inner.clock.wall_ms();
    let roll = Roll {
        log,
        closed: Closed {
            epoch: close.epoch,
            leader_epoch: filled.leader_epoch,
            base: filled.base,
            end: close.end,
            bytes: filled.bytes,
            newest_ms: newest_ms(filled.max_timestamp, now_ms),
            replicas: filled.replicas.clone(),
            is_short: close.is_short,
            acks: filled.acks,
        },
        max_timestamp: filled.max_timestamp,
        open: Open {
            epoch: next_epoch(close.epoch),
            leader_epoch: close.next_leader_epoch,
            base: close.next_base,
        },
        replicas: close.next_replicas.clone(),
        me: inner.me(),
        token: close.token,
        now_ms,
    };
    match inner.roll(roll).await {
        Ok(RollOutcome::Rolled(head)) => Outcome::Committed(head),
        Ok(RollOutcome::Lost(head)) => Outcome::Moved(head),
        Ok(RollOutcome::NoSuchLog) => Outcome::Gone,
        Ok(RollOutcome::NodeIsOut) => Outcome::Misplaced,
        Err(error) => {
            // One that stops says so of none of its logs.
            if !inner.stop.is_cancelled() {
                tracing::warn!(%log, %error, "could not close a segment; it is tried again");
            }
            Outcome::Unknown
        }
    }
}

impl Inner {
    /// Nodes for the next segment of a log; the first is to be its sequencer. A log with one
    /// replica stays where it is, if that node takes segments.
    pub(super) fn place(
        &self,
        log: LogId,
        factor: Factor,
        current: &[NodeId],
        without: &[NodeId],
    ) -> Option<Nodes> {
        let now_ms = self.clock.monotonic_ms();
        let me = self.me().node;
        let nodes = self.peers.candidates();
        let takes_segments = self.takes_segments();
        let usable = |node: NodeId| {
            !without.contains(&node)
                && match node == me {
                    true => takes_segments,
                    false => !self.links.is_avoided(node, now_ms),
                }
        };
        if factor.replicas == 1
            && let Some(node) = current.first()
            && usable(*node)
            && nodes.iter().any(|candidate| candidate.node == *node)
        {
            return Some(Nodes::from_slice(&[*node]));
        }
        let candidates: Vec<_> = nodes
            .iter()
            .filter(|candidate| usable(candidate.node))
            .map(LogNode::candidate)
            .collect();
        place(log, &candidates, factor.replicas).and_then(|nodes| factor.enough(nodes))
    }
}
