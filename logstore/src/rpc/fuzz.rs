//! Any bytes as the messages of the log service: for fuzzing.

use std::time::Duration;

use bytes::Bytes;
use interflow_meta::LogId;
use interflow_proto::log as proto;
use prost::Message;

use super::wire::ReadTerms;
use super::{client, wire};
use crate::AppendKey;

/// Reads any bytes as what a client sends and as what a server answers.
pub fn fuzz_log_messages(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(proto::AppendRequest { kind: Some(proto::append_request::Kind::Put(put)) }) =
        proto::AppendRequest::decode(bytes.clone())
    {
        let (number, id) = (put.number, put.id);
        if let Some(append) = wire::put(put, LogId(1)) {
            // What is taken can be sent on, and comes out the same.
            let again = wire::put(wire::put_message(&append, number, id), LogId(1));
            assert!(again.is_some_and(|again| again.key == append.key));
        }
    }
    if let Ok(proto::ReadRequest { kind: Some(proto::read_request::Kind::Read(read)) }) =
        proto::ReadRequest::decode(bytes.clone())
        && let Some(read) = wire::read(read, 1 << 20)
    {
        let terms = ReadTerms {
            id: 1,
            max_bytes: read.max_bytes,
            credit_bytes: read.max_bytes,
            timeout: Duration::ZERO,
        };
        let again = wire::read(wire::read_message(&read, terms), 1 << 20);
        assert!(again.is_some_and(|again| again.filter == read.filter));
    }
    let _ = proto::ObserveRequest::decode(bytes.clone());
    if let Ok(proto::AppendAnswer { kind: Some(proto::append_answer::Kind::Results(results)) }) =
        proto::AppendAnswer::decode(bytes.clone())
    {
        results.results.into_iter().for_each(|result| drop(wire::result(result)));
    }
    if let Ok(events) = proto::ObserveEvents::decode(bytes.clone()) {
        events.events.into_iter().for_each(|event| {
            let _ = event.kind.map(event_of);
        });
    }
    if let Ok(answers) = proto::ReadAnswers::decode(bytes.clone()) {
        client::asked::fuzz_answers(answers);
    }
    if let Ok(description) = proto::Description::decode(bytes.clone()) {
        let _ = wire::description(description);
    }
    if let Ok(error) = proto::Error::decode(bytes) {
        let _ = (wire::append_error(error.clone()), wire::read_error(error.clone()));
        let _ = wire::log_error(error);
    }
}

fn event_of(kind: proto::observe_event::Kind) -> Option<()> {
    use proto::observe_event::Kind;
    match kind {
        Kind::Advanced(bounds) => wire::bounds(&bounds).map(drop),
        Kind::Early(batch) => wire::early(batch).map(drop),
        Kind::Withheld(key) => wire::key(&key).map(drop),
        Kind::Failed(error) => wire::log_error(error).map(drop),
        Kind::WithheldBelow(_) | Kind::Ended(_) | Kind::Moved(_) | Kind::Welcome(_) => Some(()),
    }
}

/// Valid inputs of [`fuzz_log_messages`].
#[must_use]
pub fn log_message_seeds() -> Vec<Vec<u8>> {
    use proto::append_request::Kind;
    let key = wire::key_message(AppendKey { producer_id: 7, producer_epoch: 1, sequence: 9 });
    let batch = Bytes::from_static(b"0123456789");
    let put = proto::Put {
        number: 3,
        id: 4,
        key: Some(key),
        window: 5,
        count: 2,
        max_timestamp: 1_000,
        digest: Some(proto::KeyDigest { hashes: vec![1, 2] }),
        early: true,
        batch: batch.clone(),
        ..proto::Put::default()
    };
    let request = proto::AppendRequest { kind: Some(Kind::Put(put)) };
    let bounds = proto::Bounds { start: 1, committed: 9, stable: 9, leader_epoch: 0 };
    let stored = proto::StoredBatch {
        base_offset: 1,
        count: 2,
        key: Some(key),
        batch,
        ..Default::default()
    };
    let outcome =
        proto::ReadOutcome { batches: vec![stored], next_offset: 3, bounds: Some(bounds) };
    let outcome = proto::read_answer::Kind::Outcome(outcome);
    let needs = proto::read_answer::Kind::NeedsBytes(100_000);
    let answers = [outcome, needs].into_iter().zip(0..);
    let answers = answers.map(|(kind, id)| proto::ReadAnswer { id, kind: Some(kind) }).collect();
    let read = proto::Read {
        id: 1,
        log: 3,
        offset: 4,
        max_bytes: 100,
        credit_bytes: 1_000,
        timeout_ms: 5_000,
        stable_only: true,
        filter: Some(proto::KeyDigest { hashes: vec![1, 2] }),
    };
    let read = proto::ReadRequest { kind: Some(proto::read_request::Kind::Read(read)) };
    let appended = proto::Appended { base_offset: 1, log_start: 0, duplicate: true };
    let result = proto::Result { id: 4, kind: Some(proto::result::Kind::Appended(appended)) };
    let results = proto::append_answer::Kind::Results(proto::Results { results: vec![result] });
    let answer = proto::AppendAnswer { kind: Some(results) };
    let advanced = proto::observe_event::Kind::Advanced(bounds);
    let events = vec![proto::ObserveEvent { id: 1, kind: Some(advanced) }];
    vec![
        request.encode_to_vec(),
        read.encode_to_vec(),
        proto::ReadAnswers { answers }.encode_to_vec(),
        answer.encode_to_vec(),
        proto::ObserveEvents { events }.encode_to_vec(),
    ]
}
