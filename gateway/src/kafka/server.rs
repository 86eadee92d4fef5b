//! The entry: what listeners hand their streams to.

use std::sync::Arc;

use interflow_meta::MetaError;
use tokio_util::sync::CancellationToken;

use super::admin::told::Told;
use super::broker::{Broker, Deps};
use super::brokers::Brokers;
use super::budget::Budget;
use super::connection;
use super::data::{DataLimits, DataPlane};
use super::groups::Groups;
use super::metrics::Metrics;
use super::producers::ProducerIds;
use super::route::{self, Route};
use crate::cluster::Endpoint;
use crate::net::{Peer, Stream};

/// APIs by key: keys are small and dense.
pub(super) type RouteTable = Vec<Option<Route>>;

/// Serves Kafka's protocol on the streams that it is given.
pub struct Server {
    broker: Arc<Broker>,
    routes: Arc<RouteTable>,
    shutdown: CancellationToken,
}

impl Server {
    #[cfg(test)]
    pub(super) fn groups(&self) -> &Arc<Groups> {
        &self.broker.groups
    }

    /// Starts the coordinator of groups; connections are served from now on. When `shutdown` is
    /// cancelled, connections answer what they have begun and end, and so do the tasks that this
    /// started: [`stopped`](Server::stopped) waits for those.
    ///
    /// # Errors
    /// Meta's own, where groups can't be read.
    pub async fn start(deps: Deps, shutdown: CancellationToken) -> Result<Arc<Self>, MetaError> {
        let metrics = Arc::new(Metrics::default());
        let ids = Arc::new(ProducerIds::new(deps.meta.clone()));
        let limits = DataLimits {
            fetch_max_bytes: deps.config.fetch_max_bytes,
            fetch_sessions: deps.config.max_incremental_fetch_session_cache_slots,
            ..DataLimits::default()
        };
        let data = DataPlane::new(deps.logs.clone(), deps.topics.clone(), ids, limits);
        let brokers = Arc::new(Brokers::new(deps.gateways));
        let groups = Groups::start(
            deps.meta.clone(),
            brokers.clone(),
            deps.config.clone(),
            metrics.clone(),
            shutdown.clone(),
        );
        let broker = Arc::new(Broker {
            topics: deps.topics,
            logs: deps.logs,
            auth: deps.auth,
            cluster_id: deps.cluster_id.to_string(),
            budget: Budget::new(deps.config.queued_max_request_bytes),
            config: deps.config,
            data: Arc::new(data),
            groups,
            metrics,
            brokers,
            told: Told::default(),
        });
        Ok(Arc::new(Self { broker, routes: Arc::new(table()), shutdown }))
    }

    /// Tells clients of `listener` to reach this node at `endpoint` (K24).
    pub fn advertise(&self, listener: &str, endpoint: Endpoint) {
        self.broker.brokers.advertise(listener, &endpoint);
    }

    /// Serves one connection until it ends.
    pub async fn serve(&self, stream: Stream, peer: Peer) {
        self.broker.metrics.connections.add(1);
        connection::run(
            self.broker.clone(),
            self.routes.clone(),
            stream,
            peer,
            self.shutdown.clone(),
        )
        .await;
        self.broker.metrics.connections.sub(1);
    }

    /// What was counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.broker.metrics
    }

    /// Waits until the tasks of the coordinator have ended, after shutdown.
    pub async fn stopped(&self) {
        self.broker.groups.stopped().await;
    }
}

pub(super) fn table() -> RouteTable {
    let mut table = RouteTable::new();
    for route in route::routes() {
        let Ok(at) = usize::try_from(route.api as i16) else { continue };
        if table.len() <= at {
            table.resize_with(at + 1, || None);
        }
        if let Some(slot) = table.get_mut(at) {
            *slot = Some(route);
        }
    }
    table
}
