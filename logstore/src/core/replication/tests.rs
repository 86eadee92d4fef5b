//! Replication by its rules, and over random networks with real replicas at the other end.

use interflow_meta::{Durability, NodeId};
use proptest::prelude::*;

use super::*;
use crate::core::producers::{ProducerLimits, Producers};
use crate::core::replica::{self, Replica};
use crate::core::segment::Life;
use crate::core::sequencer::Quorum;
use crate::{AppendError, AppendKey};

const LIMITS: ReplicationLimits = ReplicationLimits {
    window_bytes: 25,
    max_uncommitted_bytes: 60,
    slow_bytes: 50,
    slow_ms: 1000,
    max_kept_bytes: 100,
    max_kept_entries: 50,
    idle_ms: 5,
};

fn replication(durability: Durability) -> Replication<u32> {
    let (producers, limits) = (Producers::default(), ProducerLimits::default());
    let sequencer = Sequencer::new(100, durability, Quorum::of(3), producers, limits);
    Replication::new(sequencer, 2, LIMITS, Rules::default())
}

/// A batch of ten bytes and one offset.
const BATCH: Candidate = Candidate { key: None, count: 1, window: 1, bytes: 10 };

fn append(log: &mut Replication<u32>, now_ms: u64, position: u64) -> (Entry, Vec<Effect>) {
    let Offer::Journal(entry) = log.offer(&BATCH) else { panic!("{:?}", log.offer(&BATCH)) };
    let waiter = u32::try_from(position).unwrap();
    let effects = log.taken(now_ms, (&BATCH, &entry, Position(position)), 0, waiter, ());
    (entry, effects.into_vec())
}

fn stored(end: Offset) -> Reply {
    Reply::Stored { local_end: end, durable_end: end }
}

/// Offsets that `peer` is sent.
fn sent(effects: &[Effect], peer: usize) -> Vec<Offset> {
    let to_peer = |effect: &Effect| match effect {
        Effect::Store { peer: to, entry, .. } if *to == peer => Some(entry.first),
        _ => None,
    };
    effects.iter().filter_map(to_peer).collect()
}

#[test]
fn a_window_bounds_what_is_in_flight_and_answers_open_it() {
    let mut log = replication(Durability::Durable);
    let first: Vec<_> = (1..=3).map(|n| append(&mut log, 0, n).1).collect();
    assert_eq!(
        first.iter().map(|e| sent(e, 1)).collect::<Vec<_>>(),
        [vec![100], vec![101], vec![]]
    );
    let effects = log.reply(0, 1, stored(101));
    assert_eq!((sent(&effects, 1), sent(&effects, 2)), (vec![102], vec![]));
    assert_eq!(log.sequencer().committed(), 100);
    log.journal_durable(0, Position(3));
    assert_eq!(log.sequencer().committed(), 101, "I5: two of three");
    assert_eq!(log.settle().map(|(waiter, _)| waiter), Some(1));
}

#[test]
fn a_gap_rewinds_once_until_something_came_or_time_passed() {
    let mut log = replication(Durability::Durable);
    append(&mut log, 0, 1);
    append(&mut log, 0, 2);
    let gap = Reply::Gap { local_end: 100 };
    assert_eq!(sent(&log.reply(0, 1, gap), 1), [100, 101]);
    assert_eq!(sent(&log.reply(0, 1, gap), 1), [] as [Offset; 0]);
    log.tick(10);
    assert_eq!(sent(&log.reply(10, 1, gap), 1), [100, 101]);
    log.reply(10, 1, stored(101));
    assert_eq!(sent(&log.reply(10, 1, gap), 1), [] as [Offset; 0], "it is older than an answer");
    assert_eq!(sent(&log.reply(10, 1, Reply::Detached), 1), [] as [Offset; 0]);
    assert_eq!(sent(&log.reply(10, 1, Reply::Attached), 1), [101]);
}

#[test]
fn what_waits_for_its_quorum_is_bounded() {
    let mut log = replication(Durability::Durable);
    for position in 1..=6 {
        append(&mut log, 0, position);
    }
    assert_eq!(log.offer(&BATCH), Offer::Busy);
    log.journal_durable(0, Position(6));
    assert_eq!(log.offer(&BATCH), Offer::Busy, "one of three is no quorum");
    log.reply(0, 2, stored(101));
    assert!(matches!(log.offer(&BATCH), Offer::Journal(_)));
}

