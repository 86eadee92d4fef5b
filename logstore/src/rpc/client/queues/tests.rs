//! Order, the window, cuts and deadlines, without a connection.

use std::collections::HashMap as StdMap;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::{AppendKey, AppendKind, AppendTicket, Appended};

const LIMITS: QueueLimits = QueueLimits {
    max_bytes: 1 << 20,
    max_log_bytes: 1 << 18,
    max_batch_bytes: 1 << 16,
    timeout: Duration::from_secs(10),
    silence: Duration::from_secs(3),
    is_routed: false,
};

fn append(log: u64, name: i32, is_keyed: bool) -> Append {
    let key = AppendKey { producer_id: 1, producer_epoch: 0, sequence: name };
    Append {
        log: LogId(log),
        kind: AppendKind::Data,
        key: is_keyed.then_some(key),
        window: 5,
        count: 1,
        max_timestamp: i64::from(name),
        digest: None,
        early: false,
        batch: Bytes::from(vec![0; 100]),
    }
}

fn offer(queues: &mut Queues, append: Append, now: Instant) -> AppendTicket {
    let (reply, ticket) = AppendTicket::pair();
    queues.offer(append, reply, now);
    ticket
}

fn answer(ticket: &mut AppendTicket) -> Option<AppendResult> {
    match std::pin::Pin::new(ticket).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

/// Everything that may go: log, id and name.
fn drain(queues: &mut Queues) -> Vec<(u64, u64, i64)> {
    let (mut puts, mut logs) = (Vec::new(), StdMap::new());
    while let Some(request) = queues.next(Instant::now()) {
        match request.kind {
            Some(Kind::Open(open)) => drop(logs.insert(open.number, open.log)),
            Some(Kind::Put(put)) => puts.push((put.number, put.id, put.max_timestamp)),
            other => panic!("{other:?}"),
        }
    }
    let log = |number| logs.get(&number).copied().unwrap_or(u64::from(number));
    puts.into_iter().map(|(number, id, name)| (log(number), id, name)).collect()
}

fn kept(offset: u64) -> AppendResult {
    Ok(Appended { base_offset: offset, log_start: 0, duplicate: false })
}

#[tokio::test]
async fn nothing_goes_before_the_window_is_known_and_no_more_than_it_allows() {
    let (mut queues, now) = (Queues::new(LIMITS), Instant::now());
    let mut tickets: Vec<_> =
        (0..10).map(|name| offer(&mut queues, append(0, name, true), now)).collect();
    assert!(queues.next(Instant::now()).is_none());
    let each = charge(100);
    queues.welcomed(each * 8);
    // A log takes half of what there is: the rest is for others.
    let sent = drain(&mut queues);
    assert_eq!(sent.len(), 4);
    let other = offer(&mut queues, append(1, 0, true), now);
    assert_eq!(drain(&mut queues).len(), 1);
    assert_eq!(drain(&mut queues).len(), 0);
    // An answer makes room for one.
    assert!(queues.answered(sent[0].1, kept(0)).is_some());
    assert_eq!(answer(&mut tickets[0]), Some(kept(0)));
    assert_eq!(drain(&mut queues).len(), 1);
    // What is larger than the window goes alone.
    drop((tickets, other));
    let mut queues = Queues::new(LIMITS);
    queues.welcomed(10);
    let _tickets: Vec<_> =
        (0..2).map(|name| offer(&mut queues, append(0, name, true), now)).collect();
    assert_eq!(drain(&mut queues).len(), 1);
}

#[tokio::test]
async fn a_full_queue_refuses_and_keeps_what_it_has() {
    let now = Instant::now();
    let each = charge(100);
    let mut queues =
        Queues::new(QueueLimits { max_bytes: each * 3, max_log_bytes: each * 2, ..LIMITS });
    let mut tickets: Vec<_> =
        (0..3).map(|name| offer(&mut queues, append(0, name, true), now)).collect();
    tickets.push(offer(&mut queues, append(1, 3, true), now));
    tickets.push(offer(&mut queues, append(2, 4, true), now));
    let answers: Vec<_> = tickets.iter_mut().map(answer).collect();
    let busy = Some(Err(AppendError::Busy));
    assert_eq!(answers, [None, None, busy.clone(), None, busy]);
    let large = Append { batch: Bytes::from(vec![0; (1 << 16) + 1]), ..append(3, 0, true) };
    let too_large = AppendError::TooLarge { max_bytes: 1 << 16 };
    assert_eq!(answer(&mut offer(&mut queues, large, now)), Some(Err(too_large)));
}

#[tokio::test]
async fn after_a_cut_keyed_appends_go_again_in_order_and_others_are_unknown() {
    let (mut queues, now) = (Queues::new(LIMITS), Instant::now());
    queues.welcomed(1 << 20);
    let keyed = [true, false, true, true];
    let mut tickets: Vec<_> = (0..)
        .zip(keyed)
        .map(|(name, is_keyed)| offer(&mut queues, append(0, name, is_keyed), now))
        .collect();
    let sent = drain(&mut queues);
    assert!(queues.answered(sent[0].1, kept(0)).is_some());
    tickets.push(offer(&mut queues, append(0, 4, false), now));
    queues.cut();
    assert_eq!(answer(&mut tickets[1]), Some(Err(AppendError::Unknown)));
    assert!(queues.next(Instant::now()).is_none());
    queues.welcomed(1 << 20);
    let again: Vec<_> = drain(&mut queues).iter().map(|(_, _, name)| *name).collect();
    assert_eq!(again, [2, 3, 4]);
    // An answer of the old stream is one that nobody asked for.
    assert!(queues.answered(sent[1].1, kept(9)).is_none());
}

#[tokio::test]
async fn what_is_late_is_unavailable_if_it_was_never_sent_and_else_unknown() {
    let (mut queues, now) = (Queues::new(LIMITS), Instant::now());
    queues.welcomed(1 << 20);
    let mut sent = offer(&mut queues, append(0, 0, true), now);
    let ids = drain(&mut queues);
    let mut waiting = offer(&mut queues, append(0, 1, true), now);
    let mut younger = offer(&mut queues, append(0, 2, true), now + Duration::from_secs(5));
    assert_eq!(queues.next_look(), Some(now + LIMITS.timeout));
    queues.give_up(now + LIMITS.timeout, "a test");
    assert_eq!(answer(&mut sent), Some(Err(AppendError::Unknown)));
    let unavailable = AppendError::Unavailable("a test".to_owned());
    assert_eq!(answer(&mut waiting), Some(Err(unavailable)));
    assert_eq!(answer(&mut younger), None);
    assert_eq!(queues.next_look(), Some(now + Duration::from_secs(15)));
    // Its place in the window is taken until the answer comes; nobody hears that.
    assert_eq!(queues.sent_bytes, charge(100));
    assert!(queues.answered(ids[0].1, kept(0)).is_some());
    assert_eq!(queues.sent_bytes, 0);
    assert_eq!(drain(&mut queues).len(), 1);
}

const ROUTED: QueueLimits = QueueLimits { is_routed: true, ..LIMITS };

fn names(taken: impl IntoIterator<Item = Unanswered>) -> Vec<i64> {
    taken.into_iter().map(|of| of.append.max_timestamp).collect()
}

#[tokio::test]
async fn what_is_refused_stays_in_its_place_until_it_is_taken_back_or_sent_again() {
    let (mut queues, now) = (Queues::new(ROUTED), Instant::now());
    queues.welcomed(1 << 20);
    let mut tickets: Vec<_> =
        (0..3).map(|name| offer(&mut queues, append(0, name, name != 1), now)).collect();
    let sent = drain(&mut queues);
    let refused = || Err(AppendError::NotSequencer);
    let last = offer(&mut queues, append(0, 3, true), now);
    assert_eq!(queues.answered(sent[0].1, refused()), Some(Answered::Heard));
    assert!(drain(&mut queues).is_empty(), "nothing is sent behind it");
    assert_eq!(queues.answered(sent[1].1, refused()), Some(Answered::Heard));
    assert_eq!(queues.answered(sent[2].1, refused()), Some(Answered::Refused(LogId(0))));
    assert!(tickets.iter_mut().all(|ticket| answer(ticket).is_none()));
    queues.resume(LogId(0));
    assert_eq!(drain(&mut queues).iter().map(|sent| sent.2).collect::<Vec<_>>(), [0, 1, 2, 3]);
    // In flight, what has no key stays.
    assert_eq!(names(queues.take_back(LogId(0))), [0, 2, 3]);
    assert!(queues.has_unanswered(LogId(0)) && queues.bytes == charge(100));
    assert_eq!(queues.sent_bytes, 4 * charge(100), "their places are taken until the answers");
    // Its producer is told, for those behind it are elsewhere.
    assert_eq!(queues.answered(3, refused()), Some(Answered::Heard));
    assert_eq!(queues.answered(4, refused()), Some(Answered::Heard));
    assert_eq!(answer(&mut tickets[1]), Some(refused()));
    queues.cut();
    assert!(queues.is_empty() && queues.bytes == 0);
    drop(last);
}

#[tokio::test]
async fn what_is_taken_after_it_was_refused_is_late_as_if_it_was_never_sent() {
    let (mut queues, now) = (Queues::new(ROUTED), Instant::now());
    queues.welcomed(1 << 20);
    let mut refused = offer(&mut queues, append(0, 0, true), now);
    let mut lost = offer(&mut queues, append(1, 1, true), now);
    let sent = drain(&mut queues);
    let _ = queues.answered(sent[0].1, Err(AppendError::NotSequencer));
    queues.cut();
    queues.give_up(now + LIMITS.timeout, "a test");
    assert_eq!(answer(&mut refused), Some(Err(AppendError::Unavailable("a test".to_owned()))));
    assert_eq!(answer(&mut lost), Some(Err(AppendError::Unknown)));
    assert_eq!((queues.bytes, queues.is_empty()), (0, true));
}

#[tokio::test]
async fn a_log_that_isnt_answered_is_told_of_once_in_a_while() {
    let (mut queues, now) = (Queues::new(ROUTED), Instant::now());
    queues.welcomed(1 << 20);
    let (silence, just) = (LIMITS.silence, Duration::from_millis(1));
    let _ticket = offer(&mut queues, append(0, 0, true), now);
    assert_eq!(queues.next_look(), Some(now + silence));
    assert_eq!(queues.silent(now + silence - just), []);
    assert_eq!(queues.silent(now + silence), [LogId(0)]);
    assert_eq!(queues.silent(now + silence + just), []);
    assert_eq!(queues.next_look(), Some(now + silence * 2));
    assert_eq!(queues.silent(now + silence * 2), [LogId(0)]);
    // Without a stream that is another matter.
    queues.cut();
    assert_eq!(queues.silent(now + silence * 3), []);
    assert_eq!(queues.next_look(), Some(now + LIMITS.timeout));
}

#[tokio::test]
async fn what_comes_from_another_node_is_never_refused_as_too_much() {
    let now = Instant::now();
    let limits = QueueLimits { max_bytes: charge(100), ..ROUTED };
    let (mut from, mut to) = (Queues::new(limits), Queues::new(limits));
    let mut tickets =
        [offer(&mut from, append(0, 0, true), now), offer(&mut to, append(1, 1, true), now)];
    from.take_back(LogId(0)).into_iter().for_each(|of| to.put(of, now));
    assert!(tickets.iter_mut().all(|ticket| answer(ticket).is_none()));
    assert_eq!(to.bytes, 2 * charge(100));
    assert_eq!(answer(&mut offer(&mut from, append(0, 2, true), now)), None, "it has room again");
}

#[derive(Clone, Debug)]
enum Step {
    Offer(u64, bool),
    Send(usize),
    Answer(usize),
    Cut,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3_u64, any::<bool>()).prop_map(|(log, keyed)| Step::Offer(log, keyed)),
        3 => (1..6_usize).prop_map(Step::Send),
        3 => (1..6_usize).prop_map(Step::Answer),
        1 => Just(Step::Cut),
    ]
}

