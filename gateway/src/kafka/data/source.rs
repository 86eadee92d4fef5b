//! What the data requests ask of the rest of the gateway.

use std::sync::Arc;

use async_trait::async_trait;
use interflow_meta::LogId;
use uuid::Uuid;

use crate::records::BatchRules;

/// A topic as the data requests need it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Topic {
    /// Its id.
    pub id: Uuid,
    /// The log of each partition.
    pub logs: Arc<[LogId]>,
    /// What its batches must be.
    pub rules: BatchRules,
}

/// The directory of topics. Answers from memory: neither blocks nor waits.
pub trait TopicSource: Send + Sync + 'static {
    /// The topic of that name.
    fn topic_by_name(&self, name: &str) -> Option<Topic>;

    /// The topic of that id.
    fn topic_by_id(&self, id: Uuid) -> Option<Topic>;
}

/// No producer id can be had now; trying again later may help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no producer id: {0}")]
pub struct ProducerIdError(pub String);

/// Hands out producer ids: each at most once, over restarts too.
#[async_trait]
pub trait ProducerIdSource: Send + Sync + 'static {
    /// The next id.
    async fn next_producer_id(&self) -> Result<i64, ProducerIdError>;
}
