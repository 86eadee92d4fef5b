//! Reads over the chain, and questions by time.

use super::*;
use crate::{KeyDigest, ReadError};

/// A log of ten batches of one record, two a segment, with timestamps 0, 10, … 90.
async fn ten(node: &Node) -> LogId {
    let policy = Policy { segment_bytes: 36, retention_ms: None, ..Policy::default() };
    let log = node.create(Durability::Durable, policy).await;
    for n in 0..10u32 {
        let digest = Some(KeyDigest(vec![n % 5, 100].into()));
        let max_timestamp = i64::from(n) * 10;
        node.put(Append { max_timestamp, digest, ..batch(log, 1, &n.to_string()) }).await.unwrap();
    }
    assert_eq!(node.logs.describe(log).await.unwrap().segments.len(), 5);
    log
}

#[tokio::test]
async fn a_read_stops_at_max_bytes_but_gives_the_first_batch() {
    let node = Node::new();
    let log = node.log().await;
    for n in 0..4 {
        node.put(batch(log, 1, &n.to_string())).await.unwrap();
    }
    for (max_bytes, batches) in [(0, 1), (17, 1), (34, 2), (1000, 4)] {
        let outcome = node.logs.read(Read { max_bytes, ..read(log, 0) }).await.unwrap();
        assert_eq!(outcome.batches.len(), batches);
        assert_eq!(outcome.next_offset, batches as u64);
    }
}

#[tokio::test]
async fn a_read_outside_of_the_log_says_where_the_log_is() {
    let node = Node::new();
    let log = ten(&node).await;
    assert_eq!(node.logs.trim(log, 3).await.unwrap(), 3);
    let out = |offset| ReadError::OutOfRange { offset, start: 3, committed: 10 };
    assert_eq!(node.logs.read(read(log, 2)).await.unwrap_err(), out(2));
    assert_eq!(node.logs.read(read(log, 11)).await.unwrap_err(), out(11));
    let end = node.read(log, 10).await;
    assert!(end.batches.is_empty() && end.next_offset == 10);
    assert_eq!(node.read(log, 3).await.batches[0].base_offset, 3);
}

#[tokio::test]
async fn a_filtered_read_skips_over_segments_and_says_how_far_it_got() {
    let node = Node::new();
    let log = ten(&node).await;
    let filtered =
        |offset, hash: u32| Read { filter: Some(vec![hash].into()), ..read(log, offset) };
    let outcome = node.logs.read(filtered(0, 3)).await.unwrap();
    assert_eq!(outcome.batches[0].base_offset, 3);
    let outcome = node.logs.read(filtered(outcome.next_offset, 3)).await.unwrap();
    assert_eq!(outcome.batches[0].base_offset, 8);
    let outcome = node.logs.read(filtered(outcome.next_offset, 3)).await.unwrap();
    assert_eq!((outcome.batches.len(), outcome.next_offset), (0, 10));
    let outcome = node.logs.read(filtered(0, 77)).await.unwrap();
    assert_eq!((outcome.batches.len(), outcome.next_offset), (0, 10));
}

#[tokio::test]
async fn times_are_found_in_whatever_segment_they_are() {
    let node = Node::new();
    let log = ten(&node).await;
    for (timestamp, found) in [
        (-5, Some((0, 0))),
        (0, Some((0, 0))),
        (1, Some((1, 10))),
        (35, Some((4, 40))),
        (90, Some((9, 90))),
        (91, None),
    ] {
        assert_eq!(node.logs.batch_at_time(log, timestamp).await.unwrap(), found, "{timestamp}");
    }
    assert_eq!(node.logs.batch_of_max_time(log).await.unwrap(), Some((9, 90)));
    node.logs.trim(log, 5).await.unwrap();
    // The segment 4..6 is still there; what is below the start isn't found.
    assert_eq!(node.logs.batch_at_time(log, 0).await.unwrap(), Some((5, 50)));
    // What isn't committed isn't found either.
    let ticket = node.logs.append(Append { max_timestamp: 500, ..batch(log, 1, "later") });
    assert_eq!(node.logs.batch_at_time(log, 91).await.unwrap(), None);
    assert_eq!(node.logs.batch_of_max_time(log).await.unwrap(), Some((9, 90)));
    node.store.eager(true);
    node.store.sync();
    ticket.await.unwrap();
    assert_eq!(node.logs.batch_at_time(log, 91).await.unwrap(), Some((10, 500)));
    assert_eq!(node.logs.batch_of_max_time(log).await.unwrap(), Some((10, 500)));
}

#[tokio::test]
async fn an_empty_log_has_no_times_and_begins_at_zero() {
    let node = Node::new();
    let log = node.log().await;
    assert_eq!(node.logs.batch_at_time(log, 0).await.unwrap(), None);
    assert_eq!(node.logs.batch_of_max_time(log).await.unwrap(), None);
    assert_eq!(node.logs.end_of_leader_epoch(log, 0).await.unwrap(), Some((0, 0)));
    assert!(node.read(log, 0).await.batches.is_empty());
}

#[tokio::test]
async fn batches_carry_the_offset_and_epoch_that_they_were_given() {
    let node = Node::new();
    let log = node.log().await;
    node.put(batch(log, 5, "a")).await.unwrap();
    let stored = node.put(keyed(log, 7, 0, "b")).await.unwrap();
    let found = node.read(log, stored.base_offset).await.batches.remove(0);
    assert_eq!(found.bytes[..8], 5u64.to_be_bytes());
    assert_eq!(found.bytes[12..16], 0u32.to_be_bytes());
    assert_eq!(found.key.map(|key| key.producer_id), Some(7));
}
