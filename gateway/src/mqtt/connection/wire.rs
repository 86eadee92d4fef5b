//! Bytes of one connection: what was read and not yet consumed, what is being written.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::net::Stream;

/// What one read may bring.
const READ_BYTES: usize = 64 << 10;
/// Slices that one write may take.
const WRITE_SLICES: usize = 32;

thread_local! {
    /// Each thread's buffer for reads: connections hold bytes only between packets' ends.
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// A stream and its buffers.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    /// Bytes that were read and not consumed.
    pub(super) input: BytesMut,
    output: VecDeque<Bytes>,
    needs_flush: bool,
    pub(super) bytes_read: u64,
    pub(super) bytes_written: u64,
}

impl Wire {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: VecDeque::new(),
            needs_flush: false,
            bytes_read: 0,
            bytes_written: 0,
        }
    }

    /// Reads once and gives all unconsumed bytes to `consume`, which returns how many it took;
    /// `Ok(None)` at the stream's end.
    pub(super) fn poll_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        consume: impl FnOnce(&[u8]) -> (usize, T),
    ) -> Poll<io::Result<Option<T>>> {
        let mut scratch = SCRATCH.take().unwrap_or_else(|| vec![0; READ_BYTES].into_boxed_slice());
        let mut buffer = ReadBuf::new(&mut scratch);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut buffer);
        let result = match read {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => Poll::Ready(Ok(None)),
            Poll::Ready(Ok(())) => {
                let bytes = buffer.filled();
                self.bytes_read += bytes.len() as u64;
                Poll::Ready(Ok(Some(self.offer(bytes, consume))))
            }
        };
        SCRATCH.set(Some(scratch));
        result
    }

    fn offer<T>(&mut self, bytes: &[u8], consume: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        if self.input.is_empty() {
            let (taken, result) = consume(bytes);
            if let Some(rest) = bytes.get(taken..)
                && !rest.is_empty()
            {
                self.input.extend_from_slice(rest);
            }
            return result;
        }
        self.input.extend_from_slice(bytes);
        self.consume_input(consume)
    }

    /// Gives the bytes that are there to `consume` once more.
    pub(super) fn consume_input<T>(&mut self, consume: impl FnOnce(&[u8]) -> (usize, T)) -> T {
        let (taken, result) = consume(&self.input);
        self.input.advance(taken.min(self.input.len()));
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        result
    }

    /// Where packets to be written go.
    pub(super) fn output(&mut self) -> &mut VecDeque<Bytes> {
        &mut self.output
    }

    pub(super) fn is_writing(&self) -> bool {
        !self.output.is_empty()
    }

    /// Writes until all is written and flushed.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(first) = self.output.front() {
            let stream = Pin::new(&mut self.stream);
            let written = if self.output.len() > 1 && stream.is_write_vectored() {
                let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
                let mut count = 0;
                for (slice, bytes) in slices.iter_mut().zip(&self.output) {
                    *slice = IoSlice::new(bytes);
                    count += 1;
                }
                let slices = slices.get(..count).unwrap_or_default();
                ready!(stream.poll_write_vectored(cx, slices))?
            } else {
                ready!(stream.poll_write(cx, first))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.bytes_written += written as u64;
            self.needs_flush = true;
            self.wrote(written);
        }
        if self.output.capacity() > 8 {
            self.output = VecDeque::new();
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, mut bytes: usize) {
        while let Some(first) = self.output.front_mut() {
            if first.len() > bytes {
                first.advance(bytes);
                return;
            }
            bytes -= first.len();
            self.output.pop_front();
        }
    }

    /// Ends the stream's writing side.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
