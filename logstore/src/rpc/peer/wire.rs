//! Between the types of replication and the messages. `None`: a message that says nothing that can
//! be meant.

use bytes::Bytes;
use interflow_meta::{Epoch, LogId, NodeId};
use interflow_proto::peer as proto;

use crate::core::replication::Reply;
use crate::core::segment::Entry as CoreEntry;
use crate::peers::{
    Checking, Descriptor, Fetch, Fetched, Pull, Seal, Sealed, SentEntry, ToReplica, What,
};
use crate::store::{EntryHeader, EntryKind, SegmentId};
use crate::{AppendKey, KeyDigest};

pub(super) fn segment_message(id: SegmentId) -> proto::Segment {
    proto::Segment { log: id.log.0, epoch: id.epoch.0 }
}

pub(super) fn segment(message: Option<proto::Segment>) -> Option<SegmentId> {
    let proto::Segment { log, epoch } = message?;
    Some(SegmentId { log: LogId(log), epoch: Epoch(epoch) })
}

pub(super) fn entry_message(header: &EntryHeader, payload: Bytes) -> proto::Entry {
    proto::Entry {
        kind: header.kind as u32,
        base_offset: header.base_offset,
        count: header.count,
        max_timestamp: header.max_timestamp,
        key: header.key.map(|key| proto::Key {
            producer_id: key.producer_id,
            producer_epoch: key.producer_epoch.into(),
            sequence: key.sequence,
        }),
        window: header.window.into(),
        digest: header.digest.as_ref().map(|digest| proto::Digest { hashes: digest.0.to_vec() }),
        payload,
    }
}

pub(super) fn entry(id: SegmentId, message: proto::Entry) -> Option<(EntryHeader, Bytes)> {
    let kind = match message.kind {
        0 => EntryKind::Data,
        1 => EntryKind::Commit,
        2 => EntryKind::Abort,
        3 => EntryKind::Snapshot,
        _ => return None,
    };
    let key = match message.key {
        Some(key) => Some(AppendKey {
            producer_id: key.producer_id,
            producer_epoch: key.producer_epoch.try_into().ok()?,
            sequence: (key.sequence >= 0).then_some(key.sequence)?,
        }),
        None => None,
    };
    let digest = match message.digest {
        Some(digest) => {
            let is_sorted = digest.hashes.is_sorted_by(|a, b| a < b);
            Some(KeyDigest(is_sorted.then(|| digest.hashes.into())?))
        }
        None => None,
    };
    // A batch has room for what is written over it, and takes an offset; a snapshot takes none.
    let is_snapshot = kind == EntryKind::Snapshot;
    if is_snapshot != (message.count == 0) {
        return None;
    }
    message.base_offset.checked_add(u64::from(message.count))?;
    let header = EntryHeader {
        id,
        kind,
        base_offset: message.base_offset,
        count: message.count,
        max_timestamp: message.max_timestamp,
        key,
        window: message.window.try_into().ok()?,
        digest,
    };
    Some((header, message.payload))
}

pub(super) fn request_message(message: ToReplica) -> proto::ReplicateRequest {
    use proto::replicate_request::Kind;
    let kind = match message {
        ToReplica::Store { of, entry, committed, sent } => Kind::Store(proto::Store {
            segment: Some(segment_message(of.id)),
            base: of.base,
            tells_received: of.tells_received,
            entry: Some(entry_message(&sent.header, sent.payload.clone())),
            behind: entry.behind,
            committed,
            leader_epoch: sent.leader_epoch,
        }),
        ToReplica::Committed { id, committed } => {
            Kind::Committed(proto::Committed { segment: Some(segment_message(id)), committed })
        }
    };
    proto::ReplicateRequest { kind: Some(kind) }
}

pub(super) fn store(message: proto::Store) -> Option<ToReplica> {
    let id = segment(message.segment)?;
    let (header, payload) = entry(id, message.entry?)?;
    let is_snapshot = header.kind == EntryKind::Snapshot;
    if is_snapshot != message.leader_epoch.is_none()
        || !is_snapshot && payload.len() < BATCH_HEAD_BYTES
        || header.base_offset < message.base
    {
        return None;
    }
    let entry = CoreEntry {
        first: header.base_offset,
        count: header.count,
        bytes: payload.len() as u64,
        behind: message.behind,
        is_snapshot,
    };
    let of = Descriptor { id, base: message.base, tells_received: message.tells_received };
    let leader_epoch = message.leader_epoch;
    let sent = std::sync::Arc::new(SentEntry { header, payload, leader_epoch });
    Some(ToReplica::Store { of, entry, committed: message.committed, sent })
}

