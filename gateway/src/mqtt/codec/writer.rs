//! Writes the primitive types of §1.5: once to measure, once for real, by the same code.

use bytes::{BufMut, BytesMut};
use smallvec::SmallVec;

use super::{EncodeError, Receiver};

/// Where a packet is written to.
pub(crate) trait Sink {
    fn put(&mut self, bytes: &[u8]);

    fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    fn u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    fn varint(&mut self, mut value: u32) {
        while value > 0x7f {
            self.u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    /// A field of at most 65,535 bytes.
    fn field(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        let len = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong)?;
        self.u16(len);
        self.put(bytes);
        Ok(())
    }
}

impl Sink for BytesMut {
    fn put(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl<const N: usize> Sink for SmallVec<[u8; N]> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Counts what would be written.
#[derive(Debug, Default)]
pub(crate) struct Count(pub(crate) usize);

impl Sink for Count {
    fn put(&mut self, bytes: &[u8]) {
        self.0 += bytes.len();
    }
}

/// The bytes that `write` writes, as a length that a varint can carry.
pub(crate) fn measure(
    write: impl FnOnce(&mut Count) -> Result<(), EncodeError>,
) -> Result<u32, EncodeError> {
    let mut count = Count::default();
    write(&mut count)?;
    u32::try_from(count.0).ok().filter(|len| *len <= MAX_VARINT).ok_or(EncodeError::TooLarge)
}

/// The largest value of a variable byte integer.
pub(crate) const MAX_VARINT: u32 = 268_435_455;

/// Bytes that `value` takes as a variable byte integer.
pub(crate) fn varint_len(value: u32) -> u32 {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// The part of a packet behind its fixed header.
pub(crate) trait Body {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError>;
}

/// Appends a packet with `body`, if `receiver` takes one so large.
pub(crate) fn packet(
    out: &mut BytesMut,
    receiver: &Receiver,
    first: u8,
    body: &impl Body,
) -> Result<(), EncodeError> {
    let len = measure(|count| body.write(count))?;
    let total = 1 + varint_len(len) + len;
    if total > receiver.max_packet_bytes {
        return Err(EncodeError::TooLarge);
    }
    out.reserve(total as usize);
    out.u8(first);
    out.varint(len);
    body.write(out)
}

/// Checks that what stands in `bytes` could be written as a field.
pub(crate) fn check_field(bytes: &[u8]) -> Result<(), EncodeError> {
    if bytes.len() > usize::from(u16::MAX) { Err(EncodeError::FieldTooLong) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::{DecodeError, reader};
    use super::*;

    #[test]
    fn varints_read_as_written() -> Result<(), DecodeError> {
        for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, MAX_VARINT] {
            let mut bytes = BytesMut::new();
            bytes.varint(value);
            assert_eq!(reader::varint(&bytes)?, Some((value, varint_len(value) as usize)));
        }
        Ok(())
    }
}
