//! Where the logs of new topics are kept.

use std::collections::BTreeSet;
use std::sync::Arc;

use interflow_logstore::{Candidate, place};
use interflow_meta::logs::acks;
use interflow_meta::members::Members;
use interflow_meta::{LogId, NodeId, topics};

use super::error::{TopicError, Unplaceable};

/// Replicas that are enough to begin with where more are wanted: a log that may lose one of its
/// nodes.
const MIN_REPLICAS: u32 = 2;

/// Where the logs of new topics are kept.
#[derive(Clone, Debug)]
pub enum Placement {
    /// All on one node: this process's own log store.
    Fixed {
        /// The node.
        node: NodeId,
        /// Which life of that node.
        incarnation: u64,
    },
    /// On the log stores that live and take segments.
    Members {
        /// Who lives.
        members: Arc<Members>,
        /// How many replicas a topic has that doesn't say.
        default_replication_factor: u32,
        /// How many of them have an append before it is acknowledged, of a topic that doesn't say;
        /// never fewer than a majority.
        min_insync_replicas: u32,
    },
}

impl Placement {
    /// How many replicas a topic gets that asks for `asked`; -1 leaves it to the system.
    ///
    /// # Errors
    /// [`TopicError::ReplicationFactor`]: there are too few nodes for it.
    pub fn replicas(&self, asked: i16) -> Result<u32, TopicError> {
        let (nodes, default) = match self {
            Self::Fixed { .. } => (1, 1),
            Self::Members { members, default_replication_factor, .. } => {
                let live = members.view().candidates().count();
                (u32::try_from(live).unwrap_or(u32::MAX), *default_replication_factor)
            }
        };
        let (wanted, needed) = match u32::try_from(asked) {
            Ok(wanted) => (wanted, wanted),
            Err(_) if asked == -1 => (default, default.min(MIN_REPLICAS)),
            Err(_) => (0, 0),
        };
        if wanted == 0 || needed > nodes {
            return Err(TopicError::ReplicationFactor(Unplaceable { asked, default, nodes }));
        }
        Ok(wanted)
    }

    /// How many of a topic's replicas have an append before it is acknowledged, if the topic doesn't
    /// say.
    pub(super) fn acks(&self, replicas: u32) -> usize {
        let least = match self {
            Self::Fixed { .. } => 1,
            Self::Members { min_insync_replicas, .. } => *min_insync_replicas,
        };
        acks(usize::try_from(replicas).unwrap_or(usize::MAX), least)
    }

    /// The nodes to choose from for so many replicas of each log, not fewer than the second number,
    /// without those that are `excluded`; `None` where there is nothing to choose.
    pub(super) fn choice(
        &self,
        (replicas, least): (u32, u32),
        excluded: &BTreeSet<NodeId>,
    ) -> Option<Choice> {
        let Self::Members { members, .. } = self else { return None };
        let view = members.view();
        let nodes = view
            .candidates()
            .filter(|member| !excluded.contains(&member.id))
            .map(|member| (member.id, member.node.rack.clone()));
        Some(Choice {
            nodes: nodes.collect(),
            replicas: usize::try_from(replicas).unwrap_or(usize::MAX),
            least: usize::try_from(least).unwrap_or(usize::MAX),
        })
    }

    /// A node turned out to take no segments: the members are to be read again.
    pub(super) fn refresh(&self) {
        if let Self::Members { members, .. } = self {
            members.refresh();
        }
    }
}

/// Nodes with their racks, and how many of them each log gets.
#[derive(Debug)]
pub(super) struct Choice {
    nodes: Vec<(NodeId, String)>,
    replicas: usize,
    least: usize,
}

impl topics::Placement for Choice {
    fn place(&self, log: LogId) -> Option<Vec<NodeId>> {
        let candidates: Vec<_> =
            self.nodes.iter().map(|(node, rack)| Candidate { node: *node, rack }).collect();
        let nodes = place(log, &candidates, self.replicas)?;
        (nodes.len() >= self.least).then(|| nodes.to_vec())
    }
}
