//! What crosses the wire comes out as it went in, and what no client of ours would send is refused.

use bytes::Bytes;

use super::*;
use crate::transaction::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

fn sent(mutation: Mutation) -> Result<Mutation, MetaError> {
    super::mutation(mutation_message(mutation))
}

#[test]
fn every_mutation_comes_back_as_it_was() {
    let (key, value) =
        (Bytes::from_static(b"key-with-a-stamp"), Bytes::from_static(b"0123456789!"));
    let atomics = OPS.iter().map(|(op, _)| Mutation::Atomic(*op, key.clone(), value.clone()));
    let others = [
        Mutation::Set(key.clone(), Bytes::new()),
        Mutation::Clear(key.clone()),
        Mutation::ClearRange(KeyRange::new("a", "b")),
        Mutation::SetStampedKey { key: key.clone(), offset: 6, value: value.clone() },
        Mutation::SetStampedValue { key: key.clone(), value: value.clone(), offset: 1 },
    ];
    for mutation in atomics.chain(others) {
        assert_eq!(sent(mutation.clone()), Ok(mutation));
    }
}

/// FoundationDB's numbers of the operations.
#[test]
fn operations_have_the_numbers_of_foundationdb() {
    let codes: Vec<i32> = OPS.iter().map(|(_, code)| (*code).into()).collect();
    assert_eq!(codes, [2, 6, 7, 8, 9, 12, 13, 16, 17, 20]);
}

#[test]
fn every_error_comes_back_as_it_was() {
    for error in [
        MetaError::Conflict,
        MetaError::CommitUnknown,
        MetaError::TooOld,
        MetaError::TimedOut(Box::new(MetaError::Unavailable("away".to_owned()))),
        MetaError::KeyTooLarge(10_001),
        MetaError::ValueTooLarge(100_001),
        MetaError::TransactionTooLarge(10_000_001),
        MetaError::KeyOutsideLegalRange,
        MetaError::InvertedRange,
        MetaError::AccessedUnreadable,
        MetaError::UsedAfterCommit,
        MetaError::TooManyWatches,
        MetaError::DiskFull,
        MetaError::Unavailable("away".to_owned()),
        MetaError::StoreFailed("disk".to_owned()),
        MetaError::Corrupt("row".to_owned()),
        MetaError::Refused("token".to_owned()),
    ] {
        assert_eq!(super::error(error_message(&error)), Some(error));
    }
    let invalid = super::error(error_message(&MetaError::InvalidOperation("what")));
    assert_eq!(invalid.unwrap().code(), Some(2000));
    assert_eq!(super::error(proto::Error::default()), None);
    assert_eq!(super::error(proto::Error { kind: 99, ..proto::Error::default() }), None);
}

#[test]
fn a_server_checks_what_clients_should_have() {
    let long = Bytes::from(vec![1; MAX_KEY_BYTES + 1]);
    let large = Bytes::from(vec![1; MAX_VALUE_BYTES + 1]);
    let key = || Bytes::from_static(b"k");
    for (mutation, code) in [
        (Mutation::Set(long.clone(), key()), 2102),
        (Mutation::Set(key(), large.clone()), 2103),
        (Mutation::Set(Bytes::from_static(b"\xff"), key()), 2004),
        (Mutation::Clear(long.clone()), 2102),
        (Mutation::ClearRange(KeyRange::new("b", "a")), 2005),
        (Mutation::ClearRange(KeyRange::new("a", vec![0xff, 0])), 2004),
        (Mutation::Atomic(AtomicOp::Add, long.clone(), key()), 2102),
        (Mutation::Atomic(AtomicOp::Add, key(), large.clone()), 2103),
        (Mutation::SetStampedKey { key: key(), offset: 0, value: key() }, 2000),
        (Mutation::SetStampedValue { key: key(), value: key(), offset: 0 }, 2000),
    ] {
        assert_eq!(sent(mutation).unwrap_err().code(), Some(code));
    }
    let unknown = proto::Atomic { op: 99, key: key(), operand: key() };
    let unknown = proto::Mutation { kind: Some(Write::Atomic(unknown)) };
    assert_eq!(super::mutation(unknown).unwrap_err().code(), Some(2000));
    assert!(super::mutation(proto::Mutation::default()).is_err());
    assert!(range(None).is_err());
    let value = Bytes::from(vec![0; MAX_VALUE_BYTES]);
    let set = mutation_message(Mutation::Set(key(), value));
    let large = proto::CommitRequest { mutations: vec![set; 101], ..Default::default() };
    assert_eq!(commit(large).unwrap_err().code(), Some(2101));
}
