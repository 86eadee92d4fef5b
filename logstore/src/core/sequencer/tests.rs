//! The sequencer by its rules, and over random schedules of one and of three replicas.

use proptest::prelude::*;

use super::*;

fn batch(key: Option<(i64, i32)>, count: u32) -> Candidate {
    let key =
        key.map(|(producer_id, sequence)| AppendKey { producer_id, producer_epoch: 0, sequence });
    Candidate { key, count, window: 5, bytes: 10 }
}

fn sequencer(durability: Durability, quorum: Quorum) -> Sequencer<u32> {
    Sequencer::new(100, durability, quorum, Producers::default(), ProducerLimits::default())
}

/// Offers a batch as the service does.
fn offer(sequencer: &mut Sequencer<u32>, batch: &Candidate, position: u64, waiter: u32) {
    match sequencer.check(batch) {
        Check::Journal(base) => {
            assert_eq!(base, sequencer.next());
            sequencer.taken(batch, Position(position), 0, waiter);
        }
        Check::Answer(answer) => sequencer.answer(answer, waiter),
    }
}

fn kept(base: Offset) -> Answer {
    Answer::Kept { base, is_duplicate: false }
}

fn again(base: Offset) -> Answer {
    Answer::Kept { base, is_duplicate: true }
}

fn settled(sequencer: &mut Sequencer<u32>) -> Vec<(u32, Answer)> {
    std::iter::from_fn(|| sequencer.settle()).collect()
}

#[test]
fn whoever_seals_meets_whoever_acknowledged() {
    for replicas in 1..8 {
        for least in 0..10 {
            let acks = interflow_meta::logs::acks(replicas, least);
            let quorum = Quorum { replicas, acks };
            assert!((1..=replicas).contains(&acks) && (1..=replicas).contains(&quorum.seals()));
            assert!(acks + quorum.seals() > replicas, "{quorum:?}");
            assert!(acks >= 2 || replicas == 1, "{quorum:?}");
            assert!(acks >= replicas.min(least as usize), "{quorum:?}");
        }
    }
}

#[test]
fn a_durable_batch_is_answered_when_the_journal_has_it() {
    let mut log = sequencer(Durability::Durable, Quorum::of(1));
    offer(&mut log, &batch(None, 3), 1, 1);
    offer(&mut log, &batch(None, 2), 5, 2);
    assert_eq!(settled(&mut log), vec![]);
    assert_eq!((log.committed(), log.in_flight_bytes()), (100, 20));
    assert_eq!(log.journal_durable(Position(4)), 1);
    assert_eq!(settled(&mut log), vec![(1, kept(100))]);
    assert!(!log.is_drained());
    assert_eq!(log.journal_durable(Position(5)), 1);
    assert_eq!(settled(&mut log), vec![(2, kept(103))]);
    assert_eq!(log.committed(), 105);
    assert!(log.is_drained());
}

#[test]
fn a_duplicate_in_flight_waits_for_the_first() {
    let mut log = sequencer(Durability::Durable, Quorum::of(1));
    offer(&mut log, &batch(Some((1, 0)), 3), 1, 1);
    offer(&mut log, &batch(Some((1, 0)), 3), 0, 2);
    assert_eq!(log.next(), 103);
    assert_eq!(settled(&mut log), vec![]);
    log.journal_durable(Position(1));
    assert_eq!(settled(&mut log), vec![(1, kept(100)), (2, again(100))]);
    offer(&mut log, &batch(Some((1, 0)), 3), 0, 3);
    assert_eq!(settled(&mut log), vec![(3, again(100))]);
}

#[test]
fn a_rejection_waits_for_what_it_was_judged_by_and_its_successors_fail_too() {
    let mut log = sequencer(Durability::Durable, Quorum::of(1));
    offer(&mut log, &batch(Some((1, 0)), 1), 1, 1);
    offer(&mut log, &batch(Some((1, 5)), 1), 0, 2);
    offer(&mut log, &batch(Some((1, 6)), 1), 0, 3);
    // Another producer isn't touched.
    offer(&mut log, &batch(Some((2, 40)), 1), 2, 4);
    assert_eq!(settled(&mut log), vec![]);
    log.journal_durable(Position(2));
    let refused = |got| Answer::Refused(AppendError::OutOfOrderSequence { expected: 1, got });
    assert_eq!(
        settled(&mut log),
        vec![(1, kept(100)), (2, refused(5)), (3, refused(6)), (4, kept(101))]
    );
}

