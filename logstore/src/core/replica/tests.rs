//! The replica by its rules, and over random schedules with crashes.

use proptest::prelude::*;

use super::*;

const SEQUENCER: Life = Life { node: NodeId(1), incarnation: 7 };
const RECOVERER: NodeId = NodeId(9);

fn entry(first: Offset, count: u32) -> Entry {
    Entry { first, count, bytes: 10, behind: None, is_snapshot: false }
}

fn store(entry: Entry) -> Event {
    Event::Store { from: SEQUENCER, entry, committed: 0 }
}

fn replica() -> Replica {
    Replica::new(100, Some(SEQUENCER), false, Rules::default())
}

fn effects(replica: &mut Replica, event: Event) -> Vec<Effect> {
    replica.handle(event).into_vec()
}

/// Stores and journals an entry.
fn take(replica: &mut Replica, entry: Entry, position: u64) {
    assert_eq!(effects(replica, store(entry)), [Effect::Journal(entry)]);
    let position = Position(position);
    assert_eq!(effects(replica, Event::Journaled { entry, position }), []);
}

fn stored(local_end: Offset, durable_end: Offset) -> Effect {
    Effect::Stored { local_end, durable_end }
}

#[test]
fn a_store_is_taken_at_the_end_only() {
    let mut replica = replica();
    assert_eq!(effects(&mut replica, store(entry(105, 1))), [Effect::Gap { local_end: 100 }]);
    take(&mut replica, entry(100, 5), 1);
    assert_eq!(effects(&mut replica, store(entry(100, 5))), [stored(105, 100)]);
    assert_eq!(effects(&mut replica, Event::Durable(Position(1))), [stored(105, 105)]);
    assert_eq!(effects(&mut replica, store(entry(100, 5))), [stored(105, 105)]);
    let from = Life { incarnation: 8, ..SEQUENCER };
    let foreign = Event::Store { from, entry: entry(105, 1), committed: 0 };
    assert_eq!(effects(&mut replica, foreign), [Effect::Refused(Refusal::Foreign)]);
}

#[test]
fn a_missed_snapshot_is_a_gap() {
    let mut replica = replica();
    let snapshot = Entry { first: 100, count: 0, bytes: 5, behind: None, is_snapshot: true };
    let behind = Entry { behind: Some(100), ..entry(100, 2) };
    assert_eq!(effects(&mut replica, store(behind)), [Effect::Gap { local_end: 100 }]);
    take(&mut replica, snapshot, 1);
    assert_eq!(effects(&mut replica, store(snapshot)), [stored(100, 100)]);
    take(&mut replica, behind, 2);
    assert_eq!((replica.local_end(), replica.durable_end()), (102, 100));
}

#[test]
fn a_seal_is_answered_when_it_is_durable_and_nothing_is_in_flight() {
    let mut replica = replica();
    take(&mut replica, entry(100, 5), 1);
    assert_eq!(effects(&mut replica, Event::Seal { by: RECOVERER }), [Effect::PersistSeal]);
    assert_eq!(effects(&mut replica, store(entry(105, 1))), []);
    assert_eq!(effects(&mut replica, Event::SealPersisted), []);
    let sealed = Effect::Sealed { to: RECOVERER, end: 105, counts: true };
    assert_eq!(effects(&mut replica, Event::Durable(Position(1))), [sealed]);
    assert_eq!(effects(&mut replica, Event::Seal { by: RECOVERER }), [sealed]);
    for below in [entry(100, 5), entry(105, 1)] {
        assert_eq!(effects(&mut replica, store(below)), [Effect::Refused(Refusal::Sealed)]);
    }
}

#[test]
fn only_a_repair_writes_to_a_sealed_segment_and_it_counts_for_no_append() {
    let mut replica = Replica::new(100, None, false, Rules::default());
    let repair = |first, count| Event::Repair { from: RECOVERER, entry: entry(first, count) };
    assert_eq!(effects(&mut replica, repair(100, 5)), []);
    effects(&mut replica, Event::Seal { by: RECOVERER });
    effects(&mut replica, Event::SealPersisted);
    let repaired =
        |local_end, durable_end| Effect::Repaired { to: RECOVERER, local_end, durable_end };
    assert_eq!(effects(&mut replica, repair(105, 1)), [repaired(100, 100)]);
    assert_eq!(effects(&mut replica, repair(100, 5)), [Effect::Journal(entry(100, 5))]);
    effects(&mut replica, Event::Journaled { entry: entry(100, 5), position: Position(1) });
    // Stored would count what the sequencer has not sent (I2).
    assert_eq!(effects(&mut replica, Event::Durable(Position(1))), [repaired(105, 105)]);
}

#[test]
fn a_damaged_replica_says_so_and_does_not_count() {
    let found = Found { end: 120, is_damaged: true, ..Found::default() };
    let mut replica = Replica::restart(100, Some(SEQUENCER), false, &found, Rules::default());
    assert_eq!(effects(&mut replica, store(entry(120, 1))), [Effect::Refused(Refusal::Damaged)]);
    effects(&mut replica, Event::Seal { by: RECOVERER });
    assert_eq!(
        effects(&mut replica, Event::SealPersisted),
        [Effect::Sealed { to: RECOVERER, end: 120, counts: false }]
    );
}

