//! A segment at its sequencer: what its peers are sent, and what their answers commit.
//!
//! ```text
//!            acked           next
//!   peer  ─────|─ in flight ──|─ to be sent ─┐
//!   kept  [ entries that an attached peer lacks ]──► Sequencer: committed, answers
//! ```
//!
//! Every entry has a number, so that snapshots, which take no offset, have their turn as well.
//! The caller journals, sends, and keeps the one timer that is asked for.

mod limits;
mod peer;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use interflow_meta::{Durability, Offset};
use smallvec::{SmallVec, smallvec};

pub(crate) use self::limits::ReplicationLimits;
pub(crate) use self::peer::Reply;
use self::peer::{Peer, Queue};
use super::rules::{Broken, Rules};
use super::segment::Entry;
use super::sequencer::{Answer, Candidate, Check, Quorum, Sequencer};
use crate::store::Position;

/// What is to be done for the peers. Peers are numbered as the segment's replicas, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect<P = ()> {
    /// Send an entry.
    Store {
        /// To whom.
        peer: usize,
        /// Which.
        entry: Entry,
        /// What came with it.
        payload: P,
        /// What is committed.
        committed: Offset,
    },
    /// Send word of what is committed: no entry has carried it.
    Committed {
        /// To whom.
        peer: usize,
        /// Everything below is.
        committed: Offset,
    },
    /// Tell [`Replication::tick`] at that time, and forget earlier timers.
    Timer {
        /// On the monotonic clock.
        at_ms: u64,
    },
    /// The peer is too slow: roll to a segment without it.
    WantsRoll {
        /// Which.
        peer: usize,
    },
    /// No more appends are taken: another closes the segment, or this node is not its sequencer.
    /// Read the head.
    Stopped,
}

/// Effects of one step.
pub(crate) type Effects<P = ()> = SmallVec<[Effect<P>; 4]>;

/// How a replica keeps up with its sequencer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lag {
    /// Offsets up to the sequencer's next that it isn't known to have durable.
    pub(crate) records: u64,
    /// It is connected, and neither slow nor left behind.
    pub(crate) is_in_sync: bool,
}

/// What is to be done with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// Journal it as this, then tell [`Replication::taken`] or [`Replication::refused`].
    Journal(Entry),
    /// Nothing is kept: give this to [`Replication::answer`].
    Answer(Answer),
    /// Too much waits for its quorum: try again when something was committed.
    Busy,
    /// The segment takes no more: the batch belongs into the next one.
    Closing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Open,
    Draining,
    Stopped,
}

/// The state of an open segment at its sequencer, with its peers. With each entry a `P` is kept as
/// long as a peer may have to be sent it.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Replication<T, P = ()> {
    sequencer: Sequencer<T>,
    peers: SmallVec<[Peer; 2]>,
    queue: Queue<P>,
    /// Ends and bytes of batches that aren't committed.
    uncommitted: VecDeque<(Offset, u64)>,
    uncommitted_bytes: u64,
    last_snapshot: Option<Offset>,
    stage: Stage,
    timer_at_ms: Option<u64>,
    limits: ReplicationLimits,
    rules: Rules,
}

impl<T, P: Clone> Replication<T, P> {
    /// Replicates what `sequencer`, which has taken nothing, takes to `peers` others.
    pub(crate) fn new(
        sequencer: Sequencer<T>,
        peers: usize,
        limits: ReplicationLimits,
        rules: Rules,
    ) -> Self {
        let base = sequencer.next();
        Self {
            sequencer,
            peers: (0..peers).map(|_| Peer::new(base)).collect(),
            queue: Queue::default(),
            uncommitted: VecDeque::new(),
            uncommitted_bytes: 0,
            last_snapshot: None,
            stage: Stage::Open,
            timer_at_ms: None,
            limits,
            rules,
        }
    }

    /// The sequencer: offsets, producers, what is committed.
    pub(crate) fn sequencer(&self) -> &Sequencer<T> {
        &self.sequencer
    }

