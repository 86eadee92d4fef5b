//! Errors, one to one.

use interflow_proto::log as proto;
use proto::error::Kind;

use crate::{AppendError, LogError, ReadError};

fn of(kind: Kind) -> proto::Error {
    proto::Error { kind: kind.into(), ..proto::Error::default() }
}

fn with(kind: Kind, detail: &str) -> proto::Error {
    proto::Error { detail: detail.to_owned(), ..of(kind) }
}

pub(in crate::rpc) fn append_error_message(error: &AppendError) -> proto::Error {
    match error {
        AppendError::NoSuchLog => of(Kind::NoSuchLog),
        AppendError::OutOfOrderSequence { expected, got } => {
            proto::Error { expected: *expected, got: *got, ..of(Kind::OutOfOrderSequence) }
        }
        AppendError::DuplicateSequence => of(Kind::DuplicateSequence),
        AppendError::ProducerFenced { current } => {
            proto::Error { expected: (*current).into(), ..of(Kind::ProducerFenced) }
        }
        AppendError::TooLarge { max_bytes } => {
            let from = u64::try_from(*max_bytes).unwrap_or(u64::MAX);
            proto::Error { from, ..of(Kind::TooLarge) }
        }
        AppendError::DiskFull => of(Kind::DiskFull),
        AppendError::JournalFailed => of(Kind::JournalFailed),
        AppendError::Stopped(detail) => with(Kind::Stopped, detail),
        AppendError::Unknown => of(Kind::Unknown),
        AppendError::Busy => of(Kind::Busy),
        AppendError::NotSequencer => of(Kind::NotSequencer),
        AppendError::Unavailable(detail) => with(Kind::Unavailable, detail),
    }
}

pub(in crate::rpc) fn append_error(message: proto::Error) -> Option<AppendError> {
    Some(match message.kind() {
        Kind::NoSuchLog => AppendError::NoSuchLog,
        Kind::OutOfOrderSequence => {
            AppendError::OutOfOrderSequence { expected: message.expected, got: message.got }
        }
        Kind::DuplicateSequence => AppendError::DuplicateSequence,
        Kind::ProducerFenced => {
            AppendError::ProducerFenced { current: message.expected.try_into().ok()? }
        }
        Kind::TooLarge => {
            AppendError::TooLarge { max_bytes: usize::try_from(message.from).unwrap_or(usize::MAX) }
        }
        Kind::DiskFull => AppendError::DiskFull,
        Kind::JournalFailed => AppendError::JournalFailed,
        Kind::Stopped => AppendError::Stopped(message.detail.into()),
        Kind::Unknown => AppendError::Unknown,
        Kind::Busy => AppendError::Busy,
        Kind::NotSequencer => AppendError::NotSequencer,
        Kind::Unavailable => AppendError::Unavailable(message.detail),
        Kind::Unspecified | Kind::OutOfRange | Kind::Damaged | Kind::Io | Kind::Meta => {
            return None;
        }
    })
}

pub(in crate::rpc) fn read_error_message(error: &ReadError) -> proto::Error {
    match error {
        ReadError::NoSuchLog => of(Kind::NoSuchLog),
        ReadError::OutOfRange { offset, start, committed } => {
            proto::Error { offset: *offset, from: *start, to: *committed, ..of(Kind::OutOfRange) }
        }
        ReadError::Damaged { from, to } => {
            proto::Error { from: *from, to: *to, ..of(Kind::Damaged) }
        }
        ReadError::Io(detail) => with(Kind::Io, detail),
        ReadError::NotSequencer => of(Kind::NotSequencer),
        ReadError::Unavailable(detail) => with(Kind::Unavailable, detail),
    }
}

pub(in crate::rpc) fn read_error(message: proto::Error) -> Option<ReadError> {
    Some(match message.kind() {
        Kind::NoSuchLog => ReadError::NoSuchLog,
        Kind::OutOfRange => ReadError::OutOfRange {
            offset: message.offset,
            start: message.from,
            committed: message.to,
        },
        Kind::Damaged => ReadError::Damaged { from: message.from, to: message.to },
        Kind::Io => ReadError::Io(message.detail),
        Kind::NotSequencer => ReadError::NotSequencer,
        Kind::Unavailable => ReadError::Unavailable(message.detail),
        _ => return None,
    })
}

pub(in crate::rpc) fn log_error_message(error: &LogError) -> proto::Error {
    match error {
        LogError::NoSuchLog => of(Kind::NoSuchLog),
        LogError::Meta(detail) => with(Kind::Meta, detail),
        LogError::Io(detail) => with(Kind::Io, detail),
        LogError::Stopped(detail) => with(Kind::Stopped, detail),
        LogError::NotSequencer => of(Kind::NotSequencer),
        LogError::Unavailable(detail) => with(Kind::Unavailable, detail),
    }
}

pub(in crate::rpc) fn log_error(message: proto::Error) -> Option<LogError> {
    Some(match message.kind() {
        Kind::NoSuchLog => LogError::NoSuchLog,
        Kind::Meta => LogError::Meta(message.detail),
        Kind::Io => LogError::Io(message.detail),
        Kind::Stopped => LogError::Stopped(message.detail.into()),
        Kind::NotSequencer => LogError::NotSequencer,
        Kind::Unavailable => LogError::Unavailable(message.detail),
        _ => return None,
    })
}
