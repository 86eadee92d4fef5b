//! What is acknowledged outlives its sequencer.

use super::super::{keyed, poll};
use super::*;
use crate::{AppendError, Epoch};

fn acked(result: AppendResult) -> Offset {
    result.expect("it is acknowledged").base_offset
}

#[tokio::test(start_paused = true)]
async fn what_is_acknowledged_is_on_a_quorum() {
    let cluster = Cluster::new(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..10 {
        assert_eq!(acked(cluster.append(1, keyed(log, 7, n, "a")).await), n as Offset);
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for id in 1..=3 {
        assert_eq!(cluster.stored(id, log, 0), 10, "node {id}");
    }
    // One replica that doesn't sync is no hindrance, two are (I5).
    cluster.at(3).store.eager(false);
    assert_eq!(acked(cluster.append(1, keyed(log, 7, 10, "a")).await), 10);
    cluster.at(2).store.eager(false);
    let mut ticket = cluster.at(1).logs.append(keyed(log, 7, 11, "a"));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert_eq!(poll(&mut ticket).await, None);
    cluster.at(2).store.sync();
    assert_eq!(acked(ticket.await), 11);
}

#[tokio::test(start_paused = true)]
async fn a_dead_sequencer_is_replaced_and_nothing_is_lost_or_doubled() {
    let mut cluster = Cluster::new(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..10 {
        acked(cluster.append(1, keyed(log, 7, n, &format!("a{n}"))).await);
    }
    let disk = cluster.kill(1, 0);
    cluster.at(2).logs.recover(log, Epoch(0)).await.expect("recovered");
    let record = cluster.chains.record(log);
    assert_eq!((record.closed[0].end, record.head.base, record.head.replicas.len()), (10, 10, 2));
    let next = cluster.sequencer(log).0;
    assert!(next != 1);
    // A retry of the last batch is known (K6), and the next one has the next offset.
    let again = cluster.append(next, keyed(log, 7, 9, "a9")).await.expect("known");
    assert_eq!((again.base_offset, again.duplicate), (9, true));
    assert_eq!(acked(cluster.append(next, keyed(log, 7, 10, "b")).await), 10);
    let refused = cluster.append(5 - next, keyed(log, 7, 11, "c")).await;
    assert_eq!(refused, Err(AppendError::NotSequencer));
    let all = cluster.read_all(next, log).await;
    assert_eq!(all.len(), 11);
    assert_eq!((all[9].1.as_str(), all[10].1.as_str()), ("a9", "b"));
    // The dead one comes back as another life, and is no sequencer.
    cluster.revive(1, disk).await;
    let refused = cluster.append(1, keyed(log, 7, 11, "c")).await;
    assert_eq!(refused, Err(AppendError::NotSequencer));
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_that_is_cut_off_acknowledges_nothing_that_is_lost() {
    let cluster = Cluster::new(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..5 {
        acked(cluster.append(1, keyed(log, 7, n, &format!("a{n}"))).await);
    }
    for id in [2, 3] {
        cluster.net.cut(node(1), node(id));
    }
    let cut_off = cluster.at(1).logs.append(keyed(log, 7, 5, "lost"));
    cluster.at(2).logs.recover(log, Epoch(0)).await.expect("recovered");
    let next = cluster.sequencer(log).0;
    assert_eq!(acked(cluster.append(next, keyed(log, 7, 5, "kept")).await), 5);
    cluster.net.heal();
    // It hears that its segment is closed, and where: what it had is not in the log (I2).
    assert_eq!(cut_off.await, Err(AppendError::NotSequencer));
    let all = cluster.read_all(next, log).await;
    assert_eq!(all.last(), Some(&(5, "kept".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_sequencer_closes_its_segment_with_its_replicas() {
    let mut cluster = Cluster::new(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..5 {
        acked(cluster.append(1, keyed(log, 7, n, &format!("a{n}"))).await);
    }
    let disk = cluster.kill(1, 0);
    cluster.revive(1, disk).await;
    // Asked for the log, it finds itself named with an earlier life.
    let bounds = cluster.at(1).logs.bounds(log).await;
    let record = cluster.chains.record(log);
    assert_eq!((record.head.epoch, record.closed[0].end), (Epoch(1), 5), "{bounds:?}");
    let next = cluster.sequencer(log).0;
    assert_eq!(acked(cluster.append(next, keyed(log, 7, 5, "b")).await), 5);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_away_goes_on_where_it_stopped() {
    let mut cluster = Cluster::new(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..5 {
        acked(cluster.append(1, keyed(log, 7, n, "a")).await);
    }
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    let disk = cluster.kill(3, 0);
    for n in 5..10 {
        acked(cluster.append(1, keyed(log, 7, n, "b")).await);
    }
    cluster.revive(3, disk).await;
    for n in 10..15 {
        acked(cluster.append(1, keyed(log, 7, n, "c")).await);
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(cluster.stored(3, log, 0), 15);
    assert_eq!(cluster.chains.record(log).head.epoch, Epoch(0), "nothing was rolled for it");
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_stays_away_is_rolled_out() {
    let mut cluster = Cluster::new(4).await;
    let log = cluster.create(1, &[1, 2, 3]);
    acked(cluster.append(1, keyed(log, 7, 0, "a")).await);
    let _disk = cluster.kill(3, 0);
    acked(cluster.append(1, keyed(log, 7, 1, "b")).await);
    tokio::time::sleep(std::time::Duration::from_secs(12)).await;
    let record = cluster.chains.record(log);
    assert_eq!(record.head.epoch, Epoch(1));
    assert!(!record.head.replicas.contains(&node(3)) && record.head.replicas.len() == 3);
    let next = cluster.sequencer(log).0;
    assert_eq!(acked(cluster.append(next, keyed(log, 7, 2, "c")).await), 2);
    // A node that has nothing of the first segment reads it from those that have.
    let all = cluster.read_all(next, log).await;
    assert_eq!(all.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[tokio::test(start_paused = true)]
async fn seals_outlive_their_node() {
    let mut cluster = Cluster::new(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    acked(cluster.append(1, keyed(log, 7, 0, "a")).await);
    let id = super::super::super::state::segment(log, Epoch(0));
    for (id_of, segment) in [(2, id), (3, super::super::super::state::segment(log, Epoch(9)))] {
        let inner = &cluster.at(id_of).logs.inner;
        super::super::super::replicas::seal(inner, segment, 0, node(1)).await.expect("sealed");
        let disk = cluster.kill(id_of, 0);
        cluster.revive(id_of, disk).await;
        assert!(cluster.at(id_of).logs.inner.replicas.seals.has(segment));
        assert!(!cluster.at(id_of).logs.inner.replicas.seals.is_lost());
    }
    // Node 2 takes no more of it.
    let _ = cluster.append(1, keyed(log, 7, 1, "b")).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(cluster.stored(2, log, 0), 1);
}
