//! Any bytes as the messages of the remote store: for fuzzing.

use bytes::Bytes;
use interflow_proto::meta_remote as proto;
use prost::Message;
use proto::mutation::Kind as Write;
use proto::question::Kind as Ask;

use super::wire;

/// Reads any bytes as what a client sends and as what a server answers.
pub fn fuzz_remote(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(request) = proto::CommitRequest::decode(bytes.clone())
        && let Ok(commit) = wire::commit(request)
    {
        // What is taken can be sent on, and comes out the same.
        let again = wire::commit_message(proto::View::default(), commit);
        assert!(wire::commit(again).is_ok());
    }
    if let Ok(request) = proto::ReadRequest::decode(bytes.clone()) {
        for question in request.questions {
            if let Some(Ask::GetRange(get_range)) = question.kind {
                let _ = wire::range(get_range.range);
            }
        }
    }
    if let Ok(response) = proto::ReadResponse::decode(bytes.clone()) {
        for result in response.results {
            let _ = wire::result(result);
        }
    }
    let _ = proto::WatchRequest::decode(bytes.clone());
    if let Ok(page) = proto::Page::decode(bytes.clone()) {
        let _ = wire::page(page);
    }
    if let Ok(committed) = proto::Committed::decode(bytes.clone()) {
        let _ = wire::committed(&committed);
    }
    if let Ok(error) = proto::Error::decode(bytes) {
        let _ = wire::error(error);
    }
}

/// Valid inputs of [`fuzz_remote`].
#[must_use]
pub fn remote_seeds() -> Vec<Vec<u8>> {
    let (key, value) = (Bytes::from_static(b"key"), Bytes::from_static(b"0123456789"));
    let range = proto::Range { begin: key.clone(), end: value.clone() };
    let stamped = proto::Stamped { key: value.clone(), value: value.clone(), offset: 0 };
    let atomic = proto::Atomic { op: 2, key: key.clone(), operand: value.clone() };
    let row = proto::KeyValue { key: key.clone(), value };
    let kinds = [
        Write::Set(row.clone()),
        Write::Clear(key),
        Write::ClearRange(range.clone()),
        Write::Atomic(atomic),
        Write::StampedKey(stamped.clone()),
        Write::StampedValue(stamped),
    ];
    let mutations = kinds.map(|kind| proto::Mutation { kind: Some(kind) }).to_vec();
    let commit =
        proto::CommitRequest { reads: vec![range.clone()], mutations, ..Default::default() };
    let error = proto::Error { kind: 4, last: Some(Box::default()), ..Default::default() };
    let page = proto::Page { rows: vec![row], more: true };
    let get_range = proto::GetRange { range: Some(range), rows: 1, ..Default::default() };
    let asked = proto::Question { kind: Some(Ask::GetRange(get_range)) };
    let read = proto::ReadRequest { questions: vec![asked] };
    let said = proto::Result { result: Some(proto::result::Result::Page(page.clone())) };
    let answer = proto::ReadResponse { results: vec![said] };
    vec![
        commit.encode_to_vec(),
        error.encode_to_vec(),
        page.encode_to_vec(),
        read.encode_to_vec(),
        answer.encode_to_vec(),
    ]
}
