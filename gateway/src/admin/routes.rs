//! The routes of the admin port.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use interflow_logstore::LogClient;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use serde::Deserialize;

use super::LogReport;
use crate::auth::{UserError, Users};
use crate::topics::Topics;

/// A user's name and password take less.
const MAX_BODY_BYTES: usize = 8 * 1024;

/// How the process is.
pub trait Health: Send + Sync + 'static {
    /// Why writing has ended; `None` while all is well.
    fn failure(&self) -> Option<String>;
    /// Whether every listener serves and the process is not about to stop.
    fn is_ready(&self) -> bool;
}

/// What the routes need.
pub struct Admin {
    /// The log service.
    pub log: Arc<dyn LogClient>,
    /// The directory of topics.
    pub topics: Arc<Topics>,
    /// The users.
    pub users: Arc<Users>,
    /// All metrics.
    pub metrics: Registry,
    /// How the process is.
    pub health: Arc<dyn Health>,
}

/// All routes, over `admin`.
pub(super) fn router(admin: Arc<Admin>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/v1/users", get(list_users).post(add_user))
        .route("/v1/users/remove", post(remove_user))
        .route("/v1/topics/{topic}/logs", get(describe_logs))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(admin)
}

/// An error answer: its status and its text.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

impl From<UserError> for Failure {
    fn from(error: UserError) -> Self {
        let status = match error {
            UserError::Invalid(_) => StatusCode::BAD_REQUEST,
            UserError::NotFound => StatusCode::NOT_FOUND,
            UserError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Result<Response, Failure> {
    let mut text = String::new();
    encode(&mut text, &admin.metrics)
        .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(axum::http::header::CONTENT_TYPE, kind)], text).into_response())
}

async fn healthz(State(admin): State<Arc<Admin>>) -> Result<&'static str, Failure> {
    match admin.health.failure() {
        None => Ok("ok\n"),
        Some(reason) => Err(Failure(StatusCode::SERVICE_UNAVAILABLE, reason)),
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> Result<&'static str, Failure> {
    if admin.health.is_ready() && admin.health.failure().is_none() {
        return Ok("ready\n");
    }
    Err(Failure(StatusCode::SERVICE_UNAVAILABLE, "not ready".into()))
}

async fn list_users(State(admin): State<Arc<Admin>>) -> Json<Vec<String>> {
    Json(admin.users.names())
}

#[derive(Deserialize)]
struct NewUser {
    name: String,
    password: String,
}

async fn add_user(
    State(admin): State<Arc<Admin>>,
    Json(user): Json<NewUser>,
) -> Result<Json<bool>, Failure> {
    admin.users.add(&user.name, &user.password).await?;
    Ok(Json(true))
}

#[derive(Deserialize)]
struct UserName {
    name: String,
}

async fn remove_user(
    State(admin): State<Arc<Admin>>,
    Json(user): Json<UserName>,
) -> Result<Json<bool>, Failure> {
    admin.users.remove(&user.name).await?;
    Ok(Json(true))
}

async fn describe_logs(
    State(admin): State<Arc<Admin>>,
    Path(name): Path<String>,
) -> Result<Json<Vec<LogReport>>, Failure> {
    let topic = admin
        .topics
        .get(&name)
        .ok_or_else(|| Failure(StatusCode::NOT_FOUND, format!("there is no topic {name}")))?;
    let mut reports = Vec::new();
    for (partition, log) in (0..).zip(topic.partitions.iter()) {
        let description = admin
            .log
            .describe(*log)
            .await
            .map_err(|error| Failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
        reports.push(LogReport::new(partition, *log, description));
    }
    Ok(Json(reports))
}
