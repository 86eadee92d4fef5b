//! Reads the primitive types of §1.5 from a slice.

use super::DecodeError;

const SHORT: DecodeError = DecodeError::malformed("a field ends past the packet");

/// A cursor over the bytes of one packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// All that remains.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(SHORT)?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn varint(&mut self) -> Result<u32, DecodeError> {
        let (value, len) = varint(self.rest)?.ok_or(SHORT)?;
        self.take(len)?;
        Ok(value)
    }

    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.u16()?;
        self.take(usize::from(len))
    }

    /// A UTF-8 string without U+0000 [MQTT-1.5.4-1, MQTT-1.5.4-2].
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.binary()?;
        if bytes.contains(&0) {
            return Err(DecodeError::malformed("a string holds U+0000"));
        }
        std::str::from_utf8(bytes)
            .map_err(|_| DecodeError::malformed("a string is not well-formed UTF-8"))
    }

    /// What a packet's last field must leave: nothing.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::malformed("bytes are left over after the packet's last field"))
        }
    }
}

/// The variable byte integer that `bytes` starts with and its length; `None` if more bytes are
/// needed. Only the shortest form is legal [MQTT-1.5.5-1].
pub(crate) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, DecodeError> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return if *byte == 0 && index > 0 {
                Err(DecodeError::malformed("a variable byte integer is not in its shortest form"))
            } else {
                Ok(Some((value, index + 1)))
            };
        }
    }
    if bytes.len() < 4 {
        Ok(None)
    } else {
        Err(DecodeError::malformed("a variable byte integer is longer than four bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p6_variable_byte_integers() {
        for (bytes, value) in [
            (&[0x00][..], 0),
            (&[0x7f], 127),
            (&[0x80, 0x01], 128),
            (&[0xff, 0x7f], 16_383),
            (&[0x80, 0x80, 0x01], 16_384),
            (&[0xff, 0xff, 0xff, 0x7f], 268_435_455),
        ] {
            assert_eq!(varint(bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(varint(&bytes[..bytes.len() - 1]), Ok(None));
        }
        assert!(varint(&[0x80, 0x00]).is_err());
        assert!(varint(&[0xff, 0x80, 0x00]).is_err());
        assert!(varint(&[0x80, 0x80, 0x80, 0x80]).is_err());
        assert!(varint(&[0x80, 0x80, 0x80, 0x80, 0x01]).is_err());
    }

    #[test]
    fn u1_strings() {
        for bad in [
            &b"\x00\x01\x00"[..],
            b"\x00\x01\xff",
            b"\x00\x02\xc0\x80",
            b"\x00\x03\xed\xa0\x80",
            b"\x00\x04ab",
        ] {
            assert!(Reader::new(bad).string().is_err(), "{bad:?}");
        }
        assert_eq!(Reader::new("\0\u{3}\u{feff}".as_bytes()).string(), Ok("\u{feff}"));
    }
}
