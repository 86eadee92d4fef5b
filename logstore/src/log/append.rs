//! The way of an append: order, offset, journal, commit, answer.
//!
//! ```text
//!   offer ─► Active/Open? ─► take: check, roll due?, snapshot due?, journal ─► sequencer
//!        └─► else wait ─► (loaded, opened, rolled) ─► resume ─┘
//!   journal durable ─► complete: answers, observers, a drained segment's close
//! ```
//!
//! What is to be done outside of the log's lock is gathered in [`Effects`].

use std::sync::Arc;

use smallvec::SmallVec;

use super::metrics::{add, sub};
use super::outbox::Event;
use super::progress::Listed;
use super::service::Inner;
use super::state::{Log, Phase, Ready, SharedLog, Stage, State, Writer};
use super::take::{Taken, candidate, roll_policy};
use super::waiting::Queued;
use crate::core::replication::Reply;
use crate::core::sequencer::Answer;
use crate::store::Position;
use crate::{Append, AppendError, AppendReply, AppendResult, Appended, EarlyBatch, Epoch, Offset};

/// Work that needs meta or the disk, and so a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Read the log from meta.
    Load,
    /// Close what a restart found and open the next segment.
    Open,
    /// Close the drained segment and open the next.
    Roll,
    /// Read where the segment ended that others have closed.
    Learn,
    /// Close the segment with those replicas that answer: its quorum is gone.
    Recover,
}

/// What a log on the list of those that wait for the journal waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listing {
    /// That this position, its first that isn't, becomes durable.
    Durable(Position),
    /// Room: any report after this many.
    Room(u64),
}

/// What is to be done once the log's lock is released.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) replies: SmallVec<[(AppendReply, AppendResult); 2]>,
    pub(super) work: Option<Work>,
    /// The log waits for the journal now: put it on the list.
    pub(super) listing: Option<Listing>,
    pub(super) calls: bool,
    /// Whoever waits to write a close again may do it now.
    pub(super) nudge: bool,
}

impl Effects {
    pub(super) fn refuse(&mut self, reply: AppendReply, error: AppendError) {
        self.replies.push((reply, Err(error)));
    }

    /// Does it all.
    pub(super) fn run(self, inner: &Arc<Inner>, log: &SharedLog) {
        for (reply, result) in self.replies {
            if result.is_err() {
                add(&inner.metrics.refused, 1);
            }
            reply.send(result);
        }
        if self.calls {
            log.call_observers();
        }
        if self.nudge {
            log.nudged.notify_waiters();
        }
        if let Some(work) = self.work {
            inner.start(work, log);
        }
        if let Some(listing) = self.listing {
            inner.progress.enlist(Listed::Log(Arc::clone(log)), listing);
        }
    }
}

impl Log {
    /// Takes an append in. The order of these calls is the order in the log.
    pub(super) fn offer(self: &Arc<Self>, inner: &Arc<Inner>, append: Append, reply: AppendReply) {
        let mut effects = Effects::default();
        {
            let mut state = self.state.lock();
            if let Some(reason) = inner.refusal(&state) {
                effects.refuse(reply, reason);
            } else if append.batch.len() > inner.config.max_batch_bytes || append.count == 0 {
                let max_bytes = inner.config.max_batch_bytes;
                state.refused(&append, inner);
                effects.refuse(reply, AppendError::TooLarge { max_bytes });
            } else if matches!(state.phase, Phase::Gone) {
                effects.refuse(reply, AppendError::NoSuchLog);
            } else {
                state.offer(inner, append, reply, &mut effects);
            }
            effects.calls = state.wants_calls();
        }
        effects.run(inner, self);
    }

    /// Lets in what waited. Called when the log's phase or stage has changed.
    pub(super) fn resume(self: &Arc<Self>, inner: &Arc<Inner>) {
        let mut effects = Effects::default();
        {
            let mut state = self.state.lock();
            state.resume(inner, &mut effects);
            effects.calls = state.wants_calls();
        }
        self.changed.notify_waiters();
        effects.run(inner, self);
    }

