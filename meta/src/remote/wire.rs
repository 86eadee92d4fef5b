//! Between the store's types and the messages; what a client sends is checked as if it had made no
//! check itself.

use bytes::Bytes;
use interflow_proto::meta_remote as proto;
use proto::error::Kind;
use proto::mutation::Kind as Write;

use crate::error::MetaError;
use crate::store::{AtomicOp, Commit, Committed, KeyRange, Mutation, Page, put_stamp};
use crate::transaction::{MAX_TRANSACTION_BYTES, check_key, check_range, check_value};

const OPS: [(AtomicOp, proto::AtomicOp); 10] = [
    (AtomicOp::Add, proto::AtomicOp::Add),
    (AtomicOp::And, proto::AtomicOp::And),
    (AtomicOp::Or, proto::AtomicOp::Or),
    (AtomicOp::Xor, proto::AtomicOp::Xor),
    (AtomicOp::AppendIfFits, proto::AtomicOp::AppendIfFits),
    (AtomicOp::Max, proto::AtomicOp::Max),
    (AtomicOp::Min, proto::AtomicOp::Min),
    (AtomicOp::ByteMin, proto::AtomicOp::ByteMin),
    (AtomicOp::ByteMax, proto::AtomicOp::ByteMax),
    (AtomicOp::CompareAndClear, proto::AtomicOp::CompareAndClear),
];

pub(super) fn range_message(range: KeyRange) -> proto::Range {
    proto::Range { begin: range.begin, end: range.end }
}

/// A range that may be read.
pub(super) fn range(message: Option<proto::Range>) -> Result<KeyRange, MetaError> {
    let message = message.ok_or(MetaError::InvalidOperation("a range is missing"))?;
    let range = KeyRange::new(message.begin, message.end);
    check_range(&range)?;
    Ok(range)
}

pub(super) fn page_message(page: Page) -> proto::Page {
    let rows = page.rows.into_iter().map(|(key, value)| proto::KeyValue { key, value });
    proto::Page { rows: rows.collect(), more: page.more }
}

pub(super) fn page(message: proto::Page) -> Page {
    let rows = message.rows.into_iter().map(|row| (row.key, row.value));
    Page { rows: rows.collect(), more: message.more }
}

/// What a read may be answered with.
#[derive(Debug)]
pub(super) enum Said {
    View(proto::View),
    Value(Option<Bytes>),
    Page(Page),
}

pub(super) fn result_message(said: Result<Said, MetaError>) -> proto::Result {
    use proto::result::Result as Of;
    let of = match said {
        Ok(Said::View(view)) => Of::View(view),
        Ok(Said::Value(value)) => Of::Value(proto::Value { value }),
        Ok(Said::Page(page)) => Of::Page(page_message(page)),
        Err(error) => Of::Error(error_message(&error)),
    };
    proto::Result { result: Some(of) }
}

/// The server's word; an error as well if it is not understood.
pub(super) fn result(message: proto::Result) -> Result<Said, MetaError> {
    use proto::result::Result as Of;
    match message.result {
        Some(Of::View(view)) => Ok(Said::View(view)),
        Some(Of::Value(value)) => Ok(Said::Value(value.value)),
        Some(Of::Page(message)) => Ok(Said::Page(page(message))),
        Some(Of::Error(message)) => Err(error(message).unwrap_or_else(not_understood)),
        None => Err(not_understood()),
    }
}

pub(super) fn not_understood() -> MetaError {
    MetaError::Unavailable("the server's answer is not understood".to_owned())
}

pub(super) fn committed_message(committed: Committed) -> proto::Committed {
    proto::Committed { version: committed.version, stamp: Bytes::copy_from_slice(&committed.stamp) }
}

/// `None` when the stamp isn't one.
pub(super) fn committed(message: &proto::Committed) -> Option<Committed> {
    let stamp = message.stamp[..].try_into().ok()?;
    Some(Committed { version: message.version, stamp })
}

