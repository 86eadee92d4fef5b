//! A backend in memory: for tests, and for what needs no durability.

use std::io;

use parking_lot::RwLock;

use super::backend::Backend;

/// Bytes in memory, gone with the value.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    bytes: RwLock<Vec<u8>>,
}

impl MemoryBackend {
    /// A copy of all bytes.
    #[must_use]
    pub fn contents(&self) -> Vec<u8> {
        self.bytes.read().clone()
    }

    /// Puts other bytes in the place of all.
    pub fn restore(&self, bytes: &[u8]) {
        bytes.clone_into(&mut self.bytes.write());
    }
}

/// Where `len` bytes from `offset` lie; an error when that can't be addressed.
pub(super) fn span(offset: u64, len: usize) -> io::Result<std::ops::Range<usize>> {
    usize::try_from(offset)
        .ok()
        .and_then(|begin| Some(begin..begin.checked_add(len)?))
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

impl Backend for MemoryBackend {
    fn len(&self) -> io::Result<u64> {
        u64::try_from(self.bytes.read().len()).map_err(io::Error::other)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.read();
        let source = bytes.get(span(offset, out.len())?).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(source);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.bytes.write();
        bytes
            .get_mut(span(offset, data.len())?)
            .ok_or(io::ErrorKind::UnexpectedEof)?
            .copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = span(len, 0)?.start;
        self.bytes.write().resize(len, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
