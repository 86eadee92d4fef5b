//! Descriptions of many logs.

use super::*;

const PATIENCE: Duration = Duration::from_secs(3);

fn logs(count: u64) -> Vec<LogId> {
    (1..=count).map(LogId).collect()
}

fn spread(logs: &[LogId]) -> Arc<FakeDirectory> {
    let at: Vec<_> = logs.iter().enumerate().map(|(n, log)| (*log, n % 2)).collect();
    FakeDirectory::new(&at)
}

#[tokio::test(start_paused = true)]
async fn each_node_is_asked_once_for_all_of_its_logs() {
    let mut logs = logs(1_000);
    let directory = spread(&logs);
    let router = router(&directory);
    logs.push(LogId(5_000));
    let described = router.describe_many(&logs, PATIENCE).await;
    assert_eq!(described.len(), logs.len());
    for (described, log) in described[..1_000].iter().zip(&logs) {
        assert_eq!(described.as_ref().unwrap().producers as u64, log.0, "in their order");
    }
    assert_eq!(described[1_000].as_ref().unwrap_err(), &LogError::NoSuchLog);
    for node in &directory.nodes {
        assert_eq!(node.calls.load(Ordering::Relaxed), 1);
    }
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn logs_that_moved_are_asked_for_where_they_are() {
    let logs = logs(100);
    let directory = spread(&logs);
    let router = router(&directory);
    assert!(router.describe_many(&logs, PATIENCE).await.iter().all(Result::is_ok));
    directory.nodes[0].set(Mode::Elsewhere);
    for log in &logs {
        directory.put(*log, Ok(1));
    }
    assert!(router.describe_many(&logs, PATIENCE).await.iter().all(Result::is_ok));
    assert_eq!(directory.nodes[0].calls.load(Ordering::Relaxed), 2);
    assert_eq!(directory.nodes[1].calls.load(Ordering::Relaxed), 3);
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_says_nothing_does_not_keep_others_from_being_told_of() {
    let logs = logs(100);
    let directory = spread(&logs);
    let router = router(&directory);
    for mode in [Mode::Silent, Mode::Down] {
        directory.nodes[0].set(mode);
        let began = Instant::now();
        let described = router.describe_many(&logs, PATIENCE).await;
        assert!(began.elapsed() <= PATIENCE);
        for (n, described) in described.iter().enumerate() {
            let is_unknown = matches!(described, Err(LogError::Unavailable(_)));
            assert_eq!((described.is_ok(), is_unknown), (n % 2 == 1, n % 2 == 0));
        }
    }
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn meta_says_where_a_log_is_kept_whose_node_is_down_and_nothing_is_failed_over() {
    let log = LogId(1);
    let directory = FakeDirectory::new(&[(log, 0)]);
    directory.fails_over_to(1);
    let router = router(&directory);
    // A node's own word, where it has one: this one names no replicas.
    let told = router.replicas(log).await.unwrap();
    assert_eq!((told.leader_epoch, told.replicas.len()), (0, 0));
    directory.nodes[0].set(Mode::Down);
    let told = router.replicas(log).await.unwrap();
    let in_sync: Vec<_> = told.replicas.iter().map(|at| (at.node.0, at.is_in_sync)).collect();
    assert_eq!((told.leader_epoch, in_sync), (7, vec![(1, false), (2, true)]));
    assert_eq!(directory.failovers(log), 0);
    assert_eq!(router.replicas(LogId(9)).await.unwrap_err(), LogError::NoSuchLog);
    // Whoever appends finds out.
    assert!(router.append(append(log, "a")).await.is_ok());
    assert_eq!(directory.failovers(log), 1);
    router.close().await;
}
