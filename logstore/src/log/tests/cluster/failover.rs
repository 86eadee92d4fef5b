//! What is acknowledged outlives its sequencer.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::super::state::segment;
use super::super::super::{replicas, sources};
use super::super::{keyed, poll};
use super::*;
use crate::core::chain::Closed;
use crate::core::replication::Reply;
use crate::core::segment::Nodes;
use crate::store::{EntryStore, StoreError};
use crate::{AppendError, Epoch, LogError};

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

#[tokio::test(start_paused = true)]
async fn a_sequencer_that_was_sealed_before_its_first_append_takes_nothing() {
    let cluster = Cluster::new(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    // Somebody closes the segment, and has heard from a quorum that nothing is in it.
    for id in [1, 2] {
        let inner = &cluster.at(id).logs.inner;
        let sealed = replicas::seal(inner, segment(log, Epoch(0)), 0, node(2)).await;
        assert_eq!(sealed.expect("sealed").end, 0);
    }
    cluster.net.cut(node(1), node(2));
    let mut ticket = cluster.at(1).logs.append(keyed(log, 7, 0, "lost"));
    sleep(Duration::from_secs(1)).await;
    // Node 3 isn't sealed: together with it there would be a quorum (I2).
    assert_eq!(poll(&mut ticket).await, None);
    cluster.at(2).logs.recover(log, Epoch(0)).await.expect("recovered");
    assert_eq!(cluster.chains.record(log).head.base, 0);
    let next = cluster.sequencer(log).0;
    assert_eq!(acked(cluster.append(next, keyed(log, 7, 0, "kept")).await), 0);
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_that_is_sealed_as_it_begins_to_close_learns_who_closed() {
    let cluster = Cluster::new(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    acked(cluster.append(1, keyed(log, 7, 0, "a")).await);
    sleep(Duration::from_millis(20)).await;
    let inner = &cluster.at(1).logs.inner;
    let shared = inner.log(log);
    shared.begin_roll(inner);
    // Before the close has begun.
    shared.peer_replied(inner, Epoch(0), 1, Reply::Sealed);
    sleep(Duration::from_millis(100)).await;
    assert_eq!(cluster.chains.record(log).head.epoch, Epoch(0));
    cluster.at(2).logs.recover(log, Epoch(0)).await.expect("recovered");
    sleep(Duration::from_secs(2)).await;
    let next = cluster.sequencer(log).0;
    let answer = timeout(Duration::from_secs(5), cluster.append(next, keyed(log, 7, 1, "b"))).await;
    assert_eq!(acked(answer.expect("it is answered")), 1);
    if next != 1 {
        let answer =
            timeout(Duration::from_secs(5), cluster.append(1, keyed(log, 7, 1, "b"))).await;
        assert_eq!(answer.expect("it is answered"), Err(AppendError::NotSequencer));
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_disk_was_full_is_sealed_when_there_is_room() {
    let mut cluster = Cluster::new(4).await;
    let log = cluster.create(1, &[1, 2, 3]);
    acked(cluster.append(1, keyed(log, 7, 0, "a")).await);
    sleep(Duration::from_millis(20)).await;
    let other = segment(LogId(9), Epoch(0));
    replicas::seal(&cluster.at(2).logs.inner, other, 0, node(1)).await.expect("sealed");
    cluster.at(2).store.refuse(Some(StoreError::DiskFull));
    cluster.kill(1, 0);
    let recovering = {
        let logs = cluster.at(3).logs.clone();
        tokio::spawn(async move { logs.recover(log, Epoch(0)).await })
    };
    sleep(Duration::from_millis(1200)).await;
    cluster.at(2).store.refuse(None);
    let recovered = timeout(Duration::from_secs(5), recovering).await.expect("in time");
    recovered.expect("no panic").expect("recovered");
    assert_eq!(cluster.chains.record(log).closed[0].end, 1);
    // Seals are numbered without a gap, and come back.
    let disk = cluster.kill(2, 0);
    cluster.revive(2, disk).await;
    let seals = &cluster.at(2).logs.inner.replicas.seals;
    assert!(seals.has(other) && seals.has(segment(log, Epoch(0))) && !seals.is_lost());
}

#[tokio::test(start_paused = true)]
async fn who_appended_what_is_not_taken_from_a_replica_that_lacks_the_end() {
    let cluster = Cluster::new(4).await;
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..5 {
        acked(cluster.append(1, keyed(log, 7, n, "a")).await);
    }
    sleep(Duration::from_millis(20)).await;
    cluster.net.cut(node(1), node(3));
    for n in 5..10 {
        acked(cluster.append(1, keyed(log, 7, n, "b")).await);
    }
    let id = segment(log, Epoch(0));
    let closed = Closed {
        epoch: Epoch(0),
        leader_epoch: 0,
        base: 0,
        end: 10,
        bytes: 0,
        newest_ms: 0,
        replicas: Nodes::from_slice(&[node(3), node(2)]),
        is_short: false,
        acks: 1,
    };
    let inner = &cluster.at(4).logs.inner;
    let headers = sources::since_snapshot(inner, id, &closed).await.expect("node 2 has all");
    assert_eq!(headers.last().map(|(header, _)| header.base_offset), Some(9));
    let headers = sources::headers(inner, id, &closed, 0).await.expect("node 2 has all");
    assert_eq!(headers.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_without_appends_hears_that_it_is_none_any_more() {
    for replicas in [&[1, 2, 3][..], &[1, 2]] {
        let cluster = Cluster::new(3).await;
        let log = cluster.create(1, replicas);
        acked(cluster.append(1, keyed(log, 7, 0, "a")).await);
        sleep(Duration::from_millis(20)).await;
        cluster.net.cut(node(1), node(2));
        cluster.net.cut(node(1), node(3));
        cluster.at(2).logs.recover(log, Epoch(0)).await.expect("recovered");
        cluster.net.heal();
        sleep(Duration::from_secs(2)).await;
        // Nobody had to ask for it.
        assert!(!cluster.at(1).logs.inner.known(log).expect("a log").is_ready());
        let bounds = cluster.at(1).logs.bounds(log).await;
        assert_eq!(bounds, Err(LogError::NotSequencer), "{replicas:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_whose_closer_is_gone_closes_by_itself() {
    let cluster = Cluster::new(3).await;
    let log = cluster.create(1, &[1, 2, 3]);
    // Somebody sealed a replica, and was seen no more.
    let inner = &cluster.at(2).logs.inner;
    replicas::seal(inner, segment(log, Epoch(0)), 0, node(3)).await.expect("sealed");
    let ticket = cluster.at(1).logs.append(keyed(log, 7, 0, "a"));
    let answer = timeout(Duration::from_secs(10), ticket).await.expect("it is answered");
    assert_eq!(cluster.chains.record(log).head.epoch, Epoch(1));
    let next = cluster.sequencer(log).0;
    let again = cluster.append(next, keyed(log, 7, 0, "a")).await.expect("kept");
    assert_eq!((again.base_offset, again.duplicate), (0, answer.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_segment_that_has_lost_its_quorum_is_closed_by_its_sequencer() {
    let cluster = Cluster::mending(3).await;
    let log = cluster.create(1, &[1, 2]);
    acked(cluster.append(1, keyed(log, 7, 0, "a")).await);
    cluster.at(2).store.refuse(Some(StoreError::DiskFull));
    let answer = timeout(Duration::from_secs(10), cluster.append(1, keyed(log, 7, 1, "b"))).await;
    let answer = answer.expect("it is answered");
    let record = cluster.chains.record(log);
    assert_eq!(record.head.epoch, Epoch(1), "{answer:?}");
    assert!(!record.head.replicas.contains(&node(2)));
    let next = cluster.sequencer(log).0;
    let again = cluster.until_kept(next, || keyed(log, 7, 1, "b")).await;
    assert_eq!(again.base_offset, 1);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_comes_back_without_meta_goes_on_when_meta_is_there() {
    let mut cluster = Cluster::new(2).await;
    let log = cluster.create(1, &[1, 2]);
    acked(cluster.append(1, keyed(log, 7, 0, "a")).await);
    let disk = cluster.kill(2, 0);
    let ticket = cluster.at(1).logs.append(keyed(log, 7, 1, "b"));
    cluster.chains.set_down(true);
    cluster.revive(2, disk).await;
    sleep(Duration::from_secs(1)).await;
    cluster.chains.set_down(false);
    let answer = timeout(Duration::from_secs(2), ticket).await;
    assert_eq!(acked(answer.expect("it is answered")), 1);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_another_sequencer_gets_one_though_the_last_one_answers() {
    let cluster = Cluster::new(3).await;
    for n in 0..12 {
        let log = cluster.create(n, &[1, 2, 3]);
        acked(cluster.append(1, keyed(log, 7, 0, "a")).await);
        for epoch in 0..3 {
            let before = cluster.sequencer(log).0;
            let asked = before % 3 + 1;
            cluster.at(asked).logs.recover(log, Epoch(epoch)).await.expect("recovered");
            let head = cluster.chains.record(log).head;
            assert_ne!(head.sequencer.node, node(before), "{log}");
            assert_eq!(head.replicas.len(), 3);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_replica_kept_over_a_crash_without_having_said_so_counts() {
    let mut cluster = Cluster::new(2).await;
    let log = cluster.create(1, &[1, 2]);
    acked(cluster.append(1, keyed(log, 7, 0, "a")).await);
    cluster.at(2).store.eager(false);
    let ticket = cluster.at(1).logs.append(keyed(log, 7, 1, "b"));
    sleep(Duration::from_millis(100)).await;
    // The seals' own log has no position between: the one that is kept is the entry.
    let disk = cluster.kill(2, 1);
    let kept = disk.0.segment(segment(log, Epoch(0))).expect("it has something");
    assert_eq!(kept.end, 2);
    disk.0.eager(true);
    cluster.revive(2, disk).await;
    let answer = timeout(Duration::from_secs(2), ticket).await;
    assert_eq!(acked(answer.expect("it is answered")), 1);
}