#[test]
fn a_batch_that_the_journal_refused_is_not_overtaken() {
    let mut log = replication(Durability::Durable);
    let key = |sequence| AppendKey { producer_id: 1, producer_epoch: 0, sequence };
    let batch = |sequence| Candidate { key: Some(key(sequence)), ..BATCH };
    log.refused(&batch(0), 0);
    let error = AppendError::OutOfOrderSequence { expected: 0, got: 1 };
    assert_eq!(log.offer(&batch(1)), Offer::Answer(Answer::Refused(error)));
    assert!(matches!(log.offer(&batch(0)), Offer::Journal(_)));
}

#[test]
fn a_peer_that_falls_behind_by_bytes_or_by_time_makes_a_roll_and_is_left_behind() {
    let mut log = replication(Durability::Durable);
    let mut rolls = Vec::new();
    for position in 1..=12 {
        let mut effects = append(&mut log, 0, position).1;
        effects.extend(log.journal_durable(0, Position(position)));
        effects.extend(log.reply(0, 1, stored(100 + position)));
        rolls.extend(effects.into_iter().filter(|e| matches!(e, Effect::WantsRoll { .. })));
        assert!(log.queue.bytes() <= LIMITS.max_kept_bytes + 10);
    }
    assert_eq!(rolls, [Effect::WantsRoll { peer: 2 }]);
    assert_eq!(log.queue.len(), 0, "nothing is kept for it");

    let mut log = replication(Durability::Durable);
    append(&mut log, 0, 1);
    log.journal_durable(0, Position(1));
    let effects = log.reply(7, 1, stored(101));
    assert!(effects.contains(&Effect::Timer { at_ms: 12 }), "{effects:?}");
    assert!(!log.tick(1006).contains(&Effect::WantsRoll { peer: 2 }));
    assert!(log.tick(1007).contains(&Effect::WantsRoll { peer: 2 }));
}

#[test]
fn a_slow_peer_of_a_segment_that_takes_no_more_sets_no_timer_in_the_past() {
    let mut log = replication(Durability::Durable);
    append(&mut log, 0, 1);
    log.journal_durable(0, Position(1));
    log.reply(0, 1, stored(101));
    log.drain();
    for now_ms in [5, 6, 1000] {
        log.tick(now_ms);
    }
    for now_ms in [1000, 1001, 2000] {
        let due = |effect: &Effect| matches!(effect, Effect::Timer { at_ms } if *at_ms <= now_ms);
        let effects = log.tick(now_ms);
        assert!(!effects.iter().any(due), "{now_ms}: {effects:?}");
    }
}

#[test]
fn committed_rides_on_a_store_or_goes_alone_after_a_while() {
    let mut log = replication(Durability::Durable);
    append(&mut log, 0, 1);
    log.journal_durable(0, Position(1));
    log.reply(10, 1, stored(101));
    let (entry, effects) = append(&mut log, 12, 2);
    assert!(effects.contains(&Effect::Store { peer: 1, entry, payload: (), committed: 101 }));
    log.journal_durable(20, Position(2));
    log.reply(20, 1, stored(102));
    assert!(!log.tick(20).iter().any(|e| matches!(e, Effect::Committed { .. })));
    let effects = log.tick(25);
    for peer in [1, 2] {
        assert!(effects.contains(&Effect::Committed { peer, committed: 102 }), "{effects:?}");
    }
    assert!(!log.tick(30).iter().any(|e| matches!(e, Effect::Committed { .. })));
    // The last word may have been lost with a connection.
    log.reply(40, 1, Reply::Attached);
    let effects = log.tick(46).into_vec();
    assert!(effects.contains(&Effect::Committed { peer: 1, committed: 102 }), "{effects:?}");
    assert!(!effects.contains(&Effect::Committed { peer: 2, committed: 102 }), "{effects:?}");
}

