//! The producer table as bytes: what a log writes so that a restart need not read all of it.
//!
//! ```text
//!   version u8 | is last u8 | producers u32 | { id i64 | epoch i16 | next i32 | window u16 | last used i64
//!                                | batches u16 | { sequence i32 | count u32 | offset u64 }* }*
//! ```
//!
//! Big-endian. *Is last*: the process stopped in order behind it. The entry that carries it has a checksum of its own.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use hashbrown::HashMap;

use super::{MAX_WINDOW, Producer, Producers, Remembered};

/// The version that is written.
const VERSION: u8 = 1;
/// Bytes of a producer without its batches.
const PRODUCER_BYTES: usize = 8 + 2 + 4 + 2 + 8 + 2;
/// Bytes of a remembered batch.
const BATCH_BYTES: usize = 4 + 4 + 8;

/// Why bytes are no snapshot.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SnapshotError {
    /// Written by a newer release.
    #[error("a producer snapshot of version {0}, which this release does not know")]
    Version(u8),
    /// Cut short, too long, or with values out of range.
    #[error("a malformed producer snapshot")]
    Malformed,
}

impl Producers {
    /// The table as bytes; equal tables give equal bytes.
    pub(crate) fn encode(&self, is_last: bool) -> Bytes {
        let size = 2 + 4 + self.map.len() * PRODUCER_BYTES + self.remembered * BATCH_BYTES;
        let mut out = BytesMut::with_capacity(size);
        let mut producers: Vec<(&i64, &Producer)> = self.map.iter().collect();
        producers.sort_unstable_by_key(|(id, _)| **id);
        out.put_u8(VERSION);
        out.put_u8(u8::from(is_last));
        out.put_u32(u32::try_from(producers.len()).unwrap_or(u32::MAX));
        for (id, producer) in producers {
            out.put_i64(*id);
            out.put_i16(producer.epoch);
            out.put_i32(producer.next);
            out.put_u16(producer.window);
            out.put_i64(producer.last_used_ms);
            // At most MAX_WINDOW, which is a u16.
            out.put_u16(u16::try_from(producer.batches.len()).unwrap_or(u16::MAX));
            for batch in &producer.batches {
                out.put_i32(batch.sequence);
                out.put_u32(batch.count);
                out.put_u64(batch.offset);
            }
        }
        out.freeze()
    }

    /// Reads what [`Producers::encode`] wrote: the table, and whether it was the last one.
    /// Allocates no more than the bytes account for.
    pub(crate) fn decode(mut bytes: &[u8]) -> Result<(Self, bool), SnapshotError> {
        let malformed = |_| SnapshotError::Malformed;
        let version = bytes.try_get_u8().map_err(malformed)?;
        if version != VERSION {
            return Err(SnapshotError::Version(version));
        }
        let is_last = match bytes.try_get_u8().map_err(malformed)? {
            0 => false,
            1 => true,
            _ => return Err(SnapshotError::Malformed),
        };
        let count = usize::try_from(bytes.try_get_u32().map_err(malformed)?)
            .map_err(|_| SnapshotError::Malformed)?;
        if count > bytes.len() / PRODUCER_BYTES {
            return Err(SnapshotError::Malformed);
        }
        let mut map = HashMap::with_capacity_and_hasher(count, Default::default());
        let mut remembered = 0;
        for _ in 0..count {
            let (id, producer) = decode_producer(&mut bytes)?;
            remembered += producer.batches.len();
            if map.insert(id, producer).is_some() {
                return Err(SnapshotError::Malformed);
            }
        }
        if !bytes.is_empty() {
            return Err(SnapshotError::Malformed);
        }
        Ok((Self { map, remembered }, is_last))
    }
}

fn decode_producer(bytes: &mut &[u8]) -> Result<(i64, Producer), SnapshotError> {
    if bytes.len() < PRODUCER_BYTES {
        return Err(SnapshotError::Malformed);
    }
    let id = bytes.get_i64();
    let epoch = bytes.get_i16();
    let next = bytes.get_i32();
    let window = bytes.get_u16();
    let last_used_ms = bytes.get_i64();
    let count = usize::from(bytes.get_u16());
    if next < 0
        || window == 0
        || window > MAX_WINDOW
        || count > usize::from(window)
        || count > bytes.len() / BATCH_BYTES
    {
        return Err(SnapshotError::Malformed);
    }
    let mut batches = VecDeque::with_capacity(count);
    for _ in 0..count {
        let batch = Remembered {
            sequence: bytes.get_i32(),
            count: bytes.get_u32(),
            offset: bytes.get_u64(),
        };
        if batch.sequence < 0 {
            return Err(SnapshotError::Malformed);
        }
        batches.push_back(batch);
    }
    Ok((id, Producer { epoch, next, window, last_used_ms, batches }))
}
