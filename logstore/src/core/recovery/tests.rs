//! The recovery, step by step, and over random answers.

use interflow_meta::Durability;
use proptest::prelude::*;

use super::closing::{Close, Outcome};
use super::*;
use crate::core::segment::Life;
use crate::core::sequencer::MAX_AHEAD;

const TOKEN: u64 = 77;
const LIMITS: RecoveryLimits = RecoveryLimits { retry_ms: 10, max_retries: 2, max_rounds: 2 };

fn nodes(ids: &[u32]) -> Nodes {
    ids.iter().map(|id| NodeId(*id)).collect()
}

fn head(epoch: u32, replicas: &[u32], durability: Durability) -> Head {
    Head {
        acks: interflow_meta::logs::acks(replicas.len(), 0),
        epoch: Epoch(epoch),
        base: 100,
        leader_epoch: 4,
        durability,
        sequencer: Life { node: NodeId(1), incarnation: 1 },
        replicas: nodes(replicas),
        token: 5,
    }
}

/// A recovery that has read the head of epoch 3 on these replicas.
fn sealing(replicas: &[u32], durability: Durability) -> (Recovery, Effects) {
    let mut recovery = Recovery::new(Epoch(3), TOKEN, LIMITS, Rules::default());
    let start = recovery.start(0);
    assert_eq!(start.as_slice(), [Effect::ReadHead, Effect::Timer { at_ms: 10 }]);
    let effects = recovery.handle(0, Event::Head(Some(head(3, replicas, durability))));
    (recovery, effects)
}

fn sealed(node: u32, end: Offset) -> Event {
    Event::Sealed { node: NodeId(node), end, counts: true }
}

fn closing(event: closing::Event) -> Event {
    Event::Closing(event)
}

/// What it writes once it may close.
fn close_of(recovery: &mut Recovery) -> Close {
    let placed = closing(closing::Event::Placed(Some(nodes(&[4, 5, 6]))));
    let [Effect::Closing(closing::Effect::Transact(close))] = &recovery.handle(0, placed)[..]
    else {
        panic!("{recovery:?}");
    };
    close.clone()
}

#[test]
fn f_answers_tell_the_tail_and_copies_come_before_the_close() {
    let (mut recovery, effects) = sealing(&[1, 2, 3], Durability::Durable);
    let seal = Effect::Seal { nodes: nodes(&[1, 2, 3]), epoch: Epoch(3), base: 100 };
    assert_eq!(effects.as_slice(), [seal, Effect::Timer { at_ms: 10 }]);
    assert_eq!(recovery.handle(1, sealed(2, 107)).as_slice(), []);
    assert_eq!(recovery.handle(1, sealed(2, 107)).as_slice(), [], "the same answer twice is one");
    let (source, target) = (NodeId(2), NodeId(3));
    let copy = Effect::Copy { source, target, from: 103, until: 107 };
    assert_eq!(recovery.handle(1, sealed(3, 103)).as_slice(), [Effect::Timer { at_ms: 11 }, copy]);
    let copied = |end| Event::Copied { node: NodeId(3), end };
    assert_eq!(recovery.handle(1, copied(105)).as_slice(), []);
    assert_eq!(
        recovery.handle(1, copied(107)).as_slice(),
        [Effect::Closing(closing::Effect::Place)]
    );
    let close = close_of(&mut recovery);
    assert_eq!((close.end, close.next_base, close.next_leader_epoch), (107, 107, 4));
    assert_eq!((close.is_short, close.token), (false, TOKEN));
    let won = Head { token: TOKEN, ..head(4, &[4, 5, 6], Durability::Durable) };
    let effects =
        recovery.handle(1, closing(closing::Event::Transacted(Outcome::Committed(won.clone()))));
    let replay = Effect::Replay { epoch: Epoch(3), holders: nodes(&[2, 3]), end: 107 };
    assert_eq!(effects.as_slice(), [replay, Effect::Finished(Ok(Finish::Won(won)))]);
}

