//! Which reads of the disk go on where another ended, and how far the disk should be ahead of
//! them. Decides only.
//!
//! ```text
//!   read, read ─► in sequence: ask for the next `window` bytes
//!   less than half of them left ─► ask for the next `window` bytes …
//! ```

use hashbrown::HashMap;

use crate::Offset;

use super::SegmentId;

/// Readers that are remembered.
const MAX_STREAMS: usize = 1024;
/// Who hasn't read for so long has gone.
const IDLE_MS: u64 = 10_000;

/// How much is fetched ahead, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of one reader, at a time.
    pub(crate) window: u64,
    /// Of all readers: asked for and not read yet.
    pub(crate) total: u64,
}

/// A read that needed the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskRead {
    pub(crate) id: SegmentId,
    pub(crate) from: Offset,
    /// Where a next read goes on.
    pub(crate) next: Offset,
    /// What came from the disk.
    pub(crate) bytes: u64,
}

/// What to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) reader: Reader,
    pub(crate) from: Offset,
    pub(crate) bytes: u64,
}

/// Somebody who reads in sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reader(u64);

/// The readers that were seen.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// By where they will go on.
    readers: HashMap<(SegmentId, Offset), Reader, foldhash::fast::RandomState>,
    streams: HashMap<Reader, Stream, foldhash::fast::RandomState>,
    /// The sum of [`Stream::ahead`].
    ahead: u64,
    last: u64,
}

#[derive(Debug)]
struct Stream {
    next: (SegmentId, Offset),
    /// Everything below was asked for.
    asked_to: Offset,
    /// Bytes that were asked for and not read yet, those of `wish` included.
    ahead: u64,
    /// Bytes of the wish that is on its way; 0 without one.
    wish: u64,
    used_ms: u64,
}

impl Streams {
    /// A read was made; returns what to fetch because of it. A read that goes on nowhere is
    /// the first of its reader: nothing is fetched ahead of it.
    pub(crate) fn read(&mut self, read: &DiskRead, limits: Limits, now_ms: u64) -> Option<Wish> {
        if limits.window == 0 || read.next <= read.from {
            return None;
        }
        let Some(reader) = self.readers.remove(&(read.id, read.from)) else {
            self.begin(read, now_ms);
            return None;
        };
        let stream = self.streams.get_mut(&reader)?;
        stream.next = (read.id, read.next);
        stream.used_ms = now_ms;
        // Several may have come to one place: they are one reader from here on.
        let merged = self.readers.insert(stream.next, reader);
        let is_past = read.next >= stream.asked_to;
        let there = stream.ahead - stream.wish;
        let consumed = if is_past { there } else { there.min(read.bytes) };
        stream.ahead -= consumed;
        self.ahead -= consumed;
        let wants = stream.wish == 0 && stream.ahead < limits.window / 2;
        let from = stream.asked_to.max(read.next);
        if let Some(other) = merged.filter(|other| *other != reader) {
            self.forget(other);
        }
        if wants && self.has_room(limits, now_ms) {
            let stream = self.streams.get_mut(&reader)?;
            stream.wish = limits.window;
            stream.ahead += limits.window;
            self.ahead += limits.window;
            return Some(Wish { reader, from, bytes: limits.window });
        }
        None
    }

    /// The disk was asked for everything that `reader` wants below `to`: `bytes` of it.
    pub(crate) fn asked(&mut self, wish: &Wish, to: Offset, bytes: u64) {
        let Some(stream) = self.streams.get_mut(&wish.reader) else { return };
        stream.asked_to = stream.asked_to.max(to);
        // Whoever is past it already has nothing ahead.
        let kept = if stream.next.1 >= to { 0 } else { bytes.min(stream.wish) };
        let gone = std::mem::take(&mut stream.wish) - kept;
        stream.ahead -= gone;
        self.ahead -= gone;
    }

    fn begin(&mut self, read: &DiskRead, now_ms: u64) {
        if self.streams.len() >= MAX_STREAMS {
            let oldest =
                self.streams.iter().min_by_key(|(_, stream)| (stream.ahead > 0, stream.used_ms));
            if let Some(oldest) = oldest.map(|(reader, _)| *reader) {
                self.forget(oldest);
            }
        }
        let next = (read.id, read.next);
        // Another one goes on there as well: they are one reader from here on.
        if self.readers.contains_key(&next) {
            return;
        }
        self.last += 1;
        let reader = Reader(self.last);
        self.readers.insert(next, reader);
        let (asked_to, used_ms) = (read.next, now_ms);
        self.streams.insert(reader, Stream { next, asked_to, ahead: 0, wish: 0, used_ms });
    }

    /// Whether another window can be asked for, once those who have gone are forgotten.
    fn has_room(&mut self, limits: Limits, now_ms: u64) -> bool {
        let fits = |ahead: u64| ahead.saturating_add(limits.window) <= limits.total;
        if !fits(self.ahead) {
            let gone = |stream: &Stream| now_ms.saturating_sub(stream.used_ms) >= IDLE_MS;
            let gone: Vec<Reader> =
                self.streams.iter().filter(|(_, s)| gone(s)).map(|(reader, _)| *reader).collect();
            gone.into_iter().for_each(|reader| self.forget(reader));
        }
        fits(self.ahead)
    }

    fn forget(&mut self, reader: Reader) {
        let Some(stream) = self.streams.remove(&reader) else { return };
        self.ahead -= stream.ahead;
        if self.readers.get(&stream.next) == Some(&reader) {
            self.readers.remove(&stream.next);
        }
    }
}

#[cfg(test)]
#[path = "tests/streams.rs"]
mod tests;
