//! Errors of the system inside as Kafka's (K25): after an answer that isn't success nothing was
//! kept, or the retry is a duplicate that is dropped.

use interflow_logstore::{AppendError, LogError, ReadError};
use kafka_protocol::ResponseError;

use crate::records::BatchError;

/// What a producer is told of a refused append.
pub(super) fn of_append(error: &AppendError) -> ResponseError {
    match error {
        AppendError::NoSuchLog => ResponseError::UnknownTopicOrPartition,
        AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        AppendError::DuplicateSequence => ResponseError::DuplicateSequenceNumber,
        AppendError::ProducerFenced { .. } => ResponseError::InvalidProducerEpoch,
        AppendError::TooLarge { .. } => ResponseError::MessageTooLarge,
        // What was in flight when the journal failed may be kept: a producer's retry is told apart.
        AppendError::DiskFull | AppendError::JournalFailed => ResponseError::KafkaStorageError,
        AppendError::Stopped(_) | AppendError::NotSequencer | AppendError::Unavailable(_) => {
            ResponseError::NotLeaderOrFollower
        }
        AppendError::Unknown => ResponseError::RequestTimedOut,
        // Retriable, without a look-up of new metadata: nothing was kept.
        AppendError::Busy => ResponseError::NotEnoughReplicas,
    }
}

/// What a producer is told of a batch that may not enter the log (K4).
pub(super) fn of_batch(error: &BatchError) -> ResponseError {
    match error {
        BatchError::Length | BatchError::Crc => ResponseError::CorruptMessage,
        BatchError::Magic(_) => ResponseError::UnsupportedForMessageFormat,
        BatchError::TooLarge { .. } => ResponseError::MessageTooLarge,
        BatchError::Timestamp => ResponseError::InvalidTimestamp,
        BatchError::UnknownCompression(_) => ResponseError::UnsupportedCompressionType,
        BatchError::SeveralBatches
        | BatchError::Count
        | BatchError::BrokerOnly
        | BatchError::Producer => ResponseError::InvalidRecord,
    }
}

/// What a consumer is told of a failed read.
pub(super) fn of_read(error: &ReadError) -> ResponseError {
    match error {
        ReadError::NoSuchLog => ResponseError::UnknownTopicOrPartition,
        ReadError::OutOfRange { .. } => ResponseError::OffsetOutOfRange,
        // Not retriable: the only copy is damaged, and asking again won't heal it.
        ReadError::Damaged { .. } => ResponseError::CorruptMessage,
        ReadError::Io(_) => ResponseError::KafkaStorageError,
        ReadError::NotSequencer | ReadError::Unavailable(_) => ResponseError::NotLeaderOrFollower,
    }
}

/// What a client is told of a question that has no answer.
pub(super) fn of_log(error: &LogError) -> ResponseError {
    match error {
        LogError::NoSuchLog => ResponseError::UnknownTopicOrPartition,
        LogError::Meta(_)
        | LogError::Stopped(_)
        | LogError::NotSequencer
        | LogError::Unavailable(_) => ResponseError::NotLeaderOrFollower,
        LogError::Io(_) => ResponseError::KafkaStorageError,
    }
}
