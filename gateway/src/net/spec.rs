//! What a listener is to be.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{ConnectionLimits, Tls, Transport, WebSocketOptions};

/// A listener: one transport on one or more addresses.
#[derive(Clone, Debug)]
pub struct ListenerSpec {
    /// Its name in logs, errors and [`super::Peer::listener`].
    pub name: Arc<str>,
    /// Where it listens. With port 0 the first address chooses, the others follow.
    pub addresses: Vec<SocketAddr>,
    /// What carries its streams.
    pub transport: TransportSpec,
    /// How many connections it takes.
    pub limits: ConnectionLimits,
}

/// A transport and what it needs.
#[derive(Clone, Debug)]
pub enum TransportSpec {
    /// TCP.
    Tcp,
    /// TLS over TCP.
    Tls(Arc<Tls>),
    /// WebSocket over TCP.
    Ws(WebSocketOptions),
    /// WebSocket over TLS.
    Wss(WebSocketOptions, Arc<Tls>),
    /// QUIC.
    Quic(Arc<Tls>),
}

impl TransportSpec {
    /// Its kind.
    pub fn kind(&self) -> Transport {
        match self {
            TransportSpec::Tcp => Transport::Tcp,
            TransportSpec::Tls(_) => Transport::Tls,
            TransportSpec::Ws(_) => Transport::Ws,
            TransportSpec::Wss(..) => Transport::Wss,
            TransportSpec::Quic(_) => Transport::Quic,
        }
    }
}
