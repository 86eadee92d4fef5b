//! What goes, when, and what stays.

use std::time::Duration;

use super::*;
use crate::Epoch;
use crate::store::SegmentId;

fn policy(retention_ms: Option<u64>, retention_bytes: Option<u64>) -> Policy {
    Policy { retention_ms, retention_bytes, segment_bytes: 36, ..Policy::default() }
}

/// Six batches of 18 bytes, two a segment, each stamped with the clock of its append.
async fn six(node: &Node, policy: Policy) -> LogId {
    let log = node.create(Durability::Durable, policy).await;
    for n in 0..6 {
        let max_timestamp = START_MS + i64::from(n) * 100;
        node.put(Append { max_timestamp, ..keyed(log, 7, n, "ab") }).await.unwrap();
        node.clock.advance(100);
    }
    log
}

#[tokio::test]
async fn old_segments_go_and_the_open_one_is_closed_when_it_is_old() {
    let node = Node::new();
    let log = six(&node, policy(Some(1000), None)).await;
    node.store.eager(true);
    node.logs.retain_now().await;
    assert_eq!(node.logs.bounds(log).await.unwrap().start, 0);
    // The newest record of the first segment is 100 ms after the start.
    node.clock.advance(501);
    node.logs.retain_now().await;
    assert_eq!(node.logs.bounds(log).await.unwrap().start, 2);
    assert_eq!(node.store.dropped(), vec![SegmentId { log, epoch: Epoch(0) }]);
    assert!(node.logs.read(read(log, 1)).await.is_err());
    node.clock.advance(10_000);
    node.logs.retain_now().await;
    // The open one is closed first; once it is, it goes as well.
    while node.logs.describe(log).await.unwrap().segments.last().unwrap().epoch != 3 {
        tokio::task::yield_now().await;
    }
    node.logs.retain_now().await;
    let bounds = node.logs.bounds(log).await.unwrap();
    assert_eq!((bounds.start, bounds.committed), (6, 6));
    assert_eq!(node.store.dropped().len(), 3);
    // The producer is known all the same, and no offset is used again.
    assert!(node.put(keyed(log, 7, 5, "ab")).await.unwrap().duplicate);
    assert_eq!(node.put(keyed(log, 7, 6, "ab")).await.unwrap().base_offset, 6);
    let node = node.crash(0);
    assert_eq!(node.logs.bounds(log).await.unwrap().start, 6);
    assert!(node.put(keyed(log, 7, 5, "ab")).await.unwrap().duplicate);
}

#[tokio::test]
async fn the_store_is_told_how_long_segments_live() {
    let node = Node::new();
    let log = six(&node, policy(Some(1000), None)).await;
    assert_eq!(node.store.life(log), None);
    node.logs.retain_now().await;
    assert_eq!(node.store.life(log), Some(Duration::from_millis(1000)));
    node.set_policy(log, policy(None, None)).await;
    node.logs.refresh(log).await.unwrap();
    node.logs.retain_now().await;
    assert_eq!(node.store.life(log), Some(Duration::MAX));
    let node = node.crash(0);
    node.logs.retain_now().await;
    assert_eq!(node.store.life(log), Some(Duration::MAX), "a start tells it of all logs");
}

#[tokio::test]
async fn the_log_is_kept_near_its_size() {
    let node = Node::new();
    let log = six(&node, policy(None, Some(60))).await;
    node.logs.retain_now().await;
    // 108 bytes: without the first segment 72 stay, without the second 36 would.
    assert_eq!(node.logs.bounds(log).await.unwrap().start, 2);
}

#[tokio::test]
async fn a_trim_moves_the_start_and_drops_whole_segments_only() {
    let node = Node::new();
    let log = six(&node, policy(None, None)).await;
    assert_eq!(node.logs.trim(log, 3).await.unwrap(), 3);
    assert_eq!(node.store.dropped(), vec![SegmentId { log, epoch: Epoch(0) }]);
    assert_eq!(node.logs.trim(log, 1).await.unwrap(), 3, "never back");
    assert_eq!(node.logs.trim(log, 5000).await.unwrap(), 6, "never past the end (I11)");
    assert_eq!(node.read_all(log).await, vec![]);
    let node = node.crash(0);
    assert_eq!(node.logs.bounds(log).await.unwrap().start, 6);
    assert_eq!(node.put(keyed(log, 7, 6, "ab")).await.unwrap().base_offset, 6);
}

#[tokio::test]
async fn a_segment_stays_on_the_disk_until_its_producers_are_in_the_next_one() {
    let node = Node::new();
    let log = node.create(Durability::Durable, policy(None, None)).await;
    node.put(keyed(log, 7, 0, "ab")).await.unwrap();
    node.put(keyed(log, 7, 1, "ab")).await.unwrap();
    // The roll's snapshot isn't durable yet.
    let ticket = node.logs.append(keyed(log, 7, 2, "ab"));
    while node.store.unsynced() < 2 {
        tokio::task::yield_now().await;
    }
    node.logs.trim(log, 2).await.unwrap();
    assert_eq!(node.logs.bounds(log).await.unwrap().start, 2);
    assert_eq!(node.store.dropped(), vec![]);
    let node = node.crash(0);
    drop(ticket);
    // The chain knows only the empty segment; the producer is known from the one on the disk.
    assert!(node.put(keyed(log, 7, 1, "ab")).await.unwrap().duplicate);
    assert_eq!(node.put(keyed(log, 7, 2, "ab")).await.unwrap().base_offset, 2);
    node.logs.retain_now().await;
    assert!(node.store.dropped().contains(&SegmentId { log, epoch: Epoch(0) }));
    let node = node.crash(0);
    assert!(node.put(keyed(log, 7, 1, "ab")).await.unwrap().duplicate);
}

#[tokio::test]
async fn nothing_is_written_when_there_is_nothing_to_do() {
    let node = Node::new();
    let log = six(&node, policy(Some(1_000_000), None)).await;
    let node = node.crash(0);
    for _ in 0..3 {
        node.logs.retain_now().await;
    }
    assert_eq!(node.store.unsynced(), 0);
    assert_eq!(node.store.dropped(), vec![]);
    let description = node.logs.describe(log).await.unwrap();
    assert_eq!(description.segments.last().unwrap().epoch, 2);
}

/// Retention gives way to others in meta, what a client trims doesn't; and it has patience once a
/// pass, for the disk fills meanwhile.
#[tokio::test]
async fn retention_gives_way_until_it_had_to_for_too_long() {
    let node = Node::new();
    let mut logs = Vec::new();
    for _ in 0..3 {
        logs.push(six(&node, policy(None, Some(36))).await);
    }
    node.store.eager(true);
    node.logs.trim(logs[0], 1).await.unwrap();
    assert_eq!((node.gate.take_trims(), node.upkeep.take_trims()), (1, 0));
    node.upkeep.is_down.store(true, Ordering::SeqCst);
    node.logs.retain_now().await;
    assert_eq!((node.gate.take_trims(), node.upkeep.take_trims()), (3, 1));
    for log in &logs {
        assert!(node.logs.bounds(*log).await.unwrap().start > 1);
        node.put(keyed(*log, 8, 0, "more that makes it too large again")).await.unwrap();
    }
    node.store.eager(true);
    node.upkeep.is_down.store(false, Ordering::SeqCst);
    node.logs.retain_now().await;
    assert_eq!((node.gate.take_trims(), node.upkeep.take_trims()), (0, 3));
}
