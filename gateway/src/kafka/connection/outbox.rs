//! Responses on their way out.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::AsyncWrite;

use crate::kafka::data::Body;

/// Slices in one write.
const SLICES: usize = 64;

/// Pieces of responses, written in order, many at once, never copied.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Bytes>,
    len: usize,
}

impl Outbox {
    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// A response: its size, its header and `body`. `false` if it is larger than a size can say.
    pub(super) fn push(&mut self, correlation_id: i32, tagged: bool, body: Body) -> bool {
        let header = 4 + usize::from(tagged);
        let Ok(size) = i32::try_from(header + body.len()) else { return false };
        let mut head = BytesMut::with_capacity(4 + header);
        head.put_i32(size);
        head.put_i32(correlation_id);
        if tagged {
            // No tagged fields.
            head.put_u8(0);
        }
        self.add(head.freeze());
        for chunk in body.into_chunks() {
            self.add(chunk);
        }
        true
    }

    /// A frame without a header: the answer to a bare SASL token.
    pub(super) fn push_bare(&mut self, token: &[u8]) {
        let mut frame = BytesMut::with_capacity(4 + token.len());
        frame.put_i32(i32::try_from(token.len()).unwrap_or(0));
        frame.put_slice(token);
        self.add(frame.freeze());
    }

    fn add(&mut self, chunk: Bytes) {
        self.len += chunk.len();
        self.chunks.push_back(chunk);
    }

    /// Writes once; resolves to how many bytes went.
    pub(super) fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        let written = if stream.is_write_vectored() && self.chunks.len() > 1 {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut used = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                *slice = IoSlice::new(chunk);
                used += 1;
            }
            ready!(stream.poll_write_vectored(cx, slices.get(..used).unwrap_or_default()))?
        } else {
            let first = self.chunks.front().map_or(&[][..], |chunk| &chunk[..]);
            ready!(stream.poll_write(cx, first))?
        };
        if written == 0 && !self.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(written);
        Poll::Ready(Ok(written))
    }

    fn advance(&mut self, mut written: usize) {
        self.len = self.len.saturating_sub(written);
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.len() > written {
                chunk.advance(written);
                break;
            }
            written -= chunk.len();
            self.chunks.pop_front();
        }
        if self.chunks.is_empty() {
            // An idle connection keeps no memory for what it wrote once.
            self.chunks = VecDeque::new();
        }
    }
}