#[test]
fn a_batch_refused_for_want_of_room_is_not_overtaken() {
    let mut log = sequencer(Durability::Durable, Quorum::of(1));
    log.refused(&batch(Some((1, 0)), 1), 0);
    offer(&mut log, &batch(Some((1, 1)), 1), 1, 1);
    let refused = Answer::Refused(AppendError::OutOfOrderSequence { expected: 0, got: 1 });
    assert_eq!(settled(&mut log), vec![(1, refused)]);
}

#[test]
fn a_volatile_log_commits_at_once_but_not_too_far_ahead() {
    for class in [Durability::Volatile, Durability::Replicated] {
        let mut log = sequencer(class, Quorum::of(1));
        offer(&mut log, &batch(None, 3), 1, 1);
        assert_eq!(settled(&mut log), vec![(1, kept(100))]);
        let many = u32::try_from(MAX_AHEAD).unwrap();
        offer(&mut log, &batch(None, many), 2, 2);
        assert_eq!(settled(&mut log), vec![]);
        assert_eq!(log.committed(), 103);
        assert!(!log.is_drained());
        log.journal_durable(Position(1));
        assert_eq!(settled(&mut log), vec![(2, kept(103))]);
        assert!(!log.is_drained(), "what is not durable can't be closed");
        log.journal_durable(Position(2));
        assert!(log.is_drained());
    }
}

#[test]
fn two_of_three_make_a_commit() {
    let mut log = sequencer(Durability::Durable, Quorum { replicas: 3, acks: 2 });
    offer(&mut log, &batch(None, 10), 1, 1);
    log.journal_durable(Position(1));
    assert_eq!(log.committed(), 100);
    log.replica_durable(2, 110);
    assert_eq!(log.committed(), 110);
    log.replica_durable(1, 105);
    assert_eq!(log.committed(), 110);
}

#[derive(Clone, Debug)]
enum Step {
    Append { producer: i64, sequence: i32, count: u32 },
    Durable { replica: usize, upto: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3i64, 0..8i32, 1..4u32).prop_map(|(producer, sequence, count)| Step::Append {
            producer,
            sequence,
            count
        }),
        (0..3usize, 0..40u64).prop_map(|(replica, upto)| Step::Durable { replica, upto }),
    ]
}

proptest! {
    /// I5, I7, I8 and the order of answers, over any schedule.
    #[test]
    fn answers_rest_on_what_is_durable(
        steps in prop::collection::vec(step(), 1..150),
        replicas in prop_oneof![Just(1usize), Just(3)],
    ) {
        let acks = replicas / 2 + 1;
        let mut log: Sequencer<u32> = Sequencer::new(
            0, Durability::Durable, Quorum { replicas, acks },
            Producers::default(), ProducerLimits::default(),
        );
        // (position = index + 1) of each entry → one past its last offset.
        let mut ends: Vec<Offset> = Vec::new();
        let mut durable = vec![0u64; replicas];
        let mut committed = 0;
        let mut waiter = 0;
        let mut answered = Vec::new();
        for step in steps {
            match step {
                Step::Append { producer, sequence, count } => {
                    let before = log.next();
                    waiter += 1;
                    offer(&mut log, &batch(Some((producer, sequence)), count), ends.len() as u64 + 1, waiter);
                    if log.next() > before {
                        ends.push(log.next());
                    }
                }
                Step::Durable { replica, upto } => {
                    let replica = replica % replicas;
                    let upto = upto.min(ends.len() as u64);
                    let end = if upto == 0 { 0 } else { ends[upto as usize - 1] };
                    durable[replica] = durable[replica].max(end);
                    if replica == 0 {
                        log.journal_durable(Position(upto));
                    } else {
                        log.replica_durable(replica, end);
                    }
                }
            }
            let mut sorted = durable.clone();
            sorted.sort_unstable();
            prop_assert!(log.committed() >= committed, "I7");
            committed = log.committed();
            prop_assert_eq!(committed, sorted[replicas - acks], "I7");
            for (waiter, answer) in settled(&mut log) {
                if let Answer::Kept { base, .. } = answer {
                    prop_assert!(base < committed, "I5");
                }
                answered.push(waiter);
            }
        }
        let in_order: Vec<u32> = (1..).take(answered.len()).collect();
        prop_assert_eq!(&answered, &in_order, "answers come in the order of the appends");
        for replica in 0..replicas {
            log.replica_durable(replica, log.next());
        }
        answered.extend(settled(&mut log).into_iter().map(|(waiter, _)| waiter));
        prop_assert_eq!(answered.len(), waiter as usize);
    }
}
