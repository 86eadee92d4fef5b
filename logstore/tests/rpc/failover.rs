//! Nodes that refuse, go silent, die and come back, behind a router: order kept, each append answered
//! once, nothing without a key made twice.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use interflow_logstore::{
    AppendError, LogClient, LogId, NodeId, NodeTimes, Router, RouterOptions, Withheld,
};

use super::bed::{Recorder, Told, batch, keyed};
use super::cluster::Cluster;
use super::proxy::Holds;

const SECOND: NodeId = NodeId(2);

/// Appends of a producer, one behind the other without waiting: all are made, in their order.
async fn append_all(router: &Router, log: LogId, sequences: std::ops::Range<i32>) {
    let tickets: Vec<_> =
        sequences.map(|n| router.append(keyed(log, 7, n, &n.to_string()))).collect();
    for ticket in tickets {
        ticket.await.unwrap();
    }
}

fn numbers(count: i32) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

#[tokio::test]
async fn appends_that_a_node_refuses_are_made_where_the_log_is() {
    let cluster = Cluster::new().await;
    let (log, router) = (cluster.log(3).await, cluster.router(RouterOptions::default()));
    append_all(&router, log, 0..10).await;
    cluster.world.give(log, SECOND).await;
    // Without a key as well: a refusal says that nothing was kept.
    let tickets: Vec<_> = (10..20).map(|n| router.append(batch(log, 1, &n.to_string()))).collect();
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(cluster.world.names(log), numbers(20));
    let recoveries = |at: usize| *cluster.members[at].replica.recoveries.borrow();
    assert_eq!([0, 1, 2].map(recoveries), [0, 0, 0]);
    cluster.end(router).await;
}

