//! What may never happen, checked at each acknowledgement, read, close and restart (I1 to I10).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use interflow_meta::{Durability, Epoch, LogId, NodeId};
use parking_lot::Mutex;

use super::super::store::MemStore;
use super::net::Seen;
use crate::Offset;
use crate::core::chain::Closed;
use crate::core::segment::Head;
use crate::store::{EntryStore, FoundSegment, SegmentId};

/// The disks of all nodes, also of those that are down.
pub(super) type Disks = Arc<Mutex<BTreeMap<NodeId, Arc<MemStore>>>>;

/// See the module.
pub(super) struct Oracle {
    disks: Disks,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What was seen at an offset, by whomever.
    values: BTreeMap<(LogId, Offset), String>,
    acked: BTreeMap<(LogId, String), Offset>,
    opened: BTreeMap<(LogId, Epoch), Head>,
    closed: BTreeMap<(LogId, Epoch), Closed>,
    /// What a life of a node has said to be committed.
    committed: BTreeMap<(LogId, NodeId, u64), Offset>,
    /// What was damaged on a node's disk: until that is mended it has less than it said.
    damaged: BTreeSet<(NodeId, SegmentId)>,
    violations: Vec<String>,
}

impl Oracle {
    pub(super) fn new(disks: Disks) -> Self {
        Self { disks, state: Mutex::default() }
    }

    pub(super) fn fail(&self, what: String) {
        self.state.lock().violations.push(what);
    }

    pub(super) fn violation(&self) -> Option<String> {
        self.state.lock().violations.first().cloned()
    }

    pub(super) fn created(&self, log: LogId, head: &Head) {
        self.state.lock().opened.insert((log, head.epoch), head.clone());
    }

    /// A segment was closed and the next one opened, in meta.
    pub(super) fn closed(&self, log: LogId, before: &Head, closed: &Closed, after: &Head) {
        let mut state = self.state.lock();
        if state.opened.insert((log, after.epoch), after.clone()).is_some() {
            state.fail(format!("I10: log {log} epoch {} opened twice", after.epoch));
        }
        if state.closed.insert((log, closed.epoch), closed.clone()).is_some() {
            state.fail(format!("I3: log {log} epoch {} closed twice", closed.epoch));
        }
        if before.durability != Durability::Durable {
            return;
        }
        if after.base != closed.end || after.leader_epoch != before.leader_epoch {
            state.fail(format!(
                "I3: log {log} ends at {} and goes on at {}",
                closed.end, after.base
            ));
        }
        let last = state.acked.iter().filter(|((of, _), _)| *of == log).map(|(_, at)| *at).max();
        if last.is_some_and(|last| last >= closed.end) {
            let end = closed.end;
            state.fail(format!(
                "I2: log {log} epoch {} closed at {end}, {last:?} was acked",
                closed.epoch
            ));
        }
        if closed.end == closed.base || closed.is_short {
            return;
        }
        let id = SegmentId { log, epoch: closed.epoch };
        let holders = self.holders(&state, id, &before.replicas, closed.end);
        if holders < before.quorum().acks {
            let (epoch, end) = (closed.epoch, closed.end);
            state
                .fail(format!("I4: log {log} epoch {epoch} closed at {end} is on {holders} nodes"));
        }
    }

    fn holders(&self, state: &State, id: SegmentId, nodes: &[NodeId], end: Offset) -> usize {
        let disks = self.disks.lock();
        let has = |node: &&NodeId| {
            state.damaged.contains(&(**node, id))
                || disks.get(node).is_some_and(|disk| disk.durable_end(id) >= end)
        };
        nodes.iter().filter(has).count()
    }

    /// An append was acknowledged.
    pub(super) fn acked(&self, log: LogId, offset: Offset, value: &str) {
        let mut state = self.state.lock();
        if let Some(other) = state.acked.insert((log, value.to_owned()), offset)
            && other != offset
        {
            state.fail(format!("I8: log {log} {value} acked at {other} and at {offset}"));
        }
        self.see(&mut state, log, offset, value, true);
    }

    /// One past what was acknowledged last.
    pub(super) fn last_end(&self, log: LogId) -> Offset {
        let state = self.state.lock();
        let acked = state.acked.iter().filter(|((of, _), _)| *of == log);
        acked.map(|(_, at)| at + 1).max().unwrap_or(0)
    }

    /// A batch was read.
    pub(super) fn read(&self, log: LogId, offset: Offset, value: &str) {
        self.see(&mut self.state.lock(), log, offset, value, false);
    }

    fn see(&self, state: &mut State, log: LogId, offset: Offset, value: &str, is_ack: bool) {
        let known = state.values.insert((log, offset), value.to_owned());
        if let Some(known) = &known
            && known != value
        {
            state.fail(format!("I1: log {log} had {known} at {offset} and now {value}"));
        }
        let is_durable =
            state.opened.get(&(log, Epoch(0))).is_some_and(|h| h.durability == Durability::Durable);
        if !is_durable || known.is_some() && !is_ack {
            return;
        }
        let payload = [&[0; 16], value.as_bytes()].concat();
        let disks = self.disks.lock();
        let range = (log, Epoch(0))..=(log, Epoch(u32::MAX));
        let mut best = None;
        for ((_, epoch), head) in state.opened.range(range).rev() {
            if head.base > offset {
                continue;
            }
            let id = SegmentId { log, epoch: *epoch };
            let has = |node: &&NodeId| {
                state.damaged.contains(&(**node, id))
                    || disks.get(node).is_some_and(|disk| disk.has_durable(id, offset, &payload))
            };
            // What was closed short can be read before it is repaired, to any node. It is not
            // acknowledged before.
            let closed = state.closed.get(&(log, *epoch));
            let is_short = closed.is_some_and(|closed| closed.is_short);
            let holders = match is_short {
                true => disks.keys().filter(has).count(),
                false => head.replicas.iter().filter(has).count(),
            };
            let needed = if is_short && !is_ack { 1 } else { head.quorum().acks };
            if holders >= needed {
                best = Some(*epoch);
                break;
            }
        }
        drop(disks);
        match best {
            None => state.fail(format!("I5: log {log} {value} at {offset} is not on a quorum")),
            Some(epoch) => {
                let end = state.closed.get(&(log, epoch)).map(|closed| closed.end);
                if end.is_some_and(|end| end <= offset) {
                    state.fail(format!("I2: log {log} {value} at {offset}, closed at {end:?}"));
                }
            }
        }
    }

