//! A Fetch request, read from its frame.

use std::sync::Arc;
use std::time::Duration;

use crate::kafka::data::topic::TopicKey;
use crate::kafka::data::wire::Reader;
use crate::kafka::frame::FrameError;
use crate::topics::{Topic, Topics};

/// The first version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 12;
/// The first version that names topics by id (KIP-516).
pub(super) const BY_ID: i16 = 13;

/// What a consumer asks for.
#[derive(Debug)]
pub(super) struct FetchRequest {
    pub(super) max_wait: Duration,
    pub(super) min_bytes: usize,
    pub(super) max_bytes: usize,
    pub(super) read_committed: bool,
    /// It names topics by id.
    pub(super) by_id: bool,
    /// 0 for none.
    pub(super) session_id: i32,
    /// −1 ends a session or does without, 0 begins one, others go on.
    pub(super) session_epoch: i32,
    pub(super) wanted: Vec<Wanted>,
    pub(super) forgotten: Vec<(TopicKey, i32)>,
}

/// A partition to read.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) topic: TopicKey,
    pub(super) partition: i32,
    /// −1 where the client knows none.
    pub(super) leader_epoch: i32,
    pub(super) offset: i64,
    pub(super) max_bytes: usize,
}

/// Whether this version has compact lengths and tagged fields.
pub(super) fn is_flexible(version: i16) -> bool {
    version >= FLEXIBLE
}

/// Reads `body`, the body of a request that has passed [`check`](crate::kafka::frame::check).
pub(super) fn read(version: i16, body: &[u8], topics: &Topics) -> Result<FetchRequest, FrameError> {
    let mut at = Reader::new(body, is_flexible(version));
    if version <= 14 {
        let _replica_id = at.at.i32()?;
    }
    let max_wait_ms = at.at.i32()?;
    let min_bytes = at.at.i32()?;
    let max_bytes = at.at.i32()?;
    let isolation_level = at.at.i8()?;
    let (session_id, session_epoch) =
        if version >= 7 { (at.at.i32()?, at.at.i32()?) } else { (0, -1) };
    let wanted = read_wanted(&mut at, version, topics)?;
    let forgotten =
        if version >= 7 { read_forgotten(&mut at, version, topics)? } else { Vec::new() };
    Ok(FetchRequest {
        max_wait: Duration::from_millis(u64::try_from(max_wait_ms).unwrap_or(0)),
        min_bytes: not_negative(min_bytes),
        max_bytes: not_negative(max_bytes),
        read_committed: isolation_level == 1,
        by_id: version >= BY_ID,
        session_id,
        session_epoch,
        wanted,
        forgotten,
    })
}

/// The partitions and offsets that [`read`] finds in `body`: for fuzzing.
pub(in crate::kafka::data) fn wanted_of(
    version: i16,
    body: &[u8],
    topics: &Topics,
) -> Result<Vec<(i32, i64)>, FrameError> {
    let request = read(version, body, topics)?;
    Ok(request.wanted.iter().map(|wanted| (wanted.partition, wanted.offset)).collect())
}

fn read_wanted(
    at: &mut Reader<'_>,
    version: i16,
    topics: &Topics,
) -> Result<Vec<Wanted>, FrameError> {
    let mut wanted = Vec::new();
    for _ in 0..at.count()? {
        let topic = read_topic(at, version, topics)?;
        for _ in 0..at.count()? {
            let partition = at.at.i32()?;
            let leader_epoch = if version >= 9 { at.at.i32()? } else { -1 };
            let offset = at.at.i64()?;
            if version >= 12 {
                let _last_fetched_epoch = at.at.i32()?;
            }
            if version >= 5 {
                let _log_start = at.at.i64()?;
            }
            let max_bytes = not_negative(at.at.i32()?);
            at.skip_tags()?;
            let topic = topic.clone();
            wanted.push(Wanted { topic, partition, leader_epoch, offset, max_bytes });
        }
        at.skip_tags()?;
    }
    Ok(wanted)
}

fn read_forgotten(
    at: &mut Reader<'_>,
    version: i16,
    topics: &Topics,
) -> Result<Vec<(TopicKey, i32)>, FrameError> {
    let mut forgotten = Vec::new();
    for _ in 0..at.count()? {
        let topic = read_topic(at, version, topics)?;
        for _ in 0..at.count()? {
            forgotten.push((topic.clone(), at.at.i32()?));
        }
        at.skip_tags()?;
    }
    Ok(forgotten)
}

fn read_topic(at: &mut Reader<'_>, version: i16, topics: &Topics) -> Result<TopicKey, FrameError> {
    if version >= BY_ID {
        return Ok(TopicKey::Id(at.uuid()?));
    }
    let (key, _): (_, Option<Arc<Topic>>) = TopicKey::of_name(topics, at.str()?);
    Ok(key)
}

fn not_negative(value: i32) -> usize {
    usize::try_from(value).unwrap_or(0)
}
