//! Answers that say what went wrong.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// An error answer: its status and its text.
pub(super) struct Failure(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, self.1 + "\n").into_response()
    }
}

/// Something that is needed doesn't answer.
pub(super) fn unavailable(error: impl std::fmt::Display) -> Failure {
    Failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}