    /// A life of a node has said where a log is.
    pub(super) fn bounds(&self, log: LogId, node: NodeId, life: u64, committed: Offset) {
        let mut state = self.state.lock();
        let before = state.committed.insert((log, node, life), committed).unwrap_or(0);
        if before > committed {
            state.fail(format!("I7: log {log} at {node} went back from {before} to {committed}"));
        }
    }

    /// What a node answered before it died is still so.
    pub(super) fn restarted(
        &self,
        node: NodeId,
        seen: &Seen,
        has_seal: impl Fn(SegmentId) -> bool,
    ) {
        let disk = self.disks.lock().get(&node).cloned();
        let Some(disk) = disk else { return };
        let mut state = self.state.lock();
        for ((of, id), end) in &seen.reported {
            // A damaged copy of a closed one is copied anew, from others.
            let is_open = state.opened.get(&(id.log, id.epoch)).is_some_and(|h| h.base < *end)
                && !state.closed.contains_key(&(id.log, id.epoch));
            let found = disk.segment(*id).map_or(0, |found| found.end);
            if *of == node && is_open && found < *end {
                state.fail(format!("I6: {node} reported {end} of {id:?} and has {found}"));
            }
        }
        for (of, id) in &seen.sealed {
            // Of one that is closed in meta nobody needs it any more.
            let is_closed = state.closed.contains_key(&(id.log, id.epoch));
            if *of == node && !is_closed && !has_seal(*id) {
                state.fail(format!("I9: {node} has forgotten the seal of {id:?}"));
            }
        }
    }

    /// Whether a segment may be damaged at one node without loss: another of its replicas has what is
    /// there.
    pub(super) fn can_be_damaged(&self, node: NodeId, found: &FoundSegment) -> bool {
        let (state, id) = (self.state.lock(), found.id);
        let is_short = state.closed.get(&(id.log, id.epoch)).is_some_and(|closed| closed.is_short);
        let Some(head) = state.opened.get(&(id.log, id.epoch)) else { return false };
        let disks = self.disks.lock();
        let has = |other: &NodeId| {
            *other != node && disks.get(other).is_some_and(|disk| disk.durable_end(id) >= found.end)
        };
        // Of other classes nothing may be on a second disk.
        !is_short && head.durability == Durability::Durable && head.replicas.iter().any(has)
    }

    /// A segment is damaged at one node.
    pub(super) fn damaged(&self, node: NodeId, id: SegmentId) {
        self.state.lock().damaged.insert((node, id));
    }

    /// At the end, all of a log was read: `all` in the log's order. `keyed` are the values that
    /// producers with sequences have sent, in their order, a list a producer; `chain` are the closed
    /// segments, as meta has them.
    pub(super) fn ended(
        &self,
        log: LogId,
        all: &[(Offset, u32, String)],
        keyed: &[Vec<String>],
        chain: &[Closed],
    ) {
        let mut state = self.state.lock();
        let head = state.opened.get(&(log, Epoch(0))).cloned();
        let is_durable = head.is_some_and(|head| head.durability == Durability::Durable);
        let mut at = BTreeMap::new();
        let mut next = 0;
        for (offset, count, value) in all {
            if *offset < next || is_durable && *offset != next {
                state.fail(format!("I3: log {log} has {value} at {offset}, expected {next}"));
            }
            next = offset + u64::from(*count);
            if let Some(other) = at.insert(value.clone(), *offset) {
                state.fail(format!("I8: log {log} has {value} at {other} and {offset}"));
            }
        }
        if !is_durable {
            return;
        }
        let acked: Vec<_> = state.acked.iter().map(|(k, v)| (k.clone(), *v)).collect();
        for ((of, value), offset) in acked {
            if of == log && at.get(&value) != Some(&offset) {
                let found = at.get(&value);
                state.fail(format!("I1: log {log} {value} acked at {offset}, is at {found:?}"));
            }
        }
        for values in keyed {
            let mut last = None;
            for value in values {
                let found = at.get(value).copied();
                if found.is_none() || found <= last {
                    state.fail(format!("log {log} {value} is at {found:?}, behind {last:?}"));
                }
                last = found;
            }
        }
        for closed in chain.iter().filter(|closed| !closed.is_short) {
            let (epoch, acks) = (closed.epoch, closed.acks);
            let id = SegmentId { log, epoch };
            let holders = self.holders(&state, id, &closed.replicas, closed.end);
            if holders < acks {
                state.fail(format!("I4: at last log {log} epoch {epoch} is on {holders} nodes"));
            }
        }
    }
}

impl State {
    fn fail(&mut self, what: String) {
        self.violations.push(what);
    }
}
