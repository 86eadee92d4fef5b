//! Opening the next segment: behind what a restart found of a segment with one replica (crash
//! close), or behind a segment of our own that is full (planned close). Each is one transaction
//! (LOG-NOTES §1.5, §1.6).

use std::sync::Arc;

use interflow_meta::LogId;

use super::append::Effects;
use super::closing::{self, Filled};
use super::metrics::add;
use super::peering::Kept;
use super::recover;
use super::registry::{Roll, RollOutcome, newest_ms, next_epoch};
use super::service::Inner;
use super::state::{Active, Ready, Recovered, SharedLog, SnapshotState, Stage, Writer, segment};
use crate::AppendError;
use crate::core::chain::{Chain, ChainError, Closed, Open};
use crate::core::closing::Finish;
use crate::core::planned::{self, PlannedClose};
use crate::core::producers::Producers;
use crate::core::replication::{Replication, ReplicationLimits};
use crate::core::roll::Fill;
use crate::core::segment::{Factor, Head, Nodes};
use crate::core::sequencer::Sequencer;

/// A segment that was opened behind a recovered one.
pub(super) struct NewSegment {
    closed: Closed,
    head: Head,
    producers: Producers,
}

/// What became of an opening.
pub(super) enum Opened {
    Segment(Box<NewSegment>),
    /// Somebody else closed the segment: read the log again.
    Lost,
    NoSuchLog,
}

/// Closes the recovered segment and opens the next, in meta. Nothing in memory is changed.
pub(super) async fn open_next(
    inner: &Arc<Inner>,
    log: LogId,
    ready: &Ready,
    recovered: &Recovered,
) -> Result<Opened, String> {
    let plan =
        Plan { chain: ready.chain.clone(), superseded: ready.superseded.clone(), trim: ready.trim };
    open_planned(inner, log, &plan, recovered).await
}

struct Plan {
    chain: Chain,
    superseded: Vec<interflow_meta::Epoch>,
    trim: crate::Offset,
}

async fn open_planned(
    inner: &Arc<Inner>,
    log: LogId,
    plan: &Plan,
    recovered: &Recovered,
) -> Result<Opened, String> {
    let limits = inner.producer_limits();
    let producers = recover::producers(inner, log, &plan.chain, &plan.superseded, &limits)
        .await
        .map_err(|error| error.to_string())?;
    let old = plan.chain.open();
    let now_ms = inner.clock.wall_ms();
    let closed = Closed {
        epoch: old.epoch,
        leader_epoch: old.leader_epoch,
        base: old.base,
        end: recovered.end,
        bytes: recovered.bytes,
        newest_ms: newest_ms(recovered.max_timestamp, now_ms),
        replicas: Nodes::from_slice(&[inner.me().node]),
        is_short: false,
        acks: 1,
    };
    let open = Open {
        epoch: next_epoch(old.epoch),
        leader_epoch: old.leader_epoch.saturating_add(u32::from(recovered.is_lossy)),
        base: recovered.next_base.max(plan.trim),
    };
    let roll = Roll {
        log,
        closed: closed.clone(),
        max_timestamp: recovered.max_timestamp,
        open,
        replicas: Nodes::from_slice(&[inner.me().node]),
        me: inner.me(),
        token: inner.registry.token(),
        now_ms,
    };
    match inner.registry.roll(&roll).await.map_err(|error| error.0)? {
        RollOutcome::Rolled(head) => {
            add(&inner.metrics.crash_closes, 1);
            Ok(Opened::Segment(Box::new(NewSegment { closed, head, producers })))
        }
        RollOutcome::Lost(_) => Ok(Opened::Lost),
        RollOutcome::NoSuchLog => Ok(Opened::NoSuchLog),
        // This node asks for itself.
        RollOutcome::NodeIsOut => Err("this node takes no segments".to_owned()),
    }
}

impl Ready {
    /// Takes in a segment that was opened behind the recovered one.
    pub(super) fn opened(
        &mut self,
        inner: &Arc<Inner>,
        log: LogId,
        opened: NewSegment,
    ) -> Result<(), String> {
        let NewSegment { closed, head, producers } = opened;
        let open = open_of(&head);
        inner.store.close_segment(segment(log, closed.epoch));
        if closed.end == closed.base {
            self.superseded.push(closed.epoch);
        }
        self.chain.roll(closed, open).map_err(|error| error.to_string())?;
        self.replicas = head.replicas.clone();
        self.writer = Writer::Active(Box::new(Active::new(inner, log, head, producers)));
        Ok(())
    }
}

