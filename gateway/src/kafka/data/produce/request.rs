//! A Produce request, walked in its frame: records stay where they are.

use bytes::Bytes;
use uuid::Uuid;

use crate::kafka::data::wire::Reader;
use crate::kafka::frame::FrameError;

/// The first version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 9;
/// The first version that names topics by id.
pub(super) const BY_ID: i16 = 13;

/// What stands before the topics.
#[derive(Clone, Copy, Debug)]
pub(in crate::kafka::data) struct Preamble {
    pub(in crate::kafka::data) acks: i16,
    pub(in crate::kafka::data) timeout_ms: i32,
}

/// What a request says, in the order in which it says it.
pub(in crate::kafka::data) trait Visitor {
    /// The topic whose partitions follow.
    fn topic(&mut self, topic: Named<'_>, partitions: usize);

    /// A partition of that topic and its records.
    fn partition(&mut self, index: i32, records: Option<Bytes>);
}

/// A topic's name or id.
#[derive(Clone, Copy, Debug)]
pub(in crate::kafka::data) enum Named<'a> {
    Name(&'a str),
    Id(Uuid),
}

/// Whether this version has compact lengths and tagged fields.
pub(super) fn is_flexible(version: i16) -> bool {
    version >= FLEXIBLE
}

/// Walks `body`, the body of a request that has passed [`check`](crate::kafka::frame::check).
pub(in crate::kafka::data) fn walk<V: Visitor>(
    version: i16,
    body: &Bytes,
    begin: impl FnOnce(Preamble) -> V,
) -> Result<V, FrameError> {
    let mut at = Reader::new(body, is_flexible(version));
    let _transactional_id = at.nullable_str()?;
    let acks = at.at.i16()?;
    let timeout_ms = at.at.i32()?;
    let mut visitor = begin(Preamble { acks, timeout_ms });
    for _ in 0..at.count()? {
        let topic = if version >= BY_ID { Named::Id(at.uuid()?) } else { Named::Name(at.str()?) };
        let partitions = at.count()?;
        visitor.topic(topic, partitions);
        for _ in 0..partitions {
            let index = at.at.i32()?;
            let records = at.nullable_bytes()?.map(|records| body.slice_ref(records));
            at.skip_tags()?;
            visitor.partition(index, records);
        }
        at.skip_tags()?;
    }
    at.skip_tags()?;
    Ok(visitor)
}
