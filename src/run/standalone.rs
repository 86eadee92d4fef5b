//! Everything in one process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use interflow_gateway::admin::{Admin, AdminHandler, Health};
use interflow_gateway::auth::Users;
use interflow_gateway::cluster::FixedGateways;
use interflow_gateway::kafka::{self, Endpoint};
use interflow_gateway::mqtt::{self, Broker, MqttMetrics, SystemWallClock};
use interflow_gateway::net::{Bound, Handler, Peer, Stream, Tls};
use interflow_gateway::topics::{Topics, TopicsOptions};
use interflow_logstore::clock::SystemClock;
use interflow_logstore::{Health as LogHealth, LogClient, LogConfig, LogStore};
use interflow_meta::{Meta, Store};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::disks::Disks;
use super::listen::{self, Listeners};
use super::stores::{self, NODE, Stores};
use super::{metrics, stream, welcome};
use crate::config::Config;

/// Appends in flight, and what they need of the disk, are finished within this at shutdown.
const FINISH: Duration = Duration::from_secs(4);

/// A running standalone.
pub struct Standalone {
    config: Arc<Config>,
    meta: Meta,
    log: LogStore,
    broker: Arc<Broker>,
    kafka: Arc<kafka::Server>,
    users: Arc<Users>,
    tls: Option<Arc<Tls>>,
    ca: Option<std::path::PathBuf>,
    addresses: BTreeMap<String, Vec<SocketAddr>>,
    state: Arc<State>,
    /// Ends listeners and connections.
    closing: CancellationToken,
    /// Ends what follows meta, after the connections.
    ending: CancellationToken,
    connections: TaskTracker,
    background: TaskTracker,
}

/// How the process is, for the admin port.
struct State {
    log: LogStore,
    meta: Arc<dyn Store>,
    is_ready: AtomicBool,
}

impl Health for State {
    fn failure(&self) -> Option<String> {
        if let LogHealth::Failed(reason) = self.log.health() {
            return Some(format!("the journal failed: {reason}"));
        }
        self.meta.failure().map(|reason| format!("the metadata store failed: {reason}"))
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }
}

impl Standalone {
    /// Starts everything on the current runtime; when this returns, all listeners serve.
    ///
    /// # Errors
    /// What is wrong, with the flag that cures it.
    pub async fn start(config: Arc<Config>, disks: Disks) -> anyhow::Result<Self> {
        let listeners = listen::bind(&config)?;
        let (closing, ending) = (CancellationToken::new(), CancellationToken::new());
        let (connections, background) = (TaskTracker::new(), TaskTracker::new());

        let Stores { metadata, meta, cluster, identity, journal, progress, space } =
            stores::open(&config, disks).await?;
        let log_config = LogConfig {
            retention_interval: Duration::from_secs(config.storage.retention_interval_s.max(1)),
            ..LogConfig::default()
        };
        let clock = Arc::new(SystemClock::new());
        let log = LogStore::open(meta.clone(), journal, progress, identity, log_config, clock);
        let client: Arc<dyn LogClient> = Arc::new(log.clone());

        let users = Users::open(meta.clone()).await?;
        refuse_open_doors(&config, &users)?;
        background.spawn(users.clone().follow(ending.clone()));
        let options = TopicsOptions {
            node: NODE,
            incarnation: identity.incarnation,
            ..TopicsOptions::default()
        };
        let (topics, follower) =
            Topics::start(meta.clone(), client.clone(), options, ending.clone()).await?;
        background.spawn(async move {
            if let Err(error) = follower.await {
                tracing::error!(%error, "topics are not followed any more");
            }
        });
        let mqtt_metrics = Arc::new(MqttMetrics::default());
        stream::ensure(&topics, &config.mqtt.topic, config.storage.mqtt_partitions, space).await?;

        let stream = topics.get(&config.mqtt.topic).context("the MQTT topic was deleted")?;
        let broker = Broker::start(mqtt::BrokerDeps {
            log: client.clone(),
            meta: meta.clone(),
            stream: stream.partitions.clone(),
            clock: Arc::new(SystemWallClock),
            auth: users.clone(),
            config: config.mqtt.clone(),
            metrics: mqtt_metrics.clone(),
        })
        .await
        .context("cannot start MQTT")?;
        let kafka = kafka::Server::start(
            kafka::Deps {
                meta: meta.clone(),
                topics: topics.clone(),
                logs: client.clone(),
                auth: users.clone(),
                cluster_id: cluster.id,
                gateways: FixedGateways::alone(NODE, identity.incarnation),
                config: config.kafka.clone(),
            },
            closing.clone(),
        )
        .await
        .context("cannot start Kafka")?;

        let state =
            Arc::new(State { log: log.clone(), meta: metadata, is_ready: AtomicBool::new(true) });
        let admin = Arc::new(Admin {
            log: client,
            topics,
            users: users.clone(),
            metrics: metrics::registry(metrics::Sources {
                log: log.clone(),
                mqtt: mqtt_metrics,
                kafka: kafka.metrics().clone(),
            }),
            health: state.clone(),
        });
        let mut running = Self {
            config,
            meta,
            log,
            broker,
            kafka,
            users,
            tls: listeners.tls.clone(),
            ca: listeners.ca.clone(),
            addresses: BTreeMap::new(),
            state,
            closing,
            ending,
            connections,
            background,
        };
        running.serve(listeners, admin)?;
        Ok(running)
    }

