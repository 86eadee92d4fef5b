//! What holds over a crash or a restart.

use super::*;
use crate::core::sequencer::MAX_AHEAD;
use crate::store::SegmentId;
use crate::{Epoch, ReadError};

#[tokio::test]
async fn what_was_acknowledged_is_there_and_the_log_goes_on_behind_it() {
    let node = Node::new();
    let log = node.log().await;
    node.put(batch(log, 3, "a")).await.unwrap();
    let lost = node.logs.append(batch(log, 1, "lost"));
    let node = node.crash(0);
    drop(lost);
    // Reads are served at once, from the segment as it was found.
    assert_eq!(node.read_all(log).await, vec![(0, "a".into())]);
    assert_eq!(node.logs.describe(log).await.unwrap().segments.len(), 1);
    assert_eq!(node.put(batch(log, 1, "b")).await.unwrap().base_offset, 3);
    let segments = node.logs.describe(log).await.unwrap().segments;
    assert_eq!(
        segments.iter().map(|s| (s.epoch, s.base, s.end)).collect::<Vec<_>>(),
        vec![(0, 0, Some(3)), (1, 3, None)]
    );
    // Nothing of a durable log can have been lost: consumers are not fenced.
    assert_eq!(node.logs.bounds(log).await.unwrap().leader_epoch, 0);
    let node = node.crash(0);
    assert_eq!(node.read_all(log).await, vec![(0, "a".into()), (3, "b".into())]);
}

#[tokio::test]
async fn what_was_not_acknowledged_but_kept_is_a_duplicate_when_it_comes_again() {
    let node = Node::new();
    let log = node.log().await;
    node.put(keyed(log, 7, 0, "a")).await.unwrap();
    let unknown = node.logs.append(keyed(log, 7, 1, "b"));
    let node = node.crash(1);
    drop(unknown);
    let again = node.put(keyed(log, 7, 1, "b")).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (1, true));
    let next = node.put(keyed(log, 7, 2, "c")).await.unwrap();
    assert_eq!((next.base_offset, next.duplicate), (2, false));
}

#[tokio::test]
async fn producers_are_remembered_over_any_number_of_restarts() {
    let mut node = Node::new();
    let log = node.log().await;
    node.put(keyed(log, 7, 0, "a")).await.unwrap();
    for round in 0..5 {
        node = if round % 2 == 0 { node.crash(0) } else { node.restart().await };
        // Another producer opens the segment; the first is known from its snapshot alone.
        node.put(keyed(log, 8, round, "x")).await.unwrap();
    }
    let again = node.put(keyed(log, 7, 0, "a")).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (0, true));
    assert!(node.put(keyed(log, 7, 2, "gap")).await.is_err());
    assert_eq!(node.logs.describe(log).await.unwrap().producers, 2);
}

#[tokio::test]
async fn producers_are_remembered_where_the_last_segments_are_empty() {
    let mut node = Node::new();
    let log = node.log().await;
    node.put(keyed(log, 7, 0, "a")).await.unwrap();
    for _ in 0..3 {
        // The append opens a segment and is lost with its snapshot.
        node = node.crash(0);
        node.logs.bounds(log).await.unwrap();
        let lost = node.logs.append(keyed(log, 7, 1, "lost"));
        while node.store.unsynced() == 0 {
            tokio::task::yield_now().await;
        }
        drop(lost);
    }
    node = node.crash(0);
    let again = node.put(keyed(log, 7, 0, "a")).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (0, true));
    assert_eq!(node.put(keyed(log, 7, 1, "b")).await.unwrap().base_offset, 1);
    assert_eq!(node.read_all(log).await, vec![(0, "a".into()), (1, "b".into())]);
}

#[tokio::test]
async fn headers_behind_the_last_snapshot_are_replayed() {
    let node = Node::with(LogConfig { snapshot_batches: 10, ..LogConfig::default() });
    let log = node.log().await;
    for n in 0..25 {
        node.put(keyed(log, 7, n, "a")).await.unwrap();
        node.put(batch(log, 1, "without a key")).await.unwrap();
    }
    let node = node.crash(0);
    for n in 20..25 {
        let again = node.put(keyed(log, 7, n, "a")).await.unwrap();
        assert_eq!((again.base_offset, again.duplicate), (n as u64 * 2, true));
    }
    assert_eq!(node.put(keyed(log, 7, 25, "b")).await.unwrap().base_offset, 50);
}

