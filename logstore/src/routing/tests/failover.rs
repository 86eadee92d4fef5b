//! Nodes that are down or silent.

use super::*;
use crate::NodeClient;

#[tokio::test(start_paused = true)]
async fn appends_of_a_node_that_is_down_are_made_at_the_next_in_their_order() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    router.append(append(LOG, "a")).await.unwrap();
    directory.nodes[0].set(Mode::Down);
    directory.fails_over_to(1);
    let tickets =
        [append(LOG, "b"), keyed(LOG, 1, "c"), append(LOG, "d")].map(|it| router.append(it));
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(directory.nodes[1].taken(), ["b", "c", "d"]);
    assert_eq!(directory.failovers(LOG), 1, "one for all of its appends");
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_keeps_its_appends_until_the_head_has_moved() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    directory.nodes[0].set(Mode::Silent);
    let first = router.append(keyed(LOG, 1, "a"));
    let mut unkeyed = router.append(append(LOG, "b"));
    let last = router.append(keyed(LOG, 2, "c"));
    directory.nodes[0].was_sent(3).await;
    // Nobody can go on with the log.
    directory.nodes[0].doubt(LOG, Doubt::Silent);
    router.inner.routes.settled(LOG).await;
    assert!(directory.nodes[0].has_unanswered(LOG) && directory.nodes[1].taken().is_empty());
    assert_eq!(directory.failovers(LOG), 1);
    directory.fails_over_to(1);
    directory.nodes[0].doubt(LOG, Doubt::Silent);
    first.await.unwrap();
    last.await.unwrap();
    assert_eq!(directory.nodes[1].taken(), ["a", "c"], "what has no key may have been kept");
    assert!((&mut unkeyed).now_or_never().is_none());
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn without_another_replica_appends_wait_for_their_node() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    directory.nodes[0].set(Mode::Down);
    let waiting = router.append(append(LOG, "a"));
    directory.nodes[0].was_sent(1).await;
    let behind = router.append(append(LOG, "b"));
    directory.nodes[0].set(Mode::Serves);
    waiting.await.unwrap();
    behind.await.unwrap();
    assert_eq!(directory.nodes[0].taken(), ["a", "b"]);
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_goes_on_where_the_log_went_on() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    router.bounds(LOG).await.unwrap();
    directory.nodes[0].set(Mode::Down);
    directory.fails_over_to(1);
    let began = Instant::now();
    directory.nodes[0].doubt(LOG, Doubt::Unreachable);
    router.trim(LOG, 1).await.unwrap();
    assert!(began.elapsed() < Duration::from_millis(100));
    assert_eq!(directory.failovers(LOG), 1);
    assert_eq!(directory.nodes[0].calls.load(Ordering::Relaxed), 1, "it waited for the new route");
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_burst_is_failed_over_a_few_at_a_time_and_each_log_once() {
    let logs: Vec<LogId> = (0..1_000).map(LogId).collect();
    let at: Vec<_> = logs.iter().map(|log| (*log, 0)).collect();
    let directory = FakeDirectory::new(&at);
    let options = RouterOptions { max_failovers: 64, ..RouterOptions::default() };
    let router = Router::new(directory.clone(), options);
    for log in &logs {
        router.append(append(*log, "a")).await.unwrap();
    }
    directory.may_end.forget_permits(usize::MAX);
    directory.fails_over_to(1);
    directory.nodes[0].set(Mode::Down);
    let tickets: Vec<_> = logs
        .iter()
        .flat_map(|log| [append(*log, "b"), append(*log, "c")])
        .map(|append| router.append(append))
        .collect();
    // All that may run do.
    while directory.running.load(Ordering::Relaxed) < 64 {
        tokio::task::yield_now().await;
    }
    directory.may_end.add_permits(1_000_000);
    for ticket in tickets {
        ticket.await.unwrap();
    }
    assert_eq!(directory.most_running.load(Ordering::Relaxed), 64);
    assert!(logs.iter().all(|log| directory.failovers(*log) == 1));
    assert_eq!(directory.nodes[1].taken().len(), 2_000);
    router.close().await;
}
