//! How far replicas are behind is told.

use std::time::Duration;

use super::super::{keyed, poll};
use super::*;
use crate::{ReplicaDescription, ReplicaLags};

async fn described(cluster: &Cluster, id: u32, log: LogId) -> Vec<ReplicaDescription> {
    cluster.at(id).logs.describe(log).await.expect("a description").replicas
}

async fn rest() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn replica(id: u32, lag: u64, is_in_sync: bool) -> ReplicaDescription {
    ReplicaDescription { node: node(id), lag, is_in_sync }
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_tells_how_far_its_replicas_are_behind() {
    let mut cluster = Cluster::new(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    let other = cluster.create(2, &[1, 2, 3]);
    for log in [log, other] {
        cluster.append(1, keyed(log, 7, 0, "a")).await.expect("it is acknowledged");
    }
    rest().await;
    let all = vec![replica(1, 0, true), replica(2, 0, true), replica(3, 0, true)];
    assert_eq!(described(&cluster, 1, log).await, all);
    // One doesn't sync, the other is gone: what the sequencer has is not committed.
    cluster.at(2).store.eager(false);
    let _disk = cluster.kill(3, 0);
    let mut tickets: Vec<_> =
        (1..=4).map(|n| cluster.at(1).logs.append(keyed(log, 7, n, "b"))).collect();
    rest().await;
    assert_eq!(poll(&mut tickets[0]).await, None);
    let all = vec![replica(1, 0, true), replica(2, 4, true), replica(3, 4, false)];
    assert_eq!(described(&cluster, 1, log).await, all);
    let lags = cluster.at(1).logs.replica_lags();
    assert_eq!(lags, ReplicaLags { logs: 2, under_replicated: 2, max: 4 });
    cluster.at(2).store.sync();
    rest().await;
    assert_eq!(cluster.at(1).logs.replica_lags().max, 4, "of the dead one");
    let all = vec![replica(1, 0, true), replica(2, 0, true), replica(3, 4, false)];
    assert_eq!(described(&cluster, 1, log).await, all);
    // A node that gives out no offsets has nothing to tell.
    assert_eq!(cluster.at(2).logs.replica_lags(), ReplicaLags::default());
}
