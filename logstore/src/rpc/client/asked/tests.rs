//! Credits, cuts and callers that leave, without a connection.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::sync::oneshot::Receiver;

use super::*;
use crate::{AppendKind, Bounds, StoredBatch};

const WINDOW: Window = Window { bytes: 64 << 10, reads: 8 };
const BOUNDS: Bounds = Bounds { start: 0, committed: 9, stable: 9, leader_epoch: 0 };

struct Bed {
    reads: Reads,
    now: Instant,
}

impl Bed {
    fn new() -> Self {
        let mut reads = Reads::default();
        reads.welcomed(WINDOW);
        Self { reads, now: Instant::now() }
    }

    fn ask(&mut self, log: u64, max_bytes: usize) -> (u64, Receiver<ReadResult>) {
        let (reply, answer) = oneshot::channel();
        let log = LogId(log);
        let read = Read { log, offset: 0, max_bytes, stable_only: false, filter: None };
        let deadline = self.now + Duration::from_secs(10);
        (self.reads.ask(read, reply, self.now, deadline), answer)
    }

    /// Everything that may go.
    fn sent(&mut self) -> Vec<Kind> {
        std::iter::from_fn(|| self.reads.next(self.now)?.kind).collect()
    }

    /// The same, if it is all reads: ids, logs and credits.
    fn asked(&mut self) -> Vec<(u64, u64, usize)> {
        let asked = |kind| match kind {
            Kind::Read(read) => (read.id, read.log, usize::try_from(read.credit_bytes).unwrap()),
            other => panic!("{other:?}"),
        };
        self.sent().into_iter().map(asked).collect()
    }

    /// The server answers; who was told is told.
    fn answer(&mut self, id: u64, kind: Answer) -> Option<bool> {
        let answer = proto::ReadAnswer { id, kind: Some(kind) };
        let told = self.reads.answered(answer)?;
        Some(told.is_some_and(|(reply, result)| reply.send(result).is_ok()))
    }
}

fn outcome(bytes: usize) -> Answer {
    let batch = StoredBatch {
        base_offset: 0,
        count: 1,
        max_timestamp: 0,
        kind: AppendKind::Data,
        key: None,
        bytes: Bytes::from(vec![0; bytes]),
    };
    let outcome = ReadOutcome { batches: vec![batch], next_offset: 1, bounds: BOUNDS };
    Answer::Outcome(wire::outcome_message(outcome))
}

#[test]
fn what_is_not_taken_holds_what_it_has_and_no_more() {
    let mut bed = Bed::new();
    let mine: Vec<_> = (0..20).map(|_| bed.ask(1, 10_000)).collect();
    let asked = bed.asked();
    // A log takes half of what there is, in smaller pieces towards the end of it.
    let half = WINDOW.bytes / 2 + charge(WINDOW.least());
    assert!(asked.iter().map(|(_, _, credit)| charge(*credit)).sum::<usize>() <= half);
    assert_eq!(asked.iter().map(|(_, _, credit)| *credit).max(), Some(10_000));
    for (id, _, _) in &asked {
        bed.answer(*id, outcome(500)).unwrap();
    }
    assert_eq!(bed.reads.held, asked.len() * charge(500));
    // However much stands still, others get on.
    for _ in 0..100 {
        bed.asked();
        let (key, mut answer) = bed.ask(2, 10_000);
        let [(id, 2, _)] = *bed.asked() else { panic!("nothing was asked") };
        bed.answer(id, outcome(1_000)).unwrap();
        answer.try_recv().unwrap().unwrap();
        bed.reads.done(key);
    }
    for (key, _) in mine {
        bed.reads.done(key);
    }
    let left: Vec<_> = bed.reads.of.keys().copied().collect();
    for id in left {
        assert_eq!(bed.answer(id, outcome(0)), Some(false));
    }
    assert!(bed.reads.held == 0 && bed.reads.reads.is_empty());
}