    fn serve(&mut self, listeners: Listeners, admin: Arc<Admin>) -> anyhow::Result<()> {
        let host: Arc<str> = self.config.advertise.as_deref().unwrap_or("localhost").into();
        for bound in &listeners.kafka {
            let port = bound.addresses().first().map_or(0, SocketAddr::port);
            self.kafka.advertise(bound.name(), Endpoint { host: host.clone(), port });
        }
        let mqtt: Arc<dyn Handler> = Arc::new(MqttHandler(self.broker.clone()));
        let kafka: Arc<dyn Handler> = Arc::new(KafkaHandler(self.kafka.clone()));
        for bound in listeners.mqtt {
            self.serve_one(bound, mqtt.clone());
        }
        for bound in listeners.kafka {
            self.serve_one(bound, kafka.clone());
        }
        self.serve_one(listeners.admin, Arc::new(AdminHandler::new(admin)));
        Ok(())
    }

    fn serve_one(&mut self, bound: Bound, handler: Arc<dyn Handler>) {
        self.addresses.insert(bound.name().to_string(), bound.addresses());
        let grace = Duration::from_millis(self.config.net.shutdown_grace_ms);
        self.connections.spawn(bound.serve(handler, self.closing.clone(), grace));
    }

    /// Where a listener listens: `mqtt`, `mqtts`, `ws`, `wss`, `quic`, `kafka`, `kafkas`, `admin`.
    pub fn addresses(&self, listener: &str) -> &[SocketAddr] {
        self.addresses.get(listener).map_or(&[], Vec::as_slice)
    }

    /// Prints what the person who started it wants to know.
    pub fn print_welcome(&self) {
        let order = ["mqtt", "mqtts", "ws", "wss", "quic", "kafka", "kafkas", "admin"];
        let listeners: Vec<_> = order
            .iter()
            .filter_map(|name| Some((name.to_string(), self.addresses.get(*name)?.clone())))
            .collect();
        let is_open =
            self.config.allow_anonymous && !listen::is_loopback_only(&self.config).unwrap_or(false);
        let data = &self.config.data_dir.0;
        let data = std::path::absolute(data).unwrap_or_else(|_| data.clone());
        let users = self.users.names().len();
        // Nobody reads it: no reason not to serve.
        let _ = welcome::print(&listeners, &data, self.ca.as_deref(), users, is_open);
    }

    /// Reads certificates again; connections that are open keep theirs.
    pub fn reload_certificates(&self) {
        match self.tls.as_ref().map(|tls| tls.reload()) {
            Some(Ok(())) => tracing::info!("certificates were read again"),
            Some(Err(error)) => tracing::error!(%error, "the old certificates stay"),
            None => {}
        }
    }

    /// Tells clients, finishes appends, and closes everything.
    ///
    /// # Errors
    /// What could not be finished in time.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.state.is_ready.store(false, Ordering::Relaxed);
        self.closing.cancel();
        // Listeners take no more; MQTT clients are told while theirs still serve.
        self.broker.shutdown().await;
        self.connections.close();
        self.connections.wait().await;
        self.kafka.stopped().await;
        self.ending.cancel();
        self.background.close();
        self.background.wait().await;
        let finished = tokio::time::timeout(FINISH, self.log.shutdown()).await;
        self.meta.close().await;
        finished.context("appends in flight could not be finished in time")
    }
}

impl Drop for Standalone {
    fn drop(&mut self) {
        self.closing.cancel();
        self.ending.cancel();
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
