//! Any bytes as what a WebSocket client sends: for fuzzing.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::websocket::{WebSocketOptions, accept};

/// The request of a client that is let in.
const HANDSHAKE: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";
/// Larger messages end the connection.
const MAX_MESSAGE: usize = 4 << 10;
/// Bits of the first byte: a good handshake comes first; the client doesn't read after it.
const LETS_IN: u8 = 1;
const READS_NOTHING: u8 = 2;
/// The other bits choose how the client's bytes are cut into pieces.
const PIECES: [usize; 4] = [usize::MAX, 1, 7, 130];

/// What a client sends, and how it takes what it is sent.
#[derive(Debug)]
pub(super) struct Script {
    input: Vec<u8>,
    at: usize,
    /// Pieces from here on.
    cut_from: usize,
    piece: usize,
    /// There is an end behind the input; else nothing comes any more.
    ends: bool,
    pub(super) taken: Arc<AtomicUsize>,
    pub(super) is_blocked: Arc<AtomicBool>,
}

impl Script {
    pub(super) fn new(input: Vec<u8>) -> Self {
        Self {
            input,
            at: 0,
            cut_from: 0,
            piece: usize::MAX,
            ends: true,
            taken: Arc::default(),
            is_blocked: Arc::default(),
        }
    }
}

impl AsyncRead for Script {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let piece = if self.at < self.cut_from { self.cut_from - self.at } else { self.piece };
        let rest = self.input.get(self.at..).unwrap_or_default();
        let len = rest.len().min(piece).min(buf.remaining());
        buf.put_slice(rest.get(..len).unwrap_or_default());
        self.at += len;
        if len == 0 && !self.ends { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl AsyncWrite for Script {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_blocked.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        self.taken.fetch_add(buf.len(), Ordering::Relaxed);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_blocked.load(Ordering::Relaxed) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Handshake and frames from any bytes; the first says how they come.
pub fn fuzz_websocket(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let is_let_in = mode & LETS_IN != 0;
    let handshake = if is_let_in { HANDSHAKE } else { &[] };
    let mut script = Script::new([handshake, rest].concat());
    script.cut_from = handshake.len();
    script.piece = PIECES.get(usize::from(mode >> 2) % PIECES.len()).copied().unwrap_or(usize::MAX);
    let (is_blocked, taken) = (script.is_blocked.clone(), script.taken.clone());

    let cx = &mut Context::from_waker(Waker::noop());
    let options =
        WebSocketOptions { max_message_bytes: MAX_MESSAGE, ..WebSocketOptions::default() };
    let Some(accepted) = poll(pin!(accept(&options, script)), cx) else { return };
    assert!(accepted.is_ok() || !is_let_in, "a good handshake is refused: {accepted:?}");
    let Ok(mut stream) = accepted else { return };
    is_blocked.store(mode & READS_NOTHING != 0, Ordering::Relaxed);
    let before = taken.load(Ordering::Relaxed);

    let mut received = 0;
    let mut buffer = [0; 512];
    loop {
        let mut buffer = ReadBuf::new(&mut buffer);
        match Pin::new(&mut stream).poll_read(cx, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
            Poll::Ready(_) => break,
            // Every byte is there: only the close that the client doesn't take is waited for.
            Poll::Pending => {
                assert!(mode & READS_NOTHING != 0, "it waits for nothing");
                break;
            }
        }
        received += buffer.filled().len();
        if Pin::new(&mut stream).poll_write(cx, buffer.filled()).is_pending() {
            break;
        }
        let _ = Pin::new(&mut stream).poll_flush(cx);
    }
    let _ = Pin::new(&mut stream).poll_shutdown(cx);
    assert!(received <= rest.len(), "bytes out of nothing");
    // Echoes and pongs are no larger than what they answer, but for a close's reason.
    assert!(taken.load(Ordering::Relaxed) - before <= rest.len() + 128, "answers out of nothing");
}

fn poll<F: Future>(mut future: Pin<&mut F>, cx: &mut Context<'_>) -> Option<F::Output> {
    // A handshake reads a piece a poll at the least.
    for _ in 0..=HANDSHAKE.len() + (64 << 10) {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Some(output);
        }
    }
    None
}

/// A client's frame: masked, as it has to be.
pub(super) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [1, 2, 3, 4];
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(len) if len < 126 => frame.push(0x80 | len as u8),
        Ok(len) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&len.to_be_bytes());
        }
        Err(_) => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// Inputs of [`fuzz_websocket`] to begin with.
