//! A remote store whose connection is cut, whose server restarts, or that isn't let in: a commit is
//! made once, refused cleanly or unknown, and no answer is ever wrong.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and takes real clocks"
)]

mod access;
mod cuts;
mod proxy;
mod watches;

use std::net::SocketAddr;
use std::sync::Arc;

use interflow_meta::{
    EmbeddedStore, Env, Meta, RemoteOptions, RemoteStore, ServeOptions, Store, serve,
};
use proxy::Proxy;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A served store.
struct Served {
    address: SocketAddr,
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl Served {
    async fn new(store: Arc<dyn Store>, options: ServeOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let closing = CancellationToken::new();
        let ended = closing.clone();
        let serving = tokio::spawn(async move {
            serve(listener, store, Env::default(), options, ended).await.unwrap();
        });
        Self { address, closing, serving }
    }

    /// Ends the server as a restart does.
    async fn stop(self) {
        self.closing.cancel();
        self.serving.await.unwrap();
    }
}

/// A store, seen directly and through server and proxy.
struct World {
    inner: Arc<dyn Store>,
    direct: Meta,
    store: Arc<RemoteStore>,
    remote: Meta,
    proxy: Proxy,
    server: Served,
}

impl World {
    async fn new() -> Self {
        let env = Env::default();
        let inner: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap());
        let server = Served::new(Arc::clone(&inner), ServeOptions::default()).await;
        let proxy = Proxy::to(server.address).await;
        let options = RemoteOptions::new("127.0.0.1", proxy.port);
        let store = Arc::new(RemoteStore::connect(options).await.unwrap());
        Self {
            direct: Meta::new(Arc::clone(&inner), env.clone(), "test"),
            remote: Meta::new(Arc::clone(&store) as Arc<dyn Store>, env, "test"),
            store,
            inner,
            proxy,
            server,
        }
    }

    async fn value(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.direct.begin().get(key).await.unwrap().map(|value| value.to_vec())
    }
}
