//! What all connections share.

use std::sync::Arc;

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use interflow_logstore::LogClient;
use interflow_meta::{Meta, NodeId};
use uuid::Uuid;

use super::budget::Budget;
use super::config::KafkaConfig;
use super::data::DataPlane;
use super::groups::Groups;
use super::metrics::Metrics;
use crate::auth::Authenticator;
use crate::topics::Topics;

/// An address that clients are told to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

/// What the Kafka side works with.
pub struct Deps {
    /// Groups, offsets and producer ids.
    pub meta: Meta,
    /// The directory of topics.
    pub topics: Arc<Topics>,
    /// Logs.
    pub logs: Arc<dyn LogClient>,
    /// Users.
    pub auth: Arc<dyn Authenticator>,
    /// Its text is the cluster id that clients see.
    pub cluster_id: Uuid,
    /// This node; its number is the broker id that clients see.
    pub node: NodeId,
    /// Settings.
    pub config: KafkaConfig,
}

/// What all connections share.
pub(super) struct Broker {
    pub(super) topics: Arc<Topics>,
    pub(super) logs: Arc<dyn LogClient>,
    pub(super) auth: Arc<dyn Authenticator>,
    pub(super) cluster_id: String,
    pub(super) node: i32,
    pub(super) config: KafkaConfig,
    pub(super) data: Arc<DataPlane>,
    pub(super) groups: Arc<Groups>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Budget,
    pub(super) advertised: ArcSwap<HashMap<Arc<str>, Endpoint>>,
}

impl Broker {
    /// The address that clients of `listener` reach this node at (K24).
    pub(super) fn endpoint(&self, listener: &str) -> Endpoint {
        self.advertised
            .load()
            .get(listener)
            .cloned()
            .unwrap_or_else(|| Endpoint { host: "localhost".into(), port: 9092 })
    }
}
