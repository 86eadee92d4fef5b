//! The log service of this node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use interflow_meta::{Epoch, LogId, Meta, NodeId};
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::append::Work;
use super::config::LogConfig;
use super::gather::Gathers;
use super::links::Links;
use super::mend::{self, Mending};
use super::metrics::{LogMetrics, add, sub};
use super::outbox::Event;
use super::progress::Progress;
use super::registry::{HEADS, Registry, RegistryError};
use super::replicas::Replicas;
use super::seals::{SEALS, Seals};
use super::state::{Log, Phase, SharedLog, State};
use super::timers::{self, Timers};
use super::waiting::Budget;
use super::{healing, load, open, resign, retain, scrub, walking};
use crate::clock::Clock;
use crate::core::producers::ProducerLimits;
use crate::core::rules::Rules;
use crate::core::segment::{Head, Life};
use crate::peers::{Alone, Peers};
use crate::rpc::GrpcPeers;
use crate::store::{EntryStore, SegmentId, StoreError};
use crate::{AppendError, LogError};

/// Whether a segment was closed by its sequencer is looked at so often, at a node that stops.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// Planned closes that are written to meta at a time.
const MAX_ROLLS: usize = 64;

type Map<V> = HashMap<LogId, V, foldhash::fast::RandomState>;

/// The logs of this node: sequencer of what is appended here, reader of what is stored here.
///
/// Clones are the same service. It must be ended with [`LogStore::shutdown`].
#[derive(Clone)]
pub struct LogStore {
    pub(super) inner: Arc<Inner>,
}

/// What a log service is made of.
pub(super) struct Parts {
    pub(super) registry: Arc<dyn Registry>,
    /// The same for work that gives way to others.
    pub(super) upkeep: Arc<dyn Registry>,
    pub(super) store: Arc<dyn EntryStore>,
    /// The events that the store was made with.
    pub(super) progress: Arc<Progress>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: LogConfig,
    pub(super) identity: Identity,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) seals: Seals,
    /// All of them, but in tests.
    pub(super) rules: Rules,
}

/// Whether the service takes appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Serving,
    /// The journal failed, for this reason: no appends, reads go on. A restart is needed.
    Failed(String),
    /// It is being shut down.
    Stopping,
}

/// What the service's parts share.
pub(crate) struct Inner {
    pub(super) registry: Arc<dyn Registry>,
    pub(super) upkeep: Arc<dyn Registry>,
    pub(super) store: Arc<dyn EntryStore>,
    pub(super) progress: Arc<Progress>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) config: LogConfig,
    pub(super) metrics: Arc<LogMetrics>,
    pub(super) stop: CancellationToken,
    pub(super) waiting: Budget,
    pub(super) peers: Arc<dyn Peers>,
    pub(super) links: Links,
    pub(super) gathers: Gathers,
    pub(super) timers: Timers,
    pub(super) mending: Mending,
    pub(super) scrubbing: scrub::Scrubbing,
    /// Closes that are being written to meta at a time.
    pub(super) rolls: Semaphore,
    pub(super) replicas: Replicas,
    pub(super) rules: Rules,
    /// Bytes of entries that logs keep for their peers.
    pub(super) kept: Arc<AtomicU64>,
    identity: Identity,
    logs: RwLock<Map<SharedLog>>,
    /// Segments that the start found, of logs that weren't loaded yet.
    found: Mutex<Map<Vec<Epoch>>>,
    is_stopping: AtomicBool,
    /// No new segment is put here.
    pub(super) is_leaving: AtomicBool,
    tasks: TaskTracker,
    runtime: Handle,
}

/// Who this process is among the nodes.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The node.
    pub node: NodeId,
    /// Differs from that of every earlier process of this node.
    pub incarnation: u64,
}

impl LogStore {
    /// Starts the service on the current tokio runtime: the logs that `meta` knows, over a store
    /// that was made with the events `progress`. What the store holds and meta doesn't know is
    /// dropped in the background.
    pub fn open(
        meta: Meta,
        store: Arc<dyn EntryStore>,
        progress: Arc<Progress>,
        identity: Identity,
        config: LogConfig,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let service = Self::start(Parts {
            upkeep: Arc::new(meta.background()),
            registry: Arc::new(meta),
            store,
            progress,
            clock,
            config,
            identity,
            peers: Arc::new(Alone(identity.node)),
            seals: Seals::default(),
            rules: Rules::default(),
        });
        service.start_retention();
        service.start_scrubbing();
        service
    }

