//! Damage on a replica's disk is found and repaired before anybody asks for what was there.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::super::state::segment;
use super::super::keyed;
use super::*;
use crate::Epoch;
use crate::store::{EntryStore, SegmentId};

/// A log with a closed segment of ten records on nodes 1 to 3, which look at what they have.
async fn closed(config: LogConfig) -> (Cluster, LogId, SegmentId) {
    let cluster = Cluster::with(3, Net::new(1, 0, 0), Chains::new(1, 0, 0), config).await;
    for member in cluster.members.values() {
        member.logs.start_mending();
        member.logs.start_scrubbing();
    }
    let log = cluster.create(1, &[1, 2, 3]);
    for n in 0..10 {
        cluster.append(1, keyed(log, 7, n, &format!("r{n}"))).await.expect("acknowledged");
    }
    rest(1).await;
    cluster.at(1).logs.inner.known(log).expect("a log").begin_roll(&cluster.at(1).logs.inner);
    rest(1).await;
    assert_eq!(cluster.chains.record(log).closed[0].end, 10);
    (cluster, log, segment(log, Epoch(0)))
}

async fn rest(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

impl Cluster {
    /// All nodes look for damage, and mend it.
    async fn scrub(&self) {
        self.members.values().for_each(|member| member.logs.scrub_now());
        rest(90).await;
    }

    /// Found and repaired, at all nodes.
    fn repairs(&self) -> (u64, u64) {
        let sum = |get: fn(&crate::LogMetrics) -> &std::sync::atomic::AtomicU64| {
            let counts = self.members.values().map(|member| get(member.logs.metrics()));
            counts.map(|count| count.load(Ordering::Relaxed)).sum()
        };
        (sum(|all| &all.damaged_segments), sum(|all| &all.repaired_segments))
    }

    /// The replica has all ten records as they were appended.
    async fn is_whole(&self, id: u32, segment: SegmentId) -> bool {
        let store = &self.at(id).store;
        let Ok((entries, true)) = store.entries(segment, 0, 10, u64::MAX).await else {
            return false;
        };
        let data = entries.iter().filter(|(header, _)| header.count > 0);
        let texts: Vec<_> = data.map(|(_, payload)| text(payload)).collect();
        texts == (0..10).map(|n| format!("r{n}")).collect::<Vec<_>>()
    }
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_is_found_and_repaired_wherever_it_is() {
    let (cluster, log, id) = closed(LogConfig::default()).await;
    cluster.scrub().await;
    assert_eq!(cluster.repairs(), (0, 0), "there is nothing to repair");
    for (nth, node) in (1..=3).enumerate() {
        cluster.at(node).store.flip(id, 4, true);
        assert!(!cluster.is_whole(node, id).await);
        cluster.scrub().await;
        assert!(cluster.is_whole(node, id).await, "node {node}");
        let (found, repaired) = cluster.repairs();
        assert!(found > nth as u64);
        assert_eq!(repaired, nth as u64 + 1);
    }
    let at = cluster.sequencer(log).0;
    assert_eq!(cluster.read_all(at, log).await.len(), 10);
}

/// Of three replicas the first looks at a segment by itself, and each that is asked to.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_asked_looks_at_all_that_it_has() {
    let (cluster, _, id) = closed(LogConfig::default()).await;
    for node in 1..=3 {
        cluster.at(node).store.flip(id, 4, true);
        cluster.at(node).logs.scrub_now();
        rest(90).await;
        assert!(cluster.is_whole(node, id).await, "node {node}");
    }
    assert_eq!(cluster.repairs(), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_unlike_the_others_is_copied_anew() {
    let (cluster, _, id) = closed(LogConfig::default()).await;
    for (nth, node) in (1..=3).enumerate() {
        // Its checksum is right: only the others tell. All that look at it would count it.
        cluster.at(node).store.flip(id, 7, false);
        cluster.at(1).logs.scrub_now();
        rest(90).await;
        assert!(cluster.is_whole(node, id).await, "node {node}");
        assert_eq!(cluster.repairs(), (nth as u64 + 1, nth as u64 + 1));
    }
}

#[tokio::test(start_paused = true)]
async fn damage_at_two_replicas_is_repaired_from_the_third() {
    let (cluster, _, id) = closed(LogConfig::default()).await;
    cluster.at(1).store.flip(id, 2, true);
    cluster.at(3).store.flip(id, 8, true);
    cluster.scrub().await;
    for node in 1..=3 {
        assert!(cluster.is_whole(node, id).await, "node {node}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_sound_of_a_damaged_replica_is_kept_until_there_is_a_whole_one() {
    let (mut cluster, log, id) = closed(LogConfig::default()).await;
    cluster.at(1).store.flip(id, 2, true);
    cluster.at(2).store.flip(id, 5, true);
    let disk = cluster.kill(3, 0);
    cluster.scrub().await;
    assert_eq!(cluster.repairs().1, 0);
    // Each has what the other lacks.
    assert!(cluster.stored(1, log, 0) == 10 && cluster.stored(2, log, 0) == 10);
    cluster.revive(3, disk).await;
    cluster.scrub().await;
    for node in 1..=3 {
        assert!(cluster.is_whole(node, id).await, "node {node}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_replicas_that_differ_are_told_of_and_left_alone() {
    let cluster = Cluster::mending(2).await;
    cluster.members.values().for_each(|member| member.logs.start_scrubbing());
    let log = cluster.create(1, &[1, 2]);
    for n in 0..10 {
        cluster.append(1, keyed(log, 7, n, &format!("r{n}"))).await.expect("acknowledged");
    }
    rest(1).await;
    cluster.at(1).logs.inner.known(log).expect("a log").begin_roll(&cluster.at(1).logs.inner);
    rest(1).await;
    let id = segment(log, Epoch(0));
    cluster.at(2).store.flip(id, 3, false);
    cluster.scrub().await;
    let (found, repaired) = cluster.repairs();
    assert!(found > 0 && repaired == 0);
    assert!(cluster.is_whole(1, id).await && !cluster.is_whole(2, id).await);
}

#[tokio::test(start_paused = true)]
async fn passes_begin_by_themselves_and_take_their_time() {
    let interval = Duration::from_secs(3_600);
    let config =
        LogConfig { scrub_interval: interval, scrub_bytes_per_second: 10, ..LogConfig::default() };
    let (cluster, _, id) = closed(config).await;
    cluster.at(2).store.flip(id, 4, true);
    let scrubbed = || {
        let counts = cluster.members.values().map(|member| member.logs.metrics());
        counts.map(|all| all.scrubbed_bytes.load(Ordering::Relaxed)).sum::<u64>()
    };
    rest(3_590).await;
    assert_eq!(scrubbed(), 0);
    rest(100).await;
    let bytes = scrubbed();
    assert!(bytes > 0);
    assert!(cluster.is_whole(2, id).await);
    // Ten bytes a second: the first pass ends that much later, and the next is an hour after it.
    let passes = || cluster.at(1).logs.metrics().scrubs.load(Ordering::Relaxed);
    assert!(bytes > 900, "{bytes}");
    assert_eq!(passes(), 0);
    rest(bytes / 10).await;
    assert_eq!(passes(), 1);
}
