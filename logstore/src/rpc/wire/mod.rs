//! Between the log service's types and the messages. What comes from outside is checked: `None` is
//! a message that says nothing that can be meant.

mod errors;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

pub(super) use errors::{
    append_error, append_error_message, log_error, log_error_message, read_error,
    read_error_message,
};
use interflow_meta::{LogId, NodeId, Offset};
use interflow_proto::log as proto;
use prost::Message;

use crate::{
    Append, AppendKey, AppendKind, AppendResult, Appended, Bounds, EarlyBatch, KeyDigest,
    LogDescription, LogError, LogReplicas, Read, ReadOutcome, ReplicaDescription,
    SegmentDescription, StoredBatch,
};

/// What a result takes in a message besides itself: its tag and its length.
const RESULT_OVERHEAD: usize = 6;

fn kind_message(kind: AppendKind) -> proto::AppendKind {
    match kind {
        AppendKind::Data => proto::AppendKind::Data,
        AppendKind::Commit => proto::AppendKind::Commit,
        AppendKind::Abort => proto::AppendKind::Abort,
    }
}

fn kind(code: i32) -> Option<AppendKind> {
    Some(match proto::AppendKind::try_from(code).ok()? {
        proto::AppendKind::Data => AppendKind::Data,
        proto::AppendKind::Commit => AppendKind::Commit,
        proto::AppendKind::Abort => AppendKind::Abort,
    })
}

pub(super) fn key_message(key: AppendKey) -> proto::AppendKey {
    let AppendKey { producer_id, producer_epoch, sequence } = key;
    proto::AppendKey { producer_id, producer_epoch: producer_epoch.into(), sequence }
}

pub(super) fn key(message: &proto::AppendKey) -> Option<AppendKey> {
    Some(AppendKey {
        producer_id: message.producer_id,
        producer_epoch: message.producer_epoch.try_into().ok()?,
        sequence: (message.sequence >= 0).then_some(message.sequence)?,
    })
}

/// A key that may be absent; `None` is one that is none.
fn optional_key(message: Option<proto::AppendKey>) -> Option<Option<AppendKey>> {
    message.map_or(Some(None), |message| key(&message).map(Some))
}

fn hashes_message(hashes: &Arc<[u32]>) -> proto::KeyDigest {
    proto::KeyDigest { hashes: hashes.to_vec() }
}

fn hashes(message: proto::KeyDigest) -> Option<Arc<[u32]>> {
    message.hashes.is_sorted_by(|a, b| a < b).then(|| message.hashes.into())
}

/// The message of an append; the log goes by its number.
pub(super) fn put_message(append: &Append, number: u32, id: u64) -> proto::Put {
    proto::Put {
        number,
        id,
        kind: kind_message(append.kind).into(),
        key: append.key.map(key_message),
        window: append.window.into(),
        count: append.count,
        max_timestamp: append.max_timestamp,
        digest: append.digest.as_ref().map(|digest| hashes_message(&digest.0)),
        early: append.early,
        batch: append.batch.clone(),
    }
}

pub(super) fn put(message: proto::Put, log: LogId) -> Option<Append> {
    Some(Append {
        log,
        kind: kind(message.kind)?,
        key: optional_key(message.key)?,
        window: message.window.try_into().ok()?,
        count: message.count,
        max_timestamp: message.max_timestamp,
        digest: match message.digest {
            Some(digest) => Some(KeyDigest(hashes(digest)?)),
            None => None,
        },
        early: message.early,
        batch: message.batch,
    })
}

pub(super) fn result_message(id: u64, result: &AppendResult) -> proto::Result {
    use proto::result::Kind;
    let kind = match result {
        Ok(Appended { base_offset, log_start, duplicate }) => Kind::Appended(proto::Appended {
            base_offset: *base_offset,
            log_start: *log_start,
            duplicate: *duplicate,
        }),
        Err(error) => Kind::Error(append_error_message(error)),
    };
    proto::Result { id, kind: Some(kind) }
}

pub(super) fn result(message: proto::Result) -> Option<AppendResult> {
    use proto::result::Kind;
    Some(match message.kind? {
        Kind::Appended(proto::Appended { base_offset, log_start, duplicate }) => {
            Ok(Appended { base_offset, log_start, duplicate })
        }
        Kind::Error(error) => Err(append_error(error)?),
    })
}

pub(super) fn replica_message(replica: &ReplicaDescription) -> proto::Replica {
    let ReplicaDescription { node, lag, is_in_sync } = *replica;
    proto::Replica { node: node.0, lag, is_in_sync }
}

pub(super) fn replica(message: &proto::Replica) -> ReplicaDescription {
    let proto::Replica { node, lag, is_in_sync } = *message;
    ReplicaDescription { node: NodeId(node), lag, is_in_sync }
}

pub(super) fn replicas_message(said: &Result<LogReplicas, LogError>) -> proto::ReplicasResult {
    use proto::replicas_result::Result as Of;
    let result = match said {
        Ok(LogReplicas { leader_epoch, replicas, replication_factor }) => Of::Kept(proto::Kept {
            leader_epoch: *leader_epoch,
            replicas: replicas.iter().map(replica_message).collect(),
            replication_factor: *replication_factor,
        }),
        Err(error) => Of::Error(log_error_message(error)),
    };
    proto::ReplicasResult { result: Some(result) }
}

pub(super) fn bounds_message(bounds: &Bounds) -> proto::Bounds {
    let Bounds { start, committed, stable, leader_epoch } = *bounds;
    proto::Bounds { start, committed, stable, leader_epoch }
}

