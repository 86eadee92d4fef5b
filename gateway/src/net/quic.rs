//! MQTT over QUIC: the first bidirectional stream of a connection is its control stream, and the
//! only one that is served (MQTT-NOTES Q1–Q3, Q12, Q13).

use std::io;
use std::net::UdpSocket;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, Incoming, RecvStream, SendStream, TransportConfig, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::accept::HANDSHAKE_TIMEOUT;
use super::{Handler, Peer, Stream, Tls};

/// The protocol's name in the TLS handshake.
pub(crate) const ALPN: &[u8] = b"mqtt";

/// Application close codes.
pub(crate) const NORMAL: VarInt = VarInt::from_u32(0);
const CONTROL_STREAM_DOWN: VarInt = VarInt::from_u32(1);

/// What a refused data stream is reset with: "implementation specific error".
const STREAM_REFUSED: VarInt = VarInt::from_u32(0x83);

/// How long to wait until the peer has the last bytes.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// With so many handshakes under way, addresses must prove themselves first: a handshake that was
/// begun with a forged address holds some 40 KiB until it is given up.
const RETRY_ABOVE: usize = 64;

/// First packets that wait to be looked at, and the bytes that may follow them meanwhile, of one
/// and of all: they are taken at once, so few wait.
const MAX_INCOMING: usize = 1024;
const INCOMING_BUFFER: u64 = 16 << 10;
const INCOMING_BUFFERS: u64 = 4 << 20;

/// Streams that a peer may have open: clients open several at once (Q2).
const MAX_BIDIRECTIONAL: u32 = 16;
const MAX_UNIDIRECTIONAL: u32 = 4;

/// Bytes that may wait unread in a stream, and in a connection; and unacknowledged ones sent.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const SEND_WINDOW: u64 = 1 << 20;

/// Longer than one and a half times the longest keep-alive: MQTT's rule ends connections (Q13).
const IDLE_TIMEOUT: VarInt = VarInt::from_u32(100_000_000);

/// The settings of a server whose handshakes `crypto` makes.
pub(crate) fn server_config(crypto: Arc<QuicServerConfig>) -> quinn::ServerConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(MAX_BIDIRECTIONAL.into())
        .max_concurrent_uni_streams(MAX_UNIDIRECTIONAL.into())
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IDLE_TIMEOUT.into()));
    let mut config = quinn::ServerConfig::with_crypto(crypto);
    config
        .transport_config(Arc::new(transport))
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFERS);
    config
}

/// An endpoint on a bound socket.
pub(crate) fn endpoint(socket: UdpSocket, tls: &Tls) -> io::Result<Endpoint> {
    let config = quinn::ServerConfig::clone(&tls.quic_config());
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(quinn::EndpointConfig::default(), Some(config), socket, runtime)
}

/// Counts the handshakes under way.
#[derive(Debug, Default)]
pub(crate) struct Handshakes(AtomicUsize);

struct Handshake<'a>(&'a Handshakes);

impl Handshakes {
    fn begin(&self) -> (Handshake<'_>, usize) {
        let before = self.0.fetch_add(1, Ordering::Relaxed);
        (Handshake(self), before)
    }
}

impl Drop for Handshake<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one connection from its first packet to its end.
pub(crate) async fn serve(
    incoming: Incoming,
    config: Arc<quinn::ServerConfig>,
    handshakes: &Handshakes,
    handler: Arc<dyn Handler>,
    peer: Peer,
    shutdown: CancellationToken,
) {
    let open = Box::pin(open(incoming, config, handshakes, &peer));
    let Some((connection, stream)) = open.await else { return };
    tokio::select! {
        () = handler.connection(Stream::Framed(Box::new(stream)), peer, shutdown) => {}
        () = refuse_data_streams(&connection) => {}
    }
}