    /// The same as one of several nodes, which it replicates logs to.
    ///
    /// # Errors
    /// The store's, when what is sealed can't be read.
    pub async fn open_cluster(
        meta: Meta,
        store: Arc<dyn EntryStore>,
        progress: Arc<Progress>,
        identity: Identity,
        config: LogConfig,
        clock: Arc<dyn Clock>,
        peers: Arc<GrpcPeers>,
    ) -> Result<Self, StoreError> {
        Self::open_among(meta, store, progress, identity, config, clock, peers).await
    }

    async fn open_among(
        meta: Meta,
        store: Arc<dyn EntryStore>,
        progress: Arc<Progress>,
        identity: Identity,
        config: LogConfig,
        clock: Arc<dyn Clock>,
        peers: Arc<dyn Peers>,
    ) -> Result<Self, StoreError> {
        let seals = Seals::load(&*store).await?;
        let service = Self::start(Parts {
            upkeep: Arc::new(meta.background()),
            registry: Arc::new(meta),
            store,
            progress,
            clock,
            config,
            identity,
            peers,
            seals,
            rules: Rules::default(),
        });
        service.start_timers();
        service.start_mending();
        service.start_retention();
        service.start_scrubbing();
        Ok(service)
    }

    /// The service without its retention task.
    pub(super) fn start(parts: Parts) -> Self {
        let mut found: Map<Vec<Epoch>> = Map::default();
        for segment in parts.store.segments().iter().filter(|found| found.id.log != SEALS) {
            found.entry(segment.id.log).or_default().push(segment.id.epoch);
        }
        let max_waiting = parts.config.max_all_waiting_bytes;
        let inner = Arc::new(Inner {
            registry: parts.registry,
            upkeep: parts.upkeep,
            store: parts.store,
            progress: parts.progress,
            clock: parts.clock,
            config: parts.config,
            metrics: Arc::default(),
            stop: CancellationToken::new(),
            waiting: Budget::new(max_waiting),
            peers: parts.peers,
            links: Links::default(),
            gathers: Gathers::default(),
            timers: Timers::default(),
            mending: Mending::default(),
            scrubbing: scrub::Scrubbing::default(),
            rolls: Semaphore::new(MAX_ROLLS),
            replicas: Replicas::new(parts.seals),
            rules: parts.rules,
            kept: Arc::default(),
            identity: parts.identity,
            logs: RwLock::default(),
            found: Mutex::new(found),
            is_stopping: AtomicBool::new(false),
            is_leaving: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        });
        inner.progress.attach(&inner);
        Self { inner }
    }

    /// Starts the task that keeps the timers of logs with peers.
    pub(super) fn start_timers(&self) {
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn_on(timers::run(inner), &self.inner.runtime);
    }

    /// Starts the tasks that keep segments on enough nodes.
    pub(super) fn start_mending(&self) {
        let inner = &self.inner;
        // Copies wait for others, which may be about to stop as well.
        inner.spawn(mend::run(Arc::clone(inner)));
        inner.spawn(healing::run(Arc::clone(inner)));
        inner.spawn(walking::run(Arc::clone(inner)));
    }

    /// Starts the task that looks at what closed segments hold.
    pub(super) fn start_scrubbing(&self) {
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn_on(scrub::run(inner), &self.inner.runtime);
    }

    /// Starts the task that looks after retention.
    fn start_retention(&self) {
        let inner = Arc::clone(&self.inner);
        self.inner.tasks.spawn_on(retain::run(inner), &self.inner.runtime);
    }

    /// Looks at the retention of all logs once, now.
    pub async fn retain_now(&self) {
        retain::pass(&self.inner, retain::Others::All).await;
    }

    /// Whether appends are taken.
    #[must_use]
    pub fn health(&self) -> Health {
        match self.inner.progress.failure() {
            Some(reason) => Health::Failed(reason.to_owned()),
            None if self.inner.is_stopping.load(Ordering::SeqCst) => Health::Stopping,
            None => Health::Serving,
        }
    }

    /// Whether the disk takes nothing since it is full, or the journal has failed; tells of changes. Others are to
    /// put no segments here meanwhile.
    #[must_use]
    pub fn watch_out_of_disk(&self) -> tokio::sync::watch::Receiver<bool> {
        self.inner.progress.watch_out()
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.inner.identity
    }

    /// What the service counts.
    #[must_use]
    pub fn metrics(&self) -> &Arc<LogMetrics> {
        &self.inner.metrics
    }

    /// How far what is durable is behind what was appended, in the journal's own measure.
    #[must_use]
    pub fn durable_lag(&self) -> u64 {
        self.inner.progress.lag()
    }