#[tokio::test]
async fn a_node_that_dies_is_replaced_and_its_appends_are_made_once_in_order() {
    let cluster = Cluster::new().await;
    let router = Arc::new(cluster.router(RouterOptions::default()));
    let mut logs = Vec::new();
    for _ in 0..20 {
        logs.push(cluster.log(3).await);
    }
    for log in &logs {
        append_all(&router, *log, 0..10).await;
    }
    // Answers are lost: what was sent is kept, and nobody knows.
    let first = &cluster.members[0];
    first.proxy.hold(Holds { to_server: false, to_client: true });
    let mut appends = first.replica.appends.subscribe();
    let before = *appends.borrow();
    let lost: Vec<_> = logs.iter().map(|log| router.append(keyed(*log, 7, 10, "10"))).collect();
    let unkeyed = router.append(batch(logs[0], 1, "unkeyed"));
    appends.wait_for(|appends| *appends == before + 21).await.unwrap();
    let began = Instant::now();
    first.proxy.refuse().await;
    for log in &logs {
        append_all(&router, *log, 11..20).await;
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    for ticket in lost {
        assert!(ticket.await.unwrap().duplicate);
    }
    assert_eq!(unkeyed.await, Err(AppendError::Unknown));
    for log in &logs[1..] {
        assert_eq!(cluster.world.names(*log), numbers(20));
    }
    let once = cluster.world.names(logs[0]).into_iter().filter(|name| name == "unkeyed");
    assert_eq!(once.count(), 1);
    let recoveries = *cluster.members[1].replica.recoveries.borrow();
    assert!((20..=30).contains(&recoveries), "{recoveries}");
    let router = Arc::into_inner(router).unwrap();
    cluster.end(router).await;
}

#[tokio::test]
async fn a_silent_node_is_replaced_and_a_replica_that_is_down_is_passed_over() {
    let cluster = Cluster::new().await;
    let (log, router) = (cluster.log(3).await, cluster.router(RouterOptions::default()));
    append_all(&router, log, 0..5).await;
    cluster.members[1].proxy.refuse().await;
    cluster.members[0].replica.silence(true);
    let unkeyed = router.append(batch(log, 1, "5"));
    append_all(&router, log, 6..12).await;
    assert_eq!(*cluster.members[2].replica.recoveries.borrow(), 1);
    assert_eq!(cluster.world.names(log), numbers(12), "it was kept, though it isn't answered");
    cluster.members[0].proxy.cut();
    assert_eq!(unkeyed.await, Err(AppendError::Unknown));
    cluster.end(router).await;
}

#[tokio::test]
async fn a_node_that_takes_connections_and_says_nothing_is_replaced() {
    let cluster = Cluster::new().await;
    let (log, router) = (cluster.log(3).await, cluster.router(RouterOptions::default()));
    append_all(&router, log, 0..5).await;
    cluster.members[0].proxy.hold(Holds { to_server: true, to_client: true });
    cluster.members[0].proxy.cut();
    let began = Instant::now();
    append_all(&router, log, 5..10).await;
    // No longer than a welcome is waited for, and a little.
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(cluster.world.names(log), numbers(10));
    // Calls go there as well.
    assert_eq!(router.bounds(log).await.unwrap().committed, 10);
    cluster.end(router).await;
}

#[tokio::test]
async fn a_log_with_one_replica_waits_for_its_node_and_no_longer_than_an_append_may() {
    let mut cluster = Cluster::new().await;
    let append_timeout = Duration::from_secs(4);
    let router = cluster.router(RouterOptions { append_timeout, ..RouterOptions::default() });
    let log = cluster.log(1).await;
    append_all(&router, log, 0..2).await;
    cluster.members[0].proxy.refuse().await;
    let waiting: Vec<_> = (2..4).map(|n| router.append(keyed(log, 7, n, &n.to_string()))).collect();
    cluster.members[0].proxy.listen().await;
    for ticket in waiting {
        ticket.await.unwrap();
    }
    assert_eq!(cluster.world.names(log), numbers(4));
    // Never sent, it is unavailable; the node may have what was.
    cluster.members[0].replica.silence(true);
    let sent = router.append(keyed(log, 7, 4, "4"));
    let mut appends = cluster.members[0].replica.appends.subscribe();
    appends.wait_for(|appends| *appends >= 5).await.unwrap();
    cluster.members[0].proxy.refuse().await;
    let unsent = router.append(keyed(log, 7, 5, "5"));
    let began = Instant::now();
    assert_eq!(sent.await, Err(AppendError::Unknown));
    assert!(matches!(unsent.await, Err(AppendError::Unavailable(_))));
    assert!(began.elapsed() < append_timeout + Duration::from_secs(1));
    cluster.end(router).await;
}

#[tokio::test]
async fn observations_follow_their_log_when_it_moves_and_when_its_node_dies() {
    let cluster = Cluster::new().await;
    let (log, router) = (cluster.log(3).await, cluster.router(RouterOptions::default()));
    let recorder = Arc::new(Recorder::default());
    let _observation = router.observe(log, recorder.clone()).await.unwrap();
    append_all(&router, log, 0..3).await;
    recorder.committed(3).await;
    cluster.world.give(log, SECOND).await;
    cluster.members[0].replica.tell_moved(log);
    append_all(&router, log, 3..6).await;
    recorder.committed(6).await;
    // Nobody appends now: the observation itself finds out.
    cluster.members[1].proxy.refuse().await;
    let mut recoveries = cluster.members[0].replica.recoveries.subscribe();
    recoveries.wait_for(|recoveries| *recoveries > 0).await.unwrap();
    append_all(&router, log, 6..9).await;
    let told = recorder.committed(9).await;
    let mut committed = Vec::new();
    for told in &told {
        match told {
            Told::Advanced(_, offset) => committed.push(*offset),
            Told::Withheld(Withheld::Below(offset)) => {
                assert!([3, 4, 5, 6, 7, 8, 9].contains(offset))
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(committed.is_sorted(), "{committed:?}");
    let moves = told.iter().filter(|told| matches!(told, Told::Withheld(_))).count();
    assert_eq!(moves, 2, "{told:?}");
    // Only with the log does it end.
    cluster.delete(log).await;
    cluster.members[0].replica.tell_moved(log);
    recorder.until(|told| *told == Told::Ended).await;
    cluster.end(router).await;
}

/// Connections end anywhere while logs move and are recovered: each append with a key is made once, in
/// the order of the calls of its producer.
#[tokio::test]
async fn wherever_connections_end_and_logs_go_each_keyed_append_is_made_once_and_in_order() {
    for seed in 0..3 {
        let cluster = Cluster::new().await;
        let router = Arc::new(cluster.router(RouterOptions::default()));
        let logs = [cluster.log(3).await, cluster.log(3).await];
        for (n, member) in (0_u64..).zip(&cluster.members) {
            member.proxy.cut_at_random(Some(seed * 10 + n));
        }
        let producers = logs.iter().flat_map(|log| (0..2).map(|producer| (*log, producer)));
        let producers: Vec<_> = producers
            .map(|(log, producer)| {
                let router = router.clone();
                tokio::spawn(async move {
                    for from in (0..100).step_by(5) {
                        let append = |n: i32| keyed(log, producer, n, &format!("{producer}-{n}"));
                        let five: Vec<_> =
                            (from..from + 5).map(|n| router.append(append(n))).collect();
                        for ticket in five {
                            ticket.await.unwrap();
                        }
                    }
                })
            })
            .collect();
        // Each log goes round while there is something to do.
        let mut arrivals = cluster.world.arrivals.subscribe();
        for n in 0..9_u32 {
            let many = (n as usize + 1) * 20;
            arrivals.wait_for(|arrivals| *arrivals >= many).await.unwrap();
            for log in logs {
                cluster.world.give(log, NodeId(n % 3 + 1)).await;
            }
        }
        for producer in producers {
            producer.await.unwrap();
        }
        for log in logs {
            let all = cluster.world.names(log);
            for producer in 0..2 {
                let prefix = format!("{producer}-");
                let own: Vec<_> =
                    all.iter().filter_map(|name| name.strip_prefix(&prefix)).collect();
                assert_eq!(own, numbers(100), "seed {seed}");
            }
        }
        assert!(cluster.members.iter().map(|member| member.proxy.cuts()).sum::<u64>() > 0);
        cluster.end(Arc::into_inner(router).unwrap()).await;
    }
}

/// Those that wait for the same node at the same moment go together.
#[tokio::test]
async fn the_logs_of_a_dead_node_are_recovered_with_few_calls() {
    const LOGS: usize = 1_000;
    let cluster = Cluster::new().await;
    let times = NodeTimes { recover: Duration::from_secs(60), ..NodeTimes::default() };
    let router = cluster.router_with(RouterOptions::default(), times);
    let mut logs = Vec::new();
    for _ in 0..LOGS {
        logs.push(cluster.log(3).await);
    }
    let append = |n: i32| {
        let name = n.to_string();
        join_all(logs.iter().map(|log| router.append(keyed(*log, 7, n, &name))).collect::<Vec<_>>())
    };
    assert!(append(0).await.iter().all(Result::is_ok));
    cluster.members[0].proxy.refuse().await;
    assert!(append(1).await.iter().all(Result::is_ok));
    for log in &logs {
        assert_eq!(cluster.world.names(*log), numbers(2));
    }
    let second = &cluster.members[1].replica;
    assert_eq!(*second.recoveries.borrow(), LOGS);
    let calls = second.recovering_calls();
    assert!((1..=LOGS / 25).contains(&calls), "{calls} calls");
    cluster.end(router).await;
}