#[test]
fn who_leaves_has_his_read_cancelled_and_holds_its_credit_until_the_answer() {
    let mut bed = Bed::new();
    let (waiting, _) = bed.ask(1, 100);
    bed.reads.done(waiting);
    assert!(bed.sent().is_empty());
    let (key, _answer) = bed.ask(1, 100);
    let [(id, 1, _)] = *bed.asked() else { panic!("nothing was asked") };
    bed.reads.done(key);
    assert!(bed.reads.is_ready() && bed.reads.held > 0);
    assert!(matches!(*bed.sent(), [Kind::Cancel(cancelled)] if cancelled == id));
    assert_eq!(bed.answer(id, Answer::Dropped(proto::Dropped {})), Some(false));
    assert!(bed.reads.held == 0 && bed.reads.reads.is_empty() && bed.reads.logs.is_empty());
}

#[test]
fn a_batch_larger_than_its_credit_gets_what_it_needs() {
    let mut bed = Bed::new();
    let (_, mut answer) = bed.ask(1, 100);
    let [(id, _, credit)] = *bed.asked() else { panic!("nothing was asked") };
    // More than the window: it goes alone.
    let needs = WINDOW.bytes + 1_000;
    assert_eq!(bed.answer(id, Answer::NeedsBytes(needs as u64)), Some(false));
    let [(again, 1, larger)] = *bed.asked() else { panic!("it wasn't asked again") };
    assert!(again > id && credit < needs && larger == needs);
    let _other = bed.ask(2, 100);
    assert!(bed.sent().is_empty());
    assert_eq!(bed.answer(again, outcome(needs)), Some(true));
    assert_eq!(answer.try_recv().unwrap().unwrap().bytes(), needs);
}

#[test]
fn what_breaks_the_rules_is_not_understood() {
    let answers = [
        outcome(WINDOW.bytes),
        Answer::NeedsBytes(1),
        Answer::NeedsBytes(u64::MAX),
        Answer::Error(proto::Error::default()),
        Answer::Welcome(proto::Welcome::default()),
        Answer::Outcome(proto::ReadOutcome::default()),
    ];
    for answer in answers {
        let mut bed = Bed::new();
        let (_, _waits) = bed.ask(1, 100);
        let [(id, _, _)] = *bed.asked() else { panic!("nothing was asked") };
        assert_eq!(bed.answer(id + 1, outcome(1)), None);
        assert_eq!(bed.answer(id, answer), None);
    }
    let mut bed = Bed::new();
    let _waits = bed.ask(1, 100);
    let [(id, _, _)] = *bed.asked() else { panic!("nothing was asked") };
    assert_eq!(bed.answer(id, outcome(1)), Some(true));
    assert_eq!(bed.answer(id, outcome(1)), None);
}

#[test]
fn a_read_is_given_up_after_its_patience_and_a_second_stream() {
    let mut bed = Bed::new();
    let patience = Duration::from_secs(5);
    let _waits = (bed.ask(1, 100), bed.ask(2, 100));
    assert_eq!(bed.asked().len(), 2);
    bed.reads.cut();
    let late = bed.now + patience;
    assert!(bed.reads.give_up(late, false, patience).is_empty());
    assert!(bed.reads.give_up(bed.now, false, patience).is_empty());
    let given_up = bed.reads.give_up(late, false, patience);
    assert_eq!(given_up.iter().map(|(log, _)| log.0).collect::<Vec<_>>(), [1, 2]);
    // One that lets nobody in is not asked again.
    let _waits = bed.ask(3, 100);
    assert_eq!(bed.reads.give_up(bed.now, true, patience).len(), 1);
    assert!(bed.reads.reads.is_empty() && bed.reads.held == 0);
}

