//! Requests cut from the bytes of a connection.

use bytes::{Buf, Bytes, BytesMut};

/// The size before each request, in bytes.
const SIZE_BYTES: usize = 4;
/// What is read at once while nothing is known of the next request.
const FIRST_READ_BYTES: usize = 2 * 1024;
/// The most that is read at once, for a client that keeps sending.
const MAX_READ_BYTES: usize = 256 * 1024;
/// A request's buffer grows to this size without proof that more comes.
const FIRST_GROWTH_BYTES: usize = 32 * 1024;
/// The most that is reserved ahead for a client that has sent requests of that size before.
const MAX_TRUST_BYTES: usize = 4 * 1024 * 1024;

/// Why the next bytes are no request (K1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum SizeError {
    #[error("a request of negative size")]
    Negative,
    #[error("a request of {0} bytes")]
    TooLarge(usize),
}

/// Collects bytes and cuts requests from them.
///
/// Memory follows what arrives, never what is announced: the buffer doubles as it fills, and is
/// given back when there is nothing in it.
#[derive(Debug)]
pub(super) struct Frames {
    buf: BytesMut,
    max_bytes: usize,
    trusted_bytes: usize,
    /// What is read beyond the request that is known: follows what reads bring.
    ahead_bytes: usize,
}

impl Frames {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self {
            buf: BytesMut::new(),
            max_bytes,
            trusted_bytes: FIRST_GROWTH_BYTES,
            ahead_bytes: FIRST_READ_BYTES,
        }
    }

    /// The size of the request that comes next, once it is known.
    pub(super) fn size(&self) -> Result<Option<usize>, SizeError> {
        let Some(size) = self.buf.first_chunk::<SIZE_BYTES>() else { return Ok(None) };
        let size = usize::try_from(i32::from_be_bytes(*size)).map_err(|_| SizeError::Negative)?;
        if size > self.max_bytes { Err(SizeError::TooLarge(size)) } else { Ok(Some(size)) }
    }

    /// The first bytes of the request that comes next, its size left out.
    pub(super) fn peek(&self) -> &[u8] {
        self.buf.get(SIZE_BYTES..).unwrap_or_default()
    }

    /// Part of a request is here.
    pub(super) fn is_partial(&self) -> bool {
        !self.buf.is_empty()
    }

    /// The next request is here as a whole.
    pub(super) fn has_next(&self) -> Result<bool, SizeError> {
        Ok(self.size()?.is_some_and(|size| self.buf.len() >= SIZE_BYTES + size))
    }

    /// More than `free` bytes of a request are here or would be with the next read.
    pub(super) fn needs_share(&self, free: usize) -> Result<bool, SizeError> {
        Ok(self.size()?.is_some_and(|size| size > free) && self.buf.len() >= free / 2)
    }

    /// The next request, once it is here as a whole.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, SizeError> {
        let Some(size) = self.size()? else { return Ok(None) };
        if self.buf.len() < SIZE_BYTES + size {
            return Ok(None);
        }
        self.buf.advance(SIZE_BYTES);
        let frame = self.buf.split_to(size).freeze();
        self.trusted_bytes = self.trusted_bytes.max(size.min(MAX_TRUST_BYTES));
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
        }
        Ok(Some(frame))
    }

    /// The buffer, with room for the next read.
    pub(super) fn room(&mut self) -> &mut BytesMut {
        let have = self.buf.len();
        let missing = match self.size() {
            Ok(Some(size)) => (SIZE_BYTES + size).saturating_sub(have),
            _ => 0,
        };
        // A little more than is missing, so that the next requests' beginning comes with it.
        let want = missing.min(have.max(self.trusted_bytes)) + self.ahead_bytes;
        if self.buf.capacity() - have < want.min(self.ahead_bytes) {
            self.buf.reserve(want);
        }
        &mut self.buf
    }

    /// Notes what a read brought: who keeps sending is read in larger pieces.
    pub(super) fn was_read(&mut self, bytes: usize) {
        if bytes >= self.ahead_bytes {
            self.ahead_bytes = (self.ahead_bytes * 2).min(MAX_READ_BYTES);
        } else if bytes < self.ahead_bytes / 4 {
            self.ahead_bytes = (self.ahead_bytes / 2).max(FIRST_READ_BYTES);
        }
    }

    /// Gives the buffer back while nothing is in it and nothing comes.
    pub(super) fn rest(&mut self) {
        if self.buf.is_empty() {
            self.buf = BytesMut::new();
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.buf.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn k1_sizes_are_checked_before_anything_is_allocated() {
        for (size, error) in [
            (-1, SizeError::Negative),
            (i32::MIN, SizeError::Negative),
            (1_001, SizeError::TooLarge(1_001)),
            (i32::MAX, SizeError::TooLarge(0x7fff_ffff)),
        ] {
            let mut frames = Frames::new(1_000);
            frames.room().extend_from_slice(&size.to_be_bytes());
            assert_eq!(frames.next(), Err(error));
            assert!(frames.capacity() <= FIRST_READ_BYTES);
        }
    }

    #[test]
    fn k1_memory_follows_what_arrives() {
        let mut frames = Frames::new(100 << 20);
        frames.room().extend_from_slice(&(100i32 << 20).to_be_bytes());
        let _ = frames.room();
        assert!(frames.capacity() < 64 * 1024, "{}", frames.capacity());
        let mut sent = 0;
        while sent < 1 << 20 {
            let buf = frames.room();
            let room = buf.capacity() - buf.len();
            assert!(room > 0);
            buf.extend_from_slice(&vec![0; room]);
            frames.was_read(room);
            sent += room;
            assert!(frames.capacity() <= 4 * sent + 64 * 1024);
        }
    }

    #[test]
    fn requests_are_cut_wherever_the_bytes_break() {
        let mut bytes = Vec::new();
        for body in ["a", "", "bcd"] {
            bytes.extend_from_slice(&i32::try_from(body.len()).expect("small").to_be_bytes());
            bytes.extend_from_slice(body.as_bytes());
        }
        for step in 1..bytes.len() {
            let mut frames = Frames::new(10);
            let mut got = Vec::new();
            for piece in bytes.chunks(step) {
                frames.room().extend_from_slice(piece);
                while let Some(frame) = frames.next().expect("good sizes") {
                    got.push(frame);
                }
            }
            assert_eq!(got, [&b"a"[..], b"", b"bcd"]);
            assert!(!frames.is_partial());
            assert_eq!(frames.capacity(), 0, "nothing is kept while idle");
        }
    }
}
