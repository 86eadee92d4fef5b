//! The groups in memory.

use std::future::Future;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hashbrown::{HashMap, HashSet};
use interflow_meta::groups::{GroupError, Life, MAX_MEMBERS_BYTES};
use interflow_meta::{Meta, MetaError};
use kafka_protocol::error::ResponseError;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::core::{Effect, Group, Ms, SaveId, Settings, State};
use super::slot::{Reply, Slot};
use super::store;
use super::timers::Timers;
use super::writer::Write;
use crate::kafka::brokers::Brokers;
use crate::kafka::config::KafkaConfig;
use crate::kafka::metrics::Metrics;

/// A member that doesn't know its id yet may wait so long for its first generation, as in Kafka.
const NEW_MEMBER_TIMEOUT_MS: Ms = 300_000;
/// Groups are read from meta one at a time in each of so many lanes.
const LANES: usize = 64;
/// How often a group that is just being forgotten is looked up again.
const ATTEMPTS: usize = 8;

/// All classic groups that this gateway coordinates.
pub(in crate::kafka) struct Groups {
    meta: Meta,
    brokers: Arc<Brokers>,
    config: KafkaConfig,
    settings: Settings,
    metrics: Arc<Metrics>,
    /// Groups of which it isn't known what was stored last: the next that is read of them comes behind
    /// it.
    doubted: Mutex<HashSet<Arc<str>, foldhash::fast::RandomState>>,
    slots: Mutex<HashMap<Arc<str>, Arc<Slot>, foldhash::fast::RandomState>>,
    /// Held while a group is read and entered, so that none is entered twice or out of date.
    lanes: Vec<tokio::sync::Mutex<()>>,
    hasher: foldhash::fast::RandomState,
    pub(super) timers: Timers,
    pub(super) epoch: Instant,
    tasks: TaskTracker,
}