#[test]
fn answers_that_do_not_count_and_strangers_decide_nothing() {
    let (mut recovery, _) = sealing(&[1, 2, 3], Durability::Durable);
    let damaged = Event::Sealed { node: NodeId(1), end: 150, counts: false };
    assert_eq!(recovery.handle(0, damaged).as_slice(), []);
    assert_eq!(recovery.handle(0, sealed(9, 150)).as_slice(), []);
    assert_eq!(recovery.handle(0, sealed(2, 107)).as_slice(), []);
    let effects = recovery.handle(0, sealed(3, 107));
    assert_eq!(effects.last(), Some(&Effect::Closing(closing::Effect::Place)));
}

#[test]
fn two_replicas_of_which_one_is_dead_are_closed_short_after_some_retries() {
    let (mut recovery, _) = sealing(&[1, 2], Durability::Durable);
    recovery.handle(0, sealed(2, 107));
    let again = Effect::Seal { nodes: nodes(&[1]), epoch: Epoch(3), base: 100 };
    for now_ms in [10, 20] {
        let timer = Effect::Timer { at_ms: now_ms + 10 };
        assert_eq!(recovery.handle(now_ms, Event::Tick).as_slice(), [again.clone(), timer]);
    }
    let effects = recovery.handle(30, Event::Tick);
    assert_eq!(effects.as_slice(), [Effect::Closing(closing::Effect::Place)]);
    let close = close_of(&mut recovery);
    assert_eq!((close.end, close.is_short), (107, true));
}

#[test]
fn without_f_answers_nothing_is_closed() {
    let (mut recovery, _) = sealing(&[1, 2, 3], Durability::Durable);
    recovery.handle(0, sealed(2, 107));
    let mut now_ms = 0;
    for round in 0..LIMITS.max_rounds {
        if round > 0 {
            recovery.handle(now_ms, Event::Head(Some(head(3, &[1, 2, 3], Durability::Durable))));
        }
        for _ in 0..LIMITS.max_retries {
            now_ms += 10;
            assert_eq!(recovery.handle(now_ms, Event::Tick).len(), 2);
        }
        now_ms += 10;
        let last = recovery.handle(now_ms, Event::Tick);
        let given_up = GivenUp::TooFewAnswers { answers: 0, needed: 2 };
        if round == 0 {
            assert_eq!(last[0], Effect::ReadHead, "another round");
        } else {
            assert_eq!(last.as_slice(), [Effect::Finished(Err(given_up))]);
        }
    }
}

#[test]
fn a_failed_copy_asks_anew_who_is_live() {
    let (mut recovery, _) = sealing(&[1, 2, 3], Durability::Durable);
    recovery.handle(0, sealed(1, 109));
    recovery.handle(0, sealed(2, 107));
    let effects = recovery.handle(0, Event::CopyFailed { node: NodeId(2) });
    assert_eq!(effects.first(), Some(&Effect::ReadHead));
    // The holder of the longest end died: without it, the largest end is another.
    recovery.handle(0, Event::Head(Some(head(3, &[1, 2, 3], Durability::Durable))));
    recovery.handle(0, sealed(2, 107));
    recovery.handle(0, sealed(3, 107));
    assert_eq!(close_of(&mut recovery).end, 107);
}

#[test]
fn who_comes_second_takes_what_the_first_opened() {
    let mut recovery = Recovery::new(Epoch(3), TOKEN, LIMITS, Rules::default());
    recovery.start(0);
    let newer = head(4, &[1, 2, 3], Durability::Durable);
    let effects = recovery.handle(0, Event::Head(Some(newer.clone())));
    assert_eq!(effects.as_slice(), [Effect::Finished(Ok(Finish::Lost(newer)))]);
    assert_eq!(recovery.handle(0, sealed(1, 100)).as_slice(), []);
}

#[test]
fn an_unknown_commit_is_read_again_until_it_is_known() {
    let (mut recovery, _) = sealing(&[1], Durability::Durable);
    recovery.handle(0, sealed(1, 107));
    let close = close_of(&mut recovery);
    let transacted = |outcome| closing(closing::Event::Transacted(outcome));
    let read = [Effect::Closing(closing::Effect::ReadHead)];
    assert_eq!(recovery.handle(0, transacted(Outcome::Unknown)).as_slice(), read);
    let effects = recovery.handle(0, Event::HeadUnread);
    assert_eq!(effects.as_slice(), [Effect::Timer { at_ms: 10 }]);
    assert_eq!(recovery.handle(10, Event::Tick).as_slice(), read);
    // Not written: the very same again.
    let unchanged = Event::Head(Some(head(3, &[1], Durability::Durable)));
    assert_eq!(
        recovery.handle(10, unchanged).as_slice(),
        [Effect::Closing(closing::Effect::Transact(close))]
    );
    recovery.handle(10, transacted(Outcome::Unknown));
    let ours = Head { token: TOKEN, ..head(4, &[4], Durability::Durable) };
    let effects = recovery.handle(10, Event::Head(Some(ours.clone())));
    assert_eq!(effects.last(), Some(&Effect::Finished(Ok(Finish::Won(ours)))), "I12");
}

