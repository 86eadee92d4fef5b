//! How the nodes that store logs reach one another: what is sent, what is asked, what is answered.
//!
//! ```text
//!   sequencer ─ Link (one a pair of nodes, all logs) ──► Replicas of the peer
//!        ▲                                                   │
//!        └──────────────── LinkEvents ◄──── Replies ─────────┘
//!   recovery, repair, reads ── seal, fetch, pull ──► any node
//! ```
//!
//! One trait, two transports: gRPC between processes, and calls within one for tests.

mod alone;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use interflow_meta::{NodeId, Offset};

pub(crate) use alone::Alone;

use crate::core::place::Candidate;
use crate::core::replication::Reply;
use crate::core::segment::Entry;
use crate::store::{EntryHeader, SegmentId};

/// A node that can take segments now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogNode {
    /// The node.
    pub node: NodeId,
    /// Where it stands; empty: unknown.
    pub rack: String,
}

impl LogNode {
    pub(crate) fn candidate(&self) -> Candidate<'_> {
        Candidate { node: self.node, rack: &self.rack }
    }
}

/// An entry's header and payload, as they go to the peers. The payload's base offset and leader
/// epoch are set by whoever journals it.
#[derive(Debug)]
pub(crate) struct SentEntry {
    pub(crate) header: EntryHeader,
    pub(crate) payload: Bytes,
    /// Kafka's leader epoch; `None` of a snapshot.
    pub(crate) leader_epoch: Option<u32>,
}

/// What a replica has to know of a segment to take its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) id: SegmentId,
    pub(crate) base: Offset,
    /// Answers when an entry has come, too: the log's class isn't durable.
    pub(crate) tells_received: bool,
}

/// From a sequencer to a replica.
#[derive(Clone, Debug)]
pub(crate) enum ToReplica {
    /// An entry.
    Store { of: Descriptor, entry: Entry, committed: Offset, sent: Arc<SentEntry> },
    /// Word of what is committed.
    Committed { id: SegmentId, committed: Offset },
}

/// The way to one node, for all logs.
pub(crate) trait Link: Send + Sync {
    /// Sends in order, or drops it if there is no connection now. Never waits.
    fn send(&self, message: ToReplica);
}

/// What a link tells, in order.
pub(crate) trait LinkEvents: Send + Sync {
    /// A new connection: what was sent on the one before may be lost.
    fn attached(&self);
    /// No connection any more.
    fn detached(&self);
    /// A replica has answered.
    fn replied(&self, id: SegmentId, reply: Reply);
}

/// Where a replica's answers go. Never waits.
pub(crate) trait Replies: Send + Sync {
    /// To the sequencer, in order with the others about this segment.
    fn reply(&self, id: SegmentId, reply: Reply);
}

/// A segment to be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) id: SegmentId,
    /// Its first offset, for those that never saw it.
    pub(crate) base: Offset,
}

/// A segment that is sealed at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sealed {
    pub(crate) id: SegmentId,
    /// Everything below is durable there.
    pub(crate) end: Offset,
    /// Whether the answer counts for the seal quorum.
    pub(crate) counts: bool,
    /// Payload bytes of its entries there.
    pub(crate) bytes: u64,
    /// The largest timestamp of its records there.
    pub(crate) max_timestamp: Option<i64>,
}

/// Which part of an entry is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Headers and payloads.
    Entries,
    /// Headers; payloads of snapshots only.
    Headers,
    /// The newest snapshot at or below `until`, and the headers behind it.
    SinceSnapshot,
}

/// A question for entries of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fetch {
    pub(crate) id: SegmentId,
    /// From the entry that holds this offset.
    pub(crate) from: Offset,
    /// A snapshot at `from` is known already.
    pub(crate) has_snapshot: bool,
    /// Below this offset; a snapshot there is the last.
    pub(crate) until: Offset,
    /// Stop after so many payload bytes.
    pub(crate) max_bytes: u64,
    pub(crate) what: What,
}

/// Entries in the segment's order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fetched {
    pub(crate) entries: Vec<(EntryHeader, Bytes)>,
    /// There are no more below `until`, here.
    pub(crate) is_all: bool,
}

/// A copy to be made: from `source` up to `until`, to the node that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pull {
    pub(crate) id: SegmentId,
    pub(crate) base: Offset,
    pub(crate) source: NodeId,
    pub(crate) until: Offset,
    /// The node is only told that it has something else than the others: it copies all of it anew,
    /// soon.
    pub(crate) is_anew: bool,
}

/// A look at entries of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checking {
    pub(crate) id: SegmentId,
    /// From the entry that holds this offset.
    pub(crate) from: Offset,
    /// Below this offset.
    pub(crate) until: Offset,
    /// Stop after so many payload bytes.
    pub(crate) max_bytes: u64,
}

/// Entries that are sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    /// Of what they are and hold.
    pub(crate) crc: u32,
    /// One past the last.
    pub(crate) next: Offset,
    /// What it took to look at them.
    pub(crate) bytes: u64,
}

/// Why a peer gave no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum PeerError {
    /// It can't be reached.
    #[error("node {0} can't be reached: {1}")]
    Unreachable(NodeId, String),
    /// It can't do what it was asked to.
    #[error("node {0}: {1}")]
    Refused(NodeId, String),
}

/// The other nodes.
#[async_trait]
pub(crate) trait Peers: Send + Sync + 'static {
    /// The nodes that can take segments now, this one among them if it can.
    fn candidates(&self) -> Vec<LogNode>;

    /// Whether a node never comes back with what it had.
    fn is_gone(&self, node: NodeId) -> bool;

    /// The way to `to`, which tells `events`; made once a node.
    fn link(&self, to: NodeId, events: Arc<dyn LinkEvents>) -> Arc<dyn Link>;

    /// Seals segments at `to`. An answer for each that is sealed.
    async fn seal(&self, to: NodeId, seals: Vec<Seal>) -> Result<Vec<Sealed>, PeerError>;

    /// Reads entries at `to`.
    async fn fetch(&self, to: NodeId, fetch: Fetch) -> Result<Fetched, PeerError>;

    /// Has `to` copy what it lacks of a segment; returns the end up to which it has all durable.
    async fn pull(&self, to: NodeId, pull: Pull) -> Result<Offset, PeerError>;

    /// Has `to` look at entries of a segment.
    async fn check(&self, to: NodeId, ask: Checking) -> Result<Checked, PeerError>;

    /// Resolves after a change of what [`Peers::candidates`] says.
    async fn changed(&self);
}
