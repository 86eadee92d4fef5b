//! Kafka's VARINT, VARLONG (zigzag) and UNSIGNED_VARINT.

use bytes::BufMut;

use super::cursor::{Cursor, Truncated};

/// Bytes of `value` as a VARLONG; for values of 32 bits also those as a VARINT.
pub(crate) fn zigzag_len(value: i64) -> usize {
    let zigzag = zigzag(value);
    let bits = 64 - (zigzag | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Writes `value` as a VARLONG; for values of 32 bits also a VARINT.
pub(crate) fn put_zigzag(out: &mut impl BufMut, value: i64) {
    put_unsigned(out, zigzag(value));
}

/// Writes an UNSIGNED_VARINT.
pub(crate) fn put_unsigned(out: &mut impl BufMut, mut rest: u64) {
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

impl Cursor<'_> {
    /// VARINT. More than five bytes, or bits past the 32nd, count as truncated.
    pub fn varint(&mut self) -> Result<i32, Truncated> {
        let raw = self.unsigned_varint()?;
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    /// UNSIGNED_VARINT of 32 bits. More than five bytes, or bits past the 32nd, count as truncated.
    #[inline]
    pub fn unsigned_varint(&mut self) -> Result<u32, Truncated> {
        let raw = self.unsigned(5)?;
        u32::try_from(raw).map_err(|_| Truncated)
    }

    /// VARLONG. More than ten bytes, or bits past the 64th, count as truncated.
    pub fn varlong(&mut self) -> Result<i64, Truncated> {
        let raw = self.unsigned(10)?;
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    #[inline]
    fn unsigned(&mut self, max_len: u32) -> Result<u64, Truncated> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        let mut value = u64::from(first & 0x7f);
        for at in 1..max_len {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if at == 9 && bits > 1 {
                return Err(Truncated);
            }
            value |= bits << (7 * at);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Truncated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn longs_round_trip(value: i64) {
            let mut out = Vec::new();
            put_zigzag(&mut out, value);
            prop_assert_eq!(out.len(), zigzag_len(value));
            let mut cursor = Cursor::new(&out);
            prop_assert_eq!(cursor.varlong(), Ok(value));
            prop_assert_eq!(cursor.remaining(), 0);
        }

        #[test]
        fn ints_round_trip(value: i32) {
            let mut out = Vec::new();
            put_zigzag(&mut out, i64::from(value));
            prop_assert_eq!(Cursor::new(&out).varint(), Ok(value));
        }
    }

    #[test]
    fn overlong_is_refused() {
        assert_eq!(Cursor::new(&[0xff; 6]).varint(), Err(Truncated));
        assert_eq!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint(), Err(Truncated));
        assert_eq!(Cursor::new(&[0xff; 11]).varlong(), Err(Truncated));
        assert_eq!(Cursor::new(&[0x80]).varint(), Err(Truncated));
    }
}
