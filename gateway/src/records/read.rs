//! Reads the records of a batch, borrowed, without allocating.

use bytes::Bytes;

use super::cursor::{Cursor, Truncated};
use super::decompress::{DecompressError, decompress};
use super::header::{BatchHeader, Compression, HeaderError, TimestampType};

/// Why a batch's records can't be read (further). Those before were sound.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The header is none.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The bytes are not as many as the header states.
    #[error("the batch's length is not that of its bytes")]
    Length,
    /// The records don't decompress, or to more than the bound.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// A record contradicts its length, its batch, or the format.
    #[error("a malformed record")]
    Malformed,
}

impl From<Truncated> for RecordError {
    fn from(_: Truncated) -> Self {
        Self::Malformed
    }
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset less the batch's base offset.
    pub offset_delta: u32,
    /// Milliseconds since 1970; the batch's, if that has LogAppendTime.
    pub timestamp: i64,
    /// Its key; `None` is null.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is null, a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: Headers<'a>,
}

/// The headers of a record, in order, duplicates and all: name and value, `None` for null.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    at: Cursor<'a>,
    left: usize,
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        read_header(&mut self.at).ok() // the walk in `Records` has seen them all
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

/// A batch whose records can be read: checked for length, decompressed if need be. The CRC is not
/// looked at: it was on arrival, and the log store guards its own bytes.
#[derive(Clone, Debug)]
pub struct OpenBatch {
    header: BatchHeader,
    records: Bytes,
}

impl OpenBatch {
    /// Opens a batch. Compressed records may come to at most `max_decompressed` bytes.
    pub fn open(batch: &Bytes, max_decompressed: usize) -> Result<Self, RecordError> {
        let header = BatchHeader::parse(batch)?;
        if header.batch_len() != Some(batch.len()) {
            return Err(RecordError::Length);
        }
        let payload = batch.slice(BatchHeader::LEN..);
        let records = match header.compression {
            Compression::None => payload,
            compression => decompress(compression, &payload, max_decompressed)?,
        };
        Ok(Self { header, records })
    }

    /// The batch's header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The records' bytes. What [`OpenBatch::records`] lends are slices of these, so
    /// [`Bytes::slice_ref`] makes them shared without a copy.
    pub fn payload(&self) -> &Bytes {
        &self.records
    }

    /// Its records, in order.
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.header, &self.records)
    }

    /// The record at a place of [`Records::place`]; `None` if there is none.
    pub fn record_at(&self, place: u32) -> Option<Record<'_>> {
        let rest = self.records.get(usize::try_from(place).ok()?..)?;
        Records::new(&self.header, rest).next()?.ok()
    }
}

/// Walks uncompressed records. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    at: Cursor<'a>,
    left: i32,
    least_delta: i64,
    last_delta: i32,
    base_timestamp: i64,
    append_time: Option<i64>,
}

impl<'a> Records<'a> {
    /// The records in `payload`, the uncompressed bytes after `header`.
    pub fn new(header: &BatchHeader, payload: &'a [u8]) -> Self {
        let is_append_time = header.timestamp_type() == TimestampType::LogAppendTime;
        Self {
            at: Cursor::new(payload),
            left: header.count,
            least_delta: 0,
            last_delta: header.last_offset_delta,
            base_timestamp: header.base_timestamp,
            append_time: is_append_time.then_some(header.max_timestamp),
        }
    }

    /// Where the next record begins, by which [`OpenBatch::record_at`] finds it again. `None` past
    /// what 32 bits can count, and if these are not the records of `batch`.
    pub fn place(&self, batch: &OpenBatch) -> Option<u32> {
        let place = batch.records.len().checked_sub(self.at.remaining())?;
        u32::try_from(place).ok()
    }

    fn read(&mut self) -> Result<Record<'a>, RecordError> {
        let len = usize::try_from(self.at.varint()?).map_err(|_| RecordError::Malformed)?;
        let mut at = Cursor::new(self.at.take(len)?);
        let _attributes = at.u8()?;
        let timestamp_delta = at.varlong()?;
        let delta = at.varint()?;
        if i64::from(delta) < self.least_delta || delta > self.last_delta {
            return Err(RecordError::Malformed);
        }
        self.least_delta = i64::from(delta) + 1;
        let key = read_slice(&mut at)?;
        let value = read_slice(&mut at)?;
        let count = usize::try_from(at.varint()?).map_err(|_| RecordError::Malformed)?;
        let headers = Headers { at, left: count };
        for _ in 0..count {
            read_header(&mut at)?; // each takes two bytes at least, so a false count ends soon
        }
        if at.remaining() != 0 {
            return Err(RecordError::Malformed);
        }
        let own = self.base_timestamp.wrapping_add(timestamp_delta);
        Ok(Record {
            offset_delta: u32::try_from(delta).map_err(|_| RecordError::Malformed)?,
            timestamp: self.append_time.unwrap_or(own),
            key,
            value,
            headers,
        })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            let trailing = self.at.remaining() != 0;
            self.at = Cursor::new(&[]);
            return trailing.then_some(Err(RecordError::Malformed));
        }
        self.left -= 1;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
            self.at = Cursor::new(&[]);
        }
        Some(record)
    }
}

fn read_slice<'a>(at: &mut Cursor<'a>) -> Result<Option<&'a [u8]>, RecordError> {
    match at.varint()? {
        -1 => Ok(None),
        len => {
            let len = usize::try_from(len).map_err(|_| RecordError::Malformed)?;
            Ok(Some(at.take(len)?))
        }
    }
}

fn read_header<'a>(at: &mut Cursor<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), RecordError> {
    let name = read_slice(at)?.ok_or(RecordError::Malformed)?;
    Ok((name, read_slice(at)?))
}

/// Opens and reads any bytes as a batch: for fuzzing.
pub fn fuzz_batch(bytes: &[u8]) {
    let rules = super::BatchRules {
        max_bytes: 1 << 20,
        timestamp_type: TimestampType::CreateTime,
        before_max_ms: i64::MAX,
        after_max_ms: i64::MAX,
    };
    let _ = super::validate(bytes, &rules, 0);
    let mut bytes = bytes::BytesMut::from(bytes);
    if let Some(magic) = bytes.get_mut(BatchHeader::MAGIC_AT) {
        *magic = 2; // so that most inputs get past the header
    }
    let length = i32::try_from(bytes.len().saturating_sub(BatchHeader::LENGTH_FROM));
    if bytes.len() >= BatchHeader::LEN {
        super::validate::put(&mut bytes, 8, &length.unwrap_or(0).to_be_bytes());
    }
    let bytes = bytes.freeze();
    let Ok(batch) = OpenBatch::open(&bytes, 1 << 20) else { return };
    assert!(batch.payload().len() <= bytes.len().max(1 << 20), "the bound was passed");
    for record in batch.records().flatten() {
        assert_eq!(record.headers.count(), record.headers.size_hint().0);
    }
}
