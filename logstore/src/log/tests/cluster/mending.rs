//! Segments are on as many nodes as they are to be on.

use std::time::Duration;

use super::super::keyed;
use super::*;
use crate::core::chain::{Closed, Open};
use crate::core::segment::Nodes;
use crate::log::registry::Roll;
use crate::log::state::segment;
use crate::peers::Pull;
use crate::store::EntryStore;
use crate::{Epoch, LogError};

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
    // The second one was never meant to be there. It is now, as meta says.
    rest().await;
    let lags = cluster.at(cluster.sequencer(log).0).logs.replica_lags();
    assert_eq!((lags.logs, lags.under_replicated), (1, 0));
    let closed = &cluster.chains.record(log).closed[1];
    assert_eq!((closed.base, closed.end, closed.replicas.len()), (2, 3, 3), "{closed:?}");
    assert_eq!(cluster.stored(3, log, 1), 3);
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
async fn a_replica_that_is_only_away_keeps_its_place() {
    let mut cluster = Cluster::mending(5).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..5 {
        put(&cluster, log, n).await;
    }
    let _away = cluster.kill(3, 0);
    put(&cluster, log, 5).await;
    rest().await;
    let _gone = cluster.kill(2, 0);
    cluster.at(1).logs.recover(log, cluster.chains.record(log).head.epoch).await.expect("it is");
    put(&cluster, log, 6).await;
    cluster.net.remove(node(2));
    rest().await;
    // One node took the place of the one that is gone, and nobody that of the other.
    let closed = cluster.chains.record(log).closed.remove(0);
    assert_eq!(closed.replicas.len(), 3, "{closed:?}");
    assert!(!closed.replicas.contains(&node(2)), "{closed:?}");
    assert!(closed.replicas.contains(&node(1)) && closed.replicas.contains(&node(3)), "{closed:?}");
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

#[tokio::test(start_paused = true)]
async fn what_a_removed_sequencer_had_is_copied_though_nobody_appends() {
    let mut cluster = Cluster::mending(4).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..5 {
        put(&cluster, log, n).await;
    }
    let _disk = cluster.kill(1, 0);
    rest().await;
    assert_eq!(cluster.sequencer(log), node(1), "it may come back");
    cluster.net.remove(node(1));
    rest().await;
    let record = cluster.chains.record(log);
    assert!(!record.head.replicas.contains(&node(1)) && record.head.replicas.len() == 3);
    let closed = &record.closed[0];
    assert!(!closed.replicas.contains(&node(1)) && closed.replicas.len() == 3, "{closed:?}");
    for id in [2, 3, 4] {
        assert_eq!(cluster.stored(id, log, 0), 5, "node {id}");
    }
    assert_eq!(put(&cluster, log, 5).await, 5);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_deleted_log_goes_from_all_disks() {
    let cluster = Cluster::mending(3).await;
    let (log, other) = (cluster.create(1, &[1, 2, 3]), cluster.create(2, &[1, 2, 3]));
    for n in 0..5 {
        put(&cluster, log, n).await;
        put(&cluster, other, n).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    cluster.chains.delete(log);
    rest().await;
    for id in 1..=3 {
        cluster.at(id).logs.retain_now().await;
        let store = &cluster.at(id).store;
        let left = store.segments().into_iter().filter(|found| found.id.log == log).count();
        assert_eq!(left, 0, "node {id}");
        assert_eq!(cluster.stored(id, other, 0), 5, "node {id}");
    }
}

#[tokio::test(start_paused = true)]
async fn replicas_know_how_long_logs_of_others_are_kept() {
    let cluster = Cluster::mending(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    put(&cluster, log, 0).await;
    let kept = cluster.chains.record(log).policy.retention_ms.map(Duration::from_millis);
    for id in 1..=3 {
        // Nothing has happened to the log here but appends.
        cluster.at(id).logs.retain_now().await;
        rest().await;
        assert_eq!(cluster.at(id).store.life(log), Some(kept.unwrap_or(Duration::MAX)), "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_finds_in_meta_that_it_is_none_any_more() {
    let cluster = Cluster::mending(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    put(&cluster, log, 0).await;
    // Its connections stay, and nothing is sent on them.
    let before = cluster.chains.record(log).head;
    let closed = Closed {
        epoch: before.epoch,
        leader_epoch: before.leader_epoch,
        base: 0,
        end: 1,
        bytes: 1,
        newest_ms: 0,
        replicas: before.replicas.clone(),
        is_short: false,
        acks: before.acks,
    };
    let roll = Roll {
        log,
        closed,
        max_timestamp: None,
        open: Open { epoch: Epoch(1), leader_epoch: 0, base: 1 },
        replicas: Nodes::from_slice(&[node(2), node(3), node(1)]),
        me: cluster.at(2).logs.inner.me(),
        token: 1,
        now_ms: 0,
    };
    let registry = &cluster.at(2).logs.inner.registry;
    registry.roll(&roll).await.expect("meta is there");
    assert!(cluster.at(1).logs.bounds(log).await.is_ok());
    rest().await;
    assert_eq!(cluster.at(1).logs.bounds(log).await, Err(LogError::NotSequencer));
    assert_eq!(put(&cluster, log, 1).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_stays_for_a_while_though_meta_does_not_name_its_node() {
    let cluster = Cluster::mending(4).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..5 {
        put(&cluster, log, n).await;
    }
    // The log doesn't go on there.
    cluster.net.set_writable(node(4), false);
    cluster.at(1).logs.inner.known(log).expect("a log").begin_roll(&cluster.at(1).logs.inner);
    rest().await;
    assert_eq!(cluster.chains.record(log).closed[0].end, 5);
    let id = segment(log, Epoch(0));
    let pull = Pull { id, base: 0, source: node(1), until: 5, is_anew: false };
    assert_eq!(cluster.at(4).logs.peer_pull(pull).await, Ok(5));
    // Who had it made would say so in meta by then.
    for _ in 0..6 {
        rest().await;
        assert_eq!(cluster.stored(4, log, 0), 5);
    }
    rest().await;
    assert!(cluster.at(4).store.segments().iter().all(|found| found.id != id));
    assert_eq!(cluster.stored(1, log, 0), 5);
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_that_heard_of_nobody_for_a_while_looks_into_meta_before_it_says_anything() {
    let cluster = Cluster::mending(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    put(&cluster, log, 0).await;
    // It stands still for the others, which go on, and then has its connections back.
    for other in [2, 3] {
        cluster.net.cut(node(1), node(other));
        cluster.net.cut(node(other), node(1));
    }
    cluster.at(2).logs.recover(log, Epoch(0)).await.expect("recovered");
    assert_eq!(put(&cluster, log, 1).await, 1);
    cluster.net.heal();
    let committed = async |at| cluster.at(at).logs.bounds(log).await.map(|told| told.committed);
    assert_eq!(committed(1).await, Ok(1), "as it was a moment ago");
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(committed(1).await, Err(LogError::NotSequencer));
    // Without meta it says what it knows.
    let at = cluster.sequencer(log).0;
    cluster.chains.set_down(true);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(committed(at).await, Ok(2));
    cluster.chains.set_down(false);
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(committed(at).await, Ok(2));
    assert_eq!(put(&cluster, log, 2).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_log_goes_on_though_who_appended_what_went_with_a_node() {
    let mut cluster = Cluster::mending(2).await;
    let log = cluster.create(1, &[1]);
    put(&cluster, log, 0).await;
    cluster.net.set_writable(node(1), false);
    rest().await;
    // All that was there of it, and nothing was appended elsewhere: nobody knows the producer.
    let _disk = cluster.kill(1, 0);
    cluster.net.remove(node(1));
    let disk = cluster.kill(2, 0);
    cluster.revive(2, disk).await;
    assert_eq!(put(&cluster, log, 0).await, 1);
}

#[tokio::test(start_paused = true)]
async fn who_appended_what_to_a_log_with_one_replica_is_known_where_it_moved() {
    let mut cluster = Cluster::mending(2).await;
    let log = cluster.create(1, &[1]);
    for n in 0..5 {
        put(&cluster, log, n).await;
    }
    cluster.net.set_writable(node(1), false);
    rest().await;
    assert_eq!(cluster.chains.record(log).head.replicas[..], [node(2)]);
    // Nothing was appended there when it is started anew: what it knew is at the other node.
    let disk = cluster.kill(2, 0);
    cluster.revive(2, disk).await;
    let again = cluster.append(2, keyed(log, 7, 4, "r4")).await.expect("kept");
    assert_eq!((again.base_offset, again.duplicate), (4, true));
    assert_eq!(put(&cluster, log, 5).await, 5);
}
