//! Reads over one stream: what one that stands still holds, and what it doesn't hold up.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use interflow_logstore::{
    LogClient, LogId, LogServerOptions, Read, ReadError, RemoteLogs, RemoteLogsOptions,
};
use parking_lot::Mutex;

use super::bed::{options, read};
use super::fake::Holding;

const HELD: LogId = LogId(1);
const FREE: LogId = LogId(2);

/// A client of a log service that holds.
async fn client(
    change: impl FnOnce(RemoteLogsOptions) -> RemoteLogsOptions,
) -> (Arc<Holding>, Arc<RemoteLogs>, tokio_util::sync::DropGuard) {
    let holding = Holding::new(HELD);
    let (port, closing) = holding.serve(LogServerOptions::default()).await;
    let logs = RemoteLogs::open(change(options(port))).unwrap();
    (holding, Arc::new(logs), closing.drop_guard())
}

#[tokio::test]
async fn logs_do_not_wait_for_one_another() {
    let (holding, logs, _closing) = client(|options| options).await;
    let held = tokio::spawn({
        let logs = logs.clone();
        async move {
            let read = || Read { max_bytes: 10, ..read(HELD, 10) };
            join_all((0..100).map(|_| logs.read(read()))).await
        }
    });
    holding.reads(100, 0).await;
    for n in 0..100 {
        let outcome = logs.read(read(FREE, n)).await.unwrap();
        assert_eq!(outcome.batches[0].bytes.len() as u64, n);
    }
    holding.reads_allowed.add_permits(100);
    for outcome in held.await.unwrap() {
        assert_eq!(outcome.unwrap().batches[0].bytes.len(), 10);
    }
}

/// Reads whose callers don't look at them hold what they have and keep the rest of their log
/// waiting, not others.
#[tokio::test]
async fn a_reader_that_takes_nothing_holds_only_its_share() {
    const WINDOW: usize = 1 << 20;
    const BYTES: usize = 100_000;
    let (holding, logs, _closing) =
        client(|options| RemoteLogsOptions { read_window_bytes: WINDOW, ..options }).await;
    let read = |log| Read { max_bytes: BYTES, ..read(log, BYTES as u64) };
    let mut stuck: Vec<_> = (0..100).map(|_| Box::pin(logs.read(read(FREE)))).collect();
    for reading in &mut stuck {
        assert!(reading.now_or_never().is_none());
    }
    let other = LogId(3);
    for _ in 0..50 {
        assert_eq!(logs.read(read(other)).await.unwrap().bytes(), BYTES);
    }
    let begun = holding.reads.borrow().begun;
    // A last one with a smaller credit is read, and waits to be granted what it needs.
    assert!(begun <= 50 + WINDOW / 2 / BYTES + 2, "{begun} were read");
    for outcome in join_all(stuck).await {
        assert_eq!(outcome.unwrap().bytes(), BYTES);
    }
}

#[tokio::test]
async fn a_read_that_its_caller_leaves_is_dropped_by_the_server() {
    let (holding, logs, _closing) = client(|options| options).await;
    let mut reading = Box::pin(logs.read(read(HELD, 10)));
    tokio::select! {
        _ = &mut reading => panic!("it is held"),
        () = holding.reads(1, 0) => {}
    }
    drop(reading);
    holding.reads(1, 1).await;
}

#[tokio::test]
async fn a_read_that_is_late_is_unavailable_and_tells_of_a_doubt() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = {
        let told = told.clone();
        interflow_logstore::Doubts::new(move |_, log, doubt| told.lock().push((log, doubt)))
    };
    let (holding, logs, _closing) = client(|options| RemoteLogsOptions {
        call_timeout: Duration::from_millis(50),
        doubts: tell,
        ..options
    })
    .await;
    assert!(matches!(logs.read(read(HELD, 10)).await, Err(ReadError::Unavailable(_))));
    assert_eq!(*told.lock(), [(HELD, interflow_logstore::Doubt::Unreachable)]);
    let is_over = |reads: &super::fake::Reads| reads.begun == reads.over;
    holding.reads.subscribe().wait_for(is_over).await.unwrap();
}

#[tokio::test]
async fn a_batch_larger_than_what_was_granted_comes_anyway() {
    let (holding, logs, _closing) = client(|options| options).await;
    let bytes = 3 << 20;
    let outcome = logs.read(Read { max_bytes: 1, ..read(FREE, bytes) }).await.unwrap();
    assert_eq!(outcome.bytes() as u64, bytes);
    // It was read once to learn of that.
    holding.reads(2, 2).await;
    let too_large = logs.read(read(FREE, (16 << 20) + 1)).await;
    assert!(matches!(&too_large, Err(ReadError::Io(why)) if why.contains("too large")));
}

#[tokio::test]
async fn a_client_that_is_closed_answers() {
    let (holding, logs, _closing) = client(|options| options).await;
    let held = tokio::spawn({
        let logs = logs.clone();
        async move { logs.read(read(HELD, 10)).await }
    });
    holding.reads(1, 0).await;
    logs.close().await;
    assert!(matches!(held.await.unwrap(), Err(ReadError::Unavailable(_))));
    assert!(matches!(logs.read(read(FREE, 10)).await, Err(ReadError::Unavailable(_))));
}
