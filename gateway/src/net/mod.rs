//! Listeners and the byte streams that they accept.
//!
//! ```text
//!   ListenerSpec ─► Bound (all ports are taken) ─► serve ─► accept: limits, back-off
//!                                                            │  tls, websocket, quic: handshakes
//!                                                            ▼
//!                                             Handler::connection(Stream, Peer)
//! ```
//!
//! Nothing here knows MQTT or Kafka. A plain connection that idles costs its socket and its
//! handler's future: no buffer.

mod accept;
mod bind;
mod close;
pub mod dev_tls;
mod fuzz;
mod limits;
mod quic;
mod spec;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod websocket;

pub use accept::{Bound, Handler};
pub use bind::BindError;
pub use close::close;
pub use fuzz::{fuzz_websocket, websocket_seeds};
pub use limits::ConnectionLimits;
pub use spec::{ListenerSpec, TransportSpec};
pub use stream::{ByteStream, Peer, Stream, Transport};
pub use tls::{Tls, TlsError, TlsFiles, reload_on_hangup};
pub use websocket::WebSocketOptions;
