//! The MQTT side of a gateway: what all its connections share.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use interflow_logstore::{LogClient, LogError, LogId, LogObserver, Observation};
use interflow_meta::{Meta, MetaError, producers};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::WallClock;
use super::codec::Reason;
use super::config::MqttConfig;
use super::connection;
use super::deliver::{DispatchParts, FeedParts, Scans, Tail, dispatch};
use super::gate::GatePass;
use super::metrics::MqttMetrics;
use super::publish::{Writer, WriterLimits, WriterParts};
use super::retained::Retained;
use super::routes::Routes;
use super::session::{Limits, Registry, Session};
use super::shared::Group;
use super::timers::Timers;
use super::topic;
use crate::auth::Authenticator;
use crate::net::{Peer, Stream};

/// What a broker works with.
pub struct BrokerDeps {
    /// The logs.
    pub log: Arc<dyn LogClient>,
    /// Where retained messages are, and producer ids come from.
    pub meta: Meta,
    /// The stream: the logs of the topic [`MqttConfig::topic`], by partition.
    pub stream: Arc<[LogId]>,
    /// The time of day.
    pub clock: Arc<dyn WallClock>,
    /// Who may connect.
    pub auth: Arc<dyn Authenticator>,
    /// Limits.
    pub config: MqttConfig,
    /// What is counted.
    pub metrics: Arc<MqttMetrics>,
}