/// Handshake and control stream.
async fn open(
    incoming: Incoming,
    config: Arc<quinn::ServerConfig>,
    handshakes: &Handshakes,
    peer: &Peer,
) -> Option<(Connection, ControlStream)> {
    let (_handshake, others) = handshakes.begin();
    if others >= RETRY_ABOVE && incoming.may_retry() {
        // Fails only if it may not.
        let _ = incoming.retry();
        return None;
    }
    let failed = |error: quinn::ConnectionError| {
        tracing::debug!(listener = %peer.listener, address = %peer.address, %error, "handshake");
    };
    let deadline = tokio::time::Instant::now() + HANDSHAKE_TIMEOUT;
    // A bad first packet is an error already here.
    let connecting = incoming.accept_with(config).map_err(failed).ok()?;
    let connection =
        tokio::time::timeout_at(deadline, connecting).await.ok()?.map_err(failed).ok()?;
    let Ok(streams) = tokio::time::timeout_at(deadline, connection.accept_bi()).await else {
        connection.close(CONTROL_STREAM_DOWN, b"no control stream");
        return None;
    };
    let (send, recv) = streams.map_err(failed).ok()?;
    Some((connection.clone(), ControlStream::new(connection, send, recv)))
}

/// Resets every further stream, until the connection ends; then waits to be dropped.
async fn refuse_data_streams(connection: &Connection) {
    loop {
        let refused = tokio::select! {
            streams = connection.accept_bi() => streams.map(|(mut send, mut recv)| {
                // Both fail only on streams that are closed already.
                let _ = send.reset(STREAM_REFUSED);
                let _ = recv.stop(STREAM_REFUSED);
            }),
            stream = connection.accept_uni() => stream.map(|mut recv| {
                let _ = recv.stop(STREAM_REFUSED);
            }),
        };
        if refused.is_err() {
            // The handler learns it from its stream.
            return std::future::pending().await;
        }
    }
}

/// The control stream: when it ends, so does the connection.
#[derive(Debug)]
struct ControlStream {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    closing: Closing,
    /// The peer ended the stream first.
    peer_ended: bool,
}

enum Closing {
    /// Not yet.
    Open,
    /// Waits until the peer acknowledged every byte: FIN must not ride on the frame that carries
    /// the last of them, a widespread client drops that (Q12).
    Draining(Pin<Box<Sleep>>),
    /// Waits until the peer acknowledged FIN.
    Finished(Pin<Box<Sleep>>, Pin<Box<dyn Future<Output = ()> + Send + Sync>>),
    /// CONNECTION_CLOSE is sent.
    Closed,
}

impl std::fmt::Debug for Closing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Closing::Open => "Open",
            Closing::Draining(_) => "Draining",
            Closing::Finished(..) => "Finished",
            Closing::Closed => "Closed",
        })
    }
}

impl ControlStream {
    fn new(connection: Connection, send: SendStream, recv: RecvStream) -> Self {
        Self { connection, send, recv, closing: Closing::Open, peer_ended: false }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut self.closing {
                Closing::Open => {
                    // With a window of one byte an empty write is accepted exactly when nothing
                    // is unacknowledged.
                    self.connection.set_send_window(1);
                    self.closing = Closing::Draining(Box::pin(tokio::time::sleep(CLOSE_TIMEOUT)));
                }
                Closing::Draining(timer) => {
                    let drained = Pin::new(&mut self.send).poll_write(cx, &[]).is_ready();
                    if !drained && timer.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    // Fails if the peer stopped the stream: then there is nothing to wait for.
                    let _ = self.send.finish();
                    let stopped = self.send.stopped();
                    let timer = Box::pin(tokio::time::sleep_until(timer.deadline()));
                    self.closing = Closing::Finished(
                        timer,
                        Box::pin(async {
                            let _ = stopped.await;
                        }),
                    );
                }
                Closing::Finished(timer, stopped) => {
                    if stopped.as_mut().poll(cx).is_pending()
                        && timer.as_mut().poll(cx).is_pending()
                    {
                        return Poll::Pending;
                    }
                    self.close();
                }
                Closing::Closed => return Poll::Ready(()),
            }
        }
    }

    fn close(&mut self) {
        self.closing = Closing::Closed;
        let code = if self.peer_ended { CONTROL_STREAM_DOWN } else { NORMAL };
        self.connection.close(code, b"");
    }
}

impl Drop for ControlStream {
    fn drop(&mut self) {
        self.close();
    }
}

impl AsyncRead for ControlStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf);
        match &result {
            Poll::Ready(Ok(())) if buf.filled().len() > before || buf.remaining() == 0 => {}
            Poll::Ready(_) => self.peer_ended |= !matches!(self.closing, Closing::Closed),
            Poll::Pending => {}
        }
        result
    }
}

impl AsyncWrite for ControlStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The endpoint's task sends what is written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_close(cx).map(Ok)
    }
}
