//! What can go wrong in a transaction: FoundationDB's kinds, on every store.

/// Why an operation on meta failed.
///
/// [`Meta::transact`](crate::Meta::transact) retries what [`is_retryable`](MetaError::is_retryable)
/// says; everything else reaches its caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetaError {
    /// Something that the transaction read was changed by another before it committed. Nothing was
    /// written. (FoundationDB 1020, `not_committed`)
    #[error("conflict with another transaction")]
    Conflict,
    /// The commit's answer was lost: it may have been made, or not, or may yet be made.
    /// (FoundationDB 1021, `commit_unknown_result`)
    #[error("unknown whether the transaction was committed")]
    CommitUnknown,
    /// The transaction took longer than 5 s, or what is needed to check it is forgotten. Nothing
    /// was written. (FoundationDB 1007, `transaction_too_old`)
    #[error("transaction too old: it may take 5 s")]
    TooOld,
    /// The retry loop's time was up; the last error is inside.
    /// (FoundationDB 1031, `transaction_timed_out`)
    #[error("gave up retrying: {0}")]
    TimedOut(Box<MetaError>),
    /// A key is longer than 10,000 bytes. (FoundationDB 2102)
    #[error("key of {0} bytes; 10,000 are allowed")]
    KeyTooLarge(usize),
    /// A value is longer than 100,000 bytes. (FoundationDB 2103)
    #[error("value of {0} bytes; 100,000 are allowed")]
    ValueTooLarge(usize),
    /// Writes and conflict ranges exceed 10,000,000 bytes. (FoundationDB 2101)
    #[error("transaction of {0} bytes; 10,000,000 are allowed")]
    TransactionTooLarge(usize),
    /// A key begins with 0xFF, which FoundationDB keeps to itself. (FoundationDB 2004)
    #[error("key outside of the legal range")]
    KeyOutsideLegalRange,
    /// A range's end is before its begin. (FoundationDB 2005)
    #[error("range ends before it begins")]
    InvertedRange,
    /// A read of what only the commit will know: a versionstamp. (FoundationDB 1036)
    #[error("read of a versionstamped key or value before its commit")]
    AccessedUnreadable,
    /// An operation's argument breaks its rule. (FoundationDB 2000, `client_invalid_operation`)
    #[error("invalid operation: {0}")]
    InvalidOperation(&'static str),
    /// The transaction was committed already. (FoundationDB 2017, `used_during_commit`)
    #[error("transaction used after its commit began")]
    UsedAfterCommit,
    /// More keys are watched than the store can: let go of some. Nothing was written.
    /// (FoundationDB 1032, `too_many_watches`)
    #[error("too many watches")]
    TooManyWatches,
    /// The store doesn't answer now; later it may. Nothing was written.
    #[error("the metadata store is unavailable: {0}")]
    Unavailable(String),
    /// The disk of the store has no room. Nothing was written; commits are taken again once there
    /// is room.
    #[error("the disk of the metadata store is full")]
    DiskFull,
    /// The store doesn't take this client, by its token or its protocol: cure that. Nothing was
    /// written.
    #[error("the metadata store refuses this client: {0}")]
    Refused(String),
    /// A write or sync failed: the store takes no more commits until the process is started anew.
    /// A commit that gets this answer may or may not be kept.
    #[error("the metadata store has failed and takes no more writes: {0}")]
    StoreFailed(String),
    /// What was read can't be right.
    #[error("damaged metadata: {0}")]
    Corrupt(String),
}

impl MetaError {
    /// A new attempt of the whole transaction may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Conflict | Self::CommitUnknown | Self::TooOld | Self::Unavailable(_))
    }

    /// The transaction's writes may have been made.
    #[must_use]
    pub fn is_maybe_committed(&self) -> bool {
        match self {
            Self::CommitUnknown | Self::StoreFailed(_) => true,
            Self::TimedOut(last) => last.is_maybe_committed(),
            _ => false,
        }
    }

    /// FoundationDB's number of this error, where it has one.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        Some(match self {
            Self::Conflict => 1020,
            Self::CommitUnknown => 1021,
            Self::TooOld => 1007,
            Self::TimedOut(_) => 1031,
            Self::KeyTooLarge(_) => 2102,
            Self::ValueTooLarge(_) => 2103,
            Self::TransactionTooLarge(_) => 2101,
            Self::KeyOutsideLegalRange => 2004,
            Self::InvertedRange => 2005,
            Self::AccessedUnreadable => 1036,
            Self::InvalidOperation(_) => 2000,
            Self::UsedAfterCommit => 2017,
            Self::TooManyWatches => 1032,
            Self::Unavailable(_)
            | Self::DiskFull
            | Self::Refused(_)
            | Self::StoreFailed(_)
            | Self::Corrupt(_) => return None,
        })
    }
}

/// An error that a transaction's body may return: the retry loop looks for meta's own in it.
pub trait TransactError: From<MetaError> {
    /// The error of meta that this one is, if it is one.
    fn as_meta(&self) -> Option<&MetaError>;
}

impl TransactError for MetaError {
    fn as_meta(&self) -> Option<&MetaError> {
        Some(self)
    }
}