    /// The journal went on. Says whether the log still waits for it.
    pub(super) fn complete(self: &Arc<Self>, inner: &Arc<Inner>) -> bool {
        let mut effects = Effects::default();
        let (is_listed, is_resigning);
        {
            let mut state = self.state.lock();
            // Whoever comes to wait during this call is put back by the caller.
            state.is_listed = true;
            if let Some(position) = inner.progress.durable_position() {
                state.complete(inner, position, &mut effects);
            }
            state.retry_blocked(inner, &mut effects);
            is_listed = state.waits_for_the_journal();
            state.is_listed = is_listed;
            effects.calls = state.wants_calls();
            is_resigning = state.active_mut().is_some_and(|active| active.stage == Stage::Stopped);
        }
        effects.run(inner, self);
        if is_resigning {
            self.changed.notify_waiters();
        }
        is_listed
    }

    /// A peer has answered, or its connection changed.
    pub(super) fn peer_replied(
        self: &Arc<Self>,
        inner: &Arc<Inner>,
        epoch: Epoch,
        peer: usize,
        reply: Reply,
    ) {
        let mut effects = Effects::default();
        {
            let mut state = self.state.lock();
            state.peer_replied(inner, epoch, peer, reply, &mut effects);
            state.retry_blocked(inner, &mut effects);
            effects.calls = state.wants_calls();
        }
        effects.run(inner, self);
    }

    /// The time of a timer has come.
    pub(super) fn tick(self: &Arc<Self>, inner: &Arc<Inner>) {
        let mut effects = Effects::default();
        {
            let mut state = self.state.lock();
            state.tick(inner, &mut effects);
            effects.calls = state.wants_calls();
        }
        effects.run(inner, self);
    }

    /// The journal has failed: if the log can go on elsewhere, has it closed by its other replicas, and keeps for
    /// them what isn't answered. Says whether it can.
    pub(super) fn leave_failed_journal(self: &Arc<Self>, inner: &Arc<Inner>) -> bool {
        let mut effects = Effects::default();
        let has_others = {
            let mut state = self.state.lock();
            let has_others = inner.has_others(&state);
            if has_others
                && let Some(active) = state.active_mut()
                && matches!(active.stage, Stage::Open | Stage::Draining)
            {
                active.stop(inner, &mut effects);
            }
            has_others
        };
        effects.run(inner, self);
        has_others
    }

    /// The log's open segment is `epoch`: a sequencer of an earlier one that has not heard of its close, since
    /// it had nothing to send, stops.
    pub(super) fn hear_of_head(self: &Arc<Self>, inner: &Arc<Inner>, epoch: Epoch) {
        let mut effects = Effects::default();
        if let Some(active) = self.state.lock().active_mut()
            && active.head.epoch < epoch
            && matches!(active.stage, Stage::Open | Stage::Draining)
        {
            active.stop(inner, &mut effects);
        }
        effects.run(inner, self);
    }

    /// Answers all who wait, since nothing more will become durable: what never got to the journal
    /// by `refusal`, what did, and has an unknown outcome, by `in_flight`.
    pub(super) fn abandon(
        self: &Arc<Self>,
        inner: &Arc<Inner>,
        refusal: &AppendError,
        in_flight: &AppendError,
    ) {
        let mut effects = Effects::default();
        {
            let mut state = self.state.lock();
            for reply in state.waiting.refuse_all(&inner.waiting) {
                effects.refuse(reply, refusal.clone());
            }
            if let Some(active) = state.active_mut() {
                for reply in active.replication.abandon() {
                    effects.refuse(reply, in_flight.clone());
                }
            }
        }
        effects.run(inner, self);
    }
}

impl State {
    fn offer(&mut self, inner: &Inner, append: Append, reply: AppendReply, effects: &mut Effects) {
        if self.waiting.is_empty()
            && let Phase::Ready(ready) = &mut self.phase
            && let Writer::Active(active) = &mut ready.writer
            && active.stage == Stage::Open
        {
            let reports = inner.progress.reports();
            let policy = roll_policy(inner, ready.policy.segment_bytes, ready.policy.segment_ms);
            let start = ready.trim.max(ready.chain.first_base());
            match active.take(inner, &policy, append, reply, effects) {
                Taken::Done(early) => self.after_take(inner, start, early, effects),
                Taken::RollIsDue(append, reply) => {
                    active.stage = Stage::Draining;
                    self.wait(inner, append, reply, effects);
                    self.roll_if_drained(effects);
                }
                Taken::NoRoom(append, reply) => {
                    self.wait(inner, append, reply, effects);
                    self.list(Listing::Room(reports), effects);
                }
                Taken::NoDisk(append, reply, error) => {
                    if self.leave_disk(inner, &error, effects) {
                        self.wait(inner, append, reply, effects);
                        self.roll_if_drained(effects);
                    } else {
                        self.refused(&append, inner);
                        effects.refuse(reply, error);
                    }
                }
            }
            return;
        }
        self.wait(inner, append, reply, effects);
        self.press_on(effects);
    }

