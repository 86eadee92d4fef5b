//! What Kafka calls our errors.

use kafka_protocol::error::ResponseError;

use crate::topics::TopicError;

/// The error code of a refused change of a topic.
pub(super) fn of_topic(error: &TopicError) -> ResponseError {
    match error {
        TopicError::Name(_) | TopicError::Collision(_) => ResponseError::InvalidTopicException,
        TopicError::Exists(_) => ResponseError::TopicAlreadyExists,
        TopicError::NotFound => ResponseError::UnknownTopicOrPartition,
        TopicError::Partitions { .. } | TopicError::TooManyPartitions { .. } => {
            ResponseError::InvalidPartitions
        }
        TopicError::ReplicationFactor(_) => ResponseError::InvalidReplicationFactor,
        TopicError::Config(_) => ResponseError::InvalidConfig,
        // Retriable (K25); whether it was done shows then.
        TopicError::Unavailable(_) => ResponseError::RequestTimedOut,
    }
}
