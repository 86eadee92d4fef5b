//! The memory that entries are copied into once: written from there, and read from there.
//!
//! ```text
//!   chunk (4 MiB)  | piece | piece | piece | open: still filling | free |
//!   tail           oldest piece … newest piece ──► reads; dropped over the budget
//! ```
//!
//! A piece is a shared slice of its chunk, so handing it to a write or to a reader copies
//! nothing. A chunk is allocated when it is needed, and its pages are touched as it fills.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::store::Position;

/// What a piece costs besides its bytes.
const PIECE_OVERHEAD: usize = 128;

#[derive(Debug)]
pub(crate) struct Arena {
    chunk_bytes: usize,
    tail_bytes: usize,
    chunk: BytesMut,
    /// Where the first open byte of the chunk lies in the journal.
    open_at: Position,
    tail: VecDeque<(Position, Bytes)>,
    held: usize,
}

impl Arena {
    /// An arena of chunks of `chunk_bytes` that keeps about `tail_bytes` for reads.
    pub(crate) fn new(chunk_bytes: usize, tail_bytes: usize) -> Self {
        Self {
            chunk_bytes,
            tail_bytes,
            chunk: BytesMut::new(),
            open_at: Position::default(),
            tail: VecDeque::new(),
            held: 0,
        }
    }

    /// Whether `len` more bytes fit behind those that are open.
    pub(crate) fn fits(&self, len: usize) -> bool {
        self.chunk.capacity() - self.chunk.len() >= len
    }

    /// Begins a new chunk that takes at least `len` bytes. What was open must have been cut.
    pub(crate) fn renew(&mut self, len: usize) {
        self.chunk = BytesMut::with_capacity(self.chunk_bytes.max(len));
    }

    /// Appends `head` zeros, to be filled in by `fill`, and a payload in two parts, as the bytes
    /// at `at` of the journal. What is open already must end there.
    pub(crate) fn put(
        &mut self,
        at: Position,
        head: usize,
        fill: impl FnOnce(&mut [u8]),
        payload: [&[u8]; 2],
    ) {
        if self.chunk.is_empty() {
            self.open_at = at;
        }
        let start = self.chunk.len();
        self.chunk.resize(start + head, 0);
        fill(self.chunk.get_mut(start..).unwrap_or_default());
        for part in payload {
            self.chunk.extend_from_slice(part);
        }
    }

    /// Makes a piece of what is open; `None` if nothing is.
    pub(crate) fn cut(&mut self) -> Option<Bytes> {
        if self.chunk.is_empty() {
            return None;
        }
        let piece = self.chunk.split().freeze();
        self.held += piece.len() + PIECE_OVERHEAD;
        self.tail.push_back((self.open_at, piece.clone()));
        Some(piece)
    }

    /// Whether `at` lies in what is open.
    pub(crate) fn is_open(&self, at: Position) -> bool {
        !self.chunk.is_empty() && at >= self.open_at
    }

    /// The `len` bytes at `at` of the journal, if they are in a piece that is still kept.
    pub(crate) fn get(&self, at: Position, len: usize) -> Option<Bytes> {
        let after = self.tail.partition_point(|(start, _)| *start <= at);
        let (start, piece) = self.tail.get(after.checked_sub(1)?)?;
        let from = usize::try_from(at.0 - start.0).ok()?;
        let to = from.checked_add(len)?;
        (to <= piece.len()).then(|| piece.slice(from..to))
    }

    /// Drops the oldest durable pieces over the budget.
    pub(crate) fn evict(&mut self, durable: Position) {
        while self.held > self.tail_bytes
            && let Some((start, _)) = self.tail.front()
            && *start < durable
            && let Some((_, piece)) = self.tail.pop_front()
        {
            self.held -= piece.len() + PIECE_OVERHEAD;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_found_by_position_until_they_are_evicted() {
        let mut arena = Arena::new(1024, 600);
        for i in 0..4u8 {
            let at = Position(1000 * u64::from(i));
            assert!(i == 0 || arena.fits(200));
            if i == 0 {
                arena.renew(200);
            }
            arena.put(at, 2, |head| head.fill(9), [&[i; 98], &[i; 100]]);
            assert!(arena.is_open(at));
            assert_eq!(arena.get(at, 1), None, "open bytes are cut first");
            assert_eq!(arena.cut().unwrap().len(), 200);
            assert_eq!(arena.cut(), None);
        }
        assert_eq!(&arena.get(Position(2002), 3).unwrap()[..], [2; 3]);
        assert_eq!(arena.get(Position(2002), 199), None, "past the piece");
        arena.evict(Position(1));
        assert!(arena.get(Position(0), 1).is_none());
        assert!(arena.get(Position(1000), 1).is_some(), "not durable yet");
        arena.evict(Position(4000));
        assert!(arena.get(Position(1000), 1).is_none());
        assert!(arena.get(Position(3000), 1).is_some(), "within the budget");
    }

    #[test]
    fn a_chunk_is_as_large_as_its_first_entry() {
        let mut arena = Arena::new(64, 0);
        assert!(!arena.fits(1));
        arena.renew(1000);
        assert!(arena.fits(1000));
    }
}