#[test]
fn a_sealed_or_foreign_peer_stops_it_once() {
    for reply in [Reply::Sealed, Reply::Foreign] {
        let mut log = replication(Durability::Durable);
        append(&mut log, 0, 1);
        append(&mut log, 0, 2);
        assert_eq!(log.reply(0, 1, reply).into_vec(), [Effect::Stopped]);
        assert_eq!(log.reply(0, 2, reply).into_vec(), []);
        assert_eq!(log.offer(&BATCH), Offer::Closing);
        // The closer's word settles what is below the tail; the rest has no answer (I2).
        log.closed_at(101);
        assert_eq!(log.settle().map(|(waiter, _)| waiter), Some(1));
        assert_eq!(log.settle(), None);
        assert_eq!(log.abandon().collect::<Vec<_>>(), [2]);
    }
}

#[test]
fn classes_commit_by_what_they_promise() {
    let received = Reply::Stored { local_end: 101, durable_end: 100 };
    for (class, at_once, when_received) in [
        (Durability::Durable, 100, 100),
        (Durability::Replicated, 100, 101),
        (Durability::Volatile, 101, 101),
    ] {
        let mut log = replication(class);
        append(&mut log, 0, 1);
        assert_eq!(log.sequencer().committed(), at_once, "{class:?}");
        log.reply(0, 2, received);
        assert_eq!(log.sequencer().committed(), when_received, "{class:?}");
    }
}

#[test]
fn it_drains_and_has_a_place_for_a_snapshot() {
    let mut log = replication(Durability::Durable);
    let snapshot = log.snapshot(3);
    let effects = log.snapshot_taken(0, &snapshot, ());
    assert_eq!((sent(&effects, 1), log.has_snapshot_here()), (vec![100], true));
    let (entry, _) = append(&mut log, 0, 1);
    assert_eq!((entry.first, entry.behind), (100, Some(100)));
    assert!(!log.has_snapshot_here());
    log.drain();
    assert_eq!((log.offer(&BATCH), log.drained()), (Offer::Closing, None));
    log.journal_durable(0, Position(1));
    log.reply(0, 1, stored(101));
    assert_eq!(log.drained(), None, "nobody was answered yet");
    assert!(log.settle().is_some());
    assert_eq!(log.drained(), Some(101));
}

#[derive(Clone, Debug)]
enum Step {
    Append,
    Snapshot,
    Sync {
        node: usize,
    },
    /// A message on the way is lost, delivered twice, or delivered.
    Network {
        index: usize,
        fate: u8,
    },
    Tick,
    Reconnect {
        peer: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Append),
        1 => Just(Step::Snapshot),
        4 => (0..3usize).prop_map(|node| Step::Sync { node }),
        9 => (0..64usize, 0..6u8).prop_map(|(index, fate)| Step::Network { index, fate }),
        1 => Just(Step::Tick),
        1 => (1..3usize).prop_map(|peer| Step::Reconnect { peer }),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Wire {
    To(usize, replica::Event),
    From(usize, Reply),
}

/// Three nodes: positions count each one's journal.
struct World {
    log: Replication<u32>,
    peers: [Replica; 2],
    positions: [u64; 3],
    synced: [u64; 3],
    wire: Vec<Wire>,
    now_ms: u64,
}

impl World {
    fn send(&mut self, effects: Effects) {
        let from = Life { node: NodeId(0), incarnation: 1 };
        for effect in effects {
            let message = match effect {
                Effect::Store { peer, entry, committed, .. } => {
                    Wire::To(peer, replica::Event::Store { from, entry, committed })
                }
                Effect::Committed { peer, committed } => {
                    Wire::To(peer, replica::Event::Committed { from, committed })
                }
                Effect::Timer { .. } | Effect::WantsRoll { .. } | Effect::Stopped => continue,
            };
            self.wire.push(message);
        }
    }

    fn at_peer(&mut self, peer: usize, event: replica::Event) {
        for effect in self.peers[peer - 1].handle(event) {
            let reply = match effect {
                replica::Effect::Journal(entry) => {
                    self.positions[peer] += 1;
                    let position = Position(self.positions[peer]);
                    self.at_peer(peer, replica::Event::Journaled { entry, position });
                    continue;
                }
                replica::Effect::Stored { local_end, durable_end } => {
                    Reply::Stored { local_end, durable_end }
                }
                replica::Effect::Gap { local_end } => Reply::Gap { local_end },
                other => panic!("{other:?}"),
            };
            self.wire.push(Wire::From(peer, reply));
        }
    }

