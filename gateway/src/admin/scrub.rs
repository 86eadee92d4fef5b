//! A look for damage, now.

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use interflow_logstore::LogStore;

pub(super) fn routes(store: LogStore) -> Router {
    Router::new().route("/v1/scrub", post(scrub)).with_state(store)
}

async fn scrub(State(store): State<LogStore>) -> Json<bool> {
    store.scrub_now();
    Json(true)
}
