//! The shapes that differ between plain and flexible versions, read and written by hand for the
//! hot requests.

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use crate::kafka::frame::FrameError;
use crate::records::Cursor;

/// Reads fields of a request whose version is flexible or not.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) at: Cursor<'a>,
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(body: &'a [u8], flexible: bool) -> Self {
        Self { at: Cursor::new(body), flexible }
    }

    /// A string; `None` is null.
    pub(super) fn nullable_str(&mut self) -> Result<Option<&'a str>, FrameError> {
        let len = if self.flexible { self.compact()? } else { plain(self.at.i16()?.into())? };
        len.map(|len| std::str::from_utf8(self.at.take(len)?).map_err(|_| FrameError::Value))
            .transpose()
    }

    /// A string.
    pub(super) fn str(&mut self) -> Result<&'a str, FrameError> {
        self.nullable_str()?.ok_or(FrameError::Length)
    }

    /// Bytes; `None` is null.
    pub(super) fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, FrameError> {
        let len = if self.flexible { self.compact()? } else { plain(self.at.i32()?)? };
        Ok(len.map(|len| self.at.take(len)).transpose()?)
    }

    /// The elements of an array that can't be null.
    pub(super) fn count(&mut self) -> Result<usize, FrameError> {
        let len = if self.flexible { self.compact()? } else { plain(self.at.i32()?)? };
        len.ok_or(FrameError::Length)
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, FrameError> {
        Ok(Uuid::from_bytes(self.at.array()?))
    }

    /// Passes the tagged fields of a struct, none of which matter here.
    pub(super) fn skip_tags(&mut self) -> Result<(), FrameError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.at.unsigned_varint()? {
            let _tag = self.at.unsigned_varint()?;
            let size = self.at.unsigned_varint()?;
            self.at.take(usize::try_from(size).map_err(|_| FrameError::Length)?)?;
        }
        Ok(())
    }

    fn compact(&mut self) -> Result<Option<usize>, FrameError> {
        let raw = self.at.unsigned_varint()?;
        raw.checked_sub(1)
            .map(|len| usize::try_from(len).map_err(|_| FrameError::Length))
            .transpose()
    }
}

fn plain(len: i32) -> Result<Option<usize>, FrameError> {
    match len {
        -1 => Ok(None),
        len => usize::try_from(len).map(Some).map_err(|_| FrameError::Length),
    }
}

/// Writes fields of a response whose version is flexible or not.
///
/// Lengths are of what this process holds in memory for one response, so they fit 31 bits.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) out: BytesMut,
    flexible: bool,
}

impl Writer {
    pub(super) fn new(capacity: usize, flexible: bool) -> Self {
        Self { out: BytesMut::with_capacity(capacity), flexible }
    }

    /// The length of an array or of bytes; `None` is null.
    pub(super) fn len(&mut self, len: Option<usize>) {
        if self.flexible {
            self.compact(len);
        } else {
            self.out.put_i32(len.map_or(-1, saturated));
        }
    }

    /// A string of at most 32 KiB; `None` is null.
    pub(super) fn nullable_str(&mut self, value: Option<&str>) {
        if self.flexible {
            self.compact(value.map(str::len));
        } else {
            let len = value.map_or(-1, |value| i16::try_from(value.len()).unwrap_or(i16::MAX));
            self.out.put_i16(len);
        }
        self.out.put_slice(value.unwrap_or_default().as_bytes());
    }

    pub(super) fn uuid(&mut self, id: Uuid) {
        self.out.put_slice(id.as_bytes());
    }

    /// No tagged fields.
    pub(super) fn no_tags(&mut self) {
        if self.flexible {
            self.out.put_u8(0);
        }
    }

    fn compact(&mut self, len: Option<usize>) {
        let mut rest = len.map_or(0, |len| len as u64 + 1);
        while rest >= 0x80 {
            self.out.put_u8((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        self.out.put_u8(rest as u8);
    }
}

fn saturated(len: usize) -> i32 {
    i32::try_from(len).unwrap_or(i32::MAX)
}
