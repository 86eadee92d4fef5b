//! What tells a store from a file whose creation was cut short, and its format from newer ones.
//!
//! ```text
//!   | superblock | … 4096 | its copy | … 8192 | redb's file …
//! ```
//!
//! It is written when all behind it is made and synced. So where it is missing, nothing was ever
//! committed, and the file is made anew; redb alone couldn't tell that from damage.

use std::io;

use super::OpenError;
use super::backend::Backend;

/// Bytes in front of redb's file.
pub(super) const BYTES: u64 = 8_192;
/// Where superblock and copy lie; a damaged block of the device takes one of them only.
const PLACES: [u64; 2] = [0, 4_096];
const MAGIC: &[u8; 12] = b"InterflowMta";
/// Magic, format, and the bitwise inverse of the format as a check.
const LEN: usize = 20;

/// The format that this build writes and reads.
pub(super) const CURRENT_FORMAT: u32 = 1;

/// What the file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Empty, or its creation was cut short.
    Nothing,
    /// A store of the current format.
    Store,
}

fn encode(format: u32) -> [u8; LEN] {
    let mut block = [0; LEN];
    let bytes = MAGIC.iter().copied().chain(format.to_le_bytes()).chain((!format).to_le_bytes());
    for (place, byte) in block.iter_mut().zip(bytes) {
        *place = byte;
    }
    block
}

/// The format that `block` tells; `None` if it isn't a superblock.
fn decode(block: [u8; LEN]) -> Option<u32> {
    let numbers = block.strip_prefix(MAGIC)?;
    let (format, check) = numbers.split_first_chunk::<4>()?;
    let format = u32::from_le_bytes(*format);
    (check == (!format).to_le_bytes()).then_some(format)
}

/// Looks at the superblocks of `backend`, and puts right the one that is missing.
pub(super) fn read(backend: &dyn Backend) -> Result<Found, OpenError> {
    let len = backend.len().map_err(OpenError::Io)?;
    let mut blocks = Vec::new();
    for place in PLACES {
        let mut block = [0; LEN];
        if len >= BYTES {
            backend.read(place, &mut block).map_err(OpenError::Io)?;
        }
        blocks.push(block);
    }
    let formats: Vec<_> = blocks.iter().map(|block| decode(*block)).collect();
    let Some(format) = formats.iter().flatten().max().copied() else {
        if blocks.iter().flatten().any(|byte| *byte != 0) {
            return Err(OpenError::Corrupt("its superblocks are damaged".to_owned()));
        }
        return Ok(Found::Nothing);
    };
    if format > CURRENT_FORMAT {
        return Err(OpenError::NewerFormat { found: format, known: CURRENT_FORMAT });
    }
    if formats.contains(&None) {
        write(backend).map_err(OpenError::Io)?;
    }
    Ok(Found::Store)
}

/// Marks the file as a store. Everything else in it must be synced.
pub(super) fn write(backend: &dyn Backend) -> io::Result<()> {
    for place in PLACES {
        backend.write(place, &encode(CURRENT_FORMAT))?;
    }
    backend.sync()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{EmbeddedOptions, EmbeddedStore, Env, MemoryBackend};

    fn open(backend: &Arc<MemoryBackend>) -> Result<(), OpenError> {
        let backend = Arc::clone(backend) as Arc<dyn Backend>;
        EmbeddedStore::open_on(backend, &EmbeddedOptions::default(), Env::default()).map(drop)
    }

    fn store() -> Arc<MemoryBackend> {
        let backend = Arc::new(MemoryBackend::default());
        open(&backend).unwrap();
        backend
    }

    #[test]
    fn a_newer_format_is_told() {
        let backend = store();
        backend.write(0, &encode(2)).unwrap();
        let error = open(&backend).unwrap_err();
        assert!(matches!(error, OpenError::NewerFormat { found: 2, known: 1 }));
    }

    #[test]
    fn one_good_superblock_is_enough() {
        let backend = store();
        backend.write(0, &[0x55; LEN]).unwrap();
        open(&backend).unwrap();
        backend.write(4_096, &[0x55; LEN]).unwrap();
        open(&backend).unwrap();
    }

    #[test]
    fn damage_is_told_and_nothing_is_overwritten() {
        let backend = store();
        for place in PLACES {
            backend.write(place, &[0x55; LEN]).unwrap();
        }
        assert!(matches!(open(&backend), Err(OpenError::Corrupt(_))));
        let backend = store();
        backend.write(BYTES, &[0x55; 512]).unwrap();
        assert!(matches!(open(&backend), Err(OpenError::Corrupt(_))));
    }

    #[test]
    fn what_is_no_store_is_not_taken_for_one() {
        let backend = Arc::new(MemoryBackend::default());
        backend.set_len(10_000).unwrap();
        backend.write(0, b"something else altogether").unwrap();
        assert!(matches!(open(&backend), Err(OpenError::Corrupt(_))));
    }
}
