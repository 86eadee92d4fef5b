//! Offsets, answers, duplicates, limits, failures.

use super::super::waiting::charge;
use super::*;
use crate::store::StoreError;
use crate::{AppendError, Health};

#[tokio::test]
async fn an_append_is_answered_when_it_is_durable_and_seen_only_then() {
    let node = Node::new();
    let log = node.log().await;
    assert_eq!(node.logs.bounds(log).await.unwrap().committed, 0);
    let mut first = node.logs.append(batch(log, 3, "a"));
    let mut second = node.logs.append(batch(log, 2, "b"));
    assert_eq!(poll(&mut first).await, None);
    assert_eq!(node.read_all(log).await, vec![]);
    node.store.sync_some(1);
    assert_eq!(first.await.unwrap().base_offset, 0);
    assert_eq!(poll(&mut second).await, None);
    assert_eq!(node.read_all(log).await, vec![(0, "a".into())]);
    node.store.sync();
    assert_eq!(second.await.unwrap().base_offset, 3);
    assert_eq!(node.read_all(log).await, vec![(0, "a".into()), (3, "b".into())]);
    assert_eq!(node.logs.bounds(log).await.unwrap().committed, 5);
}

#[tokio::test]
async fn appends_that_come_while_the_log_is_loaded_keep_their_order() {
    let node = Node::new();
    let log = node.log().await;
    let tickets: Vec<_> =
        (0..50).map(|n| node.logs.append(batch(log, 1, &n.to_string()))).collect();
    node.logs.bounds(log).await.unwrap();
    node.store.sync();
    for (n, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(ticket.await.unwrap().base_offset, n as u64);
    }
}

#[tokio::test]
async fn a_log_that_meta_does_not_know_is_refused() {
    let node = Node::new();
    let log = LogId(4711);
    assert_eq!(node.logs.append(batch(log, 1, "a")).await, Err(AppendError::NoSuchLog));
    assert_eq!(node.logs.bounds(log).await, Err(crate::LogError::NoSuchLog));
    assert!(node.logs.inner.all_logs().is_empty());
}

#[tokio::test]
async fn a_duplicate_of_a_batch_in_flight_waits_for_it() {
    let node = Node::new();
    let log = node.log().await;
    node.logs.bounds(log).await.unwrap();
    let first = node.logs.append(keyed(log, 7, 0, "a"));
    let mut again = node.logs.append(keyed(log, 7, 0, "a"));
    assert_eq!(poll(&mut again).await, None);
    node.store.sync();
    assert!(!first.await.unwrap().duplicate);
    let again = again.await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (0, true));
    assert_eq!(node.read_all(log).await.len(), 1);
}

#[tokio::test]
async fn a_refused_batch_is_not_overtaken_and_can_come_again() {
    let node = Node::new();
    let log = node.log().await;
    node.logs.bounds(log).await.unwrap();
    node.store.refuse(Some(StoreError::DiskFull));
    assert_eq!(node.logs.append(keyed(log, 7, 0, "a")).await, Err(AppendError::DiskFull));
    node.store.refuse(None);
    assert_eq!(
        node.logs.append(keyed(log, 7, 1, "b")).await,
        Err(AppendError::OutOfOrderSequence { expected: 0, got: 1 })
    );
    assert_eq!(node.put(keyed(log, 7, 0, "a")).await.unwrap().base_offset, 0);
    assert_eq!(node.put(keyed(log, 7, 1, "b")).await.unwrap().base_offset, 1);
}

#[tokio::test]
async fn what_is_too_much_waits_and_what_is_too_large_is_refused() {
    let big = "x".repeat(84);
    let config = LogConfig {
        max_batch_bytes: 100,
        max_in_flight_bytes: 150,
        // One append fits, two don't.
        max_waiting_bytes: charge(&batch(LogId(0), 1, &big)) + 50,
        ..LogConfig::default()
    };
    let node = Node::with(config);
    let log = node.log().await;
    // While the log is loaded …
    let first = node.logs.append(batch(log, 1, &big));
    assert_eq!(node.logs.append(batch(log, 1, &big)).await, Err(AppendError::Busy));
    node.logs.bounds(log).await.unwrap();
    // … and while it has much in flight.
    let mut second = node.logs.append(batch(log, 1, &big));
    assert_eq!(node.logs.append(batch(log, 1, &big)).await, Err(AppendError::Busy));
    let larger = "x".repeat(85);
    assert_eq!(
        node.logs.append(batch(log, 1, &larger)).await,
        Err(AppendError::TooLarge { max_bytes: 100 })
    );
    assert_eq!(node.store.unsynced(), 1);
    node.store.sync();
    first.await.unwrap();
    assert_eq!((poll(&mut second).await, node.store.unsynced()), (None, 1));
    node.store.sync();
    second.await.unwrap();
    assert_eq!(node.read_all(log).await.len(), 2);
}

