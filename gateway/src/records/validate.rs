//! What a batch must be to enter a log (K4). Only its header is read, and its CRC computed once.

use bytes::{Bytes, BytesMut};

use super::header::{BatchHeader, Compression, HeaderError, TimestampType};

/// The least bytes of one record: length, attributes, timestamp and offset deltas, key and value
/// lengths, header count.
const LEAST_RECORD: usize = 7;

/// A topic's rules for batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchRules {
    /// `max.message.bytes`: the largest batch, header included.
    pub max_bytes: usize,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`.
    pub before_max_ms: i64,
    /// `message.timestamp.after.max.ms`.
    pub after_max_ms: i64,
}

/// Why a batch is refused. Nothing of it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The bytes are cut short, or the batch states a length that isn't theirs.
    #[error("the batch's length is not that of its bytes")]
    Length,
    /// More than one batch where Kafka allows one.
    #[error("more than one batch for one partition")]
    SeveralBatches,
    /// A format that is not stored (magic 0, 1, or one to come).
    #[error("magic {0} instead of 2")]
    Magic(i8),
    /// The CRC doesn't match.
    #[error("the CRC-32C does not match")]
    Crc,
    /// Larger than the topic's `max.message.bytes`.
    #[error("a batch of {bytes} bytes where {max_bytes} are the most")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// No records, or counts that contradict each other.
    #[error("the record count contradicts the batch")]
    Count,
    /// A timestamp outside the topic's bounds, or of a type only a broker may set.
    #[error("the timestamp is out of bounds")]
    Timestamp,
    /// A compression type that Kafka doesn't know.
    #[error("unknown compression type {0}")]
    UnknownCompression(u8),
    /// A control batch or a delete horizon, which only brokers write.
    #[error("a batch of a kind that only brokers write")]
    BrokerOnly,
    /// A producer id with a negative epoch or sequence, or transactional without a producer id.
    #[error("the producer's id, epoch or sequence contradict each other")]
    Producer,
}

impl From<HeaderError> for BatchError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::Truncated => Self::Length,
            HeaderError::Magic(magic) => Self::Magic(magic),
            HeaderError::UnknownCompression(kind) => Self::UnknownCompression(kind),
        }
    }
}

/// Checks that `batch` is exactly one batch that a producer may append to a topic with `rules`
/// at `now_ms` (milliseconds since 1970), and returns its header.
pub fn validate(batch: &[u8], rules: &BatchRules, now_ms: i64) -> Result<BatchHeader, BatchError> {
    let header = BatchHeader::parse(batch)?;
    let len = header.batch_len().ok_or(BatchError::Length)?;
    if len > batch.len() {
        return Err(BatchError::Length);
    }
    if len < batch.len() {
        return Err(BatchError::SeveralBatches);
    }
    if len > rules.max_bytes {
        return Err(BatchError::TooLarge { bytes: len, max_bytes: rules.max_bytes });
    }
    let covered = batch.get(BatchHeader::CRC_FROM..).ok_or(BatchError::Length)?;
    if crc32c::crc32c(covered) != header.crc {
        return Err(BatchError::Crc);
    }
    check_count(&header, len)?;
    if header.is_control() || header.has_delete_horizon() {
        return Err(BatchError::BrokerOnly);
    }
    check_producer(&header)?;
    check_timestamps(&header, rules, now_ms)?;
    Ok(header)
}

fn check_count(header: &BatchHeader, len: usize) -> Result<(), BatchError> {
    let count = usize::try_from(header.count).map_err(|_| BatchError::Count)?;
    if count == 0 || header.last_offset_delta != header.count - 1 {
        return Err(BatchError::Count);
    }
    let payload = len - BatchHeader::LEN;
    if header.compression == Compression::None && payload / LEAST_RECORD < count {
        return Err(BatchError::Count);
    }
    Ok(())
}

fn check_producer(header: &BatchHeader) -> Result<(), BatchError> {
    let complete = header.producer_epoch >= 0 && header.base_sequence >= 0;
    if header.has_producer() && !complete || !header.has_producer() && header.is_transactional() {
        return Err(BatchError::Producer);
    }
    Ok(())
}

fn check_timestamps(
    header: &BatchHeader,
    rules: &BatchRules,
    now_ms: i64,
) -> Result<(), BatchError> {
    if rules.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        return Err(BatchError::Timestamp);
    }
    // −1 is "no timestamp". The first record's is the base, so these two bound what there is to
    // know without decoding records.
    for timestamp in [header.base_timestamp, header.max_timestamp] {
        if timestamp < -1 {
            return Err(BatchError::Timestamp);
        }
        if timestamp >= 0 {
            let too_old = now_ms.saturating_sub(timestamp) > rules.before_max_ms;
            let too_new = timestamp.saturating_sub(now_ms) > rules.after_max_ms;
            if too_old || too_new {
                return Err(BatchError::Timestamp);
            }
        }
    }
    Ok(())
}

/// The batch with LogAppendTime: attributes, max timestamp and CRC set, all else as it was.
///
/// Copies the batch when its bytes are shared.
///
/// # Errors
/// [`HeaderError`] when `batch` doesn't begin with a header.
pub fn set_log_append_time(batch: Bytes, now_ms: i64) -> Result<Bytes, HeaderError> {
    let header = BatchHeader::parse(&batch)?;
    let attributes = header.attributes | BatchHeader::LOG_APPEND_TIME;
    let mut batch = batch.try_into_mut().unwrap_or_else(|shared| BytesMut::from(&shared[..]));
    put(&mut batch, BatchHeader::CRC_FROM, &attributes.to_be_bytes());
    put(&mut batch, BatchHeader::MAX_TIMESTAMP_AT, &now_ms.to_be_bytes());
    let crc = crc32c::crc32c(batch.get(BatchHeader::CRC_FROM..).unwrap_or_default());
    put(&mut batch, BatchHeader::CRC_AT, &crc.to_be_bytes());
    Ok(batch.freeze())
}

/// Overwrites bytes that a parsed header shows to be there.
pub(super) fn put(batch: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = batch.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}
