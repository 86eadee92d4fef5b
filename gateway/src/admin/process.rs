//! How the process is, and what it counts.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::failure::Failure;

/// How the process is.
pub trait Health: Send + Sync + 'static {
    /// Why writing has ended; `None` while all is well.
    fn failure(&self) -> Option<String>;
    /// Whether every listener serves and the process is not about to stop.
    fn is_ready(&self) -> bool;
}

#[derive(Clone)]
struct Process {
    metrics: Arc<Registry>,
    health: Arc<dyn Health>,
}

pub(super) fn routes(metrics: Registry, health: Arc<dyn Health>) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Process { metrics: Arc::new(metrics), health })
}

async fn show_metrics(State(process): State<Process>) -> Result<Response, Failure> {
    let mut text = String::new();
    encode(&mut text, &process.metrics)
        .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(axum::http::header::CONTENT_TYPE, kind)], text).into_response())
}

async fn healthz(State(process): State<Process>) -> Result<&'static str, Failure> {
    match process.health.failure() {
        None => Ok("ok\n"),
        Some(reason) => Err(Failure(StatusCode::SERVICE_UNAVAILABLE, reason)),
    }
}

async fn readyz(State(process): State<Process>) -> Result<&'static str, Failure> {
    if process.health.is_ready() && process.health.failure().is_none() {
        return Ok("ready\n");
    }
    Err(Failure(StatusCode::SERVICE_UNAVAILABLE, "not ready".into()))
}