/// The message of a commit without its watches, which go another way.
pub(super) fn commit_message(view: proto::View, commit: Commit) -> proto::CommitRequest {
    proto::CommitRequest {
        view: Some(view),
        reads: commit.reads.into_iter().map(range_message).collect(),
        writes: commit.writes.into_iter().map(range_message).collect(),
        mutations: commit.mutations.into_iter().map(mutation_message).collect(),
    }
}

fn mutation_message(mutation: Mutation) -> proto::Mutation {
    let kind = match mutation {
        Mutation::Set(key, value) => Write::Set(proto::KeyValue { key, value }),
        Mutation::Clear(key) => Write::Clear(key),
        Mutation::ClearRange(range) => Write::ClearRange(range_message(range)),
        Mutation::Atomic(op, key, operand) => {
            let code = OPS.iter().find(|(known, _)| *known == op).map(|(_, code)| *code);
            Write::Atomic(proto::Atomic { op: code.unwrap_or_default().into(), key, operand })
        }
        Mutation::SetStampedKey { key, offset, value } => {
            Write::StampedKey(proto::Stamped { key, value, offset: offset_code(offset) })
        }
        Mutation::SetStampedValue { key, value, offset } => {
            Write::StampedValue(proto::Stamped { key, value, offset: offset_code(offset) })
        }
    };
    proto::Mutation { kind: Some(kind) }
}

fn offset_code(offset: usize) -> u32 {
    // Where no stamp fits anyway.
    u32::try_from(offset).unwrap_or(u32::MAX)
}

/// A commit that keeps all limits.
pub(super) fn commit(message: proto::CommitRequest) -> Result<Commit, MetaError> {
    let ranges = |ranges: Vec<proto::Range>| {
        ranges.into_iter().map(|message| range(Some(message))).collect::<Result<Vec<_>, _>>()
    };
    let commit = Commit {
        reads: ranges(message.reads)?,
        writes: ranges(message.writes)?,
        mutations: message.mutations.into_iter().map(mutation).collect::<Result<_, _>>()?,
        watches: Vec::new(),
    };
    let ranges = commit.reads.iter().chain(&commit.writes);
    let bytes = ranges.map(|range| range.begin.len() + range.end.len()).sum::<usize>()
        + commit.mutations.iter().map(Mutation::byte_size).sum::<usize>();
    if bytes > MAX_TRANSACTION_BYTES {
        return Err(MetaError::TransactionTooLarge(bytes));
    }
    Ok(commit)
}

fn mutation(message: proto::Mutation) -> Result<Mutation, MetaError> {
    let kind = message.kind.ok_or(MetaError::InvalidOperation("a mutation of no kind"))?;
    Ok(match kind {
        Write::Set(proto::KeyValue { key, value }) => {
            check_key(&key)?;
            check_value(&value)?;
            Mutation::Set(key, value)
        }
        Write::Clear(key) => {
            check_key(&key)?;
            Mutation::Clear(key)
        }
        Write::ClearRange(message) => Mutation::ClearRange(range(Some(message))?),
        Write::Atomic(atomic) => {
            let code = atomic.op();
            let op = OPS.iter().find(|(_, known)| *known == code).map(|(op, _)| *op);
            let op = op.ok_or(MetaError::InvalidOperation("an unknown atomic operation"))?;
            check_key(&atomic.key)?;
            check_value(&atomic.operand)?;
            Mutation::Atomic(op, atomic.key, atomic.operand)
        }
        Write::StampedKey(proto::Stamped { key, value, offset }) => {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            check_key(&put_stamp(&key, offset, [0; 10])?)?;
            check_value(&value)?;
            Mutation::SetStampedKey { key, offset, value }
        }
        Write::StampedValue(proto::Stamped { key, value, offset }) => {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            check_key(&key)?;
            check_value(&value)?;
            put_stamp(&value, offset, [0; 10])?;
            Mutation::SetStampedValue { key, value, offset }
        }
    })
}

