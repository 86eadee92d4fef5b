//! The data plane's requests that need no more than a decoder.

use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use crate::kafka::broker::Broker;
use crate::kafka::route::Request;

pub(in crate::kafka) async fn list_offsets(
    broker: &Broker,
    request: &Request,
    asked: ListOffsetsRequest,
) -> ListOffsetsResponse {
    broker.data.list_offsets(request.version, asked).await
}

pub(in crate::kafka) async fn offset_for_leader_epoch(
    broker: &Broker,
    _: &Request,
    asked: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    broker.data.offset_for_leader_epoch(asked).await
}

pub(in crate::kafka) async fn init_producer_id(
    broker: &Broker,
    _: &Request,
    asked: InitProducerIdRequest,
) -> InitProducerIdResponse {
    broker.data.init_producer_id(asked).await
}
