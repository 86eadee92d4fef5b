//! What the cores of the replicated log say of a segment, its replicas and its entries.

use interflow_meta::{Durability, Epoch, NodeId, Offset};
use smallvec::SmallVec;

use super::sequencer::Quorum;

/// The nodes of a segment; the first is its sequencer's.
pub(crate) type Nodes = SmallVec<[NodeId; 3]>;

/// One life of a node. A restarted node is another, and can't go on as a sequencer (I10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Life {
    /// The node.
    pub(crate) node: NodeId,
    /// Rises each time its process starts.
    pub(crate) incarnation: u64,
}

/// The open segment of a log as meta has it: the log's head.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Head {
    /// Its number in the chain.
    pub(crate) epoch: Epoch,
    /// Its first offset.
    pub(crate) base: Offset,
    /// Kafka's leader epoch during it.
    pub(crate) leader_epoch: u32,
    /// When an append to it is acknowledged.
    pub(crate) durability: Durability,
    /// Who gives out its offsets.
    pub(crate) sequencer: Life,
    /// Who stores it.
    pub(crate) replicas: Nodes,
    /// How many of them must have an entry before it is acknowledged.
    pub(crate) acks: usize,
    /// Drawn at random by whoever opened it: that one knows its own commit again (I12).
    pub(crate) token: u64,
}

impl Head {
    /// How many of its replicas decide what.
    pub(crate) fn quorum(&self) -> Quorum {
        Quorum { replicas: self.replicas.len(), acks: self.acks }
    }
}

/// How many replicas a log's segments are to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Factor {
    /// So many where there are nodes for them.
    pub(crate) replicas: usize,
    /// With fewer than so many none is opened: so many must have an append before it is
    /// acknowledged.
    pub(crate) least: u32,
}

impl Factor {
    /// How many of the next segment's replicas must have an entry.
    pub(crate) fn acks(self, replicas: usize) -> usize {
        interflow_meta::logs::acks(replicas, self.least)
    }

    /// `nodes`, if they are enough.
    pub(crate) fn enough(self, nodes: Nodes) -> Option<Nodes> {
        (u32::try_from(nodes.len()).unwrap_or(u32::MAX) >= self.least).then_some(nodes)
    }
}

/// An entry of a segment without its bytes: a batch, or a producer snapshot, which takes no
/// offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// Its first offset.
    pub(crate) first: Offset,
    /// Offsets that it takes; 0: a snapshot.
    pub(crate) count: u32,
    /// Payload bytes.
    pub(crate) bytes: u64,
    /// Where the newest snapshot before it in this segment lies. Two entries can have the same
    /// first offset if one is a snapshot: by this a replica knows that it has missed one.
    pub(crate) behind: Option<Offset>,
    /// It is a producer snapshot.
    pub(crate) is_snapshot: bool,
}

impl Entry {
    /// One past its last offset.
    pub(crate) fn end(&self) -> Offset {
        self.first.saturating_add(u64::from(self.count))
    }

    /// Whether who has everything below `end` has it for certain.
    pub(crate) fn is_below(&self, end: Offset) -> bool {
        // Of a snapshot at `end` that says nothing.
        self.end() <= end && self.first < end
    }

    /// Where the newest snapshot behind it lies.
    pub(crate) fn last_snapshot(&self) -> Option<Offset> {
        if self.is_snapshot { Some(self.first) } else { self.behind }
    }
}