#[derive(Clone, Copy, Debug)]
enum Do {
    Ask {
        log: u64,
        max_bytes: usize,
    },
    /// The server answers the one that is so far in its list.
    Serve {
        at: usize,
        size: usize,
    },
    Drop {
        at: usize,
    },
    /// A caller takes its answer, or leaves.
    Take {
        at: usize,
    },
    Leave {
        at: usize,
    },
    Cut,
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let at = 0_usize..100;
    let step = prop_oneof![
        4 => (0_u64..4, 0_usize..100_000).prop_map(|(log, max_bytes)| Do::Ask { log, max_bytes }),
        4 => (at.clone(), 0_usize..100_000).prop_map(|(at, size)| Do::Serve { at, size }),
        1 => at.clone().prop_map(|at| Do::Drop { at }),
        2 => at.clone().prop_map(|at| Do::Take { at }),
        1 => at.prop_map(|at| Do::Leave { at }),
        1 => Just(Do::Cut),
    ];
    prop::collection::vec(step, 0..200)
}

/// What a server has of a stream: credits by id.
#[derive(Default)]
struct Server {
    unanswered: BTreeMap<u64, usize>,
    last_id: Option<u64>,
}

impl Server {
    /// Takes what comes, as one that ends a stream that breaks the rules.
    fn take(&mut self, kinds: Vec<Kind>) {
        for kind in kinds {
            let Kind::Read(read) = kind else { continue };
            assert!(self.last_id < Some(read.id));
            self.last_id = Some(read.id);
            let is_alone = self.unanswered.is_empty();
            self.unanswered.insert(read.id, usize::try_from(read.credit_bytes).unwrap());
            let charged: usize = self.unanswered.values().map(|credit| charge(*credit)).sum();
            assert!(is_alone || charged <= WINDOW.bytes);
            assert!(self.unanswered.len() <= WINDOW.reads);
        }
    }

    fn pick(&mut self, at: usize) -> Option<(u64, usize)> {
        let ids: Vec<_> = self.unanswered.keys().copied().collect();
        let id = *ids.get(at.checked_rem(ids.len())?)?;
        Some((id, self.unanswered.remove(&id)?))
    }
}

proptest! {
    #[test]
    fn whatever_happens_rules_are_kept_and_all_is_given_back(steps in steps()) {
        let (mut bed, mut server) = (Bed::new(), Server::default());
        let mut callers = Vec::new();
        for step in steps {
            match step {
                Do::Ask { log, max_bytes } => callers.push(bed.ask(log, max_bytes)),
                Do::Serve { at, size } => if let Some((id, credit)) = server.pick(at) {
                    let fits = size <= credit;
                    let answer =
                        if fits { outcome(size) } else { Answer::NeedsBytes(size as u64) };
                    prop_assert!(bed.answer(id, answer).is_some());
                },
                Do::Drop { at } => if let Some((id, _)) = server.pick(at) {
                    let dropped = Answer::Dropped(proto::Dropped {});
                    prop_assert_eq!(bed.answer(id, dropped), Some(false));
                },
                Do::Take { at } => if let Some(at) = at.checked_rem(callers.len())
                    && let Ok(result) = callers[at].1.try_recv()
                {
                    prop_assert!(result.is_ok());
                    bed.reads.done(callers.swap_remove(at).0);
                },
                Do::Leave { at } => if let Some(at) = at.checked_rem(callers.len()) {
                    bed.reads.done(callers.swap_remove(at).0);
                },
                Do::Cut => {
                    bed.reads.cut();
                    server.unanswered.clear();
                    bed.reads.welcomed(WINDOW);
                }
            }
            server.take(bed.sent());
        }
        // All are answered in the end, and nothing is left behind.
        while !callers.is_empty() || !server.unanswered.is_empty() {
            let before = callers.len() + server.unanswered.len();
            while let Some((id, _)) = server.pick(0) {
                prop_assert!(bed.answer(id, outcome(0)).is_some());
            }
            callers.retain_mut(|(key, answer)| {
                let is_waiting = answer.try_recv().is_err();
                if !is_waiting {
                    bed.reads.done(*key);
                }
                is_waiting
            });
            prop_assert!(callers.len() < before);
            server.take(bed.sent());
        }
        prop_assert_eq!((bed.reads.held, bed.reads.reads.len(), bed.reads.of.len()), (0, 0, 0));
        prop_assert!(bed.reads.logs.is_empty());
    }
}