pub(super) fn error_message(error: &MetaError) -> proto::Error {
    let mut message = proto::Error::default();
    let kind = match error {
        MetaError::Conflict => Kind::Conflict,
        MetaError::CommitUnknown => Kind::CommitUnknown,
        MetaError::TooOld => Kind::TooOld,
        MetaError::TimedOut(last) => {
            message.last = Some(Box::new(error_message(last)));
            Kind::TimedOut
        }
        MetaError::KeyTooLarge(bytes) => {
            message.bytes = bytes_code(*bytes);
            Kind::KeyTooLarge
        }
        MetaError::ValueTooLarge(bytes) => {
            message.bytes = bytes_code(*bytes);
            Kind::ValueTooLarge
        }
        MetaError::TransactionTooLarge(bytes) => {
            message.bytes = bytes_code(*bytes);
            Kind::TransactionTooLarge
        }
        MetaError::KeyOutsideLegalRange => Kind::KeyOutsideLegalRange,
        MetaError::InvertedRange => Kind::InvertedRange,
        MetaError::AccessedUnreadable => Kind::AccessedUnreadable,
        MetaError::InvalidOperation(detail) => {
            (*detail).clone_into(&mut message.detail);
            Kind::InvalidOperation
        }
        MetaError::UsedAfterCommit => Kind::UsedAfterCommit,
        MetaError::TooManyWatches => Kind::TooManyWatches,
        MetaError::DiskFull => Kind::DiskFull,
        MetaError::Unavailable(detail) => {
            message.detail.clone_from(detail);
            Kind::Unavailable
        }
        MetaError::StoreFailed(detail) => {
            message.detail.clone_from(detail);
            Kind::StoreFailed
        }
        MetaError::Corrupt(detail) => {
            message.detail.clone_from(detail);
            Kind::Corrupt
        }
        MetaError::Refused(detail) => {
            message.detail.clone_from(detail);
            Kind::Refused
        }
    };
    message.set_kind(kind);
    message
}

fn bytes_code(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// `None` for an error of no known kind.
pub(super) fn error(message: proto::Error) -> Option<MetaError> {
    let bytes = usize::try_from(message.bytes).unwrap_or(usize::MAX);
    Some(match message.kind() {
        Kind::Unspecified => return None,
        Kind::Conflict => MetaError::Conflict,
        Kind::CommitUnknown => MetaError::CommitUnknown,
        Kind::TooOld => MetaError::TooOld,
        Kind::TimedOut => MetaError::TimedOut(Box::new(error(*message.last?)?)),
        Kind::KeyTooLarge => MetaError::KeyTooLarge(bytes),
        Kind::ValueTooLarge => MetaError::ValueTooLarge(bytes),
        Kind::TransactionTooLarge => MetaError::TransactionTooLarge(bytes),
        Kind::KeyOutsideLegalRange => MetaError::KeyOutsideLegalRange,
        Kind::InvertedRange => MetaError::InvertedRange,
        Kind::AccessedUnreadable => MetaError::AccessedUnreadable,
        Kind::InvalidOperation => {
            tracing::debug!(detail = message.detail, "the metadata server refused an operation");
            MetaError::InvalidOperation("the metadata server refused it")
        }
        Kind::UsedAfterCommit => MetaError::UsedAfterCommit,
        Kind::TooManyWatches => MetaError::TooManyWatches,
        Kind::DiskFull => MetaError::DiskFull,
        Kind::Unavailable => MetaError::Unavailable(message.detail),
        Kind::StoreFailed => MetaError::StoreFailed(message.detail),
        Kind::Corrupt => MetaError::Corrupt(message.detail),
        Kind::Refused => MetaError::Refused(message.detail),
    })
}

#[cfg(test)]
mod tests;
