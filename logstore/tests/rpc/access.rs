//! Who is let in.

use std::time::Duration;

use interflow_logstore::{
    AppendError, LogClient, LogServerOptions, NodeId, ReadError, RemoteLogs, RemoteLogsOptions,
    serve_logs,
};
use interflow_meta::{ServeError, ServeOptions, Token};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::bed::{Node, Served, batch, options, read};

fn with_token(text: &str) -> LogServerOptions {
    let token = Some(Token::new(text).unwrap());
    let access = ServeOptions { token, tls: None };
    LogServerOptions { access, ..LogServerOptions::default() }
}

fn open(port: u16, token: Option<&str>) -> RemoteLogs {
    let mut options = RemoteLogsOptions { patience: Duration::ZERO, ..options(port) };
    options.remote.token = token.map(|text| Token::new(text).unwrap());
    RemoteLogs::open(options).unwrap()
}

#[tokio::test]
async fn only_who_knows_the_token_is_served() {
    let node = Node::new().await;
    let log = node.log().await;
    let served = Served::new(&node.logs, with_token("the-right-token-1")).await;
    let port = served.address.port();
    for (token, told) in [(Some("the-wrong-token-1"), "wrong"), (None, "needed")] {
        let logs = open(port, token);
        let refused = logs.append(batch(log, 1, "a")).await;
        assert!(matches!(&refused, Err(AppendError::Unavailable(why)) if why.contains(told)));
        let refused = logs.read(read(log, 0)).await;
        assert!(matches!(&refused, Err(ReadError::Unavailable(why)) if why.contains(told)));
        logs.close().await;
    }
    let logs = open(port, Some("the-right-token-1"));
    logs.append(batch(log, 1, "a")).await.unwrap();
    logs.close().await;
    served.stop().await;
    node.logs.shutdown().await;
}

#[tokio::test]
async fn another_node_than_the_one_meant_takes_nothing() {
    let node = Node::new().await;
    let log = node.log().await;
    let served = Served::new(&node.logs, LogServerOptions::default()).await;
    let meant = RemoteLogsOptions { node: Some(NodeId(2)), ..options(served.address.port()) };
    let logs = RemoteLogs::open(meant).unwrap();
    let refused = logs.append(batch(log, 1, "a")).await;
    assert!(matches!(&refused, Err(AppendError::Unavailable(why)) if why.contains("not node 2")));
    assert_eq!(node.logs.bounds(log).await.unwrap().committed, 0);
    logs.close().await;
    served.stop().await;
    node.logs.shutdown().await;
}

#[tokio::test]
async fn beyond_loopback_nothing_is_served_to_anybody() {
    let node = Node::new().await;
    let listen = || async { TcpListener::bind("0.0.0.0:0").await.unwrap() };
    let closing = CancellationToken::new();
    let open = LogServerOptions::default();
    let refused = serve_logs(listen().await, &node.logs, open, closing.clone()).await;
    assert!(matches!(refused, Err(ServeError::OpenToAnybody(_))));
    closing.cancel();
    let guarded = with_token("the-right-token-1");
    serve_logs(listen().await, &node.logs, guarded, closing).await.unwrap();
    node.logs.shutdown().await;
}
