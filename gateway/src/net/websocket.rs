//! MQTT in WebSocket's binary frames (§6): packets may be split and merged over frames.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream as _};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Stream;

/// Subprotocols that are spoken, the preferred one first.
const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// Read buffer a connection, allocated at once.
const READ_BUFFER: usize = 4 << 10;

/// Bytes of one outgoing frame at most.
const MAX_OUT_FRAME: usize = 64 << 10;

/// Bytes of frames that the socket didn't take yet. A client that pings and doesn't read costs no
/// more: past this only the latest pong is kept.
const MAX_UNSENT: usize = 4 * MAX_OUT_FRAME;

/// What a WebSocket listener accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketOptions {
    /// The path of the request.
    pub path: Arc<str>,
    /// Web pages that may connect, as their Origin (`https://example.org`); `None`: all. Clients
    /// that send no Origin are no browsers and always may.
    pub allowed_origins: Option<Arc<[String]>>,
    /// Bytes of an incoming message, that is, of what is buffered before it is read.
    pub max_message_bytes: usize,
}

impl Default for WebSocketOptions {
    fn default() -> Self {
        Self {
            path: "/mqtt".into(),
            allowed_origins: None,
            max_message_bytes: (1 << 20) + (64 << 10),
        }
    }
}

/// The server's side of a WebSocket handshake on `stream`.
pub(crate) async fn accept<S>(options: &WebSocketOptions, stream: S) -> io::Result<Stream>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + Debug + 'static,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        // Frames go out as they are written: whoever writes batches already.
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_UNSENT)
        .max_message_size(Some(options.max_message_bytes))
        .max_frame_size(Some(options.max_message_bytes));
    #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
    let check = |request: &Request, mut response: Response| match check(options, request) {
        Ok(subprotocol) => {
            response
                .headers_mut()
                .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
            Ok(response)
        }
        Err((status, reason)) => {
            let mut refusal = ErrorResponse::new(Some(reason.to_owned()));
            *refusal.status_mut() = status;
            Err(refusal)
        }
    };
    let socket = tokio_tungstenite::accept_hdr_async_with_config(stream, check, Some(config))
        .await
        .map_err(io_error)?;
    Ok(Stream::Framed(Box::new(WebSocketBytes { socket, unread: Bytes::new() })))
}

/// The subprotocol to speak, or why the request is refused.
fn check(
    options: &WebSocketOptions,
    request: &Request,
) -> Result<&'static str, (StatusCode, &'static str)> {
    if request.uri().path() != &*options.path {
        return Err((StatusCode::NOT_FOUND, "no MQTT at this path\n"));
    }
    if let (Some(allowed), Some(origin)) =
        (&options.allowed_origins, request.headers().get(header::ORIGIN))
        && !allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
    {
        return Err((StatusCode::FORBIDDEN, "this origin may not connect\n"));
    }
    let offered: Vec<&str> = request
        .headers()
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .collect();
    SUBPROTOCOLS
        .into_iter()
        .find(|subprotocol| offered.contains(subprotocol))
        .ok_or((StatusCode::BAD_REQUEST, "the subprotocol must be mqtt\n"))
}

/// The bytes of a WebSocket's binary messages.
#[derive(Debug)]
struct WebSocketBytes<S> {
    socket: WebSocketStream<S>,
    /// What is left of the message that was read last.
    unread: Bytes,
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::BrokenPipe.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketBytes<S> {
    /// Text isn't MQTT: says so and ends the connection [MQTT-6.0.0-1].
    fn refuse_text(&mut self) -> io::Error {
        let close =
            CloseFrame { code: CloseCode::Unsupported, reason: "binary frames only".into() };
        // The connection ends whether or not the peer learns why.
        let _ = Pin::new(&mut self.socket).start_send(Message::Close(Some(close)));
        io::Error::new(io::ErrorKind::InvalidData, "a text frame")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketBytes<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.unread.is_empty() {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => self.unread = bytes,
                Some(Ok(Message::Text(_))) => return Poll::Ready(Err(self.refuse_text())),
                // Pings are answered, and a close confirmed, by the library.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let len = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread.split_to(len));
        if !self.unread.has_remaining() {
            // Gives the message's memory back now, not with the next message.
            self.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketBytes<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = &mut self.socket;
        ready!(Pin::new(&mut *socket).poll_ready(cx)).map_err(io_error)?;
        let frame = buf.get(..MAX_OUT_FRAME).unwrap_or(buf);
        loop {
            let message = Message::Binary(Bytes::copy_from_slice(frame));
            match Pin::new(&mut *socket).start_send(message) {
                Ok(()) => return Poll::Ready(Ok(frame.len())),
                // Pongs fill the buffer: they have to go first.
                Err(Error::WriteBufferFull(_)) => {
                    ready!(Pin::new(&mut *socket).poll_flush(cx)).map_err(io_error)?;
                }
                Err(error) => return Poll::Ready(Err(io_error(error))),
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_close(cx)).map_err(io_error)?;
        Pin::new(self.socket.get_mut()).poll_shutdown(cx)
    }
}
