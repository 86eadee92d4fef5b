//! FoundationDB's errors, as meta's.
//!
//! What matters is which of three a failure is: nothing was written and the cluster said why,
//! nothing was written and it may work later, or nobody knows.

use std::path::PathBuf;

use foundationdb::FdbError;

use super::{ANSWER_WITHIN, Db};
use crate::error::MetaError;
use crate::store::{Commit, Mutation};

/// Why a cluster can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FdbOpenError {
    /// There is no such file, or its name isn't text.
    #[error("there is no cluster file {}", .0.display())]
    NoClusterFile(PathBuf),
    /// The client or the cluster said no: the file isn't one of FoundationDB's, or is not readable.
    #[error("FoundationDB refuses the cluster file {}: {reason}", .cluster_file.display())]
    Refused {
        /// What was opened.
        cluster_file: PathBuf,
        /// FoundationDB's words.
        reason: &'static str,
    },
    /// Nobody answers at the addresses in the file.
    #[error(
        "the FoundationDB cluster of {} has not answered within {seconds} s: is it running, and \
         reachable from here?",
        .cluster_file.display()
    )]
    NoAnswer {
        /// What was opened.
        cluster_file: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
}

const TRANSACTION_TOO_OLD: i32 = 1007;
const NOT_COMMITTED: i32 = 1020;
const COMMIT_UNKNOWN_RESULT: i32 = 1021;
const TRANSACTION_CANCELLED: i32 = 1025;
const TRANSACTION_TIMED_OUT: i32 = 1031;
const TOO_MANY_WATCHES: i32 = 1032;
const BROKEN_PROMISE: i32 = 1100;
const OPERATION_CANCELLED: i32 = 1101;
const KEY_OUTSIDE_LEGAL_RANGE: i32 = 2004;
const INVERTED_RANGE: i32 = 2005;
const TRANSACTION_TOO_LARGE: i32 = 2101;
const KEY_TOO_LARGE: i32 = 2102;
const VALUE_TOO_LARGE: i32 = 2103;

/// The cluster did not answer in time.
pub(super) fn is_timeout(error: FdbError) -> bool {
    error.code() == TRANSACTION_TIMED_OUT
}

/// The error of a transaction of which nothing was sent to be written.
pub(super) fn of_read(db: &Db, error: FdbError) -> MetaError {
    match error.code() {
        TRANSACTION_TOO_OLD => MetaError::TooOld,
        TRANSACTION_TIMED_OUT => MetaError::Unavailable(format!(
            "no answer from the FoundationDB cluster of {} within {} s",
            db.cluster_file.display(),
            ANSWER_WITHIN.as_secs()
        )),
        TOO_MANY_WATCHES => MetaError::TooManyWatches,
        KEY_OUTSIDE_LEGAL_RANGE => MetaError::KeyOutsideLegalRange,
        INVERTED_RANGE => MetaError::InvertedRange,
        TRANSACTION_CANCELLED | BROKEN_PROMISE | OPERATION_CANCELLED => unavailable(error),
        _ if error.is_retryable() => unavailable(error),
        // Neither will it get better nor is it known here: its words must do.
        _ => MetaError::InvalidOperation(error.message()),
    }
}

/// The error of a commit of `size`.
pub(super) fn of_commit(db: &Db, error: FdbError, size: &Size) -> MetaError {
    match error.code() {
        NOT_COMMITTED => MetaError::Conflict,
        // Sent, and then no answer, for whatever reason.
        COMMIT_UNKNOWN_RESULT
        | TRANSACTION_CANCELLED
        | TRANSACTION_TIMED_OUT
        | BROKEN_PROMISE
        | OPERATION_CANCELLED => MetaError::CommitUnknown,
        TRANSACTION_TOO_LARGE => MetaError::TransactionTooLarge(size.transaction),
        KEY_TOO_LARGE => MetaError::KeyTooLarge(size.key),
        VALUE_TOO_LARGE => MetaError::ValueTooLarge(size.value),
        _ if error.is_maybe_committed() => MetaError::CommitUnknown,
        _ => of_read(db, error),
    }
}

fn unavailable(error: FdbError) -> MetaError {
    MetaError::Unavailable(format!("FoundationDB: {} ({})", error.message(), error.code()))
}

/// What a commit measures, in bytes: for the errors that say so.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    transaction: usize,
    key: usize,
    value: usize,
}

impl Size {
    pub(super) fn of(commit: &Commit) -> Self {
        let mut size = Self::default();
        for mutation in &commit.mutations {
            size.transaction += mutation.byte_size();
            let (key, value) = match mutation {
                Mutation::Set(key, value)
                | Mutation::Atomic(_, key, value)
                | Mutation::SetStampedKey { key, value, .. }
                | Mutation::SetStampedValue { key, value, .. } => (key.len(), value.len()),
                Mutation::Clear(key) => (key.len(), 0),
                Mutation::ClearRange(range) => (range.begin.len().max(range.end.len()), 0),
            };
            size.key = size.key.max(key);
            size.value = size.value.max(value);
        }
        for range in commit.reads.iter().chain(&commit.writes) {
            size.transaction += range.begin.len() + range.end.len();
        }
        size
    }
}