    /// The disk takes no more: has the log go on elsewhere. Says whether it can.
    fn leave_disk(&mut self, inner: &Inner, error: &AppendError, effects: &mut Effects) -> bool {
        let Some(ready) = self.ready_mut() else { return false };
        let (factor, replicas) = (ready.factor, ready.replicas.clone());
        let Some(active) = ready.active_mut() else { return false };
        if inner.place(active.id().log, factor, &replicas, &[inner.me().node]).is_none() {
            return false;
        }
        match error {
            // What was taken before becomes durable.
            AppendError::DiskFull => active.stage = Stage::Draining,
            _ => active.stop(inner, effects),
        }
        true
    }

    /// Puts an append behind those that wait.
    fn wait(&mut self, inner: &Inner, append: Append, reply: AppendReply, effects: &mut Effects) {
        let max_bytes = inner.config.max_waiting_bytes;
        if let Err((append, reply)) = self.waiting.push(append, reply, max_bytes, &inner.waiting) {
            self.refused(&append, inner);
            effects.refuse(reply, AppendError::Busy);
        }
    }

    /// Puts the log on the list of those that wait for the journal.
    fn list(&mut self, listing: Listing, effects: &mut Effects) {
        if !std::mem::replace(&mut self.is_listed, true) {
            effects.listing = Some(listing);
        }
    }

    fn waits_for_the_journal(&self) -> bool {
        let Some(active) = self.ready().and_then(|ready| ready.active()) else { return false };
        active.replication.sequencer().is_journaling()
            || active.stage == Stage::Open && !self.waiting.is_empty()
    }

    /// Tries again what the journal had no room for.
    fn retry_blocked(&mut self, inner: &Inner, effects: &mut Effects) {
        if !self.waiting.is_empty() {
            self.resume(inner, effects);
        }
    }

    /// Starts what those that wait are waiting for, if nothing does it yet.
    fn press_on(&mut self, effects: &mut Effects) {
        if self.waiting.is_empty() {
            return;
        }
        match &mut self.phase {
            Phase::New | Phase::Unloaded(_) | Phase::Elsewhere => {
                self.phase = Phase::Loading;
                effects.work = Some(Work::Load);
            }
            Phase::Ready(ready) => match &mut ready.writer {
                Writer::Recovered(recovered) if !recovered.is_opening => {
                    recovered.is_opening = true;
                    effects.work = Some(Work::Open);
                }
                Writer::Recovered(_) => {}
                Writer::Active(_) => {
                    effects.nudge = true;
                    self.roll_if_drained(effects);
                }
            },
            Phase::Loading | Phase::Gone => {}
        }
    }

    fn resume(&mut self, inner: &Inner, effects: &mut Effects) {
        if matches!(self.phase, Phase::Gone) {
            for reply in self.waiting.refuse_all(&inner.waiting) {
                effects.refuse(reply, AppendError::NoSuchLog);
            }
            return;
        }
        while let Phase::Ready(ready) = &mut self.phase
            && let Writer::Active(active) = &mut ready.writer
            && active.stage == Stage::Open
        {
            let (append, reply) = match self.waiting.pop(&inner.waiting) {
                Some(Queued::Append(append, reply)) => (append, reply),
                Some(Queued::Refused(batch)) => {
                    active.refused(&batch, inner);
                    continue;
                }
                None => return,
            };
            let reports = inner.progress.reports();
            let policy = roll_policy(inner, ready.policy.segment_bytes, ready.policy.segment_ms);
            let start = ready.trim.max(ready.chain.first_base());
            match active.take(inner, &policy, append, reply, effects) {
                Taken::Done(early) => {
                    self.after_take(inner, start, early, effects);
                }
                Taken::RollIsDue(append, reply) => {
                    active.stage = Stage::Draining;
                    self.waiting.put_back(append, reply, &inner.waiting);
                }
                Taken::NoRoom(append, reply) => {
                    self.waiting.put_back(append, reply, &inner.waiting);
                    self.list(Listing::Room(reports), effects);
                    return;
                }
                Taken::NoDisk(append, reply, error) => {
                    if self.leave_disk(inner, &error, effects) {
                        self.waiting.put_back(append, reply, &inner.waiting);
                    } else {
                        if let Some(active) = self.active_mut() {
                            active.refused(&candidate(&append), inner);
                        }
                        effects.refuse(reply, error);
                    }
                }
            }
        }
        self.press_on(effects);
    }