proptest! {
    /// A server that keeps what it gets, once for each key, has each log's appends in the order of
    /// the calls; each append is answered once; and all bytes are given back.
    #[test]
    fn the_order_of_the_calls_is_the_order_in_the_log(
        steps in proptest::collection::vec(step(), 1..120), window in 1_usize..2_000,
    ) {
        let (mut queues, now) = (Queues::new(LIMITS), Instant::now());
        queues.welcomed(window);
        let mut names = 0;
        let mut tickets: Vec<(AppendTicket, bool)> = Vec::new();
        let mut numbers: StdMap<u32, u64> = StdMap::new();
        let mut kept_in: StdMap<u64, Vec<i64>> = StdMap::new();
        let mut unanswered: VecDeque<u64> = VecDeque::new();
        let finish = (0..200).flat_map(|_| [Step::Send(5), Step::Answer(5)]);
        for step in steps.into_iter().chain(finish) {
            match step {
                Step::Offer(log, keyed) => {
                    tickets.push((offer(&mut queues, append(log, names, keyed), now), keyed));
                    names += 1;
                }
                Step::Send(count) => for _ in 0..count {
                    match queues.next(Instant::now()).and_then(|request| request.kind) {
                        Some(Kind::Open(open)) => drop(numbers.insert(open.number, open.log)),
                        Some(Kind::Put(put)) => {
                            unanswered.push_back(put.id);
                            let log = kept_in.entry(numbers[&put.number]).or_default();
                            if !log.contains(&put.max_timestamp) {
                                log.push(put.max_timestamp);
                            }
                        }
                        _ => break,
                    }
                },
                Step::Answer(count) => for _ in 0..count {
                    let Some(id) = unanswered.pop_front() else { break };
                    prop_assert!(queues.answered(id, kept(0)).is_some());
                },
                Step::Cut => {
                    queues.cut();
                    unanswered.clear();
                    numbers.clear();
                    queues.welcomed(window);
                }
            }
            let weighs: usize = unanswered.len() * charge(100);
            prop_assert!(weighs <= window.max(charge(100)));
            prop_assert_eq!(weighs, queues.sent_bytes);
        }
        for log in kept_in.values() {
            prop_assert!(log.is_sorted());
        }
        for (ticket, keyed) in &mut tickets {
            let answer = answer(ticket);
            let is_unknown = answer == Some(Err(AppendError::Unknown));
            prop_assert!(answer == Some(kept(0)) || is_unknown && !*keyed);
        }
        prop_assert!(queues.is_empty());
        prop_assert_eq!((queues.bytes, queues.sent_bytes), (0, 0));
    }
}
