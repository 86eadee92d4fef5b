//! The remote store does what FoundationDB does, with an embedded store behind its server.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod conformance;

use std::sync::Arc;

use conformance::{Provided, conformance_tests};
use interflow_meta::{EmbeddedStore, Env, RemoteOptions, RemoteStore, ServeOptions, serve};
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