/// The part of a batch that its journal's copy gets written over.
const BATCH_HEAD_BYTES: usize = 16;

pub(super) fn committed(message: proto::Committed) -> Option<ToReplica> {
    Some(ToReplica::Committed { id: segment(message.segment)?, committed: message.committed })
}

pub(super) fn answer_message(id: SegmentId, reply: Reply) -> Option<proto::ReplicateAnswer> {
    use proto::replicate_answer::Kind;
    let refused = |refusal: proto::Refusal| Kind::Refused(refusal.into());
    let kind = match reply {
        Reply::Stored { local_end, durable_end } => {
            Kind::Stored(proto::Stored { local_end, durable_end })
        }
        Reply::Gap { local_end } => Kind::Gap(local_end),
        Reply::Sealed => refused(proto::Refusal::Sealed),
        Reply::Foreign => refused(proto::Refusal::Foreign),
        Reply::Damaged => refused(proto::Refusal::Damaged),
        Reply::Leaving => refused(proto::Refusal::Leaving),
        // Of the connection, not on it.
        Reply::Attached | Reply::Detached => return None,
    };
    Some(proto::ReplicateAnswer { segment: Some(segment_message(id)), kind: Some(kind) })
}

pub(super) fn answer(message: proto::ReplicateAnswer) -> Option<(SegmentId, Reply)> {
    use proto::replicate_answer::Kind;
    let id = segment(message.segment)?;
    let reply = match message.kind? {
        Kind::Stored(proto::Stored { local_end, durable_end }) => {
            Reply::Stored { local_end, durable_end }
        }
        Kind::Gap(local_end) => Reply::Gap { local_end },
        Kind::Refused(code) => match proto::Refusal::try_from(code).ok()? {
            proto::Refusal::Unspecified => return None,
            proto::Refusal::Sealed => Reply::Sealed,
            proto::Refusal::Foreign => Reply::Foreign,
            proto::Refusal::Damaged => Reply::Damaged,
            proto::Refusal::Leaving => Reply::Leaving,
        },
    };
    Some((id, reply))
}

pub(super) fn seal_message(seal: &Seal) -> proto::Seal {
    proto::Seal { segment: Some(segment_message(seal.id)), base: seal.base }
}

pub(super) fn seal(message: &proto::Seal) -> Option<Seal> {
    Some(Seal { id: segment(message.segment)?, base: message.base })
}

pub(super) fn sealed_message(sealed: &Sealed) -> proto::Sealed {
    proto::Sealed {
        segment: Some(segment_message(sealed.id)),
        end: sealed.end,
        counts: sealed.counts,
        bytes: sealed.bytes,
        max_timestamp: sealed.max_timestamp,
    }
}

pub(super) fn sealed(message: &proto::Sealed) -> Option<Sealed> {
    Some(Sealed {
        id: segment(message.segment)?,
        end: message.end,
        counts: message.counts,
        bytes: message.bytes,
        max_timestamp: message.max_timestamp,
    })
}

pub(super) fn fetch_message(fetch: &Fetch) -> proto::FetchRequest {
    proto::FetchRequest {
        segment: Some(segment_message(fetch.id)),
        from: fetch.from,
        has_snapshot: fetch.has_snapshot,
        until: fetch.until,
        max_bytes: fetch.max_bytes,
        what: match fetch.what {
            What::Entries => 0,
            What::Headers => 1,
            What::SinceSnapshot => 2,
        },
    }
}

pub(super) fn fetch(message: &proto::FetchRequest, max_bytes: u64) -> Option<Fetch> {
    Some(Fetch {
        id: segment(message.segment)?,
        from: message.from,
        has_snapshot: message.has_snapshot,
        until: message.until,
        max_bytes: message.max_bytes.min(max_bytes),
        what: match message.what {
            0 => What::Entries,
            1 => What::Headers,
            2 => What::SinceSnapshot,
            _ => return None,
        },
    })
}

pub(super) fn fetched_message(fetched: Fetched) -> proto::FetchResponse {
    let entries = fetched.entries.into_iter();
    let entries = entries.map(|(header, payload)| entry_message(&header, payload)).collect();
    proto::FetchResponse { entries, is_all: fetched.is_all }
}

