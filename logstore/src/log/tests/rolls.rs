//! Planned closes: invisible to whoever appends and reads.

use super::*;
use crate::AppendError;

fn small_segments(segment_bytes: u64) -> Policy {
    Policy { segment_bytes, retention_ms: None, ..Policy::default() }
}

#[tokio::test]
async fn a_hundred_rolls_under_appends_go_unnoticed() {
    let node = Node::new();
    let log = node.create(Durability::Durable, small_segments(100)).await;
    node.store.eager(true);
    let mut tickets = Vec::new();
    for n in 0..500 {
        tickets.push(node.logs.append(keyed(log, 7, n, &format!("{n:04}"))));
        if n % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    for (n, ticket) in tickets.into_iter().enumerate() {
        let appended = ticket.await.unwrap();
        assert_eq!((appended.base_offset, appended.duplicate), (n as u64, false));
    }
    let description = node.logs.describe(log).await.unwrap();
    assert!(description.segments.len() >= 100, "{}", description.segments.len());
    assert_eq!(description.bounds.leader_epoch, 0);
    let all = node.read_all(log).await;
    let expected: Vec<_> = (0..500).map(|n| (n, format!("{n:04}"))).collect();
    assert_eq!(all, expected);
    // Over a restart as well, and the producer is known.
    let node = node.crash(0);
    assert_eq!(node.read_all(log).await, expected);
    assert!(node.put(keyed(log, 7, 499, "0499")).await.unwrap().duplicate);
}

#[tokio::test]
async fn appends_wait_while_a_segment_is_closed() {
    let node = Node::new();
    let log = node.create(Durability::Durable, small_segments(30)).await;
    node.gate.rolls.forget_permits(Semaphore::MAX_PERMITS);
    node.logs.bounds(log).await.unwrap();
    let first = node.logs.append(keyed(log, 7, 0, "0123456789"));
    let mut second = node.logs.append(keyed(log, 7, 1, "0123456789"));
    let mut third = node.logs.append(keyed(log, 7, 2, "0123456789"));
    // Not closed before the first is durable.
    assert_eq!(node.store.unsynced(), 1);
    node.store.sync();
    first.await.unwrap();
    assert_eq!(poll(&mut second).await, None);
    // Reads go on.
    assert_eq!(node.read_all(log).await.len(), 1);
    node.store.eager(true);
    node.gate.rolls.add_permits(1);
    assert_eq!(second.await.unwrap().base_offset, 1);
    assert_eq!(poll(&mut third).await, None);
    node.gate.rolls.add_permits(1);
    assert_eq!(third.await.unwrap().base_offset, 2);
}

#[tokio::test]
async fn a_segment_is_rolled_by_its_age() {
    let node = Node::new();
    let policy = Policy { segment_ms: 1000, retention_ms: None, ..Policy::default() };
    let log = node.create(Durability::Durable, policy).await;
    node.put(batch(log, 1, "a")).await.unwrap();
    node.clock.advance(999);
    node.put(batch(log, 1, "b")).await.unwrap();
    assert_eq!(node.logs.describe(log).await.unwrap().segments.len(), 1);
    node.clock.advance(1);
    node.put(batch(log, 1, "c")).await.unwrap();
    assert_eq!(node.logs.describe(log).await.unwrap().segments.len(), 2);
}

#[tokio::test]
async fn when_meta_is_down_a_roll_fails_the_appends_that_need_it_and_is_tried_again() {
    let node = Node::new();
    let log = node.create(Durability::Durable, small_segments(30)).await;
    node.put(keyed(log, 7, 0, "0123456789")).await.unwrap();
    node.gate.is_down.store(true, Ordering::SeqCst);
    let refused = node.put(keyed(log, 7, 1, "0123456789")).await;
    assert!(matches!(refused, Err(AppendError::Stopped(_))));
    assert_eq!(node.read_all(log).await.len(), 1);
    node.gate.is_down.store(false, Ordering::SeqCst);
    assert_eq!(node.put(keyed(log, 7, 1, "0123456789")).await.unwrap().base_offset, 1);
}

#[tokio::test]
async fn a_change_of_policy_moves_nothing() {
    let node = Node::new();
    let log = node.log().await;
    node.put(batch(log, 1, "a")).await.unwrap();
    let bounds = node.logs.bounds(log).await.unwrap();
    node.set_policy(log, small_segments(1000)).await;
    assert_eq!(node.logs.bounds(log).await.unwrap(), bounds);
    assert_eq!(node.logs.describe(log).await.unwrap().segments.len(), 1);
}

#[tokio::test]
async fn many_logs_roll_at_the_same_time() {
    let node = Node::new();
    node.store.eager(true);
    let mut logs = Vec::new();
    for _ in 0..20 {
        logs.push(node.create(Durability::Durable, small_segments(40)).await);
    }
    let mut tickets = Vec::new();
    for n in 0..20 {
        for log in &logs {
            tickets.push((n, node.logs.append(batch(*log, 1, &n.to_string()))));
        }
    }
    for (n, ticket) in tickets {
        assert_eq!(ticket.await.unwrap().base_offset, n);
    }
    for log in logs {
        assert_eq!(node.read_all(log).await.len(), 20);
    }
}
