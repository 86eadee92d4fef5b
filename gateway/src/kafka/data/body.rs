//! A response's body as a list of byte slices for one vectored write.

use bytes::Bytes;
use smallvec::SmallVec;

/// What follows a response's header, in pieces that are written one after the other.
#[derive(Clone, Debug, Default)]
pub struct Body {
    chunks: SmallVec<[Bytes; 4]>,
    len: usize,
}

impl Body {
    /// No bytes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.len += chunk.len();
            self.chunks.push(chunk);
        }
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// No bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces, none of them empty.
    pub fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The pieces, none of them empty.
    pub fn into_chunks(self) -> impl Iterator<Item = Bytes> {
        self.chunks.into_iter()
    }
}

impl From<Bytes> for Body {
    fn from(chunk: Bytes) -> Self {
        let mut body = Self::new();
        body.push(chunk);
        body
    }
}
