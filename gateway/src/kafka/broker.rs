//! What all connections share.

use std::sync::Arc;

use interflow_logstore::{LogClient, LogError, LogReplicas};
use interflow_meta::Meta;
use uuid::Uuid;

use super::admin::told::Told;
use super::brokers::Brokers;
use super::budget::Budget;
use super::config::KafkaConfig;
use super::data::DataPlane;
use super::groups::Groups;
use super::metrics::Metrics;
use crate::auth::Authenticator;
use crate::cluster::Gateways;
use crate::topics::Topics;

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
    /// This gateway and the others; a node's number is the broker id that clients see.
    pub gateways: Arc<dyn Gateways>,
    /// Settings.
    pub config: KafkaConfig,
}

/// What all connections share.
pub(super) struct Broker {
    pub(super) topics: Arc<Topics>,
    pub(super) logs: Arc<dyn LogClient>,
    pub(super) auth: Arc<dyn Authenticator>,
    pub(super) cluster_id: String,
    pub(super) config: KafkaConfig,
    pub(super) data: Arc<DataPlane>,
    pub(super) groups: Arc<Groups>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) budget: Budget,
    pub(super) brokers: Arc<Brokers>,
    /// What log stores say of topics with many partitions.
    pub(super) told: Told<Vec<Result<LogReplicas, LogError>>>,
}
