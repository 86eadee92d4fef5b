//! Writes a RecordBatch v2, record by record, straight into its final bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::header::BatchHeader;
use super::validate::put;
use super::varint::{put_unsigned, put_zigzag, zigzag_len};

/// The batch would pass what its 32-bit length can state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch would be larger than a batch can be")]
pub struct BatchFull;

/// A finished, uncompressed batch: base offset 0, leader epoch −1, CreateTime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltBatch {
    /// The RecordBatch v2.
    pub bytes: Bytes,
    /// Its records.
    pub count: u32,
    /// The largest timestamp of its records, milliseconds since 1970.
    pub max_timestamp: i64,
}

/// Builds batches of records, one after the other, from borrowed slices.
///
/// Headers are kept in order with their duplicates; null and empty are told apart.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    bytes: BytesMut,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: Option<(i64, i16, i32)>,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty batch with room for `bytes` bytes, its header included.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: BytesMut::with_capacity(bytes), ..Self::default() }
    }

    /// Records so far.
    pub fn count(&self) -> u32 {
        self.count.unsigned_abs()
    }

    /// No record yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch so far, its header included; 0 while it is empty.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the producer's id, epoch and the first record's sequence into this batch's header.
    pub fn set_producer(&mut self, id: i64, epoch: i16, sequence: i32) {
        self.producer = Some((id, epoch, sequence));
    }

    /// Appends a record with its timestamp in milliseconds since 1970. `headers` is walked twice:
    /// a record's length stands before it.
    ///
    /// # Errors
    /// [`BatchFull`]: finish the batch and append to the next; nothing of the record was kept.
    /// An empty batch that refuses a record will never take it.
    pub fn append<'a, H>(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
        timestamp: i64,
    ) -> Result<(), BatchFull>
    where
        H: Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + Clone,
    {
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let (header_count, header_bytes) =
            headers.clone().fold((0_i64, 0_usize), |(count, bytes), (name, value)| {
                (count + 1, bytes + slice_len(Some(name)) + slice_len(value))
            });
        let len = 1
            + zigzag_len(timestamp_delta)
            + zigzag_len(i64::from(self.count))
            + slice_len(key)
            + slice_len(value)
            + zigzag_len(header_count)
            + header_bytes;
        let before = self.bytes.len().max(BatchHeader::LEN);
        if before.checked_add(len).is_none_or(|all| all > i32::MAX as usize - 16) {
            return Err(BatchFull);
        }
        if self.count == 0 {
            self.bytes.reserve(BatchHeader::LEN + len + 5);
            self.bytes.put_bytes(0, BatchHeader::LEN);
        } else {
            self.bytes.reserve(len + 5);
        }
        let out = &mut self.bytes;
        put_zigzag(out, len as i64);
        out.put_u8(0);
        put_zigzag(out, timestamp_delta);
        put_zigzag(out, i64::from(self.count));
        put_slice(out, key);
        put_slice(out, value);
        put_zigzag(out, header_count);
        for (name, value) in headers {
            put_slice(out, Some(name));
            put_slice(out, value);
        }
        self.count += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        Ok(())
    }

    /// The batch, and an empty builder again; `None` if there is no record.
    pub fn finish(&mut self) -> Option<BuiltBatch> {
        if self.count == 0 {
            return None;
        }
        let mut batch = self.bytes.split();
        let count = std::mem::take(&mut self.count);
        let (id, epoch, sequence) = self.producer.take().unwrap_or((-1, -1, -1));
        let length = (batch.len() - BatchHeader::LENGTH_FROM) as i32; // `append` bounds it
        let mut header = [0_u8; BatchHeader::LEN];
        let mut out = &mut header[..];
        out.put_i64(0);
        out.put_i32(length);
        out.put_i32(-1);
        out.put_i8(2);
        out.put_u32(0);
        out.put_i16(0);
        out.put_i32(count - 1);
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(id);
        out.put_i16(epoch);
        out.put_i32(sequence);
        out.put_i32(count);
        put(&mut batch, 0, &header);
        let crc = crc32c::crc32c(batch.get(BatchHeader::CRC_FROM..).unwrap_or_default());
        put(&mut batch, BatchHeader::CRC_AT, &crc.to_be_bytes());
        Some(BuiltBatch {
            bytes: batch.freeze(),
            count: count.unsigned_abs(),
            max_timestamp: self.max_timestamp,
        })
    }
}

/// Bytes of a slice with its length before it; null is length −1.
fn slice_len(slice: Option<&[u8]>) -> usize {
    slice.map_or(1, |slice| zigzag_len(slice.len() as i64) + slice.len())
}

fn put_slice(out: &mut BytesMut, slice: Option<&[u8]>) {
    match slice {
        Some(slice) => {
            put_zigzag(out, slice.len() as i64);
            out.put_slice(slice);
        }
        None => put_unsigned(out, 1), // −1 in zigzag
    }
}