pub fn websocket_seeds() -> Vec<Vec<u8>> {
    const FIN: u8 = 0x80;
    let (text, binary, close, ping, pong) = (1, 2, 8, 9, 10);
    let conversations = [
        [frame(FIN | binary, b"hello"), frame(FIN | binary, &[7; 300])].concat(),
        [frame(binary, b"hel"), frame(FIN | ping, b"p"), frame(0, b"l"), frame(FIN, b"o")].concat(),
        frame(FIN | text, b"no mqtt"),
        [frame(FIN | binary, b""), frame(FIN | close, b"\x03\xe8bye")].concat(),
        [frame(FIN | ping, &[9; 125]).repeat(20), frame(FIN | pong, b"")].concat(),
        // Not masked, too large, reserved bits, a continuation of nothing, a long ping.
        b"\x82\x05hello".to_vec(),
        frame(FIN | binary, &[1; MAX_MESSAGE + 1]),
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04".to_vec(),
        frame(FIN | 0x40 | binary, b"x"),
        frame(FIN, b"x"),
        frame(FIN | ping, &[0; 126]),
        frame(FIN | 11, b"x"),
    ];
    let mut seeds = Vec::new();
    for (number, frames) in (0..).zip(conversations) {
        for mode in [LETS_IN, LETS_IN | READS_NOTHING] {
            seeds.push([&[mode | ((number % 4) << 2)][..], &frames].concat());
        }
    }
    let replace = |from: &str, to: &[u8]| {
        let at = HANDSHAKE.windows(from.len()).position(|part| part == from.as_bytes());
        let (head, tail) = HANDSHAKE.split_at(at.unwrap_or(0));
        [&[0], head, to, tail.get(from.len()..).unwrap_or_default()].concat()
    };
    seeds.push([&[0], HANDSHAKE, &frame(FIN | binary, b"hello")].concat());
    seeds.push(replace("Protocol: mqtt", b"Protocol: amqp, mqttv3.1"));
    seeds.push(replace("Protocol: mqtt", b"Protocol: \xff\xfe"));
    seeds.push(replace("Version: 13", b"Version: 8"));
    seeds.push(replace("/mqtt HTTP", b"/%ff?\x80 HTTP"));
    seeds.push(replace("GET", b"POST"));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_pass() {
        websocket_seeds().iter().for_each(|seed| fuzz_websocket(seed));
    }

    /// A client that pings and reads nothing must not fill the memory with pongs.
    #[test]
    fn pongs_that_nobody_reads_are_bounded() {
        let pings = frame(0x80 | 9, &[9; 125]).repeat(20_000);
        let mut script = Script::new([HANDSHAKE, &pings].concat());
        script.cut_from = HANDSHAKE.len();
        script.ends = false;
        let (is_blocked, taken) = (script.is_blocked.clone(), script.taken.clone());
        let cx = &mut Context::from_waker(Waker::noop());
        let options = WebSocketOptions::default();
        let mut stream = poll(pin!(accept(&options, script)), cx).unwrap().unwrap();
        is_blocked.store(true, Ordering::Relaxed);
        let before = taken.load(Ordering::Relaxed);
        let mut buffer = [0; 64];
        let read = Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut buffer));
        assert!(read.is_pending(), "{read:?}");
        // Not lost, and not in the way of what is to be sent.
        assert!(Pin::new(&mut stream).poll_write(cx, &[1; 70_000]).is_pending());
        is_blocked.store(false, Ordering::Relaxed);
        let sent = Pin::new(&mut stream).poll_write(cx, &[1; 70_000]);
        assert!(matches!(sent, Poll::Ready(Ok(65_536))), "{sent:?}");
        let _ = Pin::new(&mut stream).poll_flush(cx);
        let written = taken.load(Ordering::Relaxed) - before;
        assert!((64 << 10..400 << 10).contains(&written), "{written} bytes were kept");
    }
}
