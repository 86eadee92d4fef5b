//! Buffers that the disk is read into, used again: a new one is zeroed, and its pages are found and
//! zeroed by the kernel, only to be written over.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

/// Reads of other sizes get a buffer of their own.
const MIN_BYTES: usize = 32 << 10;
const MAX_BYTES: usize = 4 << 20;

/// What is kept for the next reads, in bytes.
const MAX_KEPT_BYTES: usize = 16 << 20;

/// A buffer that is so many times larger than the read stays where it is: slices of what was read
/// hold all of it.
const MAX_WASTE: usize = 2;

/// The buffers of a store that nobody uses.
#[derive(Default)]
pub(crate) struct Buffers {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    free: Vec<Box<[u8]>>,
    bytes: usize,
}

/// A buffer in use, which goes back when the last slice of it is dropped.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    len: usize,
    home: Option<Arc<Mutex<Kept>>>,
}

impl Buffers {
    /// A buffer for `len` bytes, with anything in it.
    pub(crate) fn take(&self, len: usize) -> Buffer {
        if !(MIN_BYTES..=MAX_BYTES).contains(&len) {
            return Buffer { bytes: vec![0; len].into(), len, home: None };
        }
        let size = len.next_power_of_two();
        let bytes = self.kept.lock().take(size);
        let bytes = bytes.unwrap_or_else(|| vec![0; size].into());
        Buffer { bytes, len, home: Some(Arc::clone(&self.kept)) }
    }
}

impl Kept {
    fn take(&mut self, size: usize) -> Option<Box<[u8]>> {
        let fits = size..=size * MAX_WASTE;
        let at = self.free.iter().rposition(|buffer| fits.contains(&buffer.len()))?;
        let buffer = self.free.swap_remove(at);
        self.bytes -= buffer.len();
        Some(buffer)
    }
}

impl Buffer {
    /// The bytes to read into.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }

    /// The first `len` bytes.
    pub(crate) fn freeze(mut self, len: usize) -> Bytes {
        self.len = self.len.min(len);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = &self.home else { return };
        let mut kept = home.lock();
        if kept.bytes + self.bytes.len() <= MAX_KEPT_BYTES {
            kept.bytes += self.bytes.len();
            kept.free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_with_its_last_slice_and_is_no_larger_than_what_was_read() {
        let buffers = Buffers::default();
        let mut first = buffers.take(100_000);
        first.bytes_mut().fill(7);
        let place = first.bytes.as_ptr();
        let bytes = first.freeze(90_000);
        assert_eq!(bytes.len(), 90_000);
        let slice = bytes.slice(5..10);
        drop(bytes);
        assert_eq!(buffers.kept.lock().bytes, 0, "a slice is still in use");
        assert_eq!(&slice[..], [7; 5]);
        drop(slice);
        assert_eq!(buffers.kept.lock().bytes, 128 << 10);
        assert_ne!(buffers.take(MIN_BYTES).bytes.as_ptr(), place, "far too large for it");
        let second = buffers.take(70_000);
        assert_eq!(second.bytes.as_ptr(), place);
        assert_eq!(second.as_ref().len(), 70_000);
    }

    #[test]
    fn what_is_kept_is_bounded_and_other_sizes_are_not_kept() {
        let buffers = Buffers::default();
        let many: Vec<_> = (0..10).map(|_| buffers.take(MAX_BYTES)).collect();
        drop(many);
        assert_eq!(buffers.kept.lock().bytes, MAX_KEPT_BYTES);
        let before = buffers.kept.lock().free.len();
        drop((buffers.take(MIN_BYTES - 1), buffers.take(MAX_BYTES + 1), buffers.take(0)));
        assert_eq!(buffers.kept.lock().free.len(), before);
    }
}
