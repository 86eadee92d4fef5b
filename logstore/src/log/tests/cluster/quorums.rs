//! As many replicas have an append as its log says, and never fewer than a majority.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::{keyed, poll};
use super::*;

async fn rest(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn with_all_in_sync_an_append_waits_for_the_last_one() {
    let mut cluster = Cluster::mending(3).await;
    let log = cluster.create_with_acks(1, &[1, 2, 3], 3);
    cluster.append(1, keyed(log, 7, 0, "a")).await.expect("it is acknowledged");
    for id in 1..=3 {
        assert_eq!(cluster.stored(id, log, 0), 1, "node {id}");
    }
    cluster.at(3).store.eager(false);
    let mut ticket = cluster.at(1).logs.append(keyed(log, 7, 1, "b"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(poll(&mut ticket).await, None);
    cluster.at(3).store.eager(true);
    cluster.at(3).store.sync();
    ticket.await.expect("it is acknowledged");
    // Without the third, nothing goes on: no segment is opened on two.
    let disk = cluster.kill(3, 0);
    let mut ticket = cluster.at(1).logs.append(keyed(log, 7, 2, "c"));
    rest(15).await;
    assert_eq!(poll(&mut ticket).await, None);
    assert_eq!(cluster.chains.record(log).head.replicas.len(), 3);
    cluster.revive(3, disk).await;
    // It was closed on two: that is no acknowledgement, until the third has it.
    assert_eq!(ticket.await, Err(crate::AppendError::Unknown));
    let head = cluster.chains.record(log).head;
    assert_eq!((head.replicas.len(), head.acks), (3, 3));
    let at = head.sequencer.node.0;
    let again = cluster.until_kept(at, || keyed(log, 7, 2, "c")).await;
    assert_eq!((again.base_offset, again.duplicate), (2, true));
    assert!(!cluster.chains.record(log).closed[0].is_short);
    cluster.append(at, keyed(log, 7, 3, "d")).await.expect("it is acknowledged");
    rest(90).await;
    for id in 1..=3 {
        assert_eq!(cluster.stored(id, log, 0), 3, "node {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_all_in_sync_a_fourth_node_takes_the_place_of_a_dead_sequencer() {
    let mut cluster = Cluster::mending(4).await;
    let log = cluster.create_with_acks(1, &[1, 2, 3], 3);
    for n in 0..5 {
        cluster.append(1, keyed(log, 7, n, &format!("a{n}"))).await.expect("acknowledged");
    }
    let _disk = cluster.kill(1, 0);
    cluster.at(2).logs.recover(log, crate::Epoch(0)).await.expect("recovered");
    let record = cluster.chains.record(log);
    assert_eq!((record.closed[0].end, record.closed[0].is_short), (5, true));
    assert_eq!((record.head.replicas.len(), record.head.acks), (3, 3));
    let next = record.head.sequencer.node.0;
    let appended = cluster.append(next, keyed(log, 7, 5, "b")).await.expect("acknowledged");
    assert_eq!(appended.base_offset, 5);
    // The dead one is gone for good: the closed segment gets three copies again.
    cluster.net.remove(node(1));
    rest(90).await;
    let closed = cluster.chains.record(log).closed.remove(0);
    assert_eq!((closed.replicas.len(), closed.is_short), (3, false), "{closed:?}");
}

#[tokio::test(start_paused = true)]
async fn what_lies_in_a_short_segment_is_not_acknowledged_before_it_is_repaired() {
    let mut cluster = Cluster::mending(3).await;
    let log = cluster.create(1, &[1, 2]);
    cluster.append(1, keyed(log, 7, 0, "a")).await.expect("acknowledged");
    // Node 2 gets the next, and has not said so when its sequencer dies.
    cluster.at(2).store.eager(false);
    let ticket = cluster.at(1).logs.append(keyed(log, 7, 1, "b"));
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(ticket);
    let _disk = cluster.kill(1, 0);
    cluster.at(2).store.eager(true);
    cluster.at(2).store.sync();
    // Nor can it be copied.
    cluster.net.cut(node(2), node(3));
    cluster.net.cut(node(3), node(2));
    cluster.at(2).logs.recover(log, crate::Epoch(0)).await.expect("recovered");
    let record = cluster.chains.record(log);
    assert_eq!((record.closed[0].end, record.closed[0].is_short), (2, true));
    let at = record.head.sequencer.node.0;
    for _ in 0..60 {
        let again = cluster.append(at, keyed(log, 7, 1, "b")).await;
        assert_eq!(again, Err(crate::AppendError::Unknown), "on one node only");
        rest(1).await;
        assert!(cluster.chains.record(log).closed[0].is_short);
    }
    assert_eq!(cluster.at(at).logs.metrics().withheld.load(Ordering::Relaxed), 60);
    cluster.net.heal();
    let again = cluster.until_kept(at, || keyed(log, 7, 1, "b")).await;
    assert_eq!((again.base_offset, again.duplicate), (1, true));
    assert!(!cluster.chains.record(log).closed[0].is_short);
}

#[tokio::test(start_paused = true)]
async fn another_number_holds_from_the_next_segment_on() {
    let cluster = Cluster::mending(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    cluster.append(1, keyed(log, 7, 0, "a")).await.expect("acknowledged");
    assert_eq!(cluster.chains.record(log).head.acks, 2);
    cluster.chains.set_min_acks(log, 3);
    cluster.at(1).logs.refresh(log).await.expect("refreshed");
    rest(1).await;
    let at = cluster.sequencer(log).0;
    cluster.append(at, keyed(log, 7, 1, "b")).await.expect("acknowledged");
    let record = cluster.chains.record(log);
    assert_eq!((record.head.acks, record.closed[0].acks), (3, 2));
    // The same once more is no other.
    let at = record.head.sequencer.node.0;
    cluster.at(at).logs.refresh(log).await.expect("refreshed");
    rest(1).await;
    assert_eq!(cluster.chains.record(log).head.epoch, record.head.epoch);
}