pub(super) fn fetched(fetch: &Fetch, message: proto::FetchResponse) -> Option<Fetched> {
    let entry = |message| {
        let (header, payload) = entry(fetch.id, message)?;
        // Of headers only snapshots come with their payload.
        let is_batch = fetch.what == What::Entries && header.count > 0;
        (!is_batch || payload.len() >= BATCH_HEAD_BYTES).then_some((header, payload))
    };
    let entries = message.entries.into_iter().map(entry);
    Some(Fetched { entries: entries.collect::<Option<_>>()?, is_all: message.is_all })
}

pub(super) fn pull_message(pull: &Pull) -> proto::PullRequest {
    proto::PullRequest {
        segment: Some(segment_message(pull.id)),
        base: pull.base,
        source: pull.source.0,
        until: pull.until,
        is_anew: pull.is_anew,
    }
}

pub(super) fn pull(message: &proto::PullRequest) -> Option<Pull> {
    Some(Pull {
        id: segment(message.segment)?,
        base: message.base,
        source: NodeId(message.source),
        until: message.until,
        is_anew: message.is_anew,
    })
}

pub(super) fn checking_message(ask: &Checking) -> proto::CheckRequest {
    proto::CheckRequest {
        segment: Some(segment_message(ask.id)),
        from: ask.from,
        until: ask.until,
        max_bytes: ask.max_bytes,
    }
}

pub(super) fn checking(message: &proto::CheckRequest, max_bytes: u64) -> Option<Checking> {
    Some(Checking {
        id: segment(message.segment)?,
        from: message.from,
        until: message.until,
        max_bytes: message.max_bytes.min(max_bytes),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = SegmentId> {
        (any::<u64>(), any::<u32>())
            .prop_map(|(log, epoch)| SegmentId { log: LogId(log), epoch: Epoch(epoch) })
    }

    proptest! {
        #[test]
        fn stores_come_back_as_they_were(
            id in id(), base in 0_u64..1 << 40, at in 0_u64..1 << 40, count in 0_u32..9,
            committed: u64, behind: Option<u64>, tells_received: bool,
            key in proptest::option::of((any::<i64>(), any::<i16>(), 0..=i32::MAX)),
            mut hashes: Vec<u32>, payload in proptest::collection::vec(any::<u8>(), 16..40),
        ) {
            hashes.sort_unstable();
            hashes.dedup();
            let key = key.map(|(producer_id, producer_epoch, sequence)| {
                AppendKey { producer_id, producer_epoch, sequence }
            });
            let is_snapshot = count == 0;
            let header = EntryHeader {
                id,
                kind: if is_snapshot { EntryKind::Snapshot } else { EntryKind::Data },
                base_offset: base + at,
                count,
                max_timestamp: 7,
                key,
                window: 5,
                digest: Some(KeyDigest(hashes.into())),
            };
            let bytes = payload.len() as u64;
            let entry = CoreEntry { first: base + at, count, bytes, behind, is_snapshot };
            let leader_epoch = (!is_snapshot).then_some(3);
            let payload = Bytes::from(payload);
            let sent = SentEntry { header: header.clone(), payload: payload.clone(), leader_epoch };
            let of = Descriptor { id, base, tells_received };
            let message = ToReplica::Store { of, entry, committed, sent: std::sync::Arc::new(sent) };
            let Some(proto::replicate_request::Kind::Store(message)) =
                request_message(message).kind
            else {
                panic!()
            };
            let Some(ToReplica::Store { of: of_, entry: entry_, committed: committed_, sent }) =
                store(message)
            else {
                panic!()
            };
            prop_assert_eq!((of_, entry_, committed_), (of, entry, committed));
            prop_assert_eq!((&sent.header, &sent.payload), (&header, &payload));
            prop_assert_eq!(sent.leader_epoch, leader_epoch);
        }

        #[test]
        fn answers_come_back_as_they_were(id in id(), a: u64, b: u64, which in 0..6) {
            let reply = match which {
                0 => Reply::Stored { local_end: a, durable_end: b },
                1 => Reply::Gap { local_end: a },
                2 => Reply::Sealed,
                3 => Reply::Foreign,
                4 => Reply::Leaving,
                _ => Reply::Damaged,
            };
            let message = answer_message(id, reply).unwrap();
            prop_assert_eq!(answer(message), Some((id, reply)));
        }
    }
}
