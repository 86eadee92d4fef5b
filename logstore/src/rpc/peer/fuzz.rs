//! Any bytes as the messages of the peers: for fuzzing.

use bytes::Bytes;
use interflow_meta::{Epoch, LogId, NodeId};
use interflow_proto::peer as proto;
use prost::Message;

use super::wire;
use crate::core::replication::Reply;
use crate::core::segment::Entry;
use crate::peers::{
    Checking, Descriptor, Fetch, Fetched, Pull, Seal, Sealed, SentEntry, ToReplica, What,
};
use crate::store::{EntryHeader, EntryKind, SegmentId};
use crate::{AppendKey, KeyDigest};

const ID: SegmentId = SegmentId { log: LogId(7), epoch: Epoch(3) };
const FETCH_BYTES: u64 = 1 << 20;

/// Reads any bytes as what nodes send to one another and what they answer. What is taken holds what
/// the log service builds on, and can be sent on as it is.
pub fn fuzz_peer_messages(bytes: &[u8]) {
    use proto::replicate_request::Kind;
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(message) = proto::ReplicateRequest::decode(bytes.clone()) {
        let taken = match message.kind.clone() {
            Some(Kind::Store(store)) => wire::store(store),
            Some(Kind::Committed(committed)) => wire::committed(committed),
            Some(Kind::Hello(_)) | None => None,
        };
        if let Some(taken) = taken {
            if let ToReplica::Store { of, entry, sent, .. } = &taken {
                check(&sent.header);
                assert!(entry.first >= of.base && sent.header.id == of.id);
                assert!(entry.is_snapshot || sent.payload.len() >= 16);
            }
            assert_eq!(wire::request_message(taken), message);
        }
    }
    if let Ok(message) = proto::ReplicateAnswers::decode(bytes.clone()) {
        for message in message.answers {
            if let Some((id, reply)) = wire::answer(message) {
                assert_eq!(wire::answer_message(id, reply), Some(message));
            }
        }
    }
    if let Ok(message) = proto::SealRequest::decode(bytes.clone()) {
        let _ = message.seals.iter().map(wire::seal).collect::<Option<Vec<_>>>();
    }
    if let Ok(message) = proto::SealResponse::decode(bytes.clone()) {
        let _ = message.sealed.iter().map(wire::sealed).collect::<Option<Vec<_>>>();
    }
    if let Ok(message) = proto::FetchRequest::decode(bytes.clone()) {
        let fetch = wire::fetch(&message, FETCH_BYTES);
        assert!(fetch.is_none_or(|fetch| fetch.max_bytes <= FETCH_BYTES));
    }
    if let Ok(message) = proto::FetchResponse::decode(bytes.clone()) {
        for what in [What::Entries, What::Headers] {
            let Some(fetched) = wire::fetched(&fetch(what), message.clone()) else { continue };
            fetched.entries.iter().for_each(|(header, _)| check(header));
            assert_eq!(wire::fetched_message(fetched), message);
        }
    }
    if let Ok(message) = proto::PullRequest::decode(bytes.clone()) {
        let _ = wire::pull(&message);
    }
    if let Ok(message) = proto::CheckRequest::decode(bytes.clone()) {
        let ask = wire::checking(&message, FETCH_BYTES);
        assert!(ask.is_none_or(|ask| ask.max_bytes <= FETCH_BYTES));
    }
    let _ = proto::CheckResponse::decode(bytes.clone());
    let _ = proto::PullResponse::decode(bytes);
}

/// What every entry holds.
fn check(header: &EntryHeader) {
    assert_eq!(header.kind == EntryKind::Snapshot, header.count == 0);
    assert!(header.base_offset.checked_add(u64::from(header.count)).is_some());
    assert!(header.key.is_none_or(|key| key.sequence >= 0));
    let digest = header.digest.as_ref();
    assert!(digest.is_none_or(|digest| digest.0.is_sorted_by(|a, b| a < b)));
}

fn fetch(what: What) -> Fetch {
    Fetch { id: ID, from: 5, has_snapshot: true, until: 90, max_bytes: FETCH_BYTES, what }
}

fn header(kind: EntryKind, count: u32) -> EntryHeader {
    EntryHeader {
        id: ID,
        kind,
        base_offset: 12,
        count,
        max_timestamp: 1_000,
        key: Some(AppendKey { producer_id: 9, producer_epoch: 1, sequence: 4 }),
        window: 5,
        digest: Some(KeyDigest([1, 2, 3].into())),
    }
}

