//! Routes, failover and observations, over nodes and a directory in memory.

mod describing;
mod failover;
mod fake;
mod observations;
mod order;

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;

use self::fake::{FakeDirectory, FakeNode, Mode, append, keyed, router};
use super::*;
use crate::{AppendError, Doubt};

const LOG: LogId = LogId(7);
const OTHER: LogId = LogId(8);

#[tokio::test(start_paused = true)]
async fn appends_wait_for_the_route_in_their_order_and_then_go_at_once() {
    let directory = FakeDirectory::new(&[(LOG, 0), (OTHER, 1)]);
    let router = router(&directory);
    directory.hold();
    let mut waiting: Vec<_> = ["a", "b", "c"].map(|name| router.append(append(LOG, name))).into();
    let other = router.append(append(OTHER, "other"));
    assert!((&mut waiting[0]).now_or_never().is_none());
    assert!(directory.nodes[0].taken().is_empty());
    directory.release();
    for (offset, ticket) in waiting.into_iter().enumerate() {
        assert_eq!(ticket.await.unwrap().base_offset, offset as u64);
    }
    other.await.unwrap();
    assert_eq!(directory.looked(), 2, "one a log, however many wait");
    // From here on it is known, and the call itself makes the append.
    let ticket = router.append(append(LOG, "d"));
    assert_eq!(directory.nodes[0].taken(), ["a", "b", "c", "d"]);
    assert_eq!(ticket.await.unwrap().base_offset, 3);
    assert_eq!(directory.nodes[1].taken(), ["other"]);
    assert_eq!(directory.looked(), 2);
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_moved_is_looked_for_again() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    router.append(append(LOG, "a")).await.unwrap();
    directory.nodes[0].set(Mode::Elsewhere);
    directory.put(LOG, Ok(1));
    // Nothing was kept, with a key or without: they are made there, and nobody is refused.
    let tickets =
        [append(LOG, "b"), keyed(LOG, 1, "c"), append(LOG, "d")].map(|it| router.append(it));
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(directory.nodes[1].taken(), ["b", "c", "d"]);
    assert_eq!(directory.nodes[0].taken(), ["a"]);
    // A call is made again until it is answered.
    directory.nodes[0].set(Mode::Serves);
    directory.nodes[1].set(Mode::Elsewhere);
    directory.put(LOG, Ok(0));
    assert_eq!(router.bounds(LOG).await.unwrap().committed, 1);
    assert_eq!(directory.nodes[1].calls.load(Ordering::Relaxed), 1);
    router.close().await;
}

/// A node that meta names, and that says it isn't, is asked again and again: not in a tight loop,
/// and others are asked to go on with the log in the end.
#[tokio::test(start_paused = true)]
async fn a_node_that_refuses_what_meta_gives_it_is_asked_seldom_and_then_replaced() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    directory.nodes[0].set(Mode::Elsewhere);
    let began = Instant::now();
    let refused = router.append(append(LOG, "a"));
    directory.fails_over_to(1);
    refused.await.unwrap();
    assert_eq!(directory.nodes[1].taken(), ["a"]);
    assert!(began.elapsed() >= Duration::from_millis(10 + 20 + 40 + 80), "{:?}", began.elapsed());
    assert!(directory.looked() <= 6);
    assert_eq!(directory.failovers(LOG), 1);
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_can_not_be_reached_is_looked_for_until_patience_ends() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    directory.nodes[0].set(Mode::Down);
    let began = Instant::now();
    let error = router.bounds(LOG).await.unwrap_err();
    assert!(matches!(error, LogError::Unavailable(_)), "{error}");
    assert!(began.elapsed() >= RouterOptions::default().patience);
    assert!(directory.looked() > 3, "its address may have changed");
    // It comes back, elsewhere.
    directory.put(LOG, Ok(1));
    router.trim(LOG, 3).await.unwrap();
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_no_route_is_told_why() {
    let directory = FakeDirectory::new(&[]);
    let router = router(&directory);
    assert_eq!(router.append(append(LOG, "a")).await, Err(AppendError::NoSuchLog));
    assert_eq!(router.bounds(LOG).await, Err(LogError::NoSuchLog));
    let down = || RouteError::Unavailable("metadata is down".to_owned());
    directory.put(LOG, Err(down()));
    let began = Instant::now();
    let error = router.append(append(LOG, "a")).await.unwrap_err();
    assert_eq!(error, AppendError::Unavailable("metadata is down".to_owned()));
    assert!(began.elapsed() >= RouterOptions::default().append_timeout);
    let waiting = router.append(append(LOG, "b"));
    directory.put(LOG, Ok(0));
    waiting.await.unwrap();
    assert_eq!(directory.nodes[0].taken(), ["b"]);
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_and_given_up_at_the_end() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let options = RouterOptions { max_waiting_bytes: 1_000, ..RouterOptions::default() };
    let router = Router::new(directory.clone(), options);
    directory.hold();
    let waiting = router.append(append(LOG, "a"));
    let large = Append { batch: Bytes::from(vec![0; 1_000]), ..append(LOG, "") };
    assert_eq!(router.append(large.clone()).await, Err(AppendError::Busy));
    directory.release();
    waiting.await.unwrap();
    router.append(large).await.unwrap();

    directory.hold();
    let late = router.append(append(OTHER, "late"));
    let closing = router.close();
    let (late, ()) = tokio::join!(late, closing);
    assert!(matches!(late, Err(AppendError::Unavailable(_))), "{late:?}");
    let after = router.append(append(LogId(9), "after"));
    assert!(matches!(after.await, Err(AppendError::Unavailable(_))));
}

/// Routes are few here, and a log is in its shard: those that nothing is behind are forgotten.
#[tokio::test(start_paused = true)]
async fn routes_beyond_the_limit_are_forgotten_unless_something_is_unanswered_behind_them() {
    // All of one shard.
    let logs: Vec<LogId> = (1..6).map(|n| LogId(n * 160)).collect();
    let at: Vec<_> = logs.iter().map(|log| (*log, 0)).collect();
    let directory = FakeDirectory::new(&at);
    let options = RouterOptions { max_routes: 32, ..RouterOptions::default() };
    let router = Router::new(directory.clone(), options);
    // Unanswered, for as long as the test wants.
    directory.nodes[0].set(Mode::Silent);
    let mut held = router.append(keyed(logs[0], 1, "held"));
    assert!((&mut held).now_or_never().is_none());
    directory.nodes[0].was_sent(1).await;
    directory.nodes[0].set(Mode::Serves);
    for log in &logs[1..] {
        router.append(append(*log, "a")).await.unwrap();
    }
    assert_eq!(directory.looked(), 5);
    // It moved. What is behind its route goes there first: the route was not forgotten.
    directory.put(logs[0], Ok(1));
    directory.nodes[0].doubt(logs[0], Doubt::Silent);
    let behind = router.append(keyed(logs[0], 2, "behind"));
    held.await.unwrap();
    behind.await.unwrap();
    assert_eq!(directory.nodes[1].taken(), ["held", "behind"]);
    // Of the others no more than the limit are remembered: they are looked for again.
    let before = directory.looked();
    for log in &logs[1..] {
        router.append(append(*log, "b")).await.unwrap();
    }
    assert!(directory.looked() > before);
    router.close().await;
}