impl Groups {
    /// Starts the coordinator: groups that nobody else has and that had members are read, and their
    /// sessions begin.
    pub(in crate::kafka) fn start(
        meta: Meta,
        brokers: Arc<Brokers>,
        config: KafkaConfig,
        metrics: Arc<Metrics>,
        shutdown: CancellationToken,
    ) -> Arc<Self> {
        let groups = Arc::new(Self {
            meta,
            brokers,
            settings: Settings {
                max_size: config.group_max_size,
                initial_delay_ms: config.group_initial_rebalance_delay_ms,
                new_member_timeout_ms: NEW_MEMBER_TIMEOUT_MS,
                max_stored_bytes: MAX_MEMBERS_BYTES,
            },
            config,
            metrics,
            doubted: Mutex::default(),
            slots: Mutex::default(),
            lanes: (0..LANES).map(|_| tokio::sync::Mutex::new(())).collect(),
            hasher: foldhash::fast::RandomState::default(),
            timers: Timers::default(),
            epoch: Instant::now(),
            tasks: TaskTracker::new(),
        });
        let until_shutdown = |work: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let shutdown = shutdown.clone();
            async move {
                tokio::select! {
                    () = work => {}
                    () = shutdown.cancelled() => {}
                }
            }
        };
        let clone = || groups.clone();
        let (timing, following, expiring) = (clone(), clone(), clone());
        groups.spawn(until_shutdown(Box::pin(async move { timing.run_timers().await })));
        groups.spawn(until_shutdown(Box::pin(async move { following.follow_view().await })));
        groups.spawn(until_shutdown(Box::pin(async move { expiring.run_expiry().await })));
        groups
    }

    /// Waits for the tasks, after shutdown.
    pub(in crate::kafka) async fn stopped(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    pub(super) fn meta(&self) -> &Meta {
        &self.meta
    }

    pub(super) fn brokers(&self) -> &Brokers {
        &self.brokers
    }

    /// As whom it claims groups.
    pub(super) fn life(&self) -> Life {
        let gateways = self.brokers.gateways();
        Life { node: gateways.me(), incarnation: gateways.incarnation() }
    }

    /// Whether this gateway is to answer for a group.
    ///
    /// # Errors
    /// NOT_COORDINATOR: the client asks who is.
    pub(super) fn check(&self, name: &str) -> Result<(), ResponseError> {
        match self.brokers.coordinates(name) {
            true => Ok(()),
            false => Err(ResponseError::NotCoordinator),
        }
    }

    pub(super) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Milliseconds since the start, for sessions and rebalances.
    pub(super) fn now(&self) -> Ms {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(Ms::MAX)
    }

    /// Milliseconds since 1970, for what is stored.
    pub(super) fn wall_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    /// Whether another `bytes` of members fit into memory.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let have = usize::try_from(self.metrics.group_bytes.get()).unwrap_or(usize::MAX);
        have.saturating_add(bytes) <= self.config.groups_max_bytes
    }

    /// Runs `act` on a group; `None` if there is no such group and `creates` is false.
    ///
    /// # Errors
    /// NOT_COORDINATOR when it is another gateway's; COORDINATOR_NOT_AVAILABLE (retriable) when it
    /// can't be read, or memory is used up.
    pub(super) async fn with<T>(
        self: &Arc<Self>,
        name: &str,
        creates: bool,
        act: impl FnOnce(&Arc<Slot>, &mut Group<Reply>, &mut Vec<Effect<Reply>>) -> T,
    ) -> Result<Option<T>, ResponseError> {
        let mut act = Some(act);
        for _ in 0..ATTEMPTS {
            let Some(slot) = self.slot(name, creates).await? else { return Ok(None) };
            // Checked when it can be found: whoever looks for those that are another's finds it, too.
            if let Err(error) = self.check(name) {
                self.let_go(&slot);
                return Err(error);
            }
            let mut group = slot.group.lock();
            if group.state() == State::Dead {
                // It was forgotten after it was found, or what it has still to write isn't written.
                continue;
            }
            let Some(act) = act.take() else { break };
            let mut out = Vec::new();
            let answer = act(&slot, &mut group, &mut out);
            self.apply(&slot, &mut group, out);
            return Ok(Some(answer));
        }
        Err(ResponseError::CoordinatorNotAvailable)
    }

    /// Runs `look` on a group in memory without changing it.
    pub(super) fn peek<T>(
        &self,
        name: &str,
        look: impl FnOnce(&mut Group<Reply>) -> T,
    ) -> Option<T> {
        let slot = self.slots.lock().get(name).cloned()?;
        let mut group = slot.group.lock();
        (group.state() != State::Dead).then(|| look(&mut group))
    }

    /// The groups in memory.
    pub(super) fn in_memory(&self) -> Vec<Arc<Slot>> {
        self.slots.lock().values().cloned().collect()
    }

    async fn slot(
        self: &Arc<Self>,
        name: &str,
        creates: bool,
    ) -> Result<Option<Arc<Slot>>, ResponseError> {
        if let Some(slot) = self.slots.lock().get(name) {
            return Ok(Some(slot.clone()));
        }
        let lane = usize::try_from(self.hasher.hash_one(name) % (LANES as u64)).unwrap_or(0);
        let Some(lane) = self.lanes.get(lane) else {
            return Err(ResponseError::CoordinatorNotAvailable);
        };
        let _entering = lane.lock().await;
        if let Some(slot) = self.slots.lock().get(name) {
            return Ok(Some(slot.clone()));
        }
        self.check(name)?;
        let renews = self.doubted.lock().contains(name);
        let loaded = store::load(&self.meta, name, self.life(), creates, renews).await;
        let loaded = loaded.map_err(|error| unavailable(name, &error))?;
        if renews {
            self.doubted.lock().remove(name);
        }
        let Some(loaded) = loaded else { return Ok(None) };
        let group = Group::restore(self.now(), loaded.saved);
        let slot = Slot::new(name, group, loaded.held);
        {
            let mut slots = self.slots.lock();
            if slots.len() >= self.config.groups_max {
                tracing::debug!(group = name, "there is no room for another group");
                return Err(ResponseError::CoordinatorNotAvailable);
            }
            slots.insert(slot.name.clone(), slot.clone());
        }
        self.metrics.groups.add(1);
        let group = slot.group.lock();
        self.weigh(&slot, &group);
        self.timers.schedule(&slot, group.deadline());
        drop(group);
        // However idle: it stays until the request that asked for it has acted.
        Ok(Some(slot))
    }

    /// Carries out what the group wants. Call with it locked, so that saves keep their order.
    pub(super) fn apply(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        group: &mut Group<Reply>,
        effects: Vec<Effect<Reply>>,
    ) {
        for effect in effects {
            match effect {
                // Who asked may be gone: the group will notice by the session.
                Effect::Answer(reply, answer) => drop(reply.send(answer)),
                Effect::Save(id, saved) => {
                    let metadata = store::to_metadata(&saved, self.wall_ms());
                    self.write(slot, Write::Save(id, metadata));
                }
            }
        }
        if slot.note_generation(group.generation()) {
            self.metrics.rebalances.add(1);
        }
        self.weigh(slot, group);
        self.timers.schedule(slot, group.deadline());
        self.forget_if_idle(slot, group);
    }

    pub(super) fn saved(self: &Arc<Self>, slot: &Arc<Slot>, id: SaveId, is_durable: bool) {
        let mut group = slot.group.lock();
        let mut out = Vec::new();
        group.saved(self.now(), &self.settings, id, is_durable, &mut out);
        self.apply(slot, &mut group, out);
    }

    /// Ends a group in memory that is another gateway's, or will be: those who wait are told so. What
    /// it was to write is still tried, and fails if another has claimed it.
    pub(super) fn let_go(self: &Arc<Self>, slot: &Arc<Slot>) {
        let mut group = slot.group.lock();
        if group.state() != State::Dead {
            let mut out = Vec::new();
            group.abandon(&mut out);
            self.apply(slot, &mut group, out);
        }
    }

    /// Ends a group in memory of which it isn't known what is stored: it is read again when it is used,
    /// under a new claim, which ends what may still be under way.
    pub(super) fn doubt(self: &Arc<Self>, slot: &Arc<Slot>) {
        self.doubted.lock().insert(slot.name.clone());
        self.let_go(slot);
    }

    /// Drops a group from memory that is as good as stored.
    pub(super) fn forget_if_idle(&self, slot: &Arc<Slot>, group: &mut Group<Reply>) {
        if !group.is_idle() || !slot.writes.lock().is_idle() {
            return;
        }
        let mut slots = self.slots.lock();
        if slots.get(&slot.name).is_some_and(|present| Arc::ptr_eq(present, slot)) {
            group.retire();
            slots.remove(&slot.name);
            drop(slots);
            self.metrics.groups.sub(1);
            let before = slot.note_bytes(0);
            self.metrics.group_bytes.sub(u64::try_from(before).unwrap_or(0));
        }
    }

    fn weigh(&self, slot: &Slot, group: &Group<Reply>) {
        let now = group.bytes();
        let before = slot.note_bytes(now);
        let count = |bytes: usize| u64::try_from(bytes).unwrap_or(0);
        self.metrics.group_bytes.add(count(now.saturating_sub(before)));
        self.metrics.group_bytes.sub(count(before.saturating_sub(now)));
    }
}

/// What a client is told when meta fails: to try again (K25).
pub(super) fn unavailable(group: &str, error: &MetaError) -> ResponseError {
    tracing::warn!(group, %error, "a group can't be read");
    ResponseError::CoordinatorNotAvailable
}

/// What a client is told when a group was not written.
pub(super) fn not_written(group: &str, error: &GroupError) -> ResponseError {
    match error {
        GroupError::Superseded => ResponseError::NotCoordinator,
        GroupError::Meta(error) => unavailable(group, error),
    }
}