/// Why a broker could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The stream has no log.
    #[error("the MQTT stream has no partition")]
    NoLogs,
    /// A log can't be served.
    #[error("a log of the MQTT stream can't be served: {0}")]
    Log(#[from] LogError),
    /// Meta can't be read or written.
    #[error("metadata is unavailable: {0}")]
    Meta(#[from] MetaError),
}

/// One log of the stream.
pub(crate) struct Shard {
    pub(crate) tail: Arc<Tail>,
    pub(crate) writer: Arc<Writer>,
}

/// Bytes of early batches that may wait for a dispatcher.
const EARLY_BYTES: usize = 4 << 20;

/// The MQTT side of a gateway.
pub struct Broker {
    pub(crate) config: MqttConfig,
    pub(crate) limits: Limits,
    pub(crate) topic_limits: topic::Limits,
    pub(crate) metrics: Arc<MqttMetrics>,
    pub(crate) clock: Arc<dyn WallClock>,
    pub(crate) auth: Arc<dyn Authenticator>,
    pub(crate) retained: Arc<Retained>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) feed: FeedParts,
    pub(crate) registry: Registry,
    pub(crate) groups: Mutex<HashMap<Arc<str>, Arc<Group>, RandomState>>,
    pub(crate) timers: Arc<Timers>,
    pub(crate) tasks: TaskTracker,
    pub(crate) started: Instant,
    /// Somebody subscribed to `$SYS` topics.
    pub(crate) sys_asked: Notify,
    /// No new connections, and those that are end.
    pub(crate) stop: CancellationToken,
    shards: Box<[Shard]>,
    /// Ends the tasks behind the connections.
    end: CancellationToken,
    connections: TaskTracker,
    observations: Mutex<Vec<Observation>>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts the tasks behind all connections. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// A log that can't be observed; meta that can't be written.
    pub async fn start(deps: BrokerDeps) -> Result<Arc<Self>, StartError> {
        let BrokerDeps { log, meta, stream, clock, auth, config, metrics } = deps;
        if stream.is_empty() {
            return Err(StartError::NoLogs);
        }
        let ids = meta.transact(|tx| async move { producers::allocate(&tx, 2).await }).await?;
        let retained = Arc::new(Retained::new(meta, clock.clone(), metrics.clone()));
        let limits = Limits {
            max_outbound_bytes: config.max_outbound_bytes,
            max_pending_bytes: config.max_pending_bytes,
        };
        let routes = Arc::new(Routes::default());
        let tails: Arc<[Arc<Tail>]> = stream
            .iter()
            .zip(0..=u16::MAX)
            .map(|(log, shard)| Arc::new(Tail::new(*log, shard, EARLY_BYTES)))
            .collect();
        let writer_parts = WriterParts {
            client: log.clone(),
            retained: retained.clone(),
            metrics: metrics.clone(),
            limits: WriterLimits {
                max_bytes: config.max_shard_bytes,
                max_batch_bytes: config.max_batch_bytes,
                max_early_batches: config.max_early_batches,
            },
            producers: [ids.start, ids.start + 1],
        };
        let shards: Box<[Shard]> = tails
            .iter()
            .map(|tail| {
                let committed = tail.clone();
                let writer = Writer::new(tail.log, writer_parts.clone(), move |offset| {
                    committed.note_committed(offset);
                });
                Shard { tail: tail.clone(), writer: Arc::new(writer) }
            })
            .collect();
        let dispatch_parts = DispatchParts {
            client: log.clone(),
            routes: routes.clone(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            limits,
            own_producers: writer_parts.producers,
            read_bytes: config.read_bytes,
            max_decompressed_bytes: config.max_decompressed_bytes,
        };
        let topic_limits = topic::Limits {
            max_bytes: config.max_topic_bytes,
            max_levels: config.max_topic_levels,
        };
        let broker = Arc::new(Self {
            limits,
            topic_limits,
            metrics,
            clock,
            auth,
            routes,
            feed: FeedParts {
                dispatch: dispatch_parts,
                retained: retained.clone(),
                tails: tails.clone(),
                scans: Arc::new(Scans::new(stream.iter().copied(), config.max_scan_bytes)),
            },
            retained: retained.clone(),
            registry: Registry::default(),
            groups: Mutex::default(),
            timers: Arc::default(),
            tasks: TaskTracker::new(),
            started: Instant::now(),
            sys_asked: Notify::new(),
            stop: CancellationToken::new(),
            shards,
            end: CancellationToken::new(),
            connections: TaskTracker::new(),
            observations: Mutex::default(),
            config,
        });
        let mut replays = Vec::new();
        for tail in tails.iter() {
            let bounds = log.bounds(tail.log).await?;
            let from = retained.position(tail.log, bounds.stable).await?;
            // Whoever asks for retained messages waits for those that are still to be found.
            let replay = (from < bounds.stable).then(|| (bounds.stable, retained.enter()));
            tail.begin(bounds, from);
            replays.push(replay);
            let observer: Arc<dyn LogObserver> = tail.clone();
            let observation = log.observe(tail.log, observer).await?;
            broker.observations.lock().push(observation);
        }
        broker.spawn_tasks(replays);
        Ok(broker)
    }

    fn spawn_tasks(self: &Arc<Self>, replays: Vec<Option<(u64, GatePass)>>) {
        for (shard, replay) in self.shards.iter().zip(replays) {
            let parts = self.feed.dispatch.clone();
            let (tail, retained, end) =
                (shard.tail.clone(), self.retained.clone(), self.end.clone());
            self.tasks.spawn(dispatch(parts, tail, retained, replay, end));
            let (writer, end) = (shard.writer.clone(), self.end.clone());
            self.tasks.spawn(async move { writer.run(end).await });
        }
        let (retained, end) = (self.retained.clone(), self.end.clone());
        self.tasks.spawn(async move { retained.run(end).await });
        let (scans, end) = (self.feed.scans.clone(), self.end.clone());
        self.tasks.spawn(async move { scans.run(end).await });
        if self.config.sys_interval_s > 0 {
            let (broker, end) = (self.clone(), self.end.clone());
            self.tasks.spawn(async move {
                tokio::select! {
                    () = broker.run_sys() => {}
                    () = end.cancelled() => {}
                }
            });
        }
        let (broker, end) = (Arc::downgrade(self), self.end.clone());
        let timers = self.timers.clone();
        self.tasks.spawn(async move {
            let due = |session: &Arc<Session>| {
                if let Some(broker) = broker.upgrade() {
                    broker.due(session);
                }
            };
            tokio::select! {
                () = timers.run(due) => {}
                () = end.cancelled() => {}
            }
        });
    }

    /// Serves one accepted stream until it ends. The listener polls or spawns it.
    pub async fn serve(self: Arc<Self>, stream: Stream, peer: Peer) {
        if self.stop.is_cancelled() {
            return;
        }
        let connections = self.connections.clone();
        connections.track_future(connection::serve(self, stream, peer)).await;
    }

    /// Tells all clients that the server shuts down (0x8B), publishes their wills, waits until
    /// every publish is committed and answered, and ends all tasks.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.connections.close();
        self.disconnect_all(Reason::ServerShuttingDown);
        self.connections.wait().await;
        for shard in &self.shards {
            shard.writer.drain().await;
        }
        if let Some(settled) = self.retained.settled() {
            settled.await;
        }
        self.end.cancel();
        for group in self.groups.lock().values() {
            group.stop.cancel();
        }
        self.tasks.close();
        self.tasks.wait().await;
        let positions: Vec<_> =
            self.feed.tails.iter().map(|tail| (tail.log, tail.position().next)).collect();
        if let Err(error) = self.retained.save(&positions).await {
            tracing::warn!(%error, "the next start will look for retained messages again");
        }
        self.observations.lock().clear();
    }

    /// Ends all connections for `reason`.
    pub fn disconnect_all(&self, reason: Reason) {
        for session in self.registry.all() {
            if let Some(online) = &session.lock().online {
                online.connection.close(reason);
            }
        }
    }

    pub(crate) fn shard(&self, index: u16) -> Option<&Shard> {
        self.shards.get(usize::from(index))
    }

    /// The shard that a topic's messages go to.
    pub(crate) fn shard_of(&self, topic: &str) -> &Shard {
        let count = u32::try_from(self.shards.len()).unwrap_or(u32::MAX);
        let index = topic::shard_of(topic.as_bytes(), count);
        #[expect(clippy::indexing_slicing, reason = "below the count, which is not 0")]
        &self.shards[usize::try_from(index).unwrap_or(0)]
    }

    /// The session expiry that is served for the one asked for, in seconds.
    pub(crate) fn granted_expiry(&self, asked_s: u32) -> u32 {
        asked_s.min(self.config.max_session_expiry_s)
    }
}
