//! Accepts connections, hands them to a handler, and joins them at shutdown.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::bind::{self, bind_all};
use super::limits::{Place, Places};
use super::{
    BindError, ListenerSpec, Peer, Stream, Transport, TransportSpec, quic, tls, websocket,
};

/// A peer that doesn't finish its TLS or WebSocket handshake by then is gone.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for file descriptors when there are none left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A warning that repeats is logged this often.
const WARN_EVERY: Duration = Duration::from_secs(10);

/// Serves the connections of a listener.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Serves one connection to its end. Once `shutdown` is cancelled it says good-bye and
    /// returns; when the listener's grace is over it is dropped wherever it waits.
    async fn connection(&self, stream: Stream, peer: Peer, shutdown: CancellationToken);
}

/// A listener whose ports are taken, and that nobody serves yet: connections wait.
#[derive(Debug)]
pub struct Bound {
    shared: Arc<Shared>,
    sockets: Sockets,
}

#[derive(Debug)]
enum Sockets {
    Tcp(Vec<(TcpListener, SocketAddr)>),
    Quic(Vec<(quinn::Endpoint, SocketAddr)>),
}

/// What the accept loops of one listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) name: Arc<str>,
    pub(crate) transport: TransportSpec,
    places: Arc<Places>,
}

impl Bound {
    /// Takes the ports of `spec`. Must be called within a runtime. IPv6 addresses that the
    /// machine doesn't have are left out with a log line, as long as another address remains.
    ///
    /// # Errors
    /// See [`BindError`]; no port is kept.
    pub fn bind(spec: ListenerSpec) -> Result<Self, BindError> {
        let ListenerSpec { name, addresses, transport, limits } = spec;
        let kind = transport.kind();
        let sockets = match &transport {
            TransportSpec::Quic(tls) => {
                Sockets::Quic(bind_all(&name, kind, &addresses, |address| {
                    let (socket, address) = bind::udp(address)?;
                    Ok((quic::endpoint(socket, tls)?, address))
                })?)
            }
            _ => Sockets::Tcp(bind_all(&name, kind, &addresses, bind::tcp)?),
        };
        let places = Places::new(limits);
        Ok(Self { shared: Arc::new(Shared { name, transport, places }), sockets })
    }

    /// The listener's name.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// What carries its streams.
    pub fn transport(&self) -> Transport {
        self.shared.transport.kind()
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        match &self.sockets {
            Sockets::Tcp(sockets) => sockets.iter().map(|(_, address)| *address).collect(),
            Sockets::Quic(sockets) => sockets.iter().map(|(_, address)| *address).collect(),
        }
    }

    /// Serves until `shutdown` is cancelled; then takes no more connections, waits until those
    /// that are open have ended, at most `grace`, and drops the rest.
    pub async fn serve(
        self,
        handler: Arc<dyn Handler>,
        shutdown: CancellationToken,
        grace: Duration,
    ) {
        let mut loops = JoinSet::new();
        let serving = || Serving {
            shared: Arc::clone(&self.shared),
            handler: Arc::clone(&handler),
            shutdown: shutdown.clone(),
            grace,
            connections: JoinSet::new(),
            last_warning: None,
            handshakes: Arc::default(),
        };
        match self.sockets {
            Sockets::Tcp(sockets) => {
                for (socket, _) in sockets {
                    loops.spawn(serving().accept_tcp(socket));
                }
            }
            Sockets::Quic(sockets) => {
                for (endpoint, _) in sockets {
                    loops.spawn(serving().accept_quic(endpoint));
                }
            }
        }
        while let Some(ended) = loops.join_next().await {
            log_panic(ended);
        }
    }
}

/// One accept loop and the connections that it owns.
struct Serving {
    shared: Arc<Shared>,
    handler: Arc<dyn Handler>,
    shutdown: CancellationToken,
    grace: Duration,
    connections: JoinSet<()>,
    last_warning: Option<Instant>,
    handshakes: Arc<quic::Handshakes>,
}

