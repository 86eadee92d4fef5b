//! InitProducerId, for idempotent producers.

use async_trait::async_trait;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use super::DataPlane;

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

impl DataPlane {
    /// Answers InitProducerId: a new id with epoch 0, also to a producer that asks to go on under
    /// a higher epoch (KIP-360), as Kafka does without a transactional id. A transactional id is
    /// refused for good: transactions aren't served (K14a).
    pub async fn init_producer_id(&self, request: InitProducerIdRequest) -> InitProducerIdResponse {
        let refused = |error: ResponseError| {
            InitProducerIdResponse::default()
                .with_error_code(error.code())
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
        };
        match request.transactional_id {
            Some(id) if id.is_empty() => return refused(ResponseError::InvalidRequest),
            Some(_) => return refused(ResponseError::UnsupportedVersion),
            None => {}
        }
        match self.producer_ids().next_producer_id().await {
            Ok(id) => InitProducerIdResponse::default()
                .with_producer_id(ProducerId(id))
                .with_producer_epoch(0),
            Err(error) => {
                tracing::warn!(%error, "a producer was told to ask for its id again");
                refused(ResponseError::CoordinatorLoadInProgress)
            }
        }
    }
}