/// Valid inputs of [`fuzz_peer_messages`].
#[must_use]
pub fn peer_message_seeds() -> Vec<Vec<u8>> {
    let payload = Bytes::from_static(b"0123456789abcdef and more");
    let store = |kind, count: u32| {
        let is_snapshot = count == 0;
        let bytes = payload.len() as u64;
        let entry = Entry { first: 12, count, bytes, behind: Some(10), is_snapshot };
        let leader_epoch = (!is_snapshot).then_some(2);
        let sent =
            SentEntry { header: header(kind, count), payload: payload.clone(), leader_epoch };
        let of = Descriptor { id: ID, base: 10, tells_received: true };
        let message = ToReplica::Store { of, entry, committed: 11, sent: sent.into() };
        wire::request_message(message).encode_to_vec()
    };
    let replies = [
        Reply::Stored { local_end: 9, durable_end: 8 },
        Reply::Gap { local_end: 7 },
        Reply::Sealed,
        Reply::Leaving,
    ];
    let answers = replies.iter().filter_map(|reply| wire::answer_message(ID, *reply)).collect();
    let sealed = Sealed { id: ID, end: 12, counts: true, bytes: 99, max_timestamp: Some(-1) };
    let seals = vec![wire::seal_message(&Seal { id: ID, base: 3 })];
    let entries = vec![
        (header(EntryKind::Data, 2), payload.clone()),
        (header(EntryKind::Snapshot, 0), payload.clone()),
    ];
    let pull = Pull { id: ID, base: 1, source: NodeId(2), until: 90, is_anew: true };
    let ask = Checking { id: ID, from: 1, until: 90, max_bytes: FETCH_BYTES };
    let kind = proto::replicate_request::Kind::Hello(proto::Hello {
        node: 1,
        from_node: 2,
        from_incarnation: 3,
    });
    vec![
        store(EntryKind::Data, 3),
        store(EntryKind::Snapshot, 0),
        wire::request_message(ToReplica::Committed { id: ID, committed: 8 }).encode_to_vec(),
        proto::ReplicateRequest { kind: Some(kind) }.encode_to_vec(),
        proto::ReplicateAnswers { welcome: false, answers }.encode_to_vec(),
        proto::SealRequest { by: 1, seals }.encode_to_vec(),
        proto::SealResponse { sealed: vec![wire::sealed_message(&sealed)] }.encode_to_vec(),
        wire::fetch_message(&fetch(What::SinceSnapshot)).encode_to_vec(),
        wire::fetched_message(Fetched { entries, is_all: true }).encode_to_vec(),
        wire::pull_message(&pull).encode_to_vec(),
        wire::checking_message(&ask).encode_to_vec(),
        proto::PullResponse { end: 9 }.encode_to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_taken_and_what_breaks_a_rule_is_not() {
        peer_message_seeds().iter().for_each(|seed| fuzz_peer_messages(seed));
        let entry = |header: EntryHeader, bytes: &'static [u8]| {
            wire::entry_message(&header, Bytes::from_static(bytes))
        };
        let taken = |what, entry: proto::Entry| {
            let message = proto::FetchResponse { entries: vec![entry], is_all: true };
            wire::fetched(&fetch(what), message).is_some()
        };
        let data = || header(EntryKind::Data, 2);
        assert!(taken(What::Entries, entry(data(), b"0123456789abcdef")));
        // A batch without a head is a header's; a snapshot that takes an offset is none.
        assert!(!taken(What::Entries, entry(data(), b"0123456789abcde")));
        assert!(taken(What::Headers, entry(data(), b"")));
        assert!(!taken(What::Entries, entry(header(EntryKind::Data, 0), b"0123456789abcdef")));
        assert!(!taken(What::Entries, entry(header(EntryKind::Snapshot, 1), b"")));
        let past = EntryHeader { base_offset: u64::MAX - 1, ..data() };
        assert!(!taken(What::Headers, entry(past, b"")));
        let unsorted = EntryHeader { digest: Some(KeyDigest([2, 1].into())), ..data() };
        assert!(!taken(What::Headers, entry(unsorted, b"")));
        let unkind = proto::Entry { kind: 4, ..entry(data(), b"") };
        assert!(!taken(What::Headers, unkind));
    }
}