impl Active {
    /// The sequencer of a segment with nothing in it.
    pub(super) fn new(inner: &Inner, log: LogId, head: Head, producers: Producers) -> Self {
        let quorum = head.quorum();
        let limits = inner.producer_limits();
        let sequencer = Sequencer::new(head.base, head.durability, quorum, producers, limits);
        let limits = ReplicationLimits {
            max_uncommitted_bytes: inner.config.max_in_flight_bytes as u64,
            ..ReplicationLimits::default()
        };
        let peers = quorum.replicas.saturating_sub(1);
        Self {
            log,
            replication: Replication::new(sequencer, peers, limits, inner.rules),
            head,
            links: Vec::new(),
            kept: Kept::new(&inner.kept),
            stuck_until_ms: None,
            confirmed_ms: inner.clock.monotonic_ms(),
            stage: Stage::Open,
            fill: Fill::default(),
            max_timestamp: None,
            last_append_ms: inner.clock.wall_ms(),
            snapshot: SnapshotState { is_due: true, ..SnapshotState::default() },
        }
    }

    /// Goes on in the segment of `head`.
    fn reopen(&mut self, head: Head) {
        self.detach();
        self.stuck_until_ms = None;
        self.replication.reopen(head.base, head.durability, head.quorum());
        self.head = head;
        self.stage = Stage::Open;
        self.fill = Fill::default();
        self.max_timestamp = None;
        self.snapshot = SnapshotState { is_due: true, ..SnapshotState::default() };
    }
}

/// The open segment of a head.
pub(super) fn open_of(head: &Head) -> Open {
    Open { epoch: head.epoch, leader_epoch: head.leader_epoch, base: head.base }
}

/// The first append after a restart: the crash close.
pub(super) async fn open(inner: Arc<Inner>, log: SharedLog) {
    let Some((plan, recovered)) = ({
        let state = log.state.lock();
        state.ready().and_then(|ready| match &ready.writer {
            Writer::Recovered(recovered) => Some((
                Plan {
                    chain: ready.chain.clone(),
                    superseded: ready.superseded.clone(),
                    trim: ready.trim,
                },
                *recovered,
            )),
            Writer::Active(_) => None,
        })
    }) else {
        return;
    };
    let outcome = if inner.progress.failure().is_some() {
        log.refuse_waiting(&inner, &AppendError::JournalFailed);
        Err("the journal failed".to_owned())
    } else {
        open_planned(&inner, log.id, &plan, &recovered).await
    };
    let failure = match outcome {
        Ok(Opened::Segment(opened)) => {
            let mut effects = Effects::default();
            let result = {
                let mut state = log.state.lock();
                let result = match state.ready_mut() {
                    Some(ready) => ready.opened(&inner, log.id, *opened),
                    None => Ok(()),
                };
                state.begin_segment(&inner, &log, &mut effects);
                result
            };
            effects.run(&inner, &log);
            match result {
                Ok(()) => {
                    log.resume(&inner);
                    return;
                }
                Err(reason) => reason,
            }
        }
        Ok(Opened::Lost) => {
            inner.reload(&log);
            return;
        }
        Ok(Opened::NoSuchLog) => {
            inner.remove(&log);
            return;
        }
        Err(reason) => reason,
    };
    tracing::warn!(log = %log.id, reason = failure, "could not open a segment");
    if let Some(Writer::Recovered(recovered)) =
        log.state.lock().ready_mut().map(|ready| &mut ready.writer)
    {
        recovered.is_opening = false;
    }
    log.refuse_waiting(&inner, &AppendError::Stopped("no segment could be opened".into()));
    log.changed.notify_waiters();
}

/// The planned close of a drained segment. Goes on until its outcome is known.
pub(super) async fn roll(inner: Arc<Inner>, log: SharedLog) {
    let turns = Arc::clone(&inner);
    // It is never closed.
    let Ok(_turn) = turns.rolls.acquire().await else { return };
    let begun = log.state.lock().ready_mut().and_then(|ready| ready.begin_close(&inner));
    let Some(begun) = begun else {
        let is_stopped =
            log.state.lock().active_mut().is_some_and(|active| active.stage == Stage::Stopped);
        if is_stopped {
            super::resign::learn(inner, log).await;
        }
        return;
    };
    let Begun { mut plan, mut effect, closed, filled, factor } = begun;
    let finish = loop {
        if let crate::core::closing::Effect::Finished(finish) = effect {
            break finish;
        }
        let is_later = matches!(effect, crate::core::closing::Effect::Later);
        if is_later && filled.replicas.len() < 2 {
            let refusal = AppendError::Stopped("no segment could be opened".into());
            log.refuse_waiting(&inner, &refusal);
            log.changed.notify_waiters();
        }
        let nudged = is_later.then(|| log.nudged.notified());
        let Some(event) = closing::perform(&inner, &log, effect, &filled, factor, nudged).await
        else {
            return;
        };
        effect = match plan.handle(event) {
            Some(planned::Effect::Closing(effect)) => effect,
            Some(planned::Effect::Snapshot) | None => return,
        };
    };
    match finish {
        Finish::Won(head) if head.sequencer == inner.me() => {
            add(&inner.metrics.rolls, 1);
            inner.store.close_segment(segment(log.id, closed.epoch));
            let mut effects = Effects::default();
            let rolled = log.state.lock().rolled(&inner, &log, closed, head, &mut effects);
            effects.run(&inner, &log);
            match rolled {
                Ok(()) => log.resume(&inner),
                Err(error) => {
                    tracing::error!(log = %log.id, %error, "a roll does not fit the chain");
                    inner.reload(&log);
                }
            }
        }
        Finish::Won(_) => {
            add(&inner.metrics.rolls, 1);
            inner.store.close_segment(segment(log.id, closed.epoch));
            inner.reload(&log);
        }
        Finish::Lost(_) => inner.reload(&log),
        Finish::Gone => inner.remove(&log),
    }
}

