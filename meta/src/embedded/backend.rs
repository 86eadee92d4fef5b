//! What the embedded store keeps its bytes in.

use std::fmt::Debug;
use std::io;

/// A file's worth of bytes. A write is durable when a [`sync`](Backend::sync) that began after it
/// has returned; until then any part of it may be lost, and parts of it in any order.
pub trait Backend: Debug + Send + Sync + 'static {
    /// Bytes in it.
    ///
    /// # Errors
    /// The device's.
    fn len(&self) -> io::Result<u64>;

    /// It has no bytes.
    ///
    /// # Errors
    /// The device's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] past the end; the device's.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes `data` at `offset`, within the length.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is no room; the device's.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Cuts, or grows with zeros.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] when there is no room; the device's.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes all writes and lengths durable that were set before this call.
    ///
    /// # Errors
    /// The device's. What was not synced before may be lost even if a later call succeeds.
    fn sync(&self) -> io::Result<()>;
}
