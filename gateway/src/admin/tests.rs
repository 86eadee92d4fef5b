//! Clients of the admin port that don't play along. The clock is paused.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::serve::{AdminHandler, HEAD_TIMEOUT, REQUEST_TIMEOUT};
use crate::net::{Handler, Peer, Stream, Transport};

/// A client's end, the task that serves it, and what tells that to stop.
fn connect() -> (DuplexStream, JoinHandle<()>, CancellationToken) {
    let (client, server) = tokio::io::duplex(1 << 10);
    let routes = Router::new().route("/echo", post(|body: String| async move { body }));
    let handler = Arc::new(AdminHandler::over(routes));
    let peer = Peer {
        address: "127.0.0.1:1".parse().unwrap(),
        listener: "admin".into(),
        transport: Transport::Tcp,
    };
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let serving =
        tokio::spawn(async move { handler.connection(Stream::Pipe(server), peer, stop).await });
    (client, serving, shutdown)
}

async fn answer(client: &mut DuplexStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_let_go() {
    let (mut client, serving, _shutdown) = connect();
    let began = Instant::now();
    answer(&mut client).await;
    assert_eq!(began.elapsed().as_secs(), HEAD_TIMEOUT.as_secs());
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_head_that_comes_a_byte_at_a_time_is_given_up() {
    let (mut client, serving, _shutdown) = connect();
    let began = Instant::now();
    for byte in b"POST /echo HTTP/1.1\r\nHost: ".iter().chain([b'x'; 1000].iter()) {
        if client.write_all(&[*byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    serving.await.unwrap();
    assert!(began.elapsed() <= HEAD_TIMEOUT + Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_answered_408() {
    let (mut client, serving, _shutdown) = connect();
    let began = Instant::now();
    client
        .write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
        .await
        .unwrap();
    assert!(answer(&mut client).await.starts_with("HTTP/1.1 408 "));
    assert_eq!(began.elapsed().as_secs(), REQUEST_TIMEOUT.as_secs());
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_head_that_is_too_large_is_answered_431() {
    let (mut client, serving, _shutdown) = connect();
    // The server may close before it has read all.
    let sent = format!("GET /{} HTTP/1.1\r\n", "x".repeat(64 << 10));
    let _ = client.write_all(sent.as_bytes()).await;
    assert!(answer(&mut client).await.starts_with("HTTP/1.1 431 "));
    serving.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn shutdown_answers_what_is_there_and_ends_idle_connections() {
    let (mut client, serving, shutdown) = connect();
    client
        .write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
        .await
        .unwrap();
    let mut first = [0; 15];
    client.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    let began = Instant::now();
    shutdown.cancel();
    assert!(answer(&mut client).await.ends_with("hello"));
    serving.await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO);
}
