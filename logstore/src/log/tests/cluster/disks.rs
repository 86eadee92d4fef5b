//! A node's disk is full or fails: its logs go on at other nodes.

use std::time::Duration;

use super::super::keyed;
use super::*;
use crate::AppendError;

/// Appends where meta says, again where that was another by then. Nothing else may be answered.
async fn put(cluster: &Cluster, log: LogId, sequence: i32) -> Offset {
    loop {
        let at = cluster.sequencer(log).0;
        match cluster.append(at, keyed(log, 7, sequence, &format!("r{sequence}"))).await {
            Ok(appended) => return appended.base_offset,
            Err(AppendError::NotSequencer) => {}
            Err(error) => panic!("{log}, {sequence}: {error}"),
        }
    }
}

async fn rest() {
    tokio::time::sleep(Duration::from_secs(90)).await;
}

/// Logs of which some have node 1 as their sequencer.
async fn logs(cluster: &Cluster) -> Vec<LogId> {
    let logs: Vec<_> = (1..=3_u32)
        .flat_map(|first| {
            let replicas = [first, first % 3 + 1, (first + 1) % 3 + 1];
            [0, 3].map(|n| cluster.create(u64::from(n + first), &replicas))
        })
        .collect();
    for log in &logs {
        assert_eq!(put(cluster, *log, 0).await, 0);
    }
    logs
}

fn has(cluster: &Cluster, log: LogId, id: u32) -> bool {
    cluster.chains.record(log).head.replicas.contains(&node(id))
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_left_until_there_is_room_again() {
    let cluster = Cluster::mending(3).await;
    let logs = logs(&cluster).await;
    cluster.at(1).store.fill(true);
    for log in &logs {
        assert_eq!(put(&cluster, *log, 1).await, 1);
        assert_ne!(cluster.sequencer(*log), node(1));
    }
    cluster.at(1).store.fill(false);
    for log in &logs {
        assert_eq!(put(&cluster, *log, 2).await, 2);
    }
    rest().await;
    for log in &logs {
        assert!(has(&cluster, *log, 1), "{log}");
        assert_eq!(put(&cluster, *log, 3).await, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_log_leaves_a_full_disk_too() {
    let cluster = Cluster::mending(3).await;
    let logs = logs(&cluster).await;
    cluster.at(1).store.fill(true);
    rest().await;
    assert!(logs.iter().all(|log| cluster.sequencer(*log) != node(1)));
}

#[tokio::test(start_paused = true)]
async fn with_all_disks_full_that_is_what_is_said() {
    let cluster = Cluster::mending(3).await;
    let logs = logs(&cluster).await;
    for id in 1..=3 {
        cluster.at(id).store.fill(true);
        cluster.net.set_writable(node(id), false);
    }
    rest().await;
    for log in &logs {
        let at = cluster.sequencer(*log).0;
        let refused = cluster.append(at, keyed(*log, 7, 1, "r1")).await;
        assert_eq!(refused, Err(AppendError::DiskFull));
    }
    for id in 1..=3 {
        cluster.at(id).store.fill(false);
        cluster.net.set_writable(node(id), true);
    }
    for log in &logs {
        assert_eq!(put(&cluster, *log, 1).await, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_journal_had_in_flight_is_appended_once() {
    let cluster = Cluster::mending(3).await;
    let logs = logs(&cluster).await;
    let untouched = cluster.create(9, &[1, 2, 3]);
    for id in 1..=3 {
        cluster.at(id).store.eager(false);
    }
    let in_flight: Vec<_> = logs
        .iter()
        .map(|log| {
            let at = &cluster.at(cluster.sequencer(*log).0).logs;
            at.append(keyed(*log, 7, 1, "r1"))
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.at(1).store.fail();
    for id in 2..=3 {
        cluster.at(id).store.eager(true);
        cluster.at(id).store.sync();
    }
    for (log, ticket) in logs.iter().zip(in_flight) {
        match ticket.await {
            Ok(appended) => assert_eq!(appended.base_offset, 1, "{log}"),
            Err(error) => assert_eq!(error, AppendError::NotSequencer, "{log}"),
        }
        assert_eq!(put(&cluster, *log, 1).await, 1, "{log}");
        assert_eq!(put(&cluster, *log, 2).await, 2, "{log}");
        assert_ne!(cluster.sequencer(*log), node(1));
        assert_eq!(cluster.read_all(cluster.sequencer(*log).0, *log).await.len(), 3);
    }
    assert_eq!(put(&cluster, untouched, 0).await, 0);
}
