//! A Produce response.

use bytes::{BufMut, Bytes};
use kafka_protocol::ResponseError;

use super::request::{BY_ID, is_flexible};
use crate::kafka::data::topic::TopicKey;
use crate::kafka::data::wire::Writer;

/// How an append to one partition ended.
#[derive(Debug)]
pub(super) struct PartitionAnswer {
    pub(super) index: i32,
    pub(super) outcome: Result<Kept, Refused>,
}

/// Records that were committed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) base_offset: i64,
    /// −1 where the producer set the timestamps.
    pub(super) append_time_ms: i64,
    pub(super) log_start: i64,
}

/// Records that weren't.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    pub(super) error: ResponseError,
    pub(super) message: Option<String>,
}

impl From<ResponseError> for Refused {
    fn from(error: ResponseError) -> Self {
        Self { error, message: None }
    }
}

/// Encodes a response: each topic with so many of `partitions`.
pub(super) fn encode(
    version: i16,
    topics: &[(TopicKey, usize)],
    partitions: &[PartitionAnswer],
) -> Bytes {
    let mut to = Writer::new(16 + topics.len() * 40 + partitions.len() * 48, is_flexible(version));
    to.len(Some(topics.len()));
    let mut partitions = partitions.iter();
    for (topic, count) in topics {
        match topic {
            TopicKey::Name(name) => to.nullable_str(Some(name)),
            TopicKey::Id(id) => {
                debug_assert!(version >= BY_ID);
                to.uuid(*id);
            }
        }
        to.len(Some(*count));
        for partition in partitions.by_ref().take(*count) {
            encode_partition(&mut to, version, partition);
        }
        to.no_tags();
    }
    to.out.put_i32(0); // throttle time
    to.no_tags();
    to.out.freeze()
}

fn encode_partition(to: &mut Writer, version: i16, partition: &PartitionAnswer) {
    let nothing = Kept { base_offset: -1, append_time_ms: -1, log_start: -1 };
    let (code, message, kept) = match &partition.outcome {
        Ok(kept) => (0, None, *kept),
        Err(refused) => (refused.error.code(), refused.message.as_deref(), nothing),
    };
    to.out.put_i32(partition.index);
    to.out.put_i16(code);
    to.out.put_i64(kept.base_offset);
    to.out.put_i64(kept.append_time_ms);
    if version >= 5 {
        to.out.put_i64(kept.log_start);
    }
    if version >= 8 {
        to.len(Some(0)); // errors of single records
        to.nullable_str(message);
    }
    to.no_tags();
}
