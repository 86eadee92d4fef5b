//! What a server that doesn't answer holds, and what it doesn't hold up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interflow_logstore::{
    Append, AppendError, LogClient, LogId, LogServerOptions, RemoteLogs, RemoteLogsOptions,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::bed::{batch, options};
use super::fake::Holding;

const HELD: LogId = LogId(1);
const FREE: LogId = LogId(2);
const BYTES: usize = 1_000;
const WINDOW: usize = 16 << 10;

/// A server over a log service that holds, and its end.
async fn serve(holding: &Arc<Holding>) -> (u16, CancellationToken) {
    holding.serve(LogServerOptions { window_bytes: WINDOW, ..LogServerOptions::default() }).await
}

fn append(log: LogId) -> Append {
    Append { batch: Bytes::from(vec![0; BYTES]), ..batch(log, 1, "") }
}

#[tokio::test]
async fn a_server_that_does_not_answer_holds_no_more_than_its_window() {
    let holding = Holding::new(HELD);
    let (port, closing) = serve(&holding).await;
    let logs = RemoteLogs::open(options(port)).unwrap();
    let tickets: Vec<_> = (0..100).map(|_| logs.append(append(HELD))).collect();
    // One log takes half of the window.
    let share = WINDOW / 2 / (BYTES + 128);
    let mut held = holding.bytes.subscribe();
    for _ in 0..100 {
        let bytes = *held.wait_for(|held| *held > 0).await.unwrap();
        assert!(bytes <= share * BYTES, "{bytes} bytes are held");
        assert!(holding.answer(BYTES));
    }
    for ticket in tickets {
        ticket.await.unwrap();
    }
    closing.cancel();
}

#[tokio::test]
async fn a_log_that_stands_still_holds_no_other_up() {
    let holding = Holding::new(HELD);
    let (port, closing) = serve(&holding).await;
    let logs = RemoteLogs::open(options(port)).unwrap();
    let mut stuck: Vec<_> = (0..100).map(|_| logs.append(append(HELD))).collect();
    let share = WINDOW / 2 / (BYTES + 128);
    holding.bytes.subscribe().wait_for(|held| *held == share * BYTES).await.unwrap();
    for _ in 0..200 {
        logs.append(append(FREE)).await.unwrap();
    }
    assert_eq!(*holding.bytes.borrow(), share * BYTES);
    // When the client ends, what was sent is unknown, and what wasn't was never taken.
    logs.close().await;
    let rest = stuck.split_off(share);
    for ticket in stuck {
        assert_eq!(ticket.await, Err(AppendError::Unknown));
    }
    for ticket in rest {
        assert!(matches!(ticket.await, Err(AppendError::Unavailable(_))));
    }
    assert!(matches!(logs.append(append(FREE)).await, Err(AppendError::Stopped(_))));
    closing.cancel();
}

#[tokio::test]
async fn what_waits_in_the_client_is_bounded() {
    // Nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let options = RemoteLogsOptions {
        max_queued_bytes: 3 * (BYTES + 128),
        append_timeout: Duration::from_millis(50),
        ..options(port)
    };
    let logs = RemoteLogs::open(options).unwrap();
    let mut tickets: Vec<_> = (0..3).map(|_| logs.append(append(HELD))).collect();
    assert_eq!(logs.append(append(FREE)).await, Err(AppendError::Busy));
    for ticket in tickets.drain(..) {
        assert!(matches!(ticket.await, Err(AppendError::Unavailable(_))));
    }
    // There is room again.
    assert!(matches!(logs.append(append(FREE)).await, Err(AppendError::Unavailable(_))));
    logs.close().await;
}
