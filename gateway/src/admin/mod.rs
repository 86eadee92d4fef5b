//! The admin port: metrics, health, users, nodes, and a look into logs. HTTP, on loopback.
//!
//! | request | answer | of |
//! | --- | --- | --- |
//! | `GET /metrics` | Prometheus' text format | every process |
//! | `GET /healthz` | 200 while appends are taken, 503 with the reason once journal or metadata failed | every process |
//! | `GET /readyz` | 200 once every listener serves, 503 before and while stopping | every process |
//! | `GET /v1/nodes` | all nodes: [`NodeReport`] | every process |
//! | `POST /v1/nodes/{id}/drain` | `{"undo": false}`: takes no new segments; or takes them again | every process |
//! | `POST /v1/nodes/{id}/remove` | `{"force": false}`: is gone for good | every process |
//! | `POST /v1/scrub` | `true`: closed segments are looked at for damage, from now on | log stores |
//! | `GET /v1/users`, `POST /v1/users`, `POST /v1/users/remove` | names; add; remove | gateways |
//! | `GET /v1/topics/{topic}/logs` | the logs of a topic: [`LogReport`]; `?after=PARTITION&limit=1000` for those behind it, 1,000 at most | gateways |

mod failure;
mod logs;
mod nodes;
mod process;
mod scrub;
mod serve;
#[cfg(test)]
mod tests;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use interflow_logstore::{LogClient, LogStore};
use interflow_meta::Meta;
use interflow_meta::members::Members;
use prometheus_client::registry::Registry;

use crate::auth::Users;
use crate::topics::Topics;

use failure::Failure;
pub use logs::{LagReport, LogReport, SegmentReport};
pub use nodes::NodeReport;
pub use process::Health;
pub use serve::AdminHandler;

/// What clients send takes less: a user's name and password, for example.
const MAX_BODY_BYTES: usize = 8 * 1024;

/// What the admin port of a process shows.
pub struct Admin {
    /// All metrics.
    pub metrics: Registry,
    /// How the process is.
    pub health: Arc<dyn Health>,
    /// Where nodes are, and chains of logs.
    pub meta: Meta,
    /// Who lives.
    pub members: Arc<Members>,
    /// Where there is a log store.
    pub store: Option<LogStore>,
    /// What only a gateway has.
    pub gateway: Option<GatewayAdmin>,
}

/// What the admin port of a gateway shows besides.
#[derive(Clone)]
pub struct GatewayAdmin {
    /// The log service.
    pub log: Arc<dyn LogClient>,
    /// The directory of topics.
    pub topics: Arc<Topics>,
    /// The users.
    pub users: Arc<Users>,
}

/// All routes, over `admin`.
fn router(admin: Admin) -> Router {
    let Admin { metrics, health, meta, members, store, gateway } = admin;
    let mut router = process::routes(metrics, health).merge(nodes::routes(meta.clone(), members));
    if let Some(store) = store {
        router = router.merge(scrub::routes(store));
    }
    if let Some(GatewayAdmin { log, topics, users }) = gateway {
        router = router.merge(users::routes(users)).merge(logs::routes(log, topics, meta));
    }
    router.fallback(absent).layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// What isn't here may be elsewhere: a tool was given another process's port.
async fn absent(uri: Uri) -> Failure {
    let path = uri.path();
    let text = format!(
        "this process has no {path}: topics and users are asked for at a gateway, scrubs at a log store"
    );
    Failure(StatusCode::NOT_FOUND, text)
}