pub(super) fn bounds(message: &proto::Bounds) -> Option<Bounds> {
    let proto::Bounds { start, committed, stable, leader_epoch } = *message;
    (start <= committed && stable <= committed).then_some(Bounds {
        start,
        committed,
        stable,
        leader_epoch,
    })
}

pub(super) fn early_message(batch: EarlyBatch) -> proto::EarlyBatch {
    proto::EarlyBatch { key: Some(key_message(batch.key)), batch: batch.bytes }
}

pub(super) fn early(message: proto::EarlyBatch) -> Option<EarlyBatch> {
    Some(EarlyBatch { key: key(&message.key?)?, bytes: message.batch })
}

/// What a read is allowed on its stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadTerms {
    pub(super) id: u64,
    /// No more than the read's own.
    pub(super) max_bytes: usize,
    pub(super) credit_bytes: usize,
    pub(super) timeout: Duration,
}

pub(super) fn read_message(read: &Read, terms: ReadTerms) -> proto::Read {
    let number = |bytes: usize| u64::try_from(bytes).unwrap_or(u64::MAX);
    proto::Read {
        id: terms.id,
        log: read.log.0,
        offset: read.offset,
        max_bytes: number(terms.max_bytes.min(read.max_bytes)),
        credit_bytes: number(terms.credit_bytes),
        timeout_ms: u64::try_from(terms.timeout.as_millis()).unwrap_or(u64::MAX),
        stable_only: read.stable_only,
        filter: read.filter.as_ref().map(hashes_message),
    }
}

pub(super) fn read(message: proto::Read, max_bytes: usize) -> Option<Read> {
    Some(Read {
        log: LogId(message.log),
        offset: message.offset,
        max_bytes: usize::try_from(message.max_bytes).unwrap_or(usize::MAX).min(max_bytes),
        stable_only: message.stable_only,
        filter: match message.filter {
            Some(filter) => Some(hashes(filter)?),
            None => None,
        },
    })
}

pub(super) fn outcome_message(outcome: ReadOutcome) -> proto::ReadOutcome {
    let batch = |batch: StoredBatch| proto::StoredBatch {
        base_offset: batch.base_offset,
        count: batch.count,
        max_timestamp: batch.max_timestamp,
        kind: kind_message(batch.kind).into(),
        key: batch.key.map(key_message),
        batch: batch.bytes,
    };
    proto::ReadOutcome {
        batches: outcome.batches.into_iter().map(batch).collect(),
        next_offset: outcome.next_offset,
        bounds: Some(bounds_message(&outcome.bounds)),
    }
}

pub(super) fn outcome(message: proto::ReadOutcome) -> Option<ReadOutcome> {
    let batch = |message: proto::StoredBatch| {
        Some(StoredBatch {
            base_offset: message.base_offset,
            count: message.count,
            max_timestamp: message.max_timestamp,
            kind: kind(message.kind)?,
            key: optional_key(message.key)?,
            bytes: message.batch,
        })
    };
    Some(ReadOutcome {
        batches: message.batches.into_iter().map(batch).collect::<Option<_>>()?,
        next_offset: message.next_offset,
        bounds: bounds(&message.bounds?)?,
    })
}

/// What is said of the first logs of a call: of as many as fit in a message.
pub(super) fn info(
    said: Vec<Result<LogDescription, LogError>>,
    max_bytes: usize,
) -> proto::InfoResponse {
    use proto::info_result::Result as Of;
    let error = |error: &LogError| Of::Error(log_error_message(error));
    let (mut results, mut bytes) = (Vec::with_capacity(said.len()), 0);
    for said in said {
        let of = match said {
            Ok(description) => Of::Description(description_message(description)),
            Err(refused) => error(&refused),
        };
        let mut result = proto::InfoResult { result: Some(of) };
        let mut len = result.encoded_len() + RESULT_OVERHEAD;
        if len > max_bytes {
            let too_large = format!("a description is too large to send: {len} bytes");
            result.result = Some(error(&LogError::Io(too_large)));
            len = result.encoded_len() + RESULT_OVERHEAD;
        }
        if bytes + len > max_bytes {
            break;
        }
        bytes += len;
        results.push(result);
    }
    proto::InfoResponse { results }
}

pub(super) fn description_message(description: LogDescription) -> proto::Description {
    let range = |(from, to): (Offset, Offset)| proto::OffsetRange { from, to };
    let segment = |segment: SegmentDescription| proto::Segment {
        epoch: segment.epoch,
        leader_epoch: segment.leader_epoch,
        base: segment.base,
        end: segment.end,
        bytes: segment.bytes,
        damaged: segment.damaged.into_iter().map(range).collect(),
    };
    proto::Description {
        bounds: Some(bounds_message(&description.bounds)),
        segments: description.segments.into_iter().map(segment).collect(),
        replicas: description.replicas.iter().map(replica_message).collect(),
        producers: u64::try_from(description.producers).unwrap_or(u64::MAX),
    }
}

pub(super) fn description(message: proto::Description) -> Option<LogDescription> {
    let segment = |message: proto::Segment| SegmentDescription {
        epoch: message.epoch,
        leader_epoch: message.leader_epoch,
        base: message.base,
        end: message.end,
        bytes: message.bytes,
        damaged: message.damaged.iter().map(|range| (range.from, range.to)).collect(),
    };
    Some(LogDescription {
        bounds: bounds(&message.bounds?)?,
        segments: message.segments.into_iter().map(segment).collect(),
        replicas: message.replicas.iter().map(replica).collect(),
        producers: usize::try_from(message.producers).unwrap_or(usize::MAX),
    })
}