    /// What is to be done with a batch. Changes nothing.
    pub(crate) fn offer(&self, batch: &Candidate) -> Offer {
        if self.stage != Stage::Open {
            return Offer::Closing;
        }
        let first = match self.sequencer.check(batch) {
            Check::Journal(first) => first,
            Check::Answer(answer) => return Offer::Answer(answer),
        };
        let bytes = batch.bytes as u64;
        if self.uncommitted_bytes > 0
            && self.uncommitted_bytes.saturating_add(bytes) > self.limits.max_uncommitted_bytes
        {
            return Offer::Busy;
        }
        let (count, behind) = (batch.count, self.last_snapshot);
        Offer::Journal(Entry { first, count, bytes, behind, is_snapshot: false })
    }

    /// The journal has the batch as [`Replication::offer`] said. `waiter` is answered when it is
    /// committed.
    pub(crate) fn taken(
        &mut self,
        now_ms: u64,
        batch: (&Candidate, &Entry, Position),
        wall_ms: i64,
        waiter: T,
        payload: P,
    ) -> Effects<P> {
        let (candidate, entry, position) = batch;
        debug_assert_eq!(entry.first, self.sequencer.next(), "I6: no holes");
        self.sequencer.taken(candidate, position, wall_ms, waiter);
        self.uncommitted.push_back((entry.end(), entry.bytes));
        self.uncommitted_bytes += entry.bytes;
        self.queue.push(*entry, payload);
        self.advance(now_ms)
    }

    /// See [`Sequencer::refused`].
    pub(crate) fn refused(&mut self, batch: &Candidate, wall_ms: i64) {
        self.sequencer.refused(batch, wall_ms);
    }

    /// See [`Sequencer::answer`].
    pub(crate) fn answer(&mut self, answer: Answer, waiter: T) {
        self.sequencer.answer(answer, waiter);
    }

    /// A snapshot of the producers as an entry at this place.
    pub(crate) fn snapshot(&self, bytes: u64) -> Entry {
        Entry {
            first: self.sequencer.next(),
            count: 0,
            bytes,
            behind: self.last_snapshot,
            is_snapshot: true,
        }
    }

    /// Whether there is a snapshot at this place already: two have no order.
    pub(crate) fn has_snapshot_here(&self) -> bool {
        self.last_snapshot == Some(self.sequencer.next())
    }

    /// The journal has the snapshot.
    pub(crate) fn snapshot_taken(&mut self, now_ms: u64, entry: &Entry, payload: P) -> Effects<P> {
        self.last_snapshot = entry.last_snapshot();
        let takes = u32::from(self.rules.breaks(Broken::SnapshotTakesOffset));
        self.queue.push(Entry { count: takes, ..*entry }, payload);
        self.advance(now_ms)
    }

    /// This node's journal is durable up to `position`.
    pub(crate) fn journal_durable(&mut self, now_ms: u64, position: Position) -> Effects<P> {
        self.sequencer.journal_durable(position);
        self.advance(now_ms)
    }

    /// A peer has answered.
    pub(crate) fn reply(&mut self, now_ms: u64, peer: usize, reply: Reply) -> Effects<P> {
        let Some(state) = peer.checked_sub(1).and_then(|index| self.peers.get_mut(index)) else {
            return Effects::new();
        };
        match reply {
            Reply::Stored { local_end, durable_end } => {
                // I7: what it says of offsets that were never given out is not believed.
                let next = self.sequencer.next();
                let (local_end, durable_end) = (local_end.min(next), durable_end.min(next));
                state.stored(&self.queue, durable_end, now_ms);
                self.sequencer.replica_received(peer, local_end.max(durable_end));
                self.sequencer.replica_durable(peer, durable_end);
            }
            Reply::Gap { local_end } => state.rewind(&self.queue, local_end),
            Reply::Attached => state.attach(&self.queue),
            Reply::Detached => state.detach(),
            // What is damaged there stays behind until it is repaired: that is a slow peer.
            Reply::Damaged => {
                state.drop_out();
                let mut effects = self.advance(now_ms);
                effects.extend(self.ask_for_roll(peer));
                return effects;
            }
            Reply::Leaving => {
                let mut effects = self.advance(now_ms);
                effects.extend(self.ask_for_roll(peer));
                return effects;
            }
            Reply::Sealed | Reply::Foreign => return self.stop(),
        }
        self.advance(now_ms)
    }