#[test]
fn logs_that_are_not_durable_go_on_past_all_that_can_have_been_seen() {
    for class in [Durability::Replicated, Durability::Volatile] {
        let (mut recovery, _) = sealing(&[1], class);
        recovery.handle(0, sealed(1, 107));
        let close = close_of(&mut recovery);
        assert_eq!((close.end, close.next_base), (107, 107 + MAX_AHEAD), "I3");
        assert_eq!(close.next_leader_epoch, 5);
    }
}

#[test]
fn a_close_waits_for_nodes_and_for_meta() {
    let (mut recovery, _) = sealing(&[1], Durability::Durable);
    recovery.handle(0, sealed(1, 107));
    let none = closing(closing::Event::Placed(None));
    assert_eq!(recovery.handle(0, none).as_slice(), [Effect::Timer { at_ms: 10 }]);
    assert_eq!(recovery.handle(9, Event::Tick).as_slice(), []);
    let place = [Effect::Closing(closing::Effect::Place)];
    assert_eq!(recovery.handle(10, Event::Tick).as_slice(), place);
    close_of(&mut recovery);
    let misplaced = closing(closing::Event::Transacted(Outcome::Misplaced));
    assert_eq!(recovery.handle(20, misplaced).as_slice(), [Effect::Timer { at_ms: 30 }]);
    assert_eq!(recovery.handle(30, Event::Tick).as_slice(), place);
    close_of(&mut recovery);
    let gone = closing(closing::Event::Transacted(Outcome::Gone));
    assert_eq!(recovery.handle(30, gone).as_slice(), [Effect::Finished(Ok(Finish::Gone))]);
}

proptest! {
    /// I1 and I4: whatever order answers, copies and failures come in, the end that is written is
    /// at or past whatever Q replicas had, some answer told it, and Q are known to hold it.
    #[test]
    fn a_close_covers_every_quorum(
        ends in prop::array::uniform3(100u64..110),
        steps in prop::collection::vec((0..4u8, 0..3usize), 1..40),
    ) {
        let (mut recovery, _) = sealing(&[0, 1, 2], Durability::Durable);
        let mut ends = ends;
        let mut sorted = ends;
        sorted.sort_unstable();
        let acknowledged = sorted[1];
        let mut pending = Vec::new();
        for (kind, node) in steps {
            let id = NodeId(u32::try_from(node).unwrap());
            let effects = match kind {
                0 | 1 => recovery.handle(0, sealed(id.0, ends[node])),
                2 => match pending.pop() {
                    Some((target, until)) => {
                        let NodeId(index) = target;
                        ends[index as usize] = until;
                        recovery.handle(0, Event::Copied { node: target, end: until })
                    }
                    None => continue,
                },
                _ => {
                    let mut effects = recovery.handle(0, Event::CopyFailed { node: id });
                    if effects.contains(&Effect::ReadHead) {
                        pending.clear();
                        let head = head(3, &[0, 1, 2], Durability::Durable);
                        effects = recovery.handle(0, Event::Head(Some(head)));
                    }
                    effects
                }
            };
            for effect in effects {
                match effect {
                    Effect::Copy { source, target, from, until } => {
                        prop_assert!(ends[source.0 as usize] >= until && from < until);
                        pending.push((target, until));
                    }
                    Effect::Closing(closing::Effect::Place) => {
                        let close = close_of(&mut recovery);
                        prop_assert!(close.end >= acknowledged, "I1");
                        prop_assert!(ends.iter().filter(|end| **end >= close.end).count() >= 2, "I4");
                        prop_assert!(!close.is_short);
                    }
                    _ => {}
                }
            }
        }
    }
}
