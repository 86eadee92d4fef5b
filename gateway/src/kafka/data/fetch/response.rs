//! A Fetch response: fields in pieces of their own, batches as the log lent them but for small ones.

use bytes::{BufMut, Bytes};
use smallvec::SmallVec;

use super::request::is_flexible;
use crate::kafka::data::Body;
use crate::kafka::data::topic::TopicKey;
use crate::kafka::data::wire::Writer;

/// Batches up to this size are copied: that costs less than another piece in a vectored write.
const COPIED_BYTES: usize = 1024;

/// What is said of one partition.
#[derive(Clone, Debug, Default)]
pub(super) struct PartitionAnswer {
    pub(super) error_code: i16,
    /// −1 where it isn't known.
    pub(super) high_watermark: i64,
    /// −1 where it isn't known.
    pub(super) last_stable: i64,
    /// −1 where it isn't known.
    pub(super) log_start: i64,
    /// Batches in offset order.
    pub(super) records: SmallVec<[Bytes; 2]>,
    /// Bytes of `records`.
    pub(super) bytes: usize,
}

/// A partition and what is said of it.
pub(super) type Answered<'a> = (&'a TopicKey, i32, &'a PartitionAnswer);

/// A response that says only why there is none.
pub(super) fn encode_error(version: i16, error_code: i16) -> Body {
    encode(version, error_code, 0, false, &[])
}

/// Encodes a response. Partitions of one topic that stand together share its name.
pub(super) fn encode(
    version: i16,
    error_code: i16,
    session_id: i32,
    read_committed: bool,
    partitions: &[Answered<'_>],
) -> Body {
    let mut body = Body::new();
    let mut to = Writer::new(32 + own_bytes(partitions), is_flexible(version));
    to.out.put_i32(0); // throttle time
    if version >= 7 {
        to.out.put_i16(error_code);
        to.out.put_i32(session_id);
    }
    let by_topic = || partitions.chunk_by(|a, b| a.0 == b.0);
    to.len(Some(by_topic().count()));
    for of_topic in by_topic() {
        if let Some((topic, ..)) = of_topic.first() {
            match topic {
                TopicKey::Name(name) => to.nullable_str(Some(name)),
                TopicKey::Id(id) => to.uuid(*id),
            }
        }
        to.len(Some(of_topic.len()));
        for (_, index, partition) in of_topic {
            encode_partition(&mut to, &mut body, version, read_committed, *index, partition);
        }
        to.no_tags();
    }
    to.no_tags();
    body.push(to.out.freeze());
    body
}

/// About how many bytes are written for `partitions`, apart from lent batches.
fn own_bytes(partitions: &[Answered<'_>]) -> usize {
    let copied = |partition: &PartitionAnswer| -> usize {
        partition.records.iter().map(Bytes::len).filter(|len| *len <= COPIED_BYTES).sum()
    };
    partitions.iter().map(|(_, _, partition)| 64 + copied(partition)).sum()
}

fn encode_partition(
    to: &mut Writer,
    body: &mut Body,
    version: i16,
    read_committed: bool,
    index: i32,
    partition: &PartitionAnswer,
) {
    to.out.put_i32(index);
    to.out.put_i16(partition.error_code);
    to.out.put_i64(partition.high_watermark);
    to.out.put_i64(partition.last_stable);
    if version >= 5 {
        to.out.put_i64(partition.log_start);
    }
    to.len(read_committed.then_some(0)); // aborted transactions
    if version >= 11 {
        to.out.put_i32(-1); // preferred read replica: this one
    }
    to.len(Some(partition.bytes));
    for batch in &partition.records {
        if batch.len() <= COPIED_BYTES {
            to.out.put_slice(batch);
        } else {
            body.push(to.out.split().freeze());
            body.push(batch.clone());
        }
    }
    to.no_tags();
}
