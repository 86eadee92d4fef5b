//! Bytes on their way to a connection.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Payloads from this size on are not copied into the buffer.
const SHARED_BYTES: usize = 8 << 10;

/// Encoded packets, small ones side by side, large payloads shared. Empty it holds no memory.
#[derive(Debug, Default)]
pub(crate) struct OutQueue {
    parts: VecDeque<Bytes>,
    tail: BytesMut,
    bytes: usize,
}

impl OutQueue {
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Lets `write` append to the buffer.
    pub(crate) fn write<T>(&mut self, write: impl FnOnce(&mut BytesMut) -> T) -> T {
        let before = self.tail.len();
        let result = write(&mut self.tail);
        self.bytes += self.tail.len().saturating_sub(before);
        result
    }

    /// Appends a payload: by copy, or shared if it is large.
    pub(crate) fn payload(&mut self, payload: &Bytes) {
        self.bytes += payload.len();
        if payload.len() < SHARED_BYTES {
            self.tail.extend_from_slice(payload);
            return;
        }
        if !self.tail.is_empty() {
            self.parts.push_back(self.tail.split().freeze());
        }
        self.parts.push_back(payload.clone());
    }

    /// Moves everything to the end of `to`.
    pub(crate) fn drain_into(&mut self, to: &mut VecDeque<Bytes>) -> usize {
        to.extend(self.parts.drain(..));
        if !self.tail.is_empty() {
            to.push_back(std::mem::take(&mut self.tail).freeze());
        }
        if self.parts.capacity() > 16 {
            self.parts = VecDeque::new();
        }
        std::mem::take(&mut self.bytes)
    }
}