    fn deliver(&mut self, message: Wire) {
        match message {
            Wire::To(peer, event) => self.at_peer(peer, event),
            Wire::From(peer, reply) => {
                let effects = self.log.reply(self.now_ms, peer, reply);
                self.send(effects);
            }
        }
    }

    fn sync(&mut self, node: usize) {
        self.synced[node] = self.positions[node];
        let position = Position(self.positions[node]);
        if node == 0 {
            let effects = self.log.journal_durable(self.now_ms, position);
            self.send(effects);
        } else {
            self.at_peer(node, replica::Event::Durable(position));
        }
    }
}

proptest! {
    /// I5, I6 and I7 over any network, and all is stored everywhere when it is well again.
    #[test]
    fn peers_get_all_whatever_the_network_does(steps in prop::collection::vec(step(), 1..200)) {
        let sequencer = Life { node: NodeId(0), incarnation: 1 };
        let peer = || Replica::new(100, Some(sequencer), false, Rules::default());
        let mut limits = LIMITS;
        (limits.max_kept_bytes, limits.max_kept_entries) = (u64::MAX, usize::MAX);
        let mut log = replication(Durability::Durable);
        log.limits = limits;
        let (positions, synced) = ([0; 3], [0; 3]);
        let peers = [peer(), peer()];
        let mut world = World { log, peers, positions, synced, wire: Vec::new(), now_ms: 0 };
        let (mut committed, mut told) = (100, [100, 100]);
        let mut own_end = 100;
        for step in steps {
            match step {
                Step::Append => if let Offer::Journal(entry) = world.log.offer(&BATCH) {
                    world.positions[0] += 1;
                    let position = Position(world.positions[0]);
                    let effects = world.log.taken(world.now_ms, (&BATCH, &entry, position), 0, 0, ());
                    world.send(effects);
                },
                Step::Snapshot => if !world.log.has_snapshot_here() {
                    world.positions[0] += 1;
                    let entry = world.log.snapshot(1);
                    let effects = world.log.snapshot_taken(world.now_ms, &entry, ());
                    world.send(effects);
                },
                Step::Sync { node } => {
                    if node == 0 {
                        own_end = world.log.sequencer().next();
                    }
                    world.sync(node);
                }
                Step::Network { index, fate } if !world.wire.is_empty() => {
                    let index = index % world.wire.len();
                    let message = world.wire[index];
                    if fate != 1 {
                        world.wire.remove(index);
                    }
                    if fate != 0 {
                        world.deliver(message);
                    }
                }
                Step::Network { .. } => {}
                Step::Tick => {
                    world.now_ms += 10;
                    let effects = world.log.tick(world.now_ms);
                    world.send(effects);
                }
                Step::Reconnect { peer } => {
                    let effects = world.log.reply(world.now_ms, peer, Reply::Attached);
                    world.send(effects);
                }
            }
            let now = world.log.sequencer().committed();
            let mut ends = [own_end, world.peers[0].durable_end(), world.peers[1].durable_end()];
            ends.sort_unstable();
            prop_assert!(now >= committed && now <= ends[1], "I5, I7: {} {:?}", now, ends);
            committed = now;
            for (peer, told) in world.peers.iter().zip(&mut told) {
                prop_assert!(peer.committed() >= *told && peer.committed() <= committed, "I7");
                *told = peer.committed();
            }
            while world.log.settle().is_some() {}
        }
        // A network that loses nothing, from new connections on.
        world.wire.clear();
        for _ in 0..200 {
            world.now_ms += 10;
            for peer in [1, 2] {
                let effects = world.log.reply(world.now_ms, peer, Reply::Attached);
                world.send(effects);
            }
            while !world.wire.is_empty() {
                let message = world.wire.remove(0);
                world.deliver(message);
            }
            (0..3).for_each(|node| world.sync(node));
            let effects = world.log.tick(world.now_ms);
            world.send(effects);
        }
        let end = world.log.sequencer().next();
        prop_assert_eq!(world.log.sequencer().committed(), end);
        for peer in &world.peers {
            prop_assert_eq!((peer.durable_end(), peer.committed()), (end, end));
        }
    }
}
