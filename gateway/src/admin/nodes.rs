//! Nodes: listed, drained, removed.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use interflow_meta::members::{self, Member, Members, OperateError};
use interflow_meta::{Meta, NodeId};
use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// One node.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct NodeReport {
    /// Its id.
    pub id: u32,
    /// `logstore`, `gateway` or `standalone`.
    pub kind: String,
    /// `provisioning`, `read-write`, `read-only`, `data-loss` or `gone`.
    pub state: String,
    /// Its disk is full or has failed: it takes no new segments.
    pub is_full: bool,
    /// Its lease was bumped in time, as the process sees it that answers.
    pub is_live: bool,
    /// Which life of the node.
    pub incarnation: u64,
    /// Where its logs are reached.
    pub address: String,
    /// Where its Kafka listeners are reached, as `LISTENER://HOST:PORT`.
    pub endpoints: Vec<String>,
    /// Where it stands.
    pub rack: String,
    /// When it started, milliseconds since 1970.
    pub started_ms: i64,
}

impl NodeReport {
    fn new(member: &Member) -> Self {
        let node = &member.node;
        let endpoints = node.endpoints.iter();
        Self {
            id: member.id.0,
            kind: node.kind.to_string(),
            state: node.state.to_string(),
            is_full: node.is_full,
            is_live: member.is_live,
            incarnation: node.incarnation,
            address: node.address.clone(),
            endpoints: endpoints
                .map(|at| format!("{}://{}:{}", at.listener, at.host, at.port))
                .collect(),
            rack: node.rack.clone(),
            started_ms: node.started_ms,
        }
    }
}

#[derive(Clone)]
struct Nodes {
    meta: Meta,
    members: Arc<Members>,
}

pub(super) fn routes(meta: Meta, members: Arc<Members>) -> Router {
    Router::new()
        .route("/v1/nodes", get(list))
        .route("/v1/nodes/{id}/drain", post(drain))
        .route("/v1/nodes/{id}/remove", post(remove))
        .with_state(Nodes { meta, members })
}

impl From<OperateError> for Failure {
    fn from(error: OperateError) -> Self {
        let status = match error {
            OperateError::NotFound(_) => StatusCode::NOT_FOUND,
            OperateError::Gateway(_) => StatusCode::BAD_REQUEST,
            OperateError::State { .. } | OperateError::Live(_) | OperateError::HasLogs { .. } => {
                StatusCode::CONFLICT
            }
            OperateError::Meta(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

async fn list(State(nodes): State<Nodes>) -> Json<Vec<NodeReport>> {
    Json(nodes.members.view().all().iter().map(NodeReport::new).collect())
}

#[derive(Deserialize)]
struct Drain {
    undo: bool,
}

async fn drain(
    State(nodes): State<Nodes>,
    Path(id): Path<u32>,
    Json(drain): Json<Drain>,
) -> Result<Json<bool>, Failure> {
    members::drain(&nodes.meta, NodeId(id), drain.undo).await?;
    nodes.members.refresh();
    tracing::info!(node = id, undone = drain.undo, "a node was drained, or that was undone");
    Ok(Json(true))
}

#[derive(Deserialize)]
struct Remove {
    force: bool,
}

async fn remove(
    State(nodes): State<Nodes>,
    Path(id): Path<u32>,
    Json(remove): Json<Remove>,
) -> Result<Json<bool>, Failure> {
    members::remove(&nodes.meta, &nodes.members, NodeId(id), remove.force).await?;
    nodes.members.refresh();
    tracing::info!(node = id, forced = remove.force, "a node was removed");
    Ok(Json(true))
}
