//! Appends, messages, syncs and crashes.

use std::sync::Arc;

use interflow_meta::{Epoch, NodeId, Offset};

use super::disk::{Node, Open};
use super::{Closed, Message, Payload, Protocol, Value, World, byte, index, key_of};
use crate::core::producers::{ProducerLimits, Producers};
use crate::core::recovery;
use crate::core::replica::{self, Refusal};
use crate::core::replication::{self, Offer, Replication, ReplicationLimits, Reply};
use crate::core::segment::{Entry, Life};
use crate::core::sequencer::{Answer, Candidate, Sequencer};
use crate::store::Position;

impl World {
    pub(super) fn node(&mut self, node: usize) -> &mut Node {
        Arc::make_mut(&mut self.nodes[node])
    }

    pub(super) fn open(&mut self, node: usize) -> Option<&mut Open> {
        self.node(node).sequencer.as_deref_mut()
    }

    fn life(&self, node: usize) -> Life {
        Life { node: NodeId(node.try_into().unwrap()), incarnation: self.nodes[node].incarnation }
    }

    /// The node that meta names begins its segment, with the producers of those before.
    pub(super) fn begin(&mut self, protocol: &Protocol, node: usize) {
        let head = self.head.clone();
        self.seen.sequencers.push((head.epoch, self.life(node)));
        let limits = ProducerLimits::default();
        let producers = self.replay();
        let is_known = !producers.is_empty() || protocol.config.first_snapshot;
        let (base, durability) = (head.base, head.durability);
        let sequencer = Sequencer::new(base, durability, head.quorum(), producers, limits);
        let (peers, limits) = (head.replicas.len() - 1, ReplicationLimits::default());
        let log = Replication::new(sequencer, peers, limits, protocol.rules());
        let rules = protocol.rules();
        let this = self.node(node);
        this.open_segment(head.epoch, head.base, Some(head.sequencer), rules);
        this.begun = Some(head.epoch);
        this.sequencer =
            Some(Box::new(Open { epoch: head.epoch, log, plan: None, transaction: None }));
        if is_known {
            self.write_snapshot(protocol, node);
        }
    }

    /// The producers at the end of the closed segments: the last snapshot of the newest one, and
    /// the batches behind it, from a replica that holds all of it.
    fn replay(&self) -> Producers {
        let limits = ProducerLimits::default();
        let Some(closed) = self.closed.iter().rev().find(|closed| closed.end > closed.head.base)
        else {
            return Producers::default();
        };
        let holder = closed.head.replicas.iter().find_map(|node| {
            let segment = self.nodes[index(*node)].segment(closed.head.epoch)?;
            (segment.durable_end() >= closed.end).then_some(segment)
        });
        let mut producers = Producers::default();
        for (entry, payload) in holder.iter().flat_map(|segment| &segment.entries) {
            match payload {
                Payload::Snapshot(bytes) if entry.first <= closed.end => {
                    producers = Producers::decode(bytes).unwrap().0;
                }
                Payload::Batch(value) if entry.end() <= closed.end => {
                    let batch = (entry.first, entry.count);
                    producers.record(&key_of(*value), batch, 5, 0, &limits);
                }
                _ => {}
            }
        }
        producers
    }

    /// A producer's batch comes to a node that believes to be the sequencer.
    pub(super) fn append(&mut self, protocol: &Protocol, node: usize, value: Value) {
        let Some(open) = self.open(node) else { return };
        let epoch = open.epoch;
        let candidate = Candidate { key: Some(key_of(value)), count: 1, window: 5, bytes: 1 };
        match open.log.offer(&candidate) {
            Offer::Journal(entry) => {
                let payload = Payload::Batch(value);
                let Some(position) = self.own_store(protocol, node, epoch, entry, &payload) else {
                    return;
                };
                let Some(open) = self.open(node) else { return };
                let effects = open.log.taken(0, (&candidate, &entry, position), 0, value, ());
                self.show_early(value, entry.first);
                self.replicate(protocol, node, epoch, &payload, effects);
            }
            Offer::Answer(answer) => {
                open.log.answer(answer, value);
                self.settle(node);
            }
            Offer::Busy | Offer::Closing => {}
        }
    }

    pub(super) fn write_snapshot(&mut self, protocol: &Protocol, node: usize) {
        let Some(open) = self.open(node) else { return };
        if open.log.has_snapshot_here() {
            return;
        }
        let (epoch, entry) = (open.epoch, open.log.snapshot(1));
        let payload = Payload::Snapshot(open.log.sequencer().producers().encode(false));
        if self.own_store(protocol, node, epoch, entry, &payload).is_some()
            && let Some(open) = self.open(node)
        {
            let effects = open.log.snapshot_taken(0, &entry, ());
            self.replicate(protocol, node, epoch, &payload, effects);
        }
    }

