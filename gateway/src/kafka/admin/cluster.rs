//! DescribeCluster and FindCoordinator: this node is all there is.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{
    BrokerId, DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest,
    FindCoordinatorResponse,
};

use super::operations;
use super::text::text;
use crate::kafka::broker::Broker;
use crate::kafka::route::Request;

/// The endpoint type that means brokers; controllers are none of the clients' business.
const BROKERS: i8 = 1;
/// Kinds of coordinators: of groups and of transactions.
const KINDS: std::ops::RangeInclusive<i8> = 0..=1;

pub(in crate::kafka) async fn describe(
    broker: &Broker,
    request: &Request,
    asked: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let endpoint = broker.endpoint(&request.peer.listener);
    if request.version >= 1 && asked.endpoint_type != BROKERS {
        return DescribeClusterResponse::default()
            .with_error_code(ResponseError::UnsupportedEndpointType.code())
            .with_error_message(Some(text("only brokers can be described")))
            .with_endpoint_type(asked.endpoint_type);
    }
    let mut answer = DescribeClusterResponse::default()
        .with_cluster_id(text(broker.cluster_id.clone()))
        .with_controller_id(BrokerId(broker.node))
        .with_brokers(vec![
            DescribeClusterBroker::default()
                .with_broker_id(BrokerId(broker.node))
                .with_host(text(&*endpoint.host))
                .with_port(endpoint.port.into()),
        ]);
    if asked.include_cluster_authorized_operations {
        answer.cluster_authorized_operations = operations::CLUSTER;
    }
    answer
}

pub(in crate::kafka) async fn find_coordinator(
    broker: &Broker,
    request: &Request,
    asked: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let endpoint = broker.endpoint(&request.peer.listener);
    let node = BrokerId(broker.node);
    let host = text(&*endpoint.host);
    let is_known = KINDS.contains(&asked.key_type);
    let refusal = text("there is no such kind of coordinator");
    if request.version >= 4 {
        let of_key = |key| {
            let found = Coordinator::default().with_key(key);
            if is_known {
                // Clients take an empty message for none.
                found
                    .with_node_id(node)
                    .with_host(host.clone())
                    .with_port(endpoint.port.into())
                    .with_error_message(Some(text("")))
            } else {
                found
                    .with_node_id(BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(ResponseError::InvalidRequest.code())
                    .with_error_message(Some(refusal.clone()))
            }
        };
        let coordinators = asked.coordinator_keys.into_iter().map(of_key).collect();
        return FindCoordinatorResponse::default().with_coordinators(coordinators);
    }
    if is_known {
        FindCoordinatorResponse::default()
            .with_node_id(node)
            .with_host(host)
            .with_port(endpoint.port.into())
    } else {
        FindCoordinatorResponse::default()
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_error_message(Some(refusal))
    }
}
