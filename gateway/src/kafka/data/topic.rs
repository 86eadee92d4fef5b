//! How requests name topics, and what they need to know of them.

use std::sync::Arc;

use interflow_logstore::LogId;
use kafka_protocol::ResponseError;
use uuid::Uuid;

use crate::records::{self, BatchRules};
use crate::topics::{TimestampType, Topic, TopicConfig, Topics};

/// A topic as a request names it: by id in newer versions, before that by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum TopicKey {
    /// By name.
    Name(Arc<str>),
    /// By id.
    Id(Uuid),
}

impl TopicKey {
    /// What to answer where the topic doesn't exist.
    pub(super) fn unknown(&self) -> ResponseError {
        match self {
            Self::Name(_) => ResponseError::UnknownTopicOrPartition,
            Self::Id(_) => ResponseError::UnknownTopicId,
        }
    }

    /// The topic of that name, and the name without a copy where there is such a topic.
    pub(super) fn of_name(topics: &Topics, name: &str) -> (Self, Option<Arc<Topic>>) {
        let topic = topics.get(name);
        let name = topic.as_ref().map_or_else(|| name.into(), |topic| topic.name.clone());
        (Self::Name(name), topic)
    }

    /// The topic, if there is one.
    pub(super) fn find(&self, topics: &Topics) -> Option<Arc<Topic>> {
        match self {
            Self::Name(name) => topics.get(name),
            Self::Id(id) => topics.by_id(*id),
        }
    }

    /// The log of a partition.
    pub(super) fn log(
        &self,
        topic: Option<&Topic>,
        partition: i32,
    ) -> Result<LogId, ResponseError> {
        let topic = topic.ok_or_else(|| self.unknown())?;
        topic.log(partition).ok_or(ResponseError::UnknownTopicOrPartition)
    }
}

/// What a topic's batches must be.
pub(super) fn rules(config: &TopicConfig) -> BatchRules {
    BatchRules {
        max_bytes: config.max_message_bytes,
        timestamp_type: match config.timestamp_type {
            TimestampType::CreateTime => records::TimestampType::CreateTime,
            TimestampType::LogAppendTime => records::TimestampType::LogAppendTime,
        },
        before_max_ms: i64::try_from(config.timestamp_before_max_ms).unwrap_or(i64::MAX),
        after_max_ms: i64::try_from(config.timestamp_after_max_ms).unwrap_or(i64::MAX),
    }
}
