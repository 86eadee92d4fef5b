//! The 61 bytes that begin a RecordBatch v2.

use super::cursor::{Cursor, Truncated};

/// How a batch's records are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy, raw or in the framing of snappy-java.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// What the timestamps of a batch are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// Each record's own, set by the producer.
    #[default]
    CreateTime,
    /// The batch's max timestamp, set on arrival, counts for each record.
    LogAppendTime,
}

/// Why these bytes are no header of a RecordBatch v2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer than 61 bytes.
    #[error("a batch of fewer than 61 bytes")]
    Truncated,
    /// A format other than v2.
    #[error("magic {0} instead of 2")]
    Magic(i8),
    /// A compression type that Kafka doesn't know.
    #[error("unknown compression type {0}")]
    UnknownCompression(u8),
}

impl From<Truncated> for HeaderError {
    fn from(_: Truncated) -> Self {
        Self::Truncated
    }
}

/// The header of a RecordBatch v2. It states what is on the wire; whether it is sensible is for
/// [`validate`](super::validate) to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record.
    pub base_offset: i64,
    /// Bytes after this field: the batch's bytes less 12.
    pub length: i32,
    /// Kafka's leader epoch at the append.
    pub leader_epoch: i32,
    /// CRC-32C of everything after it.
    pub crc: u32,
    /// All attribute bits.
    pub attributes: i16,
    /// The compression bits of `attributes`.
    pub compression: Compression,
    /// The last record's offset less the base offset.
    pub last_offset_delta: i32,
    /// The first record's timestamp, milliseconds since 1970.
    pub base_timestamp: i64,
    /// The largest timestamp.
    pub max_timestamp: i64,
    /// The producer's id; −1 without one.
    pub producer_id: i64,
    /// The producer's epoch; −1 without one.
    pub producer_epoch: i16,
    /// The sequence of the first record; −1 without one.
    pub base_sequence: i32,
    /// Records in the batch.
    pub count: i32,
}

impl BatchHeader {
    /// Bytes of a header.
    pub const LEN: usize = 61;
    /// Bytes before those that `length` counts.
    pub const LENGTH_FROM: usize = 12;
    /// Where the format's number lies, in every format.
    pub const MAGIC_AT: usize = 16;
    /// Where the CRC lies.
    pub const CRC_AT: usize = 17;
    /// The CRC covers all bytes from here.
    pub const CRC_FROM: usize = 21;

    /// Where the max timestamp lies.
    pub const MAX_TIMESTAMP_AT: usize = 35;

    pub(super) const COMPRESSION_BITS: i16 = 0x07;
    pub(super) const LOG_APPEND_TIME: i16 = 0x08;
    pub(super) const TRANSACTIONAL: i16 = 0x10;
    pub(super) const CONTROL: i16 = 0x20;
    pub(super) const DELETE_HORIZON: i16 = 0x40;

    /// Reads the header that `batch` begins with.
    pub fn parse(batch: &[u8]) -> Result<Self, HeaderError> {
        if let Some(&magic) = batch.get(Self::MAGIC_AT)
            && magic != 2
        {
            return Err(HeaderError::Magic(i8::from_be_bytes([magic])));
        }
        let mut at = Cursor::new(batch);
        let base_offset = at.i64()?;
        let length = at.i32()?;
        let leader_epoch = at.i32()?;
        let _magic = at.i8()?;
        let crc = at.u32()?;
        let attributes = at.i16()?;
        let last_offset_delta = at.i32()?;
        let base_timestamp = at.i64()?;
        let max_timestamp = at.i64()?;
        let producer_id = at.i64()?;
        let producer_epoch = at.i16()?;
        let base_sequence = at.i32()?;
        let count = at.i32()?;
        let compression = match attributes & Self::COMPRESSION_BITS {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            other => return Err(HeaderError::UnknownCompression(other.to_be_bytes()[1])),
        };
        Ok(Self {
            base_offset,
            length,
            leader_epoch,
            crc,
            attributes,
            compression,
            last_offset_delta,
            base_timestamp,
            max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            count,
        })
    }

    /// What the timestamps are.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & Self::TRANSACTIONAL != 0
    }

    /// A marker of the broker, not records of a producer.
    pub fn is_control(&self) -> bool {
        self.attributes & Self::CONTROL != 0
    }

    /// The base timestamp is the time from which tombstones may go, not that of a record.
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & Self::DELETE_HORIZON != 0
    }

    /// The batch has a producer id: it is idempotent or transactional.
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }

    /// Bytes of the whole batch by its own account; `None` for a length that none can have.
    pub fn batch_len(&self) -> Option<usize> {
        let after = usize::try_from(self.length).ok()?;
        let all = after.checked_add(Self::LENGTH_FROM)?;
        (all >= Self::LEN).then_some(all)
    }
}
