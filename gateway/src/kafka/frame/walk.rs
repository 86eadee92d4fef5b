//! The walk of a request by its schema.

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, RequestKind};

use super::header::parse_header;
use super::schema::{self, Field, Kind};
use super::versions::served_versions;
use crate::records::{Cursor, Truncated};

/// Why a frame is refused. None leaves anything to answer: the connection is closed (K1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// An API or a version of it that isn't served.
    #[error("an API or version that is not served")]
    NotServed,
    /// The bytes end within a field.
    #[error("the request ends within a field")]
    Truncated,
    /// A length or count below zero, or null where there must be a value.
    #[error("a negative length")]
    Length,
    /// More elements than the bytes that remain can hold.
    #[error("an array of more elements than the bytes that remain can hold")]
    Count,
    /// More elements, for their bytes, than any client has reason to send.
    #[error("too many tiny elements or tagged fields")]
    TooMany,
    /// A tagged field whose content is not of its size.
    #[error("a tagged field whose content is not of its size")]
    Tag,
    /// The client id is not UTF-8.
    #[error("the client id is not UTF-8")]
    ClientId,
    /// A value that its decoder refuses.
    #[error("a value that the decoder refuses")]
    Value,
}

impl From<Truncated> for FrameError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// Elements that are free, and the bytes that each further one must stand for on average: a decoded
/// element takes up to about 200 bytes, so decoding costs at most 3 MiB and 16 times the frame.
const FREE_ELEMENTS: usize = 16_384;
const BYTES_AN_ELEMENT: usize = 12;

/// Unknown tagged fields of one request; each costs a decoder about half a kilobyte.
const MAX_UNKNOWN_TAGS: usize = 64;

/// Checks the body of a request of `api` and `version`: every length and count fits into the bytes
/// that remain, and decoding it costs at most a small multiple of its size. Allocates nothing.
/// Returns the bytes behind the last field: Kafka ignores them, and librdkafka 2.16 sends some
/// (in Metadata v13 it writes a null array of a flexible version in four bytes).
///
/// # Errors
/// [`FrameError`]: the connection must be closed.
pub fn check(api: ApiKey, version: i16, body: &[u8]) -> Result<usize, FrameError> {
    let schema = schema::of(api).ok_or(FrameError::NotServed)?;
    if !served_versions(api).is_some_and(|served| served.contains(&version)) {
        return Err(FrameError::NotServed);
    }
    let mut walk = Walk::new(Cursor::new(body));
    walk.version = version;
    walk.flexible = version >= schema.flexible_since;
    walk.kind(&schema.body)?;
    Ok(walk.at.remaining())
}

