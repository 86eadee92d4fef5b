//! What can go wrong with a log, one enum an operation.

use std::borrow::Cow;

use interflow_meta::Offset;

/// Why an append was refused. Unless it is [`AppendError::Unknown`] or
/// [`AppendError::JournalFailed`], nothing was kept.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq, Hash)]
pub enum AppendError {
    /// No such log (deleted, or never created).
    #[error("the log does not exist")]
    NoSuchLog,
    /// The sequence is not the producer's next one.
    #[error("out of order sequence: expected {expected}, got {got}")]
    OutOfOrderSequence {
        /// The next sequence of this producer.
        expected: i32,
        /// The sequence of the append.
        got: i32,
    },
    /// The sequence lies before all that is remembered, so its offset is not known any more.
    #[error("a duplicate of a batch older than those remembered")]
    DuplicateSequence,
    /// A newer epoch of this producer has appended.
    #[error("the producer is fenced by epoch {current}")]
    ProducerFenced {
        /// The newest epoch seen.
        current: i16,
    },
    /// The batch is larger than a log takes.
    #[error("the batch is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// The disk is (nearly) full; the append may be tried again later.
    #[error("the disk is full")]
    DiskFull,
    /// A write or a sync of the journal failed: nothing is taken until a restart. An append that was
    /// in flight then may or may not be kept.
    #[error("the journal failed: no appends are taken until a restart")]
    JournalFailed,
    /// The node stops, or meta didn't let the log be opened: nothing is taken now.
    #[error("the log store does not take appends: {0}")]
    Stopped(Cow<'static, str>),
    /// It may or may not be kept: retry with the same append key.
    #[error("the outcome of the append is unknown")]
    Unknown,
    /// Too much is in flight; try again when something was answered.
    #[error("too much in flight")]
    Busy,
    /// Another node is the log's sequencer: look in meta who, and append there. Nothing was kept.
    #[error("another node is the log's sequencer")]
    NotSequencer,
    /// The log's node can't be reached; nothing was kept. Try again later.
    #[error("the log's node is unavailable: {0}")]
    Unavailable(String),
}

/// Why a read failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReadError {
    /// No such log.
    #[error("the log does not exist")]
    NoSuchLog,
    /// The offset lies below the start or past the committed end.
    #[error("offset {offset} is outside {start}..={committed}")]
    OutOfRange {
        /// The offset asked for.
        offset: Offset,
        /// The log's start.
        start: Offset,
        /// The committed end.
        committed: Offset,
    },
    /// These offsets are damaged on disk and there is no other copy.
    #[error("offsets {from}..{to} are damaged and there is no other copy")]
    Damaged {
        /// The first damaged offset.
        from: Offset,
        /// One past the last.
        to: Offset,
    },
    /// The disk could not be read.
    #[error("could not read the log: {0}")]
    Io(String),
    /// Another node is the log's sequencer: look in meta who.
    #[error("another node is the log's sequencer")]
    NotSequencer,
    /// The log's node can't be reached or doesn't serve it now. Try again later.
    #[error("the log's node is unavailable: {0}")]
    Unavailable(String),
}

/// Why a question about a log has no answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum LogError {
    /// No such log.
    #[error("the log does not exist")]
    NoSuchLog,
    /// Meta could not be read or written.
    #[error("metadata is unavailable: {0}")]
    Meta(String),
    /// The disk could not be read.
    #[error("could not read the log: {0}")]
    Io(String),
    /// The node stops or its journal failed.
    #[error("the log store does not serve: {0}")]
    Stopped(Cow<'static, str>),
    /// Another node is the log's sequencer: look in meta who.
    #[error("another node is the log's sequencer")]
    NotSequencer,
    /// The log's node can't be reached. Try again later.
    #[error("the log's node is unavailable: {0}")]
    Unavailable(String),
}
