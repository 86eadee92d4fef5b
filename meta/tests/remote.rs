//! The remote store does what FoundationDB does, with an embedded store behind its server.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod conformance;

use std::sync::Arc;

use conformance::{Provided, conformance_tests};
use futures_util::future::join_all;
use interflow_meta::{
    Commit, EmbeddedStore, Env, Mutation, RemoteOptions, RemoteStore, ServeOptions, serve,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

async fn open(env: Env) -> Provided {
    let store = EmbeddedStore::in_memory(env.clone()).expect("a store in memory");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    let closing = CancellationToken::new();
    let options = ServeOptions::default();
    tokio::spawn(serve(listener, Arc::new(store), env, options, closing.clone()));
    let store = RemoteStore::connect(RemoteOptions::new("127.0.0.1", port)).await;
    Provided {
        store: Arc::new(store.expect("a server that answers")),
        is_shared: false,
        has_real_clock: false,
        guard: Box::new(closing.drop_guard()),
    }
}

conformance_tests!(open);

/// Sixty values of 90 KB are asked for together, which is more than an answer holds.
#[tokio::test]
async fn what_does_not_fit_in_one_answer_comes_with_the_next() {
    let Provided { store, guard, .. } = open(Env::default()).await;
    let key = |n: usize| format!("k{n:02}");
    let value = |n: usize| vec![u8::try_from(n).expect("a small number"); 90_000];
    for n in 0..60 {
        let mutations = vec![Mutation::Set(key(n).into(), value(n).into())];
        let commit = Commit { mutations, ..Commit::default() };
        store.snapshot().await.expect("a snapshot").commit(commit).await.expect("committed");
    }
    let snapshot = store.snapshot().await.expect("a snapshot");
    let asked = (0..61).map(|n| {
        let snapshot = Arc::clone(&snapshot);
        async move { snapshot.get(key(n).as_bytes()).await }
    });
    for (n, found) in join_all(asked).await.into_iter().enumerate() {
        let found = found.expect("an answer");
        assert_eq!(found.as_deref(), (n < 60).then(|| value(n)).as_deref(), "{n}");
    }
    store.close().await;
    drop(guard);
}