    /// The sequencer's own replica takes the entry, or is sealed.
    fn own_store(
        &mut self,
        protocol: &Protocol,
        node: usize,
        epoch: Epoch,
        entry: Entry,
        payload: &Payload,
    ) -> Option<Position> {
        let from = self.life(node);
        let committed = self.nodes[node].sequencer.as_ref()?.log.sequencer().committed();
        let event = replica::Event::Store { from, entry, committed };
        let before = self.nodes[node].position;
        self.at_replica(protocol, node, epoch, event, Some(payload));
        let position = self.nodes[node].position;
        if position == before {
            // Sealed on this very node: someone closes the segment.
            self.open(node)?.log.stop();
            return None;
        }
        Some(Position(position))
    }

    /// What the sequencer wants sent. New entries have `payload`, others are on the disk.
    fn replicate(
        &mut self,
        protocol: &Protocol,
        node: usize,
        epoch: Epoch,
        payload: &Payload,
        effects: replication::Effects,
    ) {
        let from = self.life(node);
        let replicas = self.descriptor(epoch).map(|head| head.replicas.clone()).unwrap_or_default();
        for effect in effects {
            let replication::Effect::Store { peer, entry, committed, .. } = effect else {
                continue;
            };
            let stored = self.nodes[node].segment(epoch).and_then(|segment| {
                segment.entries.iter().find(|(known, _)| *known == entry).map(|(_, p)| p.clone())
            });
            let payload = stored.unwrap_or_else(|| payload.clone());
            let committed = if protocol.config.tells_committed { committed } else { 0 };
            let to = byte(index(replicas[peer]));
            self.send(Message::Store { to, epoch, from, entry, payload, committed });
        }
        self.settle(node);
    }

    /// Answers producers, and holds the answers against the invariants.
    pub(super) fn settle(&mut self, node: usize) {
        let Some(open) = self.open(node) else { return };
        let epoch = open.epoch;
        let mut answers = Vec::new();
        while let Some(answer) = open.log.settle() {
            answers.push(answer);
        }
        for (value, answer) in answers {
            let Answer::Kept { base, is_duplicate } = answer else { continue };
            // I2
            let tail = self.closed.iter().find(|closed| closed.head.epoch == epoch);
            if tail.is_some_and(|closed| base >= closed.end) {
                self.violate(2);
            }
            let is_in = |closed: &Closed| (closed.head.base..closed.end).contains(&base);
            if self.closed.iter().any(|closed| closed.is_short && is_in(closed)) {
                // Nobody repairs it here.
                continue;
            }
            self.seen.has_answered_a_duplicate |= is_duplicate;
            self.seen.acked.insert((value, base));
        }
    }

    /// A message arrives.
    pub(super) fn deliver(&mut self, protocol: &Protocol, message: &Message) {
        match message {
            Message::Store { to, epoch, from, entry, payload, committed } => {
                let (from, entry, committed) = (*from, *entry, *committed);
                let event = replica::Event::Store { from, entry, committed };
                self.at_replica(protocol, usize::from(*to), *epoch, event, Some(payload));
            }
            Message::Reply { to, epoch, from, reply } => {
                let node = index(to.node);
                let Some(head) = self.descriptor(*epoch) else { return };
                let peer = head.replicas.iter().position(|id| index(*id) == usize::from(*from));
                if self.nodes[node].incarnation != to.incarnation {
                    return;
                }
                let (Some(peer), Some(open)) = (peer, self.open(node)) else { return };
                if open.epoch == *epoch {
                    let before = open.log.sequencer().committed();
                    let effects = open.log.reply(0, peer, *reply);
                    let is_back = open.log.sequencer().committed() < before;
                    if is_back {
                        self.violate(7);
                    }
                    self.replicate(protocol, node, *epoch, &Payload::Batch((0, 0)), effects);
                }
            }
            Message::Seal { to, epoch, base, by } => {
                let node = usize::from(*to);
                let rules = protocol.rules();
                self.node(node).open_segment(*epoch, *base, None, rules);
                let event = replica::Event::Seal { by: NodeId((*by).into()) };
                self.at_replica(protocol, node, *epoch, event, None);
            }
            Message::Sealed { to, from, end, counts } => {
                let (node, end, counts) = (NodeId((*from).into()), *end, *counts);
                let event = recovery::Event::Sealed { node, end, counts };
                self.recover_on(protocol, usize::from(*to), event);
            }
            Message::Repair { to, epoch, by, entry, payload } => {
                let from = NodeId((*by).into());
                let event = replica::Event::Repair { from, entry: *entry };
                self.at_replica(protocol, usize::from(*to), *epoch, event, Some(payload));
            }
            Message::Repaired { to, from, end } => {
                let event = recovery::Event::Copied { node: NodeId((*from).into()), end: *end };
                self.recover_on(protocol, usize::from(*to), event);
            }
        }
    }