#[tokio::test]
async fn what_is_refused_while_others_wait_is_not_overtaken_either() {
    let big = "x".repeat(1000);
    // Three small appends fit, a large one doesn't.
    let max_waiting_bytes = charge(&batch(LogId(0), 1, "a")) * 3;
    let node = Node::with(LogConfig { max_waiting_bytes, ..LogConfig::default() });
    let log = node.log().await;
    // The log is being loaded: nothing is known of the producers yet.
    let first = node.logs.append(keyed(log, 7, 0, "a"));
    let refused = node.logs.append(keyed(log, 8, 0, &big));
    let late = node.logs.append(keyed(log, 8, 1, "c"));
    let second = node.logs.append(keyed(log, 7, 1, "b"));
    assert_eq!(refused.await, Err(AppendError::Busy));
    node.logs.bounds(log).await.unwrap();
    node.store.eager(true);
    node.store.sync();
    assert_eq!(first.await.unwrap().base_offset, 0);
    let overtakes = AppendError::OutOfOrderSequence { expected: 0, got: 1 };
    assert_eq!(late.await, Err(overtakes));
    assert_eq!(second.await.unwrap().base_offset, 1);
    assert_eq!(node.logs.append(keyed(log, 8, 0, "b")).await.map(|a| a.duplicate), Ok(false));
    assert_eq!(node.logs.append(keyed(log, 8, 1, "c")).await.map(|a| a.duplicate), Ok(false));
}

#[tokio::test]
async fn when_the_journal_has_no_room_appends_wait_for_it_in_order() {
    let node = Node::new();
    let (busy, idle) = (node.log().await, node.log().await);
    node.logs.bounds(busy).await.unwrap();
    node.logs.bounds(idle).await.unwrap();
    node.store.eager(false);
    let first = node.logs.append(keyed(busy, 7, 0, "a"));
    node.store.refuse(Some(StoreError::Busy));
    // One with something in flight, one without.
    let second = node.logs.append(keyed(busy, 7, 1, "b"));
    let third = node.logs.append(keyed(busy, 7, 2, "c"));
    let mut other = node.logs.append(keyed(idle, 7, 0, "d"));
    node.store.sync();
    first.await.unwrap();
    assert_eq!(poll(&mut other).await, None);
    node.store.refuse(None);
    // The journal says again what is durable when there is room.
    node.store.sync();
    node.store.sync();
    assert_eq!(second.await.unwrap().base_offset, 1);
    assert_eq!(third.await.unwrap().base_offset, 2);
    assert_eq!(other.await.unwrap().base_offset, 0);
}

#[tokio::test]
async fn a_failed_journal_stops_appends_and_not_reads() {
    let node = Node::new();
    let log = node.log().await;
    node.put(batch(log, 1, "a")).await.unwrap();
    let in_flight = node.logs.append(batch(log, 1, "b"));
    node.store.fail();
    assert_eq!(in_flight.await, Err(AppendError::JournalFailed));
    assert_eq!(node.logs.append(batch(log, 1, "c")).await, Err(AppendError::JournalFailed));
    assert_eq!(node.logs.health(), Health::Failed("a test".to_owned()));
    assert_eq!(node.read_all(log).await, vec![(0, "a".into())]);
    node.logs.shutdown().await;
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_flight_and_takes_no_more() {
    let node = Node::new();
    let log = node.log().await;
    node.logs.bounds(log).await.unwrap();
    let in_flight = node.logs.append(batch(log, 1, "a"));
    assert_eq!(node.store.unsynced(), 1);
    node.logs.shutdown().await;
    assert_eq!(in_flight.await.unwrap().base_offset, 0);
    assert!(matches!(node.logs.append(batch(log, 1, "b")).await, Err(AppendError::Stopped(_))));
    assert_eq!(node.logs.health(), Health::Stopping);
}

#[tokio::test]
async fn a_deleted_log_ends() {
    let node = Node::new();
    let log = node.log().await;
    node.put(batch(log, 1, "a")).await.unwrap();
    let in_flight = node.logs.append(batch(log, 1, "b"));
    node.delete(log).await;
    node.logs.refresh(log).await.unwrap();
    assert_eq!(in_flight.await, Err(AppendError::NoSuchLog));
    assert_eq!(node.logs.append(batch(log, 1, "c")).await, Err(AppendError::NoSuchLog));
    assert_eq!(node.store.dropped().len(), 1);
    assert_eq!(node.logs.read(read(log, 0)).await.unwrap_err(), crate::ReadError::NoSuchLog);
}

#[tokio::test]
async fn meta_that_does_not_answer_is_an_error_and_no_end() {
    let node = Node::new();
    let log = node.log().await;
    node.gate.is_down.store(true, Ordering::SeqCst);
    assert!(matches!(node.logs.append(batch(log, 1, "a")).await, Err(AppendError::Stopped(_))));
    assert!(matches!(node.logs.bounds(log).await, Err(crate::LogError::Meta(_))));
    node.gate.is_down.store(false, Ordering::SeqCst);
    node.put(batch(log, 1, "a")).await.unwrap();
}
