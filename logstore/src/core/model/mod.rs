//! The protocol, checked over every order of events, with the very cores that run it.
//!
//! ```text
//!   producers ─► Replication ─► wire ─► Replica ×3, each with a disk
//!                    │    PlannedClose     ▲ seal, repair
//!                    ▼         │        Recovery ×2
//!                  acks        └─► meta ◄──┘     tail (Early)
//! ```
//!
//! The wire never forgets a message: each may come never, late, twice or in any order. A crash
//! takes a node's memory and, or not, what it had not synced. A commit's outcome may be unknown.

mod actions;
mod closings;
mod disk;
mod log;
mod properties;
mod runs;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use interflow_meta::{Durability, Epoch, NodeId, Offset};

use self::disk::Node;
use super::closing::Close;
use super::early::Early;
use super::recovery::Recovery;
use super::replication::Reply;
use super::rules::{Broken, Rules};
use super::segment::{Entry, Head, Life, Nodes};
use crate::AppendKey;

/// What a producer appends: (producer, sequence).
type Value = (u8, u8);

/// What may happen, how often.
#[derive(Clone, Debug)]
struct Config {
    /// Replicas of the first segment, and of the next ones.
    replicas: [usize; 2],
    /// So many of them must have an entry, at least.
    least: u32,
    values: Vec<Value>,
    /// How often each is sent.
    sends: u8,
    recoveries: usize,
    crashes: u8,
    unknowns: u8,
    plans: u8,
    /// A recovery may lose its patience: short closes, new rounds.
    ticks: bool,
    /// Stores say what is committed.
    tells_committed: bool,
    /// There is a tail that is shown batches early.
    tail: bool,
    /// The first segment begins with a snapshot.
    first_snapshot: bool,
    broken: Option<Broken>,
}

/// A message; `to` and `from` are nodes, `by` is a recovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Store { to: u8, epoch: Epoch, from: Life, entry: Entry, payload: Payload, committed: Offset },
    Reply { to: Life, epoch: Epoch, from: u8, reply: Reply },
    Seal { to: u8, epoch: Epoch, base: Offset, by: u8 },
    Sealed { to: u8, from: u8, end: Offset, counts: bool },
    Repair { to: u8, epoch: Epoch, by: u8, entry: Entry, payload: Payload },
    Repaired { to: u8, from: u8, end: Offset },
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Payload {
    Batch(Value),
    Snapshot(Bytes),
}

/// A closed segment in meta.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Closed {
    head: Head,
    end: Offset,
    is_short: bool,
}

/// A recovery, and the transaction that it is about to write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Recoverer {
    core: Recovery,
    epoch: Epoch,
    transaction: Option<Close>,
    has_failed: bool,
}

/// Everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    head: Head,
    closed: Vec<Closed>,
    nodes: Vec<Arc<Node>>,
    recoverers: Vec<Arc<Recoverer>>,
    /// Sorted, without repeats.
    wire: Arc<Vec<Arc<Message>>>,
    sent: Vec<u8>,
    crashes: u8,
    unknowns: u8,
    plans: u8,
    tail: Option<Tail>,
    seen: Seen,
}

/// A tail: everything below `next` was shown, or was shown early.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Tail {
    core: Early,
    next: Offset,
    shown: Vec<Value>,
}

/// What has happened, for the properties.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Seen {
    acked: BTreeSet<(Value, Offset)>,
    /// Invariants that a step has broken, by number.
    broken: BTreeSet<u8>,
    sequencers: Vec<(Epoch, Life)>,
    has_answered_a_duplicate: bool,
    has_lost_unsynced: bool,
    has_resolved_an_unknown: bool,
    has_repaired: bool,
    has_recovered: bool,
}

/// The model.
#[derive(Clone, Debug)]
struct Protocol {
    config: Config,
}

impl Protocol {
    fn rules(&self) -> Rules {
        Rules::without(self.config.broken)
    }

    /// Who stores the segment of this epoch; each has another sequencer.
    fn place(&self, epoch: Epoch) -> Nodes {
        let count = self.config.replicas[usize::from(epoch.0 > 0)];
        let all = self.config.replicas[0].max(self.config.replicas[1]);
        (0..count).map(|n| NodeId(u32::try_from((n + epoch.0 as usize) % all).unwrap())).collect()
    }

    fn acks(&self, replicas: &Nodes) -> usize {
        interflow_meta::logs::acks(replicas.len(), self.config.least)
    }

    fn first(&self) -> World {
        let count = self.config.replicas[0].max(self.config.replicas[1]);
        let replicas = self.place(Epoch(0));
        let head = Head {
            epoch: Epoch(0),
            base: 0,
            leader_epoch: 0,
            durability: Durability::Durable,
            sequencer: Life { node: replicas[0], incarnation: 0 },
            acks: self.acks(&replicas),
            replicas,
            token: 0,
        };
        World {
            head,
            closed: Vec::new(),
            nodes: (0..count).map(|_| Arc::new(Node::default())).collect(),
            recoverers: Vec::new(),
            wire: Arc::default(),
            sent: vec![0; self.config.values.len()],
            crashes: 0,
            unknowns: 0,
            plans: 0,
            tail: self.config.tail.then(|| Tail {
                core: Early::new(self.rules()),
                next: 0,
                shown: Vec::new(),
            }),
            seen: Seen::default(),
        }
    }
}

impl World {
    fn send(&mut self, message: Message) {
        if let Err(at) = self.wire.binary_search_by(|known| known.as_ref().cmp(&message)) {
            Arc::make_mut(&mut self.wire).insert(at, Arc::new(message));
        }
    }

    fn violate(&mut self, invariant: u8) {
        self.seen.broken.insert(invariant);
    }

    /// The descriptor of a segment that meta knows.
    fn descriptor(&self, epoch: Epoch) -> Option<&Head> {
        let closed = self.closed.iter().map(|closed| &closed.head);
        closed.chain([&self.head]).find(|head| head.epoch == epoch)
    }
}

fn key_of(value: Value) -> AppendKey {
    AppendKey { producer_id: value.0.into(), producer_epoch: 0, sequence: value.1.into() }
}

fn index(node: NodeId) -> usize {
    node.0 as usize
}

fn byte(number: usize) -> u8 {
    u8::try_from(number).unwrap()
}
