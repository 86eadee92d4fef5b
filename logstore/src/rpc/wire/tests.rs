//! What goes over the wire comes out as it was.

use bytes::Bytes;

use super::*;
use crate::{AppendError, ReadError};

#[test]
fn every_error_comes_out_as_it_went_in() {
    let appends = [
        AppendError::NoSuchLog,
        AppendError::OutOfOrderSequence { expected: 7, got: -1 },
        AppendError::DuplicateSequence,
        AppendError::ProducerFenced { current: i16::MAX },
        AppendError::TooLarge { max_bytes: 100 },
        AppendError::DiskFull,
        AppendError::JournalFailed,
        AppendError::Stopped("why".into()),
        AppendError::Unknown,
        AppendError::Busy,
        AppendError::NotSequencer,
        AppendError::Unavailable("why".to_owned()),
    ];
    for error in appends {
        assert_eq!(append_error(append_error_message(&error)), Some(error));
    }
    let reads = [
        ReadError::NoSuchLog,
        ReadError::OutOfRange { offset: 3, start: 4, committed: 9 },
        ReadError::Damaged { from: 1, to: 2 },
        ReadError::Io("why".to_owned()),
        ReadError::NotSequencer,
        ReadError::Unavailable("why".to_owned()),
    ];
    for error in reads {
        assert_eq!(read_error(read_error_message(&error)), Some(error));
    }
    let logs = [
        LogError::NoSuchLog,
        LogError::Meta("why".to_owned()),
        LogError::Io("why".to_owned()),
        LogError::Stopped("why".into()),
        LogError::NotSequencer,
        LogError::Unavailable("why".to_owned()),
    ];
    for error in logs {
        assert_eq!(log_error(log_error_message(&error)), Some(error));
    }
    assert_eq!(append_error(proto::Error::default()), None);
}

#[test]
fn an_append_comes_out_as_it_went_in() {
    let key = AppendKey { producer_id: 9, producer_epoch: 2, sequence: i32::MAX };
    let append = Append {
        log: LogId(1 << 40),
        kind: AppendKind::Abort,
        key: Some(key),
        window: 64,
        count: 3,
        max_timestamp: -1,
        digest: Some(KeyDigest(Arc::from([1, 5, u32::MAX]))),
        early: true,
        batch: Bytes::from_static(b"batch"),
    };
    let again = put(put_message(&append, 0, 1), append.log).unwrap();
    assert_eq!(format!("{append:?}"), format!("{again:?}"));
}

#[test]
fn what_means_nothing_is_refused() {
    let valid = proto::Put { window: 5, count: 1, ..proto::Put::default() };
    let log = LogId(1);
    assert!(put(valid.clone(), log).is_some());
    let key = proto::AppendKey { producer_epoch: 40_000, ..proto::AppendKey::default() };
    assert!(put(proto::Put { key: Some(key), ..valid.clone() }, log).is_none());
    let key = proto::AppendKey { sequence: -1, ..proto::AppendKey::default() };
    assert!(put(proto::Put { key: Some(key), ..valid.clone() }, log).is_none());
    assert!(put(proto::Put { window: 70_000, ..valid.clone() }, log).is_none());
    assert!(put(proto::Put { kind: 3, ..valid.clone() }, log).is_none());
    let digest = Some(proto::KeyDigest { hashes: vec![2, 2] });
    assert!(put(proto::Put { digest, ..valid }, log).is_none());
    let bounds_of = |start, committed, stable| {
        bounds(&proto::Bounds { start, committed, stable, leader_epoch: 0 })
    };
    assert!(bounds_of(1, 1, 1).is_some());
    assert!(bounds_of(2, 1, 1).is_none() && bounds_of(0, 1, 2).is_none());
}

#[test]
fn as_many_descriptions_are_told_as_fit_in_a_message_and_one_at_least() {
    let described = |segments: u32| {
        let segment = |epoch| SegmentDescription {
            epoch,
            leader_epoch: 0,
            base: u64::from(epoch),
            end: Some(u64::from(epoch) + 1),
            bytes: 1 << 20,
            damaged: Vec::new(),
        };
        Ok(LogDescription {
            bounds: Bounds { start: 0, committed: 9, stable: 9, leader_epoch: 0 },
            segments: (0..segments).map(segment).collect(),
            replicas: Vec::new(),
            producers: 1,
        })
    };
    let one = info(vec![described(10)], 1 << 20).encoded_len();
    let fits = |logs: Vec<_>, max_bytes| {
        let message = info(logs, max_bytes);
        assert!(message.encoded_len() <= max_bytes);
        message.results.len()
    };
    let ten = || (0..10).map(|_| described(10)).collect::<Vec<_>>();
    assert_eq!(fits(ten(), 1 << 20), 10);
    assert!((3..=4).contains(&fits(ten(), 4 * one)));
    let mut logs = ten();
    logs[0] = described(1_000);
    logs[1] = Err(LogError::NoSuchLog);
    let message = info(logs, 10 * one);
    let errors = message.results.into_iter().filter_map(|one| match one.result {
        Some(proto::info_result::Result::Error(error)) => log_error(error),
        _ => None,
    });
    let errors: Vec<_> = errors.collect();
    assert!(matches!(errors[0], LogError::Io(_)), "it never fits: the others are told of");
    assert_eq!(errors[1..], [LogError::NoSuchLog]);
}
