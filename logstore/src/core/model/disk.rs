//! A node of the model: its disk, the replicas on it, and its sequencer.

use interflow_meta::{Epoch, Offset};

use super::{Payload, Value};
use crate::core::closing::Close;
use crate::core::planned::PlannedClose;
use crate::core::replica::{Found, Replica};
use crate::core::replication::Replication;
use crate::core::rules::Rules;
use crate::core::segment::{Entry, Life};

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Node {
    pub(super) incarnation: u64,
    /// By epoch.
    pub(super) segments: Vec<Option<Segment>>,
    /// Entries journalled since the start.
    pub(super) position: u64,
    pub(super) sequencer: Option<Box<Open>>,
    /// The newest epoch that it has begun in this life: never again (I10).
    pub(super) begun: Option<Epoch>,
}

/// An open segment at its sequencer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Open {
    pub(super) epoch: Epoch,
    pub(super) log: Replication<Value>,
    pub(super) plan: Option<PlannedClose>,
    pub(super) transaction: Option<Close>,
}

/// A segment on a node: the disk's part, and the core over it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Segment {
    pub(super) base: Offset,
    pub(super) entries: Vec<(Entry, Payload)>,
    /// How many of them are durable.
    pub(super) synced: usize,
    pub(super) is_sealed: bool,
    pub(super) core: Replica,
    /// The largest durable end that anybody was told (I6).
    pub(super) reported: Offset,
    /// Somebody was told that it is sealed (I9).
    pub(super) has_told_seal: bool,
}

impl Segment {
    pub(super) fn new(base: Offset, sequencer: Option<Life>, rules: Rules) -> Self {
        Self {
            base,
            entries: Vec::new(),
            synced: 0,
            is_sealed: false,
            core: Replica::new(base, sequencer, false, rules),
            reported: base,
            has_told_seal: false,
        }
    }

    /// One past the last durable offset.
    pub(super) fn durable_end(&self) -> Offset {
        let last = self.synced.checked_sub(1).and_then(|last| self.entries.get(last));
        last.map_or(self.base, |(entry, _)| entry.end())
    }

    /// The value at `offset`, if it is here.
    pub(super) fn value_at(&self, offset: Offset) -> Option<Value> {
        value_in(&self.entries, offset)
    }

    /// The value at `offset`, if it is here and durable.
    pub(super) fn durable_value_at(&self, offset: Offset) -> Option<Value> {
        value_in(self.entries.get(..self.synced).unwrap_or_default(), offset)
    }

    /// Whether entry follows entry.
    pub(super) fn is_dense(&self) -> bool {
        let mut end = self.base;
        self.entries
            .iter()
            .all(|(entry, _)| std::mem::replace(&mut end, entry.end()) == entry.first)
    }

    /// Loses its memory, and what is not durable unless that `is_kept`. Says whether it lost any.
    pub(super) fn crash(&mut self, is_kept: bool, sequencer: Option<Life>, rules: Rules) -> bool {
        let before = self.entries.len();
        if !is_kept {
            self.entries.truncate(self.synced);
        }
        self.synced = self.entries.len();
        let last = self.entries.last();
        let found = Found {
            end: last.map_or(self.base, |(entry, _)| entry.end()),
            last_snapshot: last.and_then(|(entry, _)| entry.last_snapshot()),
            is_sealed: self.is_sealed,
            is_damaged: false,
        };
        self.core = Replica::restart(self.base, sequencer, false, &found, rules);
        self.entries.len() < before
    }
}

fn value_in(entries: &[(Entry, Payload)], offset: Offset) -> Option<Value> {
    entries.iter().find_map(|(entry, payload)| match payload {
        Payload::Batch(value) if entry.first == offset => Some(*value),
        _ => None,
    })
}

impl Node {
    pub(super) fn segment(&self, epoch: Epoch) -> Option<&Segment> {
        self.segments.get(epoch.0 as usize)?.as_ref()
    }

    pub(super) fn segment_mut(&mut self, epoch: Epoch) -> Option<&mut Segment> {
        self.segments.get_mut(epoch.0 as usize)?.as_mut()
    }

    pub(super) fn open_segment(
        &mut self,
        epoch: Epoch,
        base: Offset,
        sequencer: Option<Life>,
        rules: Rules,
    ) -> &mut Segment {
        let index = epoch.0 as usize;
        if self.segments.len() <= index {
            self.segments.resize(index + 1, None);
        }
        let segment =
            self.segments[index].get_or_insert_with(|| Segment::new(base, sequencer, rules));
        if let Some(sequencer) = sequencer {
            segment.core.learn(sequencer, false);
        }
        segment
    }

    /// Whether something on it isn't durable.
    pub(super) fn is_journaling(&self) -> bool {
        self.segments.iter().flatten().any(|segment| segment.synced < segment.entries.len())
    }
}