#[tokio::test]
async fn a_volatile_log_uses_no_offset_twice_that_was_seen() {
    for class in [Durability::Volatile, Durability::Replicated] {
        let node = Node::new();
        let log = node.create(class, Policy::default()).await;
        assert_eq!(node.logs.append(batch(log, 3, "kept")).await.unwrap().base_offset, 0);
        node.store.sync();
        assert_eq!(node.logs.append(batch(log, 4, "seen and lost")).await.unwrap().base_offset, 3);
        assert_eq!(node.read_all(log).await.len(), 2);
        let node = node.crash(0);
        let bounds = node.logs.bounds(log).await.unwrap();
        assert_eq!((bounds.committed, bounds.leader_epoch), (3 + MAX_AHEAD, 1));
        // A reader that had seen all goes on at the next base, without an error.
        for offset in [3, 7] {
            let outcome = node.read(log, offset).await;
            assert!(outcome.batches.is_empty());
            assert_eq!(outcome.next_offset, 3 + MAX_AHEAD);
        }
        let next = node.logs.append(batch(log, 1, "new")).await.unwrap();
        assert_eq!(next.base_offset, 3 + MAX_AHEAD);
        assert_eq!(node.read(log, 7).await.batches[0].base_offset, 3 + MAX_AHEAD);
        assert_eq!(node.logs.end_of_leader_epoch(log, 0).await.unwrap(), Some((0, 3)));
        assert_eq!(node.logs.end_of_leader_epoch(log, 1).await.unwrap(), Some((1, 4 + MAX_AHEAD)));
    }
}

#[tokio::test]
async fn a_volatile_log_that_was_stopped_in_order_has_lost_nothing() {
    let node = Node::new();
    let log = node.create(Durability::Volatile, Policy::default()).await;
    node.logs.append(keyed(log, 7, 0, "a")).await.unwrap();
    let node = node.restart().await;
    let bounds = node.logs.bounds(log).await.unwrap();
    assert_eq!((bounds.committed, bounds.leader_epoch), (1, 0));
    let again = node.logs.append(keyed(log, 7, 0, "a")).await.unwrap();
    assert_eq!((again.base_offset, again.duplicate), (0, true));
    assert_eq!(node.logs.append(keyed(log, 7, 1, "b")).await.unwrap().base_offset, 1);
}

#[tokio::test]
async fn damage_in_the_middle_is_an_error_there_and_nowhere_else() {
    let node = Node::new();
    let log = node.log().await;
    for name in ["a", "b", "c"] {
        node.put(batch(log, 1, name)).await.unwrap();
    }
    let node = node.crash(0);
    node.store.damage(SegmentId { log, epoch: Epoch(0) }, 1..2);
    assert_eq!(node.read(log, 0).await.batches.len(), 3, "the fake reads over it");
    assert_eq!(
        node.logs.read(read(log, 1)).await.unwrap_err(),
        ReadError::Damaged { from: 1, to: 2 }
    );
    assert_eq!(node.put(batch(log, 1, "d")).await.unwrap().base_offset, 3);
    assert_eq!(node.read(log, 3).await.batches.len(), 1);
    assert_eq!(node.logs.describe(log).await.unwrap().segments[0].damaged, vec![(1, 2)]);
}

#[tokio::test]
async fn a_damaged_tail_stays_quarantined_and_the_log_goes_on_past_it() {
    let config = LogConfig { max_segment_offsets: 5_000_000, ..LogConfig::default() };
    let node = Node::with(config);
    let log = node.log().await;
    node.put(batch(log, 2, "a")).await.unwrap();
    node.store.damage(SegmentId { log, epoch: Epoch(0) }, 2..Offset::MAX);
    let node = node.crash(0);
    let bounds = node.logs.bounds(log).await.unwrap();
    assert_eq!((bounds.committed, bounds.leader_epoch), (5_000_000, 1));
    assert_eq!(
        node.logs.read(read(log, 2)).await.unwrap_err(),
        ReadError::Damaged { from: 2, to: 5_000_000 }
    );
    assert_eq!(node.put(batch(log, 1, "b")).await.unwrap().base_offset, 5_000_000);
    assert_eq!(node.read(log, 0).await.batches.len(), 1);
    assert_eq!(node.read(log, 5_000_000).await.batches.len(), 1);
}