impl Serving {
    async fn accept_tcp(mut self, listener: TcpListener) {
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                Some(ended) = self.connections.join_next() => log_panic(ended),
                accepted = listener.accept() => match accepted {
                    Ok((socket, address)) => self.start_tcp(socket, address),
                    Err(error) if is_exhausted(&error) => {
                        self.warn(&error);
                        self.pause().await;
                    }
                    // The connection was gone before it was accepted.
                    Err(error) => tracing::debug!(listener = %self.shared.name, %error, "accept"),
                },
            }
        }
        drop(listener);
        self.finish().await;
    }

    async fn accept_quic(mut self, endpoint: quinn::Endpoint) {
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => break,
                Some(ended) = self.connections.join_next() => log_panic(ended),
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.start_quic(incoming),
                    None => break,
                },
            }
        }
        // Handshakes that begin from here on are refused; open connections go on.
        endpoint.set_server_config(None);
        self.finish().await;
        endpoint.close(quic::NORMAL, b"");
        // Lets the last CONNECTION_CLOSE frames leave: bounded by quinn's drain timers, and by
        // the deadline of whoever waits for `serve`.
        let _ = tokio::time::timeout(quic::CLOSE_TIMEOUT, endpoint.wait_idle()).await;
    }

    fn start_tcp(&mut self, socket: TcpStream, address: SocketAddr) {
        let Some((peer, place)) = self.admit(address) else { return };
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let shared = Arc::clone(&self.shared);
        let (handler, shutdown) = (Arc::clone(&self.handler), self.shutdown.clone());
        self.connections.spawn(async move {
            let _place = place;
            let stream = if matches!(shared.transport, TransportSpec::Tcp) {
                Stream::Tcp(socket)
            } else {
                // Boxed: a handshake's state is large, and plain connections must not carry it.
                let handshake = Box::pin(handshake(&shared, socket));
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        tracing::debug!(listener = %shared.name, %address, %error, "handshake");
                        return;
                    }
                    Err(_) => return,
                }
            };
            drop(shared);
            handler.connection(stream, peer, shutdown).await;
        });
    }

    fn start_quic(&mut self, incoming: quinn::Incoming) {
        let Some((peer, place)) = self.admit(incoming.remote_address()) else {
            incoming.refuse();
            return;
        };
        let TransportSpec::Quic(tls) = &self.shared.transport else { return };
        let config = tls.quic_config();
        let handshakes = Arc::clone(&self.handshakes);
        let (handler, shutdown) = (Arc::clone(&self.handler), self.shutdown.clone());
        self.connections.spawn(async move {
            let _place = place;
            quic::serve(incoming, config, &handshakes, handler, peer, shutdown).await;
        });
    }

    fn admit(&mut self, address: SocketAddr) -> Option<(Peer, Place)> {
        match self.shared.places.take(address.ip()) {
            Ok(place) => {
                let listener = Arc::clone(&self.shared.name);
                let transport = self.shared.transport.kind();
                Some((Peer { address, listener, transport }, place))
            }
            Err(full) => {
                self.warn(&full);
                None
            }
        }
    }

    /// Waits for a connection to end, or a while: others hold descriptors too.
    async fn pause(&mut self) {
        tokio::select! {
            () = self.shutdown.cancelled() => {}
            Some(ended) = self.connections.join_next() => log_panic(ended),
            () = tokio::time::sleep(EXHAUSTED_PAUSE) => {}
        }
    }

    async fn finish(&mut self) {
        let deadline = tokio::time::Instant::now() + self.grace;
        while let Ok(Some(ended)) =
            tokio::time::timeout_at(deadline, self.connections.join_next()).await
        {
            log_panic(ended);
        }
        let late = self.connections.len();
        if late > 0 {
            tracing::info!(listener = %self.shared.name, late, "connections cut off at shutdown");
        }
        self.connections.shutdown().await;
    }

    fn warn(&mut self, reason: &dyn std::fmt::Display) {
        let now = Instant::now();
        if self.last_warning.is_none_or(|last| now.duration_since(last) >= WARN_EVERY) {
            self.last_warning = Some(now);
            tracing::warn!(listener = %self.shared.name, "connections are turned away: {reason}");
        }
    }
}

async fn handshake(shared: &Shared, socket: TcpStream) -> io::Result<Stream> {
    match &shared.transport {
        TransportSpec::Tcp | TransportSpec::Quic(_) => Ok(Stream::Tcp(socket)),
        TransportSpec::Tls(tls) => Ok(Stream::Tls(Box::new(tls::accept(tls, socket).await?))),
        TransportSpec::Ws(options) => websocket::accept(options, socket).await,
        TransportSpec::Wss(options, tls) => {
            websocket::accept(options, tls::accept(tls, socket).await?).await
        }
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection's task panicked");
    }
}

/// Descriptors or memory ran out: trying again at once would spin.
fn is_exhausted(error: &io::Error) -> bool {
    const ENOMEM: i32 = 12;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    const ENOBUFS: i32 = 105;
    matches!(error.raw_os_error(), Some(ENOMEM | ENFILE | EMFILE | ENOBUFS))
}
