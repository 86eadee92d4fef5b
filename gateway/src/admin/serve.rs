//! HTTP on the streams of the admin listener, with a bound on each wait for the client.

use std::pin::pin;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio_util::sync::CancellationToken;

use super::{Admin, router};
use crate::net::{Handler, Peer, Stream};

/// A connection has this long until the head of its next request is there.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// A request whose head is there has this long until its body is there too and it is answered.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The largest head of a request, and what is buffered of a connection.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Serves the connections of the admin listener.
#[derive(Debug)]
pub struct AdminHandler {
    routes: Router,
}

impl AdminHandler {
    /// All routes, over `admin`.
    pub fn new(admin: Admin) -> Self {
        Self::over(router(admin))
    }

    pub(super) fn over(routes: Router) -> Self {
        Self { routes: routes.layer(from_fn(in_time)) }
    }
}

#[async_trait]
impl Handler for AdminHandler {
    async fn connection(&self, stream: Stream, peer: Peer, shutdown: CancellationToken) {
        let service = TowerToHyperService::new(self.routes.clone());
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service)
        );
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %peer.address, %error, "an admin connection failed");
        }
    }
}

async fn in_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}