#[test]
fn committed_is_told_by_the_sequencer_alone_and_rises() {
    let mut replica = replica();
    take(&mut replica, entry(100, 5), 1);
    let told = |from, committed| Event::Committed { from, committed };
    replica.handle(told(SEQUENCER, 104));
    replica.handle(told(SEQUENCER, 102));
    replica.handle(told(Life { incarnation: 8, ..SEQUENCER }, 105));
    assert_eq!(replica.committed(), 104, "I7");
}

#[derive(Clone, Debug)]
enum Step {
    Store { index: usize },
    Repair { index: usize },
    Sync { upto: u64 },
    Seal,
    Persist,
    Crash { kept: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12usize).prop_map(|index| Step::Store { index }),
        2 => (0..12usize).prop_map(|index| Step::Repair { index }),
        3 => (0..40u64).prop_map(|upto| Step::Sync { upto }),
        1 => Just(Step::Seal),
        1 => Just(Step::Persist),
        1 => (0..6usize).prop_map(|kept| Step::Crash { kept }),
    ]
}

/// Twelve entries, every fourth a snapshot.
fn log() -> Vec<Entry> {
    let (mut first, mut behind) = (100, None);
    (0..12u32)
        .map(|index| {
            let is_snapshot = index % 4 == 0;
            let count = if is_snapshot { 0 } else { 1 + index % 3 };
            let entry = Entry { first, count, bytes: 1, behind, is_snapshot };
            (first, behind) = (entry.end(), entry.last_snapshot());
            entry
        })
        .collect()
}

proptest! {
    /// I6, I9 and the answers to seals, over any order of messages, syncs and crashes.
    #[test]
    fn what_was_answered_stays_true(steps in prop::collection::vec(step(), 1..120)) {
        let log = log();
        let mut replica = replica();
        // The disk: entries, how many of them are durable, the seal.
        let (mut written, mut synced, mut is_sealed) = (Vec::<Entry>::new(), 0usize, false);
        let mut is_persisting = false;
        let mut position = 0u64;
        // Positions count from the last restart; so many entries lay there before.
        let mut before = 0usize;
        let (mut reported, mut sealed_end) = (100, None);
        for step in steps {
            let (event, by_repair) = match step {
                Step::Store { index } => (store(log[index]), false),
                Step::Repair { index } => {
                    (Event::Repair { from: RECOVERER, entry: log[index] }, true)
                }
                Step::Sync { upto } => {
                    let upto = upto.min(position);
                    synced = synced.max(before + upto as usize);
                    (Event::Durable(Position(upto)), false)
                }
                Step::Seal => (Event::Seal { by: RECOVERER }, false),
                Step::Persist if is_persisting => {
                    (is_sealed, is_persisting) = (true, false);
                    (Event::SealPersisted, false)
                }
                Step::Persist => continue,
                Step::Crash { kept } => {
                    written.truncate(synced + kept);
                    (synced, before, position) = (written.len(), written.len(), 0);
                    is_persisting = false;
                    let found = Found {
                        end: written.last().map_or(100, Entry::end),
                        last_snapshot: written.last().and_then(Entry::last_snapshot),
                        is_sealed,
                        is_damaged: false,
                    };
                    replica = Replica::restart(100, Some(SEQUENCER), false, &found, Rules::default());
                    prop_assert!(replica.durable_end() >= reported, "I6");
                    continue;
                }
            };
            for effect in replica.handle(event) {
                match effect {
                    Effect::Journal(entry) => {
                        prop_assert!(is_sealed == by_repair, "only repairs write to the sealed");
                        prop_assert_eq!(Some(&entry), log.get(written.len()), "I6: no holes");
                        written.push(entry);
                        position += 1;
                        replica.handle(Event::Journaled { entry, position: Position(position) });
                    }
                    Effect::PersistSeal => is_persisting = true,
                    Effect::Stored { durable_end, .. } => {
                        prop_assert!(!is_sealed, "I2: no answer after the seal");
                        prop_assert!(durable_end >= reported, "I6");
                        reported = durable_end;
                    }
                    Effect::Repaired { durable_end, .. } => reported = reported.max(durable_end),
                    Effect::Sealed { end, .. } => {
                        prop_assert!(is_sealed, "I9: it is durable first");
                        prop_assert_eq!(synced, written.len(), "nothing is in flight");
                        prop_assert!(sealed_end.is_none_or(|known| end >= known));
                        sealed_end = Some(end);
                    }
                    Effect::Gap { local_end } => {
                        prop_assert_eq!(local_end, replica.local_end());
                    }
                    Effect::Refused(refusal) => prop_assert_eq!(refusal, Refusal::Sealed),
                }
            }
            let durable = written.iter().take(synced).next_back().map_or(100, Entry::end);
            prop_assert_eq!(replica.durable_end(), durable);
        }
    }
}
