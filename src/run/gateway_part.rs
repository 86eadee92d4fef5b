//! The gateway of a process: users, topics, MQTT and Kafka, over the logs of whoever has them.

use std::sync::Arc;

use anyhow::{Context, bail};
use async_trait::async_trait;
use interflow_gateway::admin::GatewayAdmin;
use interflow_gateway::auth::Users;
use interflow_gateway::cluster::{FixedGateways, Gateways};
use interflow_gateway::kafka::{self, Endpoint};
use interflow_gateway::mqtt::{self, Broker, MqttMetrics, StartError, SystemWallClock};
use interflow_gateway::net::{Handler, Peer, Stream};
use interflow_gateway::topics::{Placement, Topics, TopicsOptions};
use interflow_logstore::{LogClient, LogError};
use interflow_meta::Meta;
use interflow_meta::cluster::Cluster;
use interflow_meta::members::Members;
use tokio_util::sync::CancellationToken;

use super::listen::{self, Listeners};
use super::metrics::GatewaySources;
use super::serving::Serving;
use super::views::MemberGateways;
use super::{seat, stream};
use crate::config::Config;

/// What a gateway works with.
pub(super) struct Deps<'a> {
    pub(super) config: &'a Config,
    pub(super) meta: &'a Meta,
    pub(super) cluster: Cluster,
    pub(super) members: &'a Arc<Members>,
    pub(super) logs: Arc<dyn LogClient>,
    pub(super) placement: Placement,
    /// The size of the disk that messages are kept on, in bytes; `None` asks the log stores.
    pub(super) disk_bytes: Option<u64>,
}

/// A gateway. It must be ended with [`GatewayPart::stop`].
pub(super) struct GatewayPart {
    pub(super) users: Arc<Users>,
    topics: Arc<Topics>,
    logs: Arc<dyn LogClient>,
    broker: Arc<Broker>,
    kafka: Arc<kafka::Server>,
    mqtt_metrics: Arc<MqttMetrics>,
}

impl GatewayPart {
    /// Starts everything behind the listeners. Where there are no log stores yet, it waits for
    /// them.
    ///
    /// # Errors
    /// What is wrong, with the flag that cures it.
    pub(super) async fn start(deps: Deps<'_>, serving: &Serving) -> anyhow::Result<Self> {
        let Deps { config, meta, cluster, members, logs, placement, disk_bytes } = deps;
        let users = Users::open(meta.clone()).await?;
        refuse_open_doors(config, &users)?;
        serving.background.spawn(users.clone().follow(serving.ending.clone()));
        let is_clustered = matches!(placement, Placement::Members { .. });
        let options = TopicsOptions { placement, ..TopicsOptions::default() };
        let (topics, follower) =
            Topics::start(meta.clone(), logs.clone(), options, serving.ending.clone()).await?;
        serving.background.spawn(async move {
            if let Err(error) = follower.await {
                tracing::error!(%error, "topics are not followed any more");
            }
        });
        if is_clustered && topics.get(&config.mqtt.topic).is_none() {
            seat::log_stores(config, members).await;
        }
        let partitions = config.storage.mqtt_partitions;
        let disk_bytes = disk_bytes.or_else(|| seat::disk_bytes(config, members));
        let stream = stream::ensure(&topics, &config.mqtt.topic, partitions, disk_bytes).await?;
        let mqtt_metrics = Arc::new(MqttMetrics::default());
        let broker = loop {
            let started = Broker::start(mqtt::BrokerDeps {
                log: logs.clone(),
                meta: meta.clone(),
                stream: stream.partitions.clone(),
                clock: Arc::new(SystemWallClock),
                auth: users.clone(),
                config: config.mqtt.clone(),
                metrics: mqtt_metrics.clone(),
            })
            .await;
            match started {
                // It was tried for as long as a client waits. It comes back, or its logs move.
                Err(StartError::Log(
                    error @ (LogError::Unavailable(_) | LogError::NotSequencer),
                )) if is_clustered => {
                    tracing::warn!(%error, "a log of the MQTT topic can't be reached; trying again");
                }
                started => break started.context("cannot start MQTT")?,
            }
        };
        let me = members.me();
        let gateways: Arc<dyn Gateways> = match is_clustered {
            true => MemberGateways::new(members.clone()),
            false => FixedGateways::alone(me.id, me.incarnation),
        };
        let kafka = kafka::Server::start(
            kafka::Deps {
                meta: meta.clone(),
                topics: topics.clone(),
                logs: logs.clone(),
                auth: users.clone(),
                cluster_id: cluster.id,
                gateways,
                config: config.kafka.clone(),
            },
            serving.closing.clone(),
        )
        .await
        .context("cannot start Kafka")?;
        Ok(Self { users, topics, logs, broker, kafka, mqtt_metrics })
    }

    /// Serves the listeners for clients.
    pub(super) fn serve(&self, config: &Config, listeners: Listeners, serving: &mut Serving) {
        for endpoint in seat::endpoints(config, &listeners.kafka) {
            let at = Endpoint { host: endpoint.host.as_str().into(), port: endpoint.port };
            self.kafka.advertise(&endpoint.listener, at);
        }
        let mqtt: Arc<dyn Handler> = Arc::new(MqttHandler(self.broker.clone()));
        let kafka: Arc<dyn Handler> = Arc::new(KafkaHandler(self.kafka.clone()));
        for bound in listeners.mqtt {
            serving.serve(bound, mqtt.clone());
        }
        for bound in listeners.kafka {
            serving.serve(bound, kafka.clone());
        }
    }

    /// What the admin port shows of it.
    pub(super) fn admin(&self) -> GatewayAdmin {
        GatewayAdmin {
            log: self.logs.clone(),
            topics: self.topics.clone(),
            users: self.users.clone(),
        }
    }

    /// What it counts.
    pub(super) fn metrics(&self) -> GatewaySources {
        GatewaySources { mqtt: self.mqtt_metrics.clone(), kafka: self.kafka.metrics().clone() }
    }

    /// Tells clients and finishes what they sent. The listeners' end was told.
    pub(super) async fn stop(&self, serving: &Serving) {
        // MQTT clients are told while their listeners still serve.
        self.broker.shutdown().await;
        serving.connections_ended().await;
        self.kafka.stopped().await;
    }
}

struct MqttHandler(Arc<Broker>);

#[async_trait]
impl Handler for MqttHandler {
    async fn connection(&self, stream: Stream, peer: Peer, _: CancellationToken) {
        self.0.clone().serve(stream, peer).await;
    }
}

struct KafkaHandler(Arc<kafka::Server>);

#[async_trait]
impl Handler for KafkaHandler {
    async fn connection(&self, stream: Stream, peer: Peer, _: CancellationToken) {
        self.0.serve(stream, peer).await;
    }
}

/// Nobody from another machine comes in without a password, unless that is what is wanted.
fn refuse_open_doors(config: &Config, users: &Users) -> anyhow::Result<()> {
    if config.allow_anonymous || !users.names().is_empty() || listen::is_loopback_only(config)? {
        return Ok(());
    }
    bail!(
        "--listen {} would let anybody in, for there are no users. Either add users (start \
         without --listen, then `interflow user add NAME`), or say --allow-anonymous",
        config.listen.join(" --listen ")
    )
}
