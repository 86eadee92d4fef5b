//! A TCP proxy that holds and cuts what passes, as told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What the proxy does with bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holds {
    /// Bytes to the server stay here.
    pub(crate) to_server: bool,
    /// Bytes to the client stay here.
    pub(crate) to_client: bool,
}

struct Shared {
    server: watch::Sender<SocketAddr>,
    holds: watch::Sender<Holds>,
    /// Bytes that arrived and were not passed on.
    held: watch::Sender<usize>,
    cuts: AtomicU64,
    connections: Mutex<CancellationToken>,
    /// Cuts a connection after so many bytes, drawn anew for each.
    budget: Mutex<Option<StdRng>>,
}

/// Between a client and a server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
    listening: CancellationToken,
}

impl Proxy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            server: watch::Sender::new(server),
            holds: watch::Sender::default(),
            held: watch::Sender::default(),
            cuts: AtomicU64::new(0),
            connections: Mutex::default(),
            budget: Mutex::default(),
        });
        let mut proxy = Self { port: 0, shared, listening: CancellationToken::new() };
        proxy.listen().await;
        proxy
    }

    /// Takes connections, again at the same port after [`refuse`](Self::refuse).
    pub(crate) async fn listen(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.unwrap();
        self.port = listener.local_addr().unwrap().port();
        self.listening = CancellationToken::new();
        let (listening, shared) = (self.listening.clone(), Arc::clone(&self.shared));
        tokio::spawn(listening.run_until_cancelled_owned(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&shared).connection(client));
            }
        }));
    }

    /// Cuts all connections and takes no new ones.
    pub(crate) async fn refuse(&self) {
        self.listening.cancel();
        self.cut();
        // Until the listener is gone.
        while TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    /// Cuts all connections.
    pub(crate) fn cut(&self) {
        self.shared.cuts.fetch_add(1, Ordering::Relaxed);
        std::mem::take(&mut *self.shared.connections.lock()).cancel();
    }

    /// From now on, and for what is held as well.
    pub(crate) fn hold(&self, holds: Holds) {
        self.shared.held.send_replace(0);
        self.shared.holds.send_replace(holds);
    }

    /// Waits until something is held.
    pub(crate) async fn something_held(&self) {
        self.shared.held.subscribe().wait_for(|held| *held > 0).await.unwrap();
    }

    /// New connections go to another server.
    pub(crate) fn redirect(&self, server: SocketAddr) {
        self.shared.server.send_replace(server);
    }

    /// Connections end after a few thousand bytes, wherever that is.
    pub(crate) fn cut_at_random(&self, seed: Option<u64>) {
        *self.shared.budget.lock() = seed.map(StdRng::seed_from_u64);
    }

    pub(crate) fn cuts(&self) -> u64 {
        self.shared.cuts.load(Ordering::Relaxed)
    }
}

impl Shared {
    async fn connection(self: Arc<Self>, client: TcpStream) {
        let life = self.connections.lock().child_token();
        let server = *self.server.borrow();
        let Ok(server) = TcpStream::connect(server).await else { return };
        let budget = self.budget.lock().as_mut().map(|random| random.random_range(500..6_000));
        let budget = Arc::new(Mutex::new(budget));
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        let up = self.pass(client_read, server_write, |holds| holds.to_server, &budget);
        let down = self.pass(server_read, client_write, |holds| holds.to_client, &budget);
        tokio::select! {
            () = life.cancelled() => {}
            () = up => {}
            () = down => {}
        }
    }

    async fn pass(
        &self,
        mut from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        is_held: fn(&Holds) -> bool,
        budget: &Mutex<Option<usize>>,
    ) {
        let mut bytes = vec![0; 16 << 10];
        let mut holds = self.holds.subscribe();
        while let Ok(mut count @ 1..) = from.read(&mut bytes).await {
            if is_held(&holds.borrow()) {
                self.held.send_modify(|held| *held += count);
            }
            if holds.wait_for(|holds| !is_held(holds)).await.is_err() {
                return;
            }
            let mut ends = false;
            if let Some(left) = &mut *budget.lock() {
                ends = *left <= count;
                count = count.min(*left);
                *left -= count;
            }
            if to.write_all(&bytes[..count]).await.is_err() {
                return;
            }
            if ends {
                self.cuts.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }
}
