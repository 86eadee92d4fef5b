//! Segments are on as many nodes as they are to be on.

use std::time::Duration;

use super::super::keyed;
use super::*;
use crate::Epoch;

async fn put(cluster: &Cluster, log: LogId, sequence: i32) -> Offset {
    let at = cluster.sequencer(log).0;
    let result = cluster.append(at, keyed(log, 7, sequence, &format!("r{sequence}"))).await;
    result.expect("it is acknowledged").base_offset
}

async fn rest() {
    tokio::time::sleep(Duration::from_secs(90)).await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_node_is_left_and_serves_on_till_then() {
    let cluster = Cluster::mending(4).await;
    let logs: Vec<_> = (1..=8).map(|log| cluster.create(log, &[1, 2, 3])).collect();
    for log in &logs {
        put(&cluster, *log, 0).await;
    }
    cluster.net.set_writable(node(1), false);
    rest().await;
    for log in &logs {
        let head = cluster.chains.record(*log).head;
        assert!(!head.replicas.contains(&node(1)) && head.replicas.len() == 3, "{head:?}");
        assert_eq!(put(&cluster, *log, 1).await, 1);
        // What it has is read from there on.
        assert_eq!(cluster.read_all(head.sequencer.node.0, *log).await.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn with_too_few_nodes_a_log_goes_on_and_gets_its_third_replica_later() {
    let mut cluster = Cluster::mending(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    put(&cluster, log, 0).await;
    let disk = cluster.kill(3, 0);
    put(&cluster, log, 1).await;
    rest().await;
    assert_eq!(cluster.chains.record(log).head.replicas.len(), 2);
    put(&cluster, log, 2).await;
    cluster.revive(3, disk).await;
    rest().await;
    assert_eq!(cluster.chains.record(log).head.replicas.len(), 3);
    put(&cluster, log, 3).await;
    // It has pulled what was written to the first segment while it was away.
    assert_eq!(cluster.stored(3, log, 0), 2);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_for_all_of_a_segment_gets_it_at_its_start() {
    let mut cluster = Cluster::mending(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    let disk = cluster.kill(3, 0);
    put(&cluster, log, 0).await;
    rest().await;
    let closed = cluster.chains.record(log).closed.remove(0);
    assert!(closed.replicas.contains(&node(3)) && closed.end == 1, "{closed:?}");
    // Nothing new is placed on it: nobody tells it of the log.
    cluster.net.set_writable(node(3), false);
    cluster.revive(3, disk).await;
    rest().await;
    assert_eq!(cluster.stored(3, log, 0), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_removed_node_had_is_copied_elsewhere() {
    let mut cluster = Cluster::mending(4).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..5 {
        put(&cluster, log, n).await;
    }
    let _disk = cluster.kill(1, 0);
    cluster.at(2).logs.recover(log, Epoch(0)).await.expect("recovered");
    put(&cluster, log, 5).await;
    cluster.net.remove(node(1));
    rest().await;
    let closed = cluster.chains.record(log).closed.remove(0);
    assert_eq!(closed.replicas.len(), 3);
    assert!(!closed.replicas.contains(&node(1)), "{closed:?}");
    for id in [2, 3, 4] {
        assert_eq!(cluster.stored(id, log, 0), 5, "node {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_chain_does_not_have_is_dropped_by_its_replicas() {
    let cluster = Cluster::mending(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..5 {
        put(&cluster, log, n).await;
    }
    for id in [2, 3] {
        cluster.net.cut(node(1), node(id));
    }
    cluster.at(2).logs.recover(log, Epoch(0)).await.expect("recovered");
    cluster.net.heal();
    let at = cluster.sequencer(log).0;
    put(&cluster, log, 5).await;
    cluster.at(at).logs.trim(log, 5).await.expect("trimmed");
    let other = 5 - at;
    cluster.at(other).logs.inner.mending.look_at(log);
    rest().await;
    assert_eq!(cluster.stored(other, log, 1), 6);
}