    /// Hands the logs that have other replicas over to those, and has others close the segments that
    /// this node has replicas of; resolves when that is done, or when there is nobody to hand over
    /// to: all other nodes are gone or leave as well. Before [`LogStore::shutdown`], so that nobody
    /// has to find out that this node is gone.
    pub async fn hand_over(&self) {
        tokio::select! {
            biased;
            () = self.hand_all_over() => {}
            () = self.inner.nobody_stays() => {}
        }
    }

    async fn hand_all_over(&self) {
        let inner = &self.inner;
        inner.is_leaving.store(true, Ordering::SeqCst);
        let with_peers = |log: &SharedLog| {
            let mut state = log.state.lock();
            state.active_mut().is_some_and(|active| !active.links.is_empty())
        };
        let mut replicas = inner.replicas.say_goodbye();
        let logs: Vec<_> = inner.all_logs().into_iter().filter(with_peers).collect();
        for log in &logs {
            log.begin_roll(inner);
        }
        for log in &logs {
            loop {
                let changed = log.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if !with_peers(log) {
                    break;
                }
                changed.await;
            }
        }
        // Their sequencers close them; nobody tells this node.
        loop {
            replicas = inner.still_open(&replicas).await;
            if replicas.is_empty() {
                return;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Takes no more appends, finishes those in flight, closes the store and joins all tasks.
    /// Reads are served until the last owner is gone.
    pub async fn shutdown(&self) {
        let inner = &self.inner;
        inner.is_stopping.store(true, Ordering::SeqCst);
        let refusal = AppendError::Stopped("the log store is shutting down".into());
        let logs = inner.all_logs();
        for log in &logs {
            log.refuse_waiting(inner, &refusal);
            log.write_last_snapshot(inner);
        }
        inner.store.close().await;
        inner.stop.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
        for log in &logs {
            log.abandon(inner, &refusal, &AppendError::Unknown);
            log.state.lock().tell(Event::Ended);
            log.call_observers();
        }
    }
}

impl Inner {
    /// Who this node is as a sequencer.
    pub(super) fn me(&self) -> Life {
        Life { node: self.identity.node, incarnation: self.identity.incarnation }
    }

    /// Those of the segments that meta knows as open.
    async fn still_open(&self, segments: &[SegmentId]) -> Vec<SegmentId> {
        let mut open = Vec::new();
        for page in segments.chunks(HEADS) {
            let logs: Vec<_> = page.iter().map(|id| id.log).collect();
            let heads = self.registry.heads(&logs).await;
            let is_open = |(id, head): (&SegmentId, Result<Option<Head>, RegistryError>)| {
                let is_it = matches!(head, Ok(Some(head)) if head.epoch == id.epoch);
                is_it.then_some(*id)
            };
            open.extend(page.iter().zip(heads).filter_map(is_open));
        }
        open
    }

    /// Starts a task that ends with the service.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn_on(
            async move {
                stop.run_until_cancelled(task).await;
            },
            &self.runtime,
        );
    }

    /// The log, if it is known.
    pub(super) fn known(&self, id: LogId) -> Option<SharedLog> {
        self.logs.read().get(&id).cloned()
    }

    /// Replicas of earlier segments of the log are closed: they need no memory.
    pub(super) fn forget_earlier(&self, id: SegmentId) {
        let earlier: Vec<_> = self
            .replicas
            .known(id.log)
            .into_iter()
            .filter(|known| known.epoch < id.epoch)
            .collect();
        self.replicas.forget(&earlier);
    }

    pub(super) fn producer_limits(&self) -> ProducerLimits {
        ProducerLimits {
            max_producers: self.config.max_producers,
            expiry_ms: i64::try_from(self.config.producer_expiry.as_millis()).unwrap_or(i64::MAX),
            ..ProducerLimits::default()
        }
    }

    /// Whether new segments may be put here.
    pub(super) fn takes_segments(&self) -> bool {
        !self.is_leaving.load(Ordering::SeqCst) && !self.progress.is_out()
    }

    /// Whether a log can go on elsewhere, as far as is known here: not one with no other replica.
    pub(super) fn has_others(&self, state: &State) -> bool {
        let me = self.me().node;
        state.ready().is_none_or(|ready| ready.replicas.len() > 1)
            && self.peers.candidates().iter().any(|candidate| candidate.node != me)
    }

    /// Why a log takes no appends, if so.
    pub(super) fn refusal(&self, state: &State) -> Option<AppendError> {
        if self.progress.failure().is_some() && !self.has_others(state) {
            return Some(AppendError::JournalFailed);
        }
        self.is_stopping
            .load(Ordering::SeqCst)
            .then_some(AppendError::Stopped("the log store is shutting down".into()))
    }

    /// The log, known or not.
    pub(super) fn log(&self, id: LogId) -> SharedLog {
        if let Some(log) = self.logs.read().get(&id) {
            return Arc::clone(log);
        }
        let mut logs = self.logs.write();
        Arc::clone(logs.entry(id).or_insert_with(|| {
            add(&self.metrics.logs, 1);
            Arc::new(Log::new(id))
        }))
    }

    pub(super) fn all_logs(&self) -> Vec<SharedLog> {
        let mut logs: Vec<SharedLog> = self.logs.read().values().cloned().collect();
        logs.sort_unstable_by_key(|log| log.id);
        logs
    }

    /// The logs in memory and those that the disk has something of: with their segments there.
    pub(super) fn logs_here(&self) -> BTreeMap<LogId, Vec<Epoch>> {
        let mut here: BTreeMap<LogId, Vec<Epoch>> = BTreeMap::new();
        for found in self.store.segments().iter().filter(|found| found.id.log != SEALS) {
            here.entry(found.id.log).or_default().push(found.id.epoch);
        }
        for id in self.logs.read().keys() {
            here.entry(*id).or_default();
        }
        here
    }

    /// The segments of a log that the start found.
    pub(super) fn found_epochs(&self, log: LogId) -> Vec<Epoch> {
        self.found.lock().get(&log).cloned().unwrap_or_default()
    }

    /// Tasks under way.
    #[cfg(test)]
    pub(super) fn tasks(&self) -> usize {
        self.tasks.len()
    }

    /// Starts a task for a log.
    pub(super) fn start(self: &Arc<Self>, work: Work, log: &SharedLog) {
        let (inner, log) = (Arc::clone(self), Arc::clone(log));
        match work {
            Work::Load => self.tasks.spawn_on(load::load(inner, log), &self.runtime),
            Work::Open => self.tasks.spawn_on(open::open(inner, log), &self.runtime),
            Work::Roll => self.tasks.spawn_on(open::roll(inner, log), &self.runtime),
            Work::Recover => self.tasks.spawn_on(resign::recover_own(inner, log), &self.runtime),
            Work::Learn => self.tasks.spawn_on(resign::learn(inner, log), &self.runtime),
        };
    }

    /// The log, loaded.
    pub(super) async fn ready(self: &Arc<Self>, id: LogId) -> Result<SharedLog, LogError> {
        let log = self.log(id);
        self.wait_ready(&log).await?;
        Ok(log)
    }

    async fn wait_ready(self: &Arc<Self>, log: &SharedLog) -> Result<(), LogError> {
        let mut has_waited = false;
        loop {
            let changed = log.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let is_to_load = {
                let mut state = log.state.lock();
                match &state.phase {
                    Phase::Ready(_) => return Ok(()),
                    Phase::Gone => return Err(LogError::NoSuchLog),
                    Phase::Unloaded(reason) if has_waited => {
                        return Err(LogError::Meta(reason.clone()));
                    }
                    Phase::Elsewhere if has_waited => return Err(LogError::NotSequencer),
                    Phase::New | Phase::Unloaded(_) | Phase::Elsewhere => {
                        state.phase = Phase::Loading;
                        true
                    }
                    Phase::Loading => false,
                }
            };
            if is_to_load {
                self.start(Work::Load, log);
            }
            has_waited = true;
            changed.await;
        }
    }

    /// Forgets what the start found of a log, which has been taken over: its segments.
    pub(super) fn forget_found(&self, id: LogId) -> Vec<Epoch> {
        self.found.lock().remove(&id).unwrap_or_default()
    }

    /// Forgets a log that is gone.
    pub(super) fn forget(&self, id: LogId) {
        if self.logs.write().remove(&id).is_some() {
            sub(&self.metrics.logs, 1);
        }
    }

    /// Meta has another chain than this process: the log is read again, at once if anyone waits.
    /// What the old chain had is looked for as what a start finds is.
    pub(super) fn reload(self: &Arc<Self>, log: &SharedLog) {
        let left = log.state.lock().go_to(Phase::New);
        if let Ok(Phase::Ready(mut ready)) = left {
            let epochs = ready.epochs();
            if let Some(active) = ready.active_mut() {
                sub(&self.metrics.in_flight, active.replication.sequencer().journaling());
                active.detach();
                for reply in active.replication.abandon() {
                    reply.send(Err(AppendError::Unknown));
                }
            }
            self.found.lock().insert(log.id, epochs);
        }
        let is_observed =
            log.state.lock().outbox.as_ref().is_some_and(|outbox| outbox.has_observers());
        if is_observed {
            // They are told where it is now, or that it isn't here.
            let (inner, id) = (Arc::clone(self), log.id);
            self.spawn(async move {
                let _ = inner.ready(id).await;
            });
        }
        log.resume(self);
    }
}
