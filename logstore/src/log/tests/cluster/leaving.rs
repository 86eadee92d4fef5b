//! Nodes that stop.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::super::keyed;
use super::*;

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(60);

/// Logs of each node, which the others have replicas of.
async fn logs_of_all(cluster: &Cluster) -> Vec<LogId> {
    let replicas = [[1, 2, 3], [2, 3, 1], [3, 1, 2]];
    let logs: Vec<_> = (0..12_u64)
        .map(|n| cluster.create(n + 1, &replicas[usize::try_from(n % 3).expect("small")]))
        .collect();
    for log in &logs {
        let at = cluster.sequencer(*log).0;
        cluster.append(at, keyed(*log, 7, 0, "a")).await.expect("it is acknowledged");
    }
    logs
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_alone_hands_its_logs_over() {
    let cluster = Cluster::mending(3).await;
    let logs = logs_of_all(&cluster).await;
    timeout(LONG, cluster.at(1).logs.hand_over()).await.expect("others take them over");
    for log in logs {
        let head = cluster.chains.record(log).head;
        assert!(!head.replicas.contains(&node(1)), "{head:?}");
        cluster.append(head.sequencer.node.0, keyed(log, 7, 1, "b")).await.expect("it goes on");
    }
}

#[tokio::test(start_paused = true)]
async fn nodes_that_all_stop_wait_for_nobody() {
    let cluster = Cluster::mending(3).await;
    logs_of_all(&cluster).await;
    let leaving = cluster.members.values().map(|member| member.logs.hand_over());
    timeout(LONG, join_all(leaving)).await.expect("they know of one another");
}
