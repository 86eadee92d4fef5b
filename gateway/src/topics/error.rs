//! Why a change of a topic was refused.

use std::sync::Arc;

use interflow_meta::{MetaError, TransactError, logs, topics};

use super::config::ConfigError;
use super::name::NameError;

/// More replicas than nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "replication factor {asked} (-1 stands for the default, {default}): there are {nodes} log \
     stores that take new logs now"
)]
pub struct Unplaceable {
    /// The replication factor that was asked for.
    pub asked: i16,
    /// The one of topics that don't say.
    pub default: u32,
    /// Log stores that live and take new logs.
    pub nodes: u32,
}

/// Why a change of a topic was refused. Unless it is [`TopicError::Unavailable`], nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// No topic can have that name (K13).
    #[error(transparent)]
    Name(#[from] NameError),
    /// The name can't be told from another's where dots aren't known (K13).
    #[error("the topic name collides with an existing topic: {0}")]
    Collision(Arc<str>),
    /// There is such a topic already.
    #[error("topic '{0}' already exists")]
    Exists(String),
    /// There is no such topic.
    #[error("there is no such topic")]
    NotFound,
    /// The number of partitions isn't one that a topic can have.
    #[error("a topic has from 1 to {max} partitions")]
    Partitions {
        /// The most that a topic can have.
        max: u32,
    },
    /// There would be too many partitions in all.
    #[error("there would be more than {max} partitions in all topics together")]
    TooManyPartitions {
        /// The most that all topics can have.
        max: u32,
    },
    /// There aren't nodes for that many replicas (K14a).
    #[error("{0}")]
    ReplicationFactor(Unplaceable),
    /// A configuration that isn't served.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Meta could not do it; it may or may not be done.
    #[error("metadata is unavailable: {0}")]
    Unavailable(MetaError),
}

impl From<MetaError> for TopicError {
    fn from(error: MetaError) -> Self {
        Self::Unavailable(error)
    }
}

impl TransactError for TopicError {
    fn as_meta(&self) -> Option<&MetaError> {
        match self {
            Self::Unavailable(error) => Some(error),
            _ => None,
        }
    }
}

impl TopicError {
    pub(super) fn from_entity(error: topics::TopicError, name: &str) -> Self {
        match error {
            topics::TopicError::AlreadyExists => Self::Exists(name.into()),
            topics::TopicError::NotFound => Self::NotFound,
            topics::TopicError::InvalidPartitions => {
                Self::Partitions { max: topics::MAX_PARTITIONS }
            }
            topics::TopicError::InvalidName => Self::Name(NameError::TooLong),
            topics::TopicError::ConfigTooLarge(_) => Self::Config(ConfigError::TooLarge),
            // Those that there were have gone meanwhile.
            error @ (topics::TopicError::TooFewNodes | topics::TopicError::NotWritable(_)) => {
                Self::Unavailable(MetaError::Unavailable(error.to_string()))
            }
            topics::TopicError::Meta(error) => Self::Unavailable(error),
        }
    }

    pub(super) fn from_chain(error: logs::ChainError) -> Self {
        match error {
            logs::ChainError::Meta(error) => Self::Unavailable(error),
            logs::ChainError::NotFound => Self::NotFound,
            other => Self::Unavailable(MetaError::Corrupt(other.to_string())),
        }
    }
}