/// A planned close that has begun.
struct Begun {
    plan: PlannedClose,
    effect: crate::core::closing::Effect,
    closed: Closed,
    filled: Filled,
    factor: Factor,
}

impl Ready {
    /// Begins to close the drained segment.
    fn begin_close(&mut self, inner: &Inner) -> Option<Begun> {
        let factor = self.factor;
        let active = self.active_mut()?;
        let token = inner.registry.token();
        let mut plan = PlannedClose::new(active.head.clone(), token, &mut active.replication);
        let Some(planned::Effect::Snapshot) = plan.progress(&active.replication) else {
            // Sealed since it was drained: others close it.
            let is_stopped = active.replication.is_stopped();
            active.stage = if is_stopped { Stage::Stopped } else { Stage::Draining };
            return None;
        };
        if !active.links.is_empty() && !active.replication.sequencer().producers().is_empty() {
            // For the next sequencer, if that is another node: it saves the reading of headers.
            let mut effects = Effects::default();
            if let Err(error) = active.write_snapshot(inner, false, &mut effects) {
                tracing::debug!(log = %active.log, %error, "no snapshot at the end of a segment");
            }
        }
        let Some(planned::Effect::Closing(effect)) = plan.snapshot_done() else { return None };
        let end = active.replication.sequencer().committed();
        let now_ms = inner.clock.wall_ms();
        let Head { epoch, leader_epoch, base, ref replicas, acks, .. } = active.head;
        let closed = Closed {
            epoch,
            leader_epoch,
            base,
            end,
            bytes: active.fill.bytes,
            newest_ms: newest_ms(active.max_timestamp, now_ms),
            replicas: replicas.clone(),
            is_short: false,
            acks,
        };
        let filled = Filled {
            base,
            leader_epoch,
            replicas: replicas.clone(),
            acks,
            bytes: active.fill.bytes,
            max_timestamp: active.max_timestamp,
        };
        Some(Begun { plan, effect, closed, filled, factor })
    }
}

impl super::state::State {
    /// Goes on behind the segment that was closed.
    ///
    /// # Errors
    /// Meta has another chain than this process: it must be read again before anything is
    /// written.
    fn rolled(
        &mut self,
        inner: &Arc<Inner>,
        log: &SharedLog,
        closed: Closed,
        head: Head,
        effects: &mut Effects,
    ) -> Result<(), ChainError> {
        let Some(ready) = self.ready_mut() else { return Ok(()) };
        if closed.end == closed.base {
            ready.superseded.push(closed.epoch);
        } else if closed.replicas.len() < head.replicas.len() {
            inner.mending.fill_soon();
        }
        ready.chain.roll(closed, open_of(&head))?;
        ready.replicas = head.replicas.clone();
        if let Some(active) = ready.active_mut() {
            active.reopen(head);
        }
        self.begin_segment(inner, log, effects);
        Ok(())
    }

    /// Begins a segment: its peers are reached, and its snapshot is written. If there is no room
    /// for that now, the first append tries again.
    pub(super) fn begin_segment(
        &mut self,
        inner: &Arc<Inner>,
        log: &SharedLog,
        effects: &mut Effects,
    ) {
        if let Some(active) = self.active_mut() {
            active.attach(inner, log, effects);
            if inner.replicas.is_to_be_sealed(active.id()) {
                // Somebody closes it, and may have been told that it has nothing here (I2).
                active.stop(inner, effects);
            } else if let Err(error) = active.write_first_snapshot(inner, effects) {
                tracing::debug!(log = %log.id, %error, "a snapshot has to wait");
            }
        }
        self.tell_bounds();
    }
}

impl super::state::Log {
    /// Begins a planned close now; says whether one is on its way.
    pub(super) fn begin_roll(self: &Arc<Self>, inner: &Arc<Inner>) {
        let mut effects = Effects::default();
        {
            let mut state = self.state.lock();
            if let Some(active) = state.active_mut()
                && active.stage == Stage::Open
            {
                active.stage = Stage::Draining;
            }
            state.roll_if_drained(&mut effects);
            if let Some(Writer::Recovered(recovered)) =
                state.ready_mut().map(|ready| &mut ready.writer)
                && !recovered.is_opening
            {
                recovered.is_opening = true;
                effects.work = Some(super::append::Work::Open);
            }
        }
        effects.run(inner, self);
    }
}