    /// Remembers that a producer's batch was refused before it got to the sequencer.
    fn refused(&mut self, append: &Append, inner: &Inner) {
        let batch = candidate(append);
        if !self.waiting.is_empty() {
            // It must not be judged before those that were sent before it.
            self.waiting.push_refused(batch);
        } else if let Some(active) = self.active_mut() {
            active.refused(&batch, inner);
        } else {
            self.waiting.push_refused(batch);
        }
    }

    fn after_take(
        &mut self,
        inner: &Inner,
        start: Offset,
        early: Option<EarlyBatch>,
        effects: &mut Effects,
    ) {
        if let Some(early) = early {
            self.tell(Event::Early(early));
        }
        self.settle(inner, start, effects);
        self.roll_if_drained(effects);
        if !self.is_listed
            && let Some(position) =
                self.active_mut().and_then(|active| active.replication.sequencer().first_position())
        {
            self.list(Listing::Durable(position), effects);
        }
    }

    fn complete(&mut self, inner: &Inner, position: Position, effects: &mut Effects) {
        let Some(ready) = self.ready_mut() else { return };
        let start = ready.trim.max(ready.chain.first_base());
        let Some(active) = ready.active_mut() else { return };
        let before = active.replication.sequencer().journaling();
        let now_ms = inner.clock.monotonic_ms();
        let wanted = active.replication.journal_durable(now_ms, position);
        let left = active.replication.sequencer().journaling();
        sub(&inner.metrics.in_flight, before.saturating_sub(left));
        active.replicate(inner, wanted, effects);
        self.settle(inner, start, effects);
        self.roll_if_drained(effects);
    }

    /// Answers who can be answered, and tells observers when more is committed.
    pub(super) fn settle(&mut self, inner: &Inner, start: Offset, effects: &mut Effects) {
        let Some(Ready { chain, writer: Writer::Active(active), .. }) = self.ready_mut() else {
            return;
        };
        while let Some((reply, answer)) = active.replication.settle() {
            let result = match answer {
                // An acknowledgement says that a quorum has it: who comes again is told when that is
                // repaired.
                Answer::Kept { base, .. } if chain.is_short_at(base) => {
                    add(&inner.metrics.withheld, 1);
                    Err(AppendError::Unknown)
                }
                Answer::Kept { base, is_duplicate } => {
                    if is_duplicate {
                        add(&inner.metrics.duplicates, 1);
                    }
                    Ok(Appended { base_offset: base, log_start: start, duplicate: is_duplicate })
                }
                Answer::Refused(error) => Err(error),
            };
            effects.replies.push((reply, result));
        }
        if active.replication.take_progress() {
            active.confirm(inner);
            self.tell_bounds();
        }
    }

    /// A peer of segment `epoch` has answered, or its connection changed.
    fn peer_replied(
        &mut self,
        inner: &Inner,
        epoch: Epoch,
        peer: usize,
        reply: Reply,
        effects: &mut Effects,
    ) {
        let Some(ready) = self.ready_mut() else { return };
        let start = ready.trim.max(ready.chain.first_base());
        let Some(active) = ready.active_mut().filter(|active| active.head.epoch == epoch) else {
            return;
        };
        let wanted = active.replication.reply(inner.clock.monotonic_ms(), peer, reply);
        active.replicate(inner, wanted, effects);
        if reply == Reply::Attached {
            // It may have been sealed meanwhile, and there may be nothing else to be sent.
            active.ask_whether_sealed(peer);
        }
        self.settle(inner, start, effects);
        self.roll_if_drained(effects);
    }

    /// The time of a timer has come.
    fn tick(&mut self, inner: &Inner, effects: &mut Effects) {
        let Some(active) = self.active_mut() else { return };
        let wanted = active.replication.tick(inner.clock.monotonic_ms());
        active.replicate(inner, wanted, effects);
        if active.is_to_recover(inner) {
            effects.work = Some(Work::Recover);
        }
        self.roll_if_drained(effects);
    }

    /// Starts the close of a segment that was waiting for its last entries.
    pub(super) fn roll_if_drained(&mut self, effects: &mut Effects) {
        if let Some(active) = self.active_mut()
            && active.stage == Stage::Draining
            && active.replication.sequencer().is_drained()
        {
            active.stage = Stage::Closing;
            effects.work = Some(Work::Roll);
        }
    }
}
