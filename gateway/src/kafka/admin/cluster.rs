//! DescribeCluster and FindCoordinator.

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
use crate::kafka::brokers::{Kind, Seen};
use crate::kafka::route::Request;

/// The endpoint type that means brokers; controllers are none of the clients' business.
const BROKERS: i8 = 1;
/// The kinds of coordinators.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(in crate::kafka) async fn describe(
    broker: &Broker,
    request: &Request,
    asked: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if request.version >= 1 && asked.endpoint_type != BROKERS {
        return DescribeClusterResponse::default()
            .with_error_code(ResponseError::UnsupportedEndpointType.code())
            .with_error_message(Some(text("only brokers can be described")))
            .with_endpoint_type(asked.endpoint_type);
    }
    let listed = broker.brokers.list(&request.peer.listener);
    let brokers = listed.brokers().iter().map(|seen| {
        DescribeClusterBroker::default()
            .with_broker_id(seen.id)
            .with_host(text(&*seen.endpoint.host))
            .with_port(seen.endpoint.port.into())
            .with_rack(seen.rack.as_deref().map(text))
    });
    let mut answer = DescribeClusterResponse::default()
        .with_cluster_id(text(broker.cluster_id.clone()))
        .with_controller_id(listed.controller())
        .with_brokers(brokers.collect());
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
    let find = |key: &str| find(broker, &request.peer.listener, asked.key_type, key);
    if request.version >= 4 {
        let coordinators = asked.coordinator_keys.iter().map(|key| {
            let coordinator = Coordinator::default().with_key(key.clone());
            match find(key) {
                // Clients take an empty message for none.
                Ok(found) => coordinator
                    .with_node_id(found.id)
                    .with_host(text(&*found.endpoint.host))
                    .with_port(found.endpoint.port.into())
                    .with_error_message(Some(text(""))),
                Err((error, message)) => coordinator
                    .with_node_id(BrokerId(-1))
                    .with_port(-1)
                    .with_error_code(error.code())
                    .with_error_message(Some(text(message))),
            }
        });
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    match find(&asked.key) {
        Ok(found) => FindCoordinatorResponse::default()
            .with_node_id(found.id)
            .with_host(text(&*found.endpoint.host))
            .with_port(found.endpoint.port.into()),
        Err((error, message)) => FindCoordinatorResponse::default()
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(error.code())
            .with_error_message((request.version >= 1).then(|| text(message))),
    }
}

fn find(
    broker: &Broker,
    listener: &str,
    key_type: i8,
    key: &str,
) -> Result<Seen, (ResponseError, &'static str)> {
    let kind = match key_type {
        GROUP => Kind::Group,
        TRANSACTION => Kind::Transaction,
        _ => return Err((ResponseError::InvalidRequest, "there is no such kind of coordinator")),
    };
    let found = broker.brokers.coordinator(kind, key, listener);
    found.map_err(|error| (error, "no broker that can be it is reached by this listener now"))
}