    /// An event for a node's replica, and what follows from it.
    fn at_replica(
        &mut self,
        protocol: &Protocol,
        node: usize,
        epoch: Epoch,
        event: replica::Event,
        payload: Option<&Payload>,
    ) {
        let Some(head) = self.descriptor(epoch).cloned() else { return };
        let (rules, base) = (protocol.rules(), head.base);
        let this = self.node(node);
        let segment = this.open_segment(epoch, base, Some(head.sequencer), rules);
        let committed = segment.core.committed();
        let effects = segment.core.handle(event);
        let is_back = segment.core.committed() < committed;
        if is_back {
            self.violate(7);
        }
        for effect in effects {
            self.replica_wants(protocol, node, epoch, head.sequencer, effect, payload);
        }
    }

    fn replica_wants(
        &mut self,
        protocol: &Protocol,
        node: usize,
        epoch: Epoch,
        sequencer: Life,
        effect: replica::Effect,
        payload: Option<&Payload>,
    ) {
        let from = byte(node);
        let this = self.node(node);
        let reply = match effect {
            replica::Effect::Journal(entry) => {
                this.position += 1;
                let position = Position(this.position);
                let (Some(segment), Some(payload)) = (this.segment_mut(epoch), payload) else {
                    return;
                };
                segment.entries.push((entry, payload.clone()));
                let event = replica::Event::Journaled { entry, position };
                return self.at_replica(protocol, node, epoch, event, None);
            }
            replica::Effect::PersistSeal => {
                if let Some(segment) = this.segment_mut(epoch) {
                    segment.is_sealed = true;
                }
                return self.at_replica(protocol, node, epoch, replica::Event::SealPersisted, None);
            }
            replica::Effect::Sealed { to, end, counts } => {
                if let Some(segment) = this.segment_mut(epoch) {
                    segment.has_told_seal = true;
                    segment.reported = segment.reported.max(end);
                }
                return self.send(Message::Sealed { to: byte(index(to)), from, end, counts });
            }
            replica::Effect::Repaired { to, durable_end: end, .. } => {
                self.report(node, epoch, end);
                return self.send(Message::Repaired { to: byte(index(to)), from, end });
            }
            replica::Effect::Stored { local_end, durable_end } => {
                self.report(node, epoch, durable_end);
                Reply::Stored { local_end, durable_end }
            }
            replica::Effect::Gap { local_end } => Reply::Gap { local_end },
            replica::Effect::Refused(Refusal::Sealed) => Reply::Sealed,
            replica::Effect::Refused(Refusal::Foreign) => Reply::Foreign,
            replica::Effect::Refused(Refusal::Damaged) => Reply::Damaged,
        };
        let reply = match reply {
            // To a durable log's sequencer the rest says nothing: fewer states.
            Reply::Stored { durable_end, .. } => {
                Reply::Stored { local_end: durable_end, durable_end }
            }
            reply => reply,
        };
        let base = self.descriptor(epoch).map_or(0, |head| head.base);
        let is_news = !matches!(reply, Reply::Stored { durable_end, .. } if durable_end == base);
        if index(sequencer.node) != node && is_news {
            self.send(Message::Reply { to: sequencer, epoch, from, reply });
        }
    }

    fn report(&mut self, node: usize, epoch: Epoch, end: Offset) {
        if let Some(segment) = self.node(node).segment_mut(epoch) {
            segment.reported = segment.reported.max(end);
        }
    }

    /// A node's journal becomes durable.
    pub(super) fn sync(&mut self, protocol: &Protocol, node: usize) {
        let this = self.node(node);
        let position = Position(this.position);
        let mut epochs = Vec::new();
        for (epoch, segment) in (0..).zip(&mut this.segments) {
            if let Some(segment) = segment.as_mut()
                && segment.synced < segment.entries.len()
            {
                segment.synced = segment.entries.len();
                epochs.push(Epoch(epoch));
            }
        }
        for epoch in epochs {
            self.at_replica(protocol, node, epoch, replica::Event::Durable(position), None);
            let Some(open) = self.open(node) else { continue };
            if open.epoch == epoch {
                let effects = open.log.journal_durable(0, position);
                self.replicate(protocol, node, epoch, &Payload::Batch((0, 0)), effects);
            }
        }
    }

    /// A node loses its memory, and what is not durable unless that `is_kept`.
    pub(super) fn crash(&mut self, protocol: &Protocol, node: usize, is_kept: bool) {
        let heads: Vec<_> = (0..self.nodes[node].segments.len())
            .map(|epoch| self.descriptor(Epoch(epoch.try_into().unwrap())).map(|h| h.sequencer))
            .collect();
        let this = self.node(node);
        this.incarnation += 1;
        (this.position, this.sequencer, this.begun) = (0, None, None);
        let mut has_lost = false;
        for (segment, sequencer) in this.segments.iter_mut().zip(heads) {
            if let Some(segment) = segment {
                has_lost |= segment.crash(is_kept, sequencer, protocol.rules());
            }
        }
        self.seen.has_lost_unsynced |= has_lost;
    }

    fn show_early(&mut self, value: Value, first: Offset) {
        // The first producer's alone: others' are shown when they are committed.
        if let Some(tail) = &mut self.tail
            && value.0 == 1
            && tail.core.early(key_of(value), first)
        {
            tail.shown.push(value);
        }
    }
}