    /// This node's own replica was sealed, or another sign that the segment is closed by others.
    pub(crate) fn stop(&mut self) -> Effects<P> {
        let was = std::mem::replace(&mut self.stage, Stage::Stopped);
        if was == Stage::Stopped { Effects::new() } else { smallvec![Effect::Stopped] }
    }

    /// Takes no more, so that the segment can be closed when all is committed.
    pub(crate) fn drain(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Draining;
        }
    }

    /// The end at which the segment can be closed without a seal: nothing is in flight, and
    /// nothing more is taken.
    pub(crate) fn drained(&self) -> Option<Offset> {
        let is_drained = self.stage == Stage::Draining && self.sequencer.is_drained();
        is_drained.then(|| self.sequencer.committed())
    }

    /// Another closed the segment at `end`.
    pub(crate) fn closed_at(&mut self, end: Offset) {
        self.stage = Stage::Stopped;
        self.sequencer.closed_at(end);
    }

    /// See [`Sequencer::settle`].
    pub(crate) fn settle(&mut self) -> Option<(T, Answer)> {
        self.sequencer.settle()
    }

    /// See [`Sequencer::take_progress`].
    pub(crate) fn take_progress(&mut self) -> bool {
        self.sequencer.take_progress()
    }

    /// See [`Sequencer::expire_producers`].
    pub(crate) fn expire_producers(&mut self, wall_ms: i64) {
        self.sequencer.expire_producers(wall_ms);
    }

    /// Whether something waits for a quorum that can't come about: too few peers are connected.
    pub(crate) fn is_stuck(&self) -> bool {
        let acks = self.sequencer.acks();
        let connected = self.peers.iter().filter(|peer| peer.is_up()).count();
        connected + 1 < acks && self.sequencer.committed() < self.sequencer.next()
    }

    /// Whether it has stopped, since others close the segment.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stage == Stage::Stopped
    }

    /// How each replica keeps up, in their order; the first is this node.
    pub(crate) fn lags(&self) -> impl Iterator<Item = Lag> {
        let in_sync = [true].into_iter().chain(self.peers.iter().map(Peer::is_in_sync));
        let lags = self.sequencer.lags().zip(in_sync);
        lags.map(|(records, is_in_sync)| Lag { records, is_in_sync })
    }

    /// Where the newest snapshot lies.
    pub(crate) fn last_snapshot(&self) -> Option<Offset> {
        self.last_snapshot
    }

    /// Bytes of entries that are kept for peers.
    pub(crate) fn kept_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// Keeps nothing more that is committed: the peers that lack it are left to the repair of the
    /// closed segment, and a roll to one without them is asked for.
    pub(crate) fn shed(&mut self) -> Effects<P> {
        let committed = self.sequencer.committed();
        let mut effects = Effects::new();
        for peer in 1..=self.peers.len() {
            let Some(state) = self.peers.get_mut(peer - 1) else { break };
            let lacks = state.lacks().and_then(|number| self.queue.get(number));
            if lacks.is_some_and(|entry| entry.is_below(committed)) {
                state.drop_out();
                effects.extend(self.ask_for_roll(peer));
            }
        }
        self.forget();
        effects
    }

    /// Goes on in the next segment, which begins at `base` and has `replicas`. Nothing may be in
    /// flight.
    pub(crate) fn reopen(&mut self, base: Offset, durability: Durability, quorum: Quorum) {
        self.sequencer.reopen(base, durability, quorum);
        self.peers = (1..quorum.replicas).map(|_| Peer::new(base)).collect();
        self.queue = Queue::default();
        self.uncommitted.clear();
        self.uncommitted_bytes = 0;
        self.last_snapshot = None;
        self.stage = Stage::Open;
        self.timer_at_ms = None;
    }

    /// See [`Sequencer::abandon`].
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = T> {
        self.sequencer.abandon()
    }

    /// The time of a timer has come, or a later one.
    pub(crate) fn tick(&mut self, now_ms: u64) -> Effects<P> {
        self.timer_at_ms = None;
        let committed = self.sequencer.committed();
        let mut effects = Effects::new();
        for (peer, state) in (1..).zip(&mut self.peers) {
            state.allow_rewind();
            if state.owes_word(committed, now_ms) {
                state.told(committed);
                effects.push(Effect::Committed { peer, committed });
            }
        }
        effects.extend(self.advance(now_ms));
        effects
    }

    /// Sends what the windows let through, looks for slow peers, and sets the timer.
    fn advance(&mut self, now_ms: u64) -> Effects<P> {
        let committed = self.sequencer.committed();
        while let Some((end, bytes)) = self.uncommitted.front()
            && *end <= committed
        {
            self.uncommitted_bytes -= bytes;
            self.uncommitted.pop_front();
        }
        let mut effects = Effects::new();
        let mut timer: Option<u64> = None;
        for (peer, state) in (1..).zip(&mut self.peers) {
            if self.stage != Stage::Stopped {
                while let Some((entry, payload)) = state.next(&self.queue, self.limits.window_bytes)
                {
                    state.told(committed);
                    effects.push(Effect::Store { peer, entry, payload, committed });
                }
            }
            let due = state.look(&self.queue, committed, now_ms, &self.limits);
            timer = timer.into_iter().chain(due).min();
        }
        for peer in 1..=self.peers.len() {
            let is_slow = self
                .peers
                .get(peer - 1)
                .is_some_and(|state| state.is_slow(&self.queue, committed, now_ms, &self.limits));
            if is_slow {
                effects.extend(self.ask_for_roll(peer));
            }
        }
        self.forget();
        if let Some(at_ms) = timer
            && self.timer_at_ms.is_none_or(|armed| at_ms < armed)
        {
            self.timer_at_ms = Some(at_ms);
            effects.push(Effect::Timer { at_ms });
        }
        if self.has_lost_its_quorum() && !self.sequencer.is_drained() {
            // What isn't committed never will be here. The end can only be found by a seal.
            effects.extend(self.stop());
        }
        effects
    }

    /// Whether so many peers were left behind that nothing more can be committed.
    fn has_lost_its_quorum(&self) -> bool {
        let left = self.peers.iter().filter(|peer| peer.lacks().is_some()).count();
        left + 1 < self.sequencer.acks()
    }

    fn ask_for_roll(&mut self, peer: usize) -> Option<Effect<P>> {
        let state = self.peers.get_mut(peer.checked_sub(1)?)?;
        // Asked or not, its time is not to be looked at again: a timer in the past has no end.
        (state.ask_for_roll() && self.stage == Stage::Open).then_some(Effect::WantsRoll { peer })
    }

    /// Forgets what no peer is going to be sent. Past the bound, those that lack committed
    /// entries are left to the repair of the closed segment.
    fn forget(&mut self) {
        let committed = self.sequencer.committed();
        while self.queue.bytes() > self.limits.max_kept_bytes
            || self.queue.len() > self.limits.max_kept_entries
        {
            let last = self.peers.iter().filter_map(Peer::lacks).min();
            let Some(number) = last else { break };
            if self.queue.get(number).is_none_or(|entry| entry.end() > committed) {
                break;
            }
            for state in &mut self.peers {
                if state.lacks() == Some(number) {
                    state.drop_out();
                }
            }
            self.queue.forget(self.peers.iter().filter_map(Peer::lacks).min());
        }
        self.queue.forget(self.peers.iter().filter_map(Peer::lacks).min());
    }
}
