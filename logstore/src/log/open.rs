//! Opening the next segment: behind what a restart found (crash close), or behind a segment of
//! our own that is full (planned close). Each is one transaction (LOG-NOTES §1.5, §1.6).

use std::sync::Arc;

use interflow_meta::{Durability, LogId};

use super::append::Effects;
use super::metrics::add;
use super::recover;
use super::registry::{Roll, RollOutcome, newest_ms, next_epoch};
use super::service::Inner;
use super::state::{Active, Ready, Recovered, SharedLog, SnapshotState, Stage, Writer, segment};
use crate::AppendError;
use crate::core::chain::{Chain, ChainError, Closed, Open};
use crate::core::producers::Producers;
use crate::core::roll::Fill;
use crate::core::sequencer::{Quorum, Sequencer};

/// A segment that was opened behind a recovered one.
pub(super) struct NewSegment {
    closed: Closed,
    open: Open,
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
        sequencer: inner.me(),
        now_ms,
    };
    match inner.registry.roll(&roll).await.map_err(|error| error.0)? {
        RollOutcome::Rolled => {
            add(&inner.metrics.crash_closes, 1);
            Ok(Opened::Segment(Box::new(NewSegment { closed, open, producers })))
        }
        RollOutcome::Lost => Ok(Opened::Lost),
        RollOutcome::NoSuchLog => Ok(Opened::NoSuchLog),
    }
}

impl Ready {
    /// Takes in a segment that was opened behind the recovered one.
    pub(super) fn opened(
        &mut self,
        inner: &Inner,
        log: LogId,
        opened: NewSegment,
    ) -> Result<(), String> {
        let NewSegment { closed, open, producers } = opened;
        inner.store.close_segment(segment(log, closed.epoch));
        if closed.end == closed.base {
            self.superseded.push(closed.epoch);
        }
        self.chain.roll(closed, open).map_err(|error| error.to_string())?;
        self.writer =
            Writer::Active(Box::new(Active::new(inner, &open, self.durability, producers)));
        Ok(())
    }
}

impl Active {
    /// The sequencer of a segment with nothing in it.
    pub(super) fn new(
        inner: &Inner,
        open: &Open,
        durability: Durability,
        producers: Producers,
    ) -> Self {
        let limits = inner.producer_limits();
        Self {
            epoch: open.epoch,
            leader_epoch: open.leader_epoch,
            base: open.base,
            sequencer: Sequencer::new(open.base, durability, Quorum::ONE, producers, limits),
            stage: Stage::Open,
            fill: Fill::default(),
            max_timestamp: None,
            last_append_ms: inner.clock.wall_ms(),
            snapshot: SnapshotState { is_due: true, ..SnapshotState::default() },
        }
    }

    /// Goes on in the segment `open`.
    fn reopen(&mut self, open: &Open, durability: Durability) {
        self.epoch = open.epoch;
        self.leader_epoch = open.leader_epoch;
        self.base = open.base;
        self.sequencer.reopen(open.base, durability);
        self.stage = Stage::Open;
        self.fill = Fill::default();
        self.max_timestamp = None;
        self.snapshot = SnapshotState { is_due: true, ..SnapshotState::default() };
    }
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
    let outcome = open_planned(&inner, log.id, &plan, &recovered).await;
    let failure = match outcome {
        Ok(Opened::Segment(opened)) => {
            let result = {
                let mut state = log.state.lock();
                let result = match state.ready_mut() {
                    Some(ready) => ready.opened(&inner, log.id, *opened),
                    None => Ok(()),
                };
                state.begin_segment(&log, &inner);
                result
            };
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

/// The planned close of a drained segment.
pub(super) async fn roll(inner: Arc<Inner>, log: SharedLog) {
    let now_ms = inner.clock.wall_ms();
    let Some(roll) =
        log.state.lock().active_mut().map(|active| active.plan_roll(&inner, log.id, now_ms))
    else {
        return;
    };
    match inner.registry.roll(&roll).await {
        Ok(RollOutcome::Rolled) => {
            add(&inner.metrics.rolls, 1);
            inner.store.close_segment(segment(log.id, roll.closed.epoch));
            let rolled = log.state.lock().rolled(&log, &inner, roll);
            match rolled {
                Ok(()) => log.resume(&inner),
                Err(error) => {
                    tracing::error!(log = %log.id, %error, "a roll does not fit the chain");
                    inner.reload(&log);
                }
            }
        }
        Ok(RollOutcome::Lost) => inner.reload(&log),
        Ok(RollOutcome::NoSuchLog) => inner.remove(&log),
        Err(error) => {
            tracing::warn!(log = %log.id, %error, "could not roll a segment");
            // It may have been closed all the same: nothing is appended to it until meta answers.
            if let Some(active) = log.state.lock().active_mut() {
                active.stage = Stage::Draining;
            }
            log.refuse_waiting(&inner, &AppendError::Stopped("no segment could be opened".into()));
            log.changed.notify_waiters();
        }
    }
}

impl Active {
    fn plan_roll(&self, inner: &Inner, log: LogId, now_ms: i64) -> Roll {
        let end = self.sequencer.committed();
        Roll {
            log,
            closed: Closed {
                epoch: self.epoch,
                leader_epoch: self.leader_epoch,
                base: self.base,
                end,
                bytes: self.fill.bytes,
                newest_ms: newest_ms(self.max_timestamp, now_ms),
            },
            max_timestamp: self.max_timestamp,
            open: Open {
                epoch: next_epoch(self.epoch),
                leader_epoch: self.leader_epoch,
                base: end,
            },
            sequencer: inner.me(),
            now_ms,
        }
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
        log: &super::state::Log,
        inner: &Inner,
        roll: Roll,
    ) -> Result<(), ChainError> {
        let Some(ready) = self.ready_mut() else { return Ok(()) };
        if roll.closed.end == roll.closed.base {
            ready.superseded.push(roll.closed.epoch);
        }
        ready.chain.roll(roll.closed, roll.open)?;
        let durability = ready.durability;
        if let Some(active) = ready.active_mut() {
            active.reopen(&roll.open, durability);
        }
        self.begin_segment(log, inner);
        Ok(())
    }

    /// Begins a segment with its snapshot. If there is no room now, the first append tries again.
    fn begin_segment(&mut self, log: &super::state::Log, inner: &Inner) {
        if let Some(active) = self.active_mut()
            && let Err(error) = active.write_first_snapshot(log, inner)
        {
            tracing::debug!(log = %log.id, %error, "a snapshot has to wait");
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
