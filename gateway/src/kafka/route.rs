//! The one table of what is served: ApiVersions is read from it, requests are dispatched by it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::broker::Broker;
use super::data::Body;
use super::frame::{self, FrameError};
use super::{admin, groups, sasl};
use crate::auth::Principal;
use crate::net::Peer;

/// A request whose header was read.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) client_id: StrBytes,
    pub(super) body: Bytes,
    pub(super) peer: Peer,
}

/// What a request leads to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An answer.
    Body(Body),
    /// No answer (Produce with acks=0).
    Silent,
    /// The connection is closed without an answer.
    Close,
    /// An answer after which the connection is closed.
    LastBody(Body),
    /// The connection acts as this principal from now on.
    Authenticated(Body, Principal),
    /// SaslHandshake took place; with `true` the token comes as a bare frame (v0).
    Handshaken(Body, bool),
}

/// Why a request closes its connection (K1).
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("a request that its decoder refuses")]
    Decode,
    #[error("a response that could not be encoded: {0}")]
    Encode(String),
}

pub(super) type Running = Pin<Box<dyn Future<Output = Result<Outcome, Refusal>> + Send>>;

/// How a request is run.
pub(super) enum Run {
    /// Its append is started when it is read, and awaited when it is its turn.
    Produce,
    /// All of it happens when it is its turn.
    Call(fn(Arc<Broker>, Request) -> Running),
}

/// One API.
pub(super) struct Route {
    pub(super) api: ApiKey,
    pub(super) run: Run,
    /// What comes behind it on the connection may depend on it, so it isn't begun before.
    pub(super) is_barrier: bool,
    /// It may wait for others: dropped when nobody waits for its answer any more.
    pub(super) may_wait: bool,
    /// Served before authentication.
    pub(super) is_open: bool,
}

const PLAIN: fn(ApiKey, Run) -> Route =
    |api, run| Route { api, run, is_barrier: false, may_wait: false, is_open: false };

macro_rules! call {
    ($api:ident, $request:ty, $handler:path) => {
        PLAIN(
            ApiKey::$api,
            Run::Call(|broker, request| {
                Box::pin(async move {
                    let decoded = decode::<$request>(&request)?;
                    let answer = $handler(&broker, &request, decoded).await;
                    Ok(Outcome::Body(encode(&answer, request.version)?))
                })
            }),
        )
    };
}

/// Every API that is served.
pub(super) fn routes() -> Vec<Route> {
    let barrier = |route: Route| Route { is_barrier: true, ..route };
    let waiting = |route: Route| Route { may_wait: true, ..route };
    vec![
        Route {
            is_open: true,
            ..PLAIN(
                ApiKey::ApiVersions,
                Run::Call(|broker, request| {
                    Box::pin(async move { admin::versions::answer(&broker, &request) })
                }),
            )
        },
        Route {
            is_open: true,
            is_barrier: true,
            ..PLAIN(
                ApiKey::SaslHandshake,
                Run::Call(|_, request| Box::pin(async move { sasl::handshake(&request) })),
            )
        },
        Route {
            is_open: true,
            is_barrier: true,
            ..PLAIN(
                ApiKey::SaslAuthenticate,
                Run::Call(|broker, request| {
                    Box::pin(async move { sasl::authenticate(&broker, &request).await })
                }),
            )
        },
        PLAIN(ApiKey::Produce, Run::Produce),
        waiting(PLAIN(
            ApiKey::Fetch,
            Run::Call(|broker, request| {
                Box::pin(async move {
                    Ok(Outcome::Body(broker.data.fetch(request.version, &request.body).await?))
                })
            }),
        )),
        call!(ListOffsets, ListOffsetsRequest, admin::data::list_offsets),
        call!(
            OffsetForLeaderEpoch,
            OffsetForLeaderEpochRequest,
            admin::data::offset_for_leader_epoch
        ),
        call!(InitProducerId, InitProducerIdRequest, admin::data::init_producer_id),
        barrier(call!(Metadata, MetadataRequest, admin::metadata::answer)),
        call!(DescribeCluster, DescribeClusterRequest, admin::cluster::describe),
        barrier(call!(CreateTopics, CreateTopicsRequest, admin::create::answer)),
        barrier(call!(DeleteTopics, DeleteTopicsRequest, admin::delete::answer)),
        call!(DescribeConfigs, DescribeConfigsRequest, admin::describe_configs::answer),
        barrier(call!(
            IncrementalAlterConfigs,
            IncrementalAlterConfigsRequest,
            admin::alter_configs::answer
        )),
        call!(FindCoordinator, FindCoordinatorRequest, admin::cluster::find_coordinator),
        waiting(call!(JoinGroup, JoinGroupRequest, groups::api::membership::join)),
        waiting(call!(SyncGroup, SyncGroupRequest, groups::api::membership::sync)),
        call!(Heartbeat, HeartbeatRequest, groups::api::membership::heartbeat),
        call!(LeaveGroup, LeaveGroupRequest, groups::api::membership::leave),
        call!(OffsetCommit, OffsetCommitRequest, groups::api::offsets::commit),
        call!(OffsetFetch, OffsetFetchRequest, groups::api::offsets::fetch),
        call!(OffsetDelete, OffsetDeleteRequest, groups::api::offset_delete::delete),
        call!(ListGroups, ListGroupsRequest, groups::api::operate::list),
        call!(DescribeGroups, DescribeGroupsRequest, groups::api::operate::describe),
        call!(DeleteGroups, DeleteGroupsRequest, groups::api::operate::delete),
    ]
}

/// Decodes a request that the frame validator has passed.
pub(super) fn decode<Q: Decodable>(request: &Request) -> Result<Q, Refusal> {
    frame::check(request.api, request.version, &request.body)?;
    Q::decode(&mut request.body.clone(), request.version).map_err(|_| Refusal::Decode)
}

pub(super) fn encode<A: Encodable>(answer: &A, version: i16) -> Result<Body, Refusal> {
    let size = answer.compute_size(version);
    let mut out = BytesMut::with_capacity(size.map_err(|e| Refusal::Encode(e.to_string()))?);
    answer.encode(&mut out, version).map_err(|e| Refusal::Encode(e.to_string()))?;
    Ok(Body::from(out.freeze()))
}