#[tokio::test]
async fn segments_that_meta_does_not_know_are_dropped_at_the_start() {
    let node = Node::new();
    let (kept, deleted) = (node.log().await, node.log().await);
    node.put(batch(kept, 1, "a")).await.unwrap();
    node.put(batch(deleted, 1, "a")).await.unwrap();
    node.delete(deleted).await;
    let node = node.crash(0);
    node.logs.retain_now().await;
    assert_eq!(node.store.dropped(), vec![SegmentId { log: deleted, epoch: Epoch(0) }]);
    assert_eq!(node.read_all(kept).await.len(), 1);
}

#[tokio::test]
async fn a_segment_that_may_be_in_what_the_disk_does_not_give_back_is_quarantined() {
    for is_lacking in [false, true] {
        let node = Node::new();
        let log = node.log().await;
        node.put(batch(log, 1, "a")).await.unwrap();
        let node = node.crash(0);
        node.store.lose(SegmentId { log, epoch: Epoch(0) });
        if !is_lacking {
            // The disk says that nothing was there.
            assert_eq!(node.put(batch(log, 1, "b")).await.unwrap().base_offset, 0);
            continue;
        }
        node.store.lack_segments();
        let bounds = node.logs.bounds(log).await.unwrap();
        assert_eq!((bounds.start, bounds.leader_epoch), (0, 1));
        assert!(bounds.committed > MAX_AHEAD);
        let error = node.logs.read(read(log, 0)).await.unwrap_err();
        assert_eq!(error, ReadError::Damaged { from: 0, to: bounds.committed });
        let next = node.put(batch(log, 1, "b")).await.unwrap();
        assert_eq!(next.base_offset, bounds.committed, "no offset is given twice");
        assert_eq!(node.read(log, bounds.committed).await.batches.len(), 1);
    }
}

#[tokio::test]
async fn what_a_segment_began_with_is_not_skipped_in_silence() {
    let node = Node::new();
    let log = node.log().await;
    for name in ["a", "b", "c"] {
        node.put(batch(log, 1, name)).await.unwrap();
    }
    let node = node.crash(0);
    node.store.lose_first(SegmentId { log, epoch: Epoch(0) });
    let error = node.logs.read(read(log, 0)).await.unwrap_err();
    assert_eq!(error, ReadError::Damaged { from: 0, to: 1 });
    assert_eq!(node.read(log, 1).await.batches.len(), 2);
}

#[tokio::test]
async fn a_log_that_is_deleted_while_it_is_loaded_stays_gone() {
    let node = Node::new();
    let id = node.log().await;
    node.put(batch(id, 1, "a")).await.unwrap();
    let node = node.crash(0);
    node.gate.loads.forget_permits(Semaphore::MAX_PERMITS);
    let log = node.logs.inner.log(id);
    let waits = node.logs.append(batch(id, 1, "b"));
    while node.gate.loaded.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    // It was read from meta, and is deleted before that is taken over.
    node.delete(id).await;
    node.logs.inner.remove(&log);
    assert_eq!(waits.await, Err(crate::AppendError::NoSuchLog));
    node.gate.loads.add_permits(1);
    while node.logs.inner.tasks() > 0 {
        tokio::task::yield_now().await;
    }
    let late = node.logs.append(batch(id, 1, "c"));
    assert!(matches!(log.state.lock().phase, super::super::state::Phase::Gone));
    assert!(node.store.dropped().contains(&SegmentId { log: id, epoch: Epoch(0) }));
    node.gate.loads.add_permits(10);
    assert_eq!(late.await, Err(crate::AppendError::NoSuchLog));
}

#[tokio::test]
async fn where_a_snapshot_is_damaged_producers_are_known_from_the_segment_before() {
    let node = Node::new();
    let log = node.log().await;
    node.put(keyed(log, 7, 0, "a")).await.unwrap();
    let node = node.crash(0);
    node.put(keyed(log, 8, 0, "b")).await.unwrap();
    let node = node.crash(0);
    node.store.damage_snapshot(SegmentId { log, epoch: Epoch(1) });
    for (producer, offset) in [(7, 0), (8, 1)] {
        let again = node.put(keyed(log, producer, 0, "again")).await.unwrap();
        assert_eq!((again.base_offset, again.duplicate), (offset, true));
    }
}