/// Where the walk is. Its depth is that of the schemas, which are finite.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    at: Cursor<'a>,
    version: i16,
    flexible: bool,
    elements_left: usize,
    tags_left: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(at: Cursor<'a>) -> Self {
        let elements_left = FREE_ELEMENTS + at.remaining() / BYTES_AN_ELEMENT;
        Self { at, version: 0, flexible: true, elements_left, tags_left: MAX_UNKNOWN_TAGS }
    }

    /// Walks tagged fields of which none is known; returns where they end.
    pub(super) fn unknown_tags(mut self) -> Result<Cursor<'a>, FrameError> {
        self.tags(&[])?;
        Ok(self.at)
    }

    fn kind(&mut self, kind: &Kind) -> Result<(), FrameError> {
        match kind {
            Kind::Fixed(len) => self.skip(*len),
            Kind::Str => self.slice(true, false),
            Kind::NullableStr => self.slice(true, true),
            Kind::Bytes => self.slice(false, false),
            Kind::NullableBytes => self.slice(false, true),
            Kind::Array(element) => self.array(element, false),
            Kind::NullableArray(element) => self.array(element, true),
            Kind::Struct(fields) => self.fields(fields),
        }
    }

    fn skip(&mut self, len: usize) -> Result<(), FrameError> {
        self.at.take(len)?;
        Ok(())
    }

    fn slice(&mut self, is_str: bool, nullable: bool) -> Result<(), FrameError> {
        let len = if self.flexible {
            self.compact_len()?
        } else {
            let len = if is_str { i32::from(self.at.i16()?) } else { self.at.i32()? };
            plain_len(len)?
        };
        match len {
            Some(len) => self.skip(len),
            None if nullable => Ok(()),
            None => Err(FrameError::Length),
        }
    }

    /// A compact length; `None` for null.
    fn compact_len(&mut self) -> Result<Option<usize>, FrameError> {
        let raw = self.at.unsigned_varint()?;
        raw.checked_sub(1)
            .map(|len| usize::try_from(len).map_err(|_| FrameError::Length))
            .transpose()
    }

    fn array(&mut self, element: &Kind, nullable: bool) -> Result<(), FrameError> {
        let count = if self.flexible { self.compact_len()? } else { plain_len(self.at.i32()?)? };
        let Some(count) = count else {
            return if nullable { Ok(()) } else { Err(FrameError::Length) };
        };
        let least = self.least(element);
        let least_bytes = count.checked_mul(least).ok_or(FrameError::Count)?;
        if least_bytes > self.at.remaining() {
            return Err(FrameError::Count);
        }
        if let Kind::Fixed(len) = element {
            return self.skip(count * len);
        }
        self.elements_left = self.elements_left.checked_sub(count).ok_or(FrameError::TooMany)?;
        for _ in 0..count {
            self.kind(element)?;
        }
        Ok(())
    }

    /// The fewest bytes that a value of `kind` takes in this version; never 0.
    fn least(&self, kind: &Kind) -> usize {
        let len_bytes = |plain| if self.flexible { 1 } else { plain };
        match kind {
            Kind::Fixed(len) => *len,
            Kind::Str | Kind::NullableStr => len_bytes(2),
            Kind::Bytes | Kind::NullableBytes | Kind::Array(_) | Kind::NullableArray(_) => {
                len_bytes(4)
            }
            Kind::Struct(fields) => {
                let own: usize = fields
                    .iter()
                    .filter(|field| field.tag.is_none() && self.has(field))
                    .map(|field| self.least(&field.kind))
                    .sum();
                own + usize::from(self.flexible)
            }
        }
    }

    fn has(&self, field: &Field) -> bool {
        field.since <= self.version && self.version <= field.until
    }

    fn fields(&mut self, fields: &[Field]) -> Result<(), FrameError> {
        for field in fields {
            if field.tag.is_none() && self.has(field) {
                self.kind(&field.kind)?;
            }
        }
        if self.flexible { self.tags(fields) } else { Ok(()) }
    }

    fn tags(&mut self, known: &[Field]) -> Result<(), FrameError> {
        let count = self.at.unsigned_varint()?;
        for _ in 0..count {
            let tag = self.at.unsigned_varint()?;
            let size = self.at.unsigned_varint()?;
            let size = usize::try_from(size).map_err(|_| FrameError::Length)?;
            match known.iter().find(|field| field.tag == Some(tag)) {
                // Decoders of known tags don't look at the size.
                Some(field) => {
                    let before = self.at.remaining();
                    if !self.has(field) {
                        return Err(FrameError::Tag);
                    }
                    self.kind(&field.kind)?;
                    if before - self.at.remaining() != size {
                        return Err(FrameError::Tag);
                    }
                }
                None => {
                    self.tags_left = self.tags_left.checked_sub(1).ok_or(FrameError::TooMany)?;
                    self.skip(size)?;
                }
            }
        }
        Ok(())
    }
}

fn plain_len(len: i32) -> Result<Option<usize>, FrameError> {
    match len {
        -1 => Ok(None),
        len => usize::try_from(len).map(Some).map_err(|_| FrameError::Length),
    }
}

/// Reads any bytes as a request frame and, where the checks allow it, decodes it: for fuzzing.
pub fn fuzz_frame(frame: &[u8]) {
    let frame = Bytes::copy_from_slice(frame);
    let Ok((header, mut body)) = parse_header(&frame) else { return };
    let Ok(api) = ApiKey::try_from(header.api_key) else { return };
    let checked = check(api, header.version, &body);
    if let Ok(behind) = checked
        && RequestKind::decode(api, &mut body, header.version).is_ok()
    {
        assert_eq!(body.len(), behind, "{api:?} v{}: check and decoder differ", header.version);
    }
}
