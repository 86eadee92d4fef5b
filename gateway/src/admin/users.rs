//! Users: listed, added, removed.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::failure::Failure;
use crate::auth::{UserError, Users};

pub(super) fn routes(users: Arc<Users>) -> Router {
    Router::new()
        .route("/v1/users", get(list_users).post(add_user))
        .route("/v1/users/remove", post(remove_user))
        .with_state(users)
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

async fn list_users(State(users): State<Arc<Users>>) -> Json<Vec<String>> {
    Json(users.names())
}

#[derive(Deserialize)]
struct NewUser {
    name: String,
    password: String,
}

async fn add_user(
    State(users): State<Arc<Users>>,
    Json(user): Json<NewUser>,
) -> Result<Json<bool>, Failure> {
    users.add(&user.name, &user.password).await?;
    Ok(Json(true))
}

#[derive(Deserialize)]
struct UserName {
    name: String,
}

async fn remove_user(
    State(users): State<Arc<Users>>,
    Json(user): Json<UserName>,
) -> Result<Json<bool>, Failure> {
    users.remove(&user.name).await?;
    Ok(Json(true))
}
