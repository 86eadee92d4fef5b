//! The sequencer of an open segment: gives offsets, knows what is committed, says whom to answer.
//!
//! ```text
//!   check ─► (journal) ─► taken ─┐
//!                 └─► refused    ├─► settle ─► answers, in order
//!   journal durable, peers durable ┘
//! ```
//!
//! Sequence check, offset and durability are one step: a system that did them apart loses a batch
//! in a crash and then calls its retry a duplicate.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use interflow_meta::{Durability, Offset};
use smallvec::{SmallVec, smallvec};

use super::producers::{ProducerLimits, Producers, Verdict};
use crate::store::Position;
use crate::{AppendError, AppendKey};

/// How far a log that isn't durable may commit ahead of what is durable, in offsets. After a
/// crash its next base is that far past the recovered end, so no offset that was seen is given
/// to another record.
pub(crate) const MAX_AHEAD: u64 = 1 << 20;

/// Entries for which an idle sequencer keeps room.
const KEPT_CAPACITY: usize = 64;

/// How many copies an entry has, and how many make it committed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quorum {
    /// Replicas of the segment; the first is this node.
    pub(crate) replicas: usize,
    /// How many of them must have an entry.
    pub(crate) acks: usize,
}

impl Quorum {
    /// What a segment of so many replicas needs at least: a majority.
    #[cfg(test)]
    pub(crate) fn of(replicas: usize) -> Self {
        Self { replicas, acks: interflow_meta::logs::acks(replicas, 0) }
    }

    /// How many replicas must be sealed to know the tail: so many that at least one of any
    /// `acks` is among them.
    pub(crate) fn seals(&self) -> usize {
        (self.replicas + 1).saturating_sub(self.acks)
    }
}

/// What a batch is, as far as its place in the log goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// Its append key.
    pub(crate) key: Option<AppendKey>,
    /// Offsets that it takes.
    pub(crate) count: u32,
    /// The producer's duplicate window.
    pub(crate) window: u16,
    /// Its payload bytes.
    pub(crate) bytes: usize,
}

/// What is to be done with a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// Journal it at this offset, then tell [`Sequencer::taken`] or [`Sequencer::refused`].
    Journal(Offset),
    /// Nothing is kept: give this to [`Sequencer::answer`].
    Answer(Answer),
}

/// An answer to an append.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
pub(crate) enum Answer {
    /// It is in the log at this offset.
    Kept {
        /// The first offset.
        base: Offset,
        /// It was there already.
        is_duplicate: bool,
    },
    /// Nothing was kept.
    Refused(AppendError),
}

/// The state of an open segment at its sequencer. `T` is whoever waits for an answer.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Sequencer<T> {
    durability: Durability,
    acks: usize,
    producers: Producers,
    limits: ProducerLimits,
    next: Offset,
    committed: Offset,
    /// What [`Sequencer::take_progress`] has told of.
    told: Offset,
    /// One past the last offset that each replica has durable.
    durable_ends: SmallVec<[Offset; 3]>,
    /// One past the last offset that each replica has in memory.
    received_ends: SmallVec<[Offset; 3]>,
    /// Entries of which this node's journal hasn't said that they are durable.
    journaling: VecDeque<Journaling>,
    journaling_bytes: usize,
    /// Who waits, by the offset up to which the log must be committed before.
    waiting: VecDeque<(Offset, T, Answer)>,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
struct Journaling {
    position: Position,
    end: Offset,
    bytes: usize,
}

impl<T> Sequencer<T> {
    /// A sequencer for a segment that begins at `base` with nothing in it.
    pub(crate) fn new(
        base: Offset,
        durability: Durability,
        quorum: Quorum,
        producers: Producers,
        limits: ProducerLimits,
    ) -> Self {
        Self {
            durability,
            acks: quorum.acks,
            producers,
            limits,
            next: base,
            committed: base,
            told: base,
            durable_ends: smallvec![base; quorum.replicas.max(1)],
            received_ends: smallvec![base; quorum.replicas.max(1)],
            journaling: VecDeque::new(),
            journaling_bytes: 0,
            waiting: VecDeque::new(),
        }
    }

    /// The offset of the next batch.
    pub(crate) fn next(&self) -> Offset {
        self.next
    }

    /// Everything below is committed, and never changes (I1).
    pub(crate) fn committed(&self) -> Offset {
        self.committed
    }

    /// Who appended what.
    pub(crate) fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Payload bytes that the journal hasn't reported durable.
    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.journaling_bytes
    }

    /// Whether everything is durable, committed and answered: then the segment can be closed.
    pub(crate) fn is_drained(&self) -> bool {
        self.journaling.is_empty() && self.waiting.is_empty() && self.committed == self.next
    }

    /// How many replicas must have an entry.
    pub(crate) fn acks(&self) -> usize {
        self.acks
    }

    /// How many offsets each replica isn't known to have durable; the first is this node.
    pub(crate) fn lags(&self) -> impl Iterator<Item = u64> {
        self.durable_ends.iter().map(|end| self.next.saturating_sub(*end))
    }

    /// What is to be done with a batch. Changes nothing.
    pub(crate) fn check(&self, batch: &Candidate) -> Check {
        let Some(key) = &batch.key else {
            return Check::Journal(self.next);
        };
        match self.producers.check(key, batch.count) {
            Ok(Verdict::Fresh) => Check::Journal(self.next),
            Ok(Verdict::Duplicate { base, .. }) => {
                Check::Answer(Answer::Kept { base, is_duplicate: true })
            }
            Err(error) => Check::Answer(Answer::Refused(error)),
        }
    }

    /// The journal has the batch at `position`, at the offset that [`Sequencer::check`] gave.
    /// `waiter` is answered when it is committed.
    pub(crate) fn taken(&mut self, batch: &Candidate, position: Position, now_ms: i64, waiter: T) {
        let base = self.next;
        let end = base.saturating_add(u64::from(batch.count));
        if let Some(key) = &batch.key {
            self.producers.record(key, (base, batch.count), batch.window, now_ms, &self.limits);
        }
        self.next = end;
        if let Some(received_end) = self.received_ends.first_mut() {
            *received_end = end;
        }
        self.journaling.push_back(Journaling { position, end, bytes: batch.bytes });
        self.journaling_bytes += batch.bytes;
        self.waiting.push_back((end, waiter, Answer::Kept { base, is_duplicate: false }));
        self.commit();
    }

    /// A batch that [`Sequencer::check`] called fresh was refused for another reason: its
    /// producer's later batches must not overtake it.
    pub(crate) fn refused(&mut self, batch: &Candidate, now_ms: i64) {
        if let Some(key) = &batch.key {
            self.producers.refused(key, now_ms, &self.limits);
        }
    }

    /// An answer that rests on what is in the log is given when all of that is committed: a
    /// rejection, too, waits for the records that it was judged by.
    pub(crate) fn answer(&mut self, answer: Answer, waiter: T) {
        self.waiting.push_back((self.next, waiter, answer));
    }

    /// Whether this node's journal has entries that aren't durable.
    pub(crate) fn is_journaling(&self) -> bool {
        !self.journaling.is_empty()
    }

    /// How many entries this node's journal hasn't said to be durable.
    pub(crate) fn journaling(&self) -> u64 {
        self.journaling.len() as u64
    }

    /// The position of the first entry that isn't durable.
    pub(crate) fn first_position(&self) -> Option<Position> {
        self.journaling.front().map(|entry| entry.position)
    }

    /// Whether more is committed than at the last call.
    pub(crate) fn take_progress(&mut self) -> bool {
        std::mem::replace(&mut self.told, self.committed) != self.committed
    }

    /// This node's journal is durable up to `position`. Returns how many entries that made so.
    pub(crate) fn journal_durable(&mut self, position: Position) -> u64 {
        let before = self.journaling.len();
        let mut end = None;
        while let Some(entry) = self.journaling.front()
            && entry.position <= position
        {
            self.journaling_bytes -= entry.bytes;
            end = Some(entry.end);
            self.journaling.pop_front();
        }
        if let Some(end) = end {
            self.replica_durable(0, end);
        }
        // A burst's room isn't kept: there may be many logs.
        if self.journaling.is_empty() && self.journaling.capacity() > KEPT_CAPACITY {
            self.journaling.shrink_to(KEPT_CAPACITY);
        }
        before.saturating_sub(self.journaling.len()) as u64
    }

    /// Replica `index` has everything below `end` durable. 0 is this node.
    pub(crate) fn replica_durable(&mut self, index: usize, end: Offset) {
        if let Some(durable_end) = self.durable_ends.get_mut(index) {
            *durable_end = (*durable_end).max(end);
        }
        self.commit();
    }

    /// Replica `index` has everything below `end` in memory. 0 is this node, which needs no word.
    pub(crate) fn replica_received(&mut self, index: usize, end: Offset) {
        if let Some(received_end) = self.received_ends.get_mut(index) {
            *received_end = (*received_end).max(end);
        }
        self.commit();
    }

    /// Another has closed the segment at `end`: what lies below is in the log for good (I1), and
    /// whoever waits for it can be answered. Who waits for more gets no answer (I2).
    pub(crate) fn closed_at(&mut self, end: Offset) {
        self.committed = self.committed.max(end.min(self.next));
    }

    /// Who can be answered now, in the order in which they asked.
    pub(crate) fn settle(&mut self) -> Option<(T, Answer)> {
        let (until, _, _) = self.waiting.front()?;
        if *until > self.committed {
            return None;
        }
        let next = self.waiting.pop_front().map(|(_, waiter, answer)| (waiter, answer));
        if self.waiting.is_empty() && self.waiting.capacity() > KEPT_CAPACITY {
            self.waiting.shrink_to(KEPT_CAPACITY);
        }
        next
    }

    /// All who still wait: the log ended for them.
    pub(crate) fn abandon(&mut self) -> impl Iterator<Item = T> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, waiter, _)| waiter)
    }

    /// Goes on in the next segment, which begins at `base`. Nothing may be in flight.
    pub(crate) fn reopen(&mut self, base: Offset, durability: Durability, quorum: Quorum) {
        debug_assert!(self.is_drained() && base >= self.committed, "I3");
        self.durability = durability;
        self.next = base;
        self.committed = base;
        self.acks = quorum.acks;
        self.durable_ends = smallvec![base; quorum.replicas.max(1)];
        self.received_ends = smallvec![base; quorum.replicas.max(1)];
    }

    /// Forgets producers that appended nothing for long.
    pub(crate) fn expire_producers(&mut self, now_ms: i64) {
        self.producers.expire(now_ms, &self.limits);
    }

    /// Raises `committed` as far as the log's class allows (I5, I7).
    fn commit(&mut self) {
        let durable = self.quorum_end(&self.durable_ends);
        let committed = match self.durability {
            Durability::Durable => durable,
            Durability::Replicated => {
                self.ahead_of(durable, self.quorum_end(&self.received_ends).min(self.next))
            }
            Durability::Volatile => self.ahead_of(durable, self.next),
        };
        debug_assert!(committed <= self.next, "I7: committed what was never taken");
        self.committed = self.committed.max(committed);
    }

    /// The Q-th largest of `ends`, one a replica.
    fn quorum_end(&self, ends: &[Offset]) -> Offset {
        if let [only] = ends {
            return *only;
        }
        let mut ends: SmallVec<[Offset; 3]> = SmallVec::from_slice(ends);
        ends.sort_unstable_by(|a, b| b.cmp(a));
        ends.get(self.acks.saturating_sub(1)).copied().unwrap_or(self.committed)
    }

    /// `received`, or the last end of a batch before it that is at most [`MAX_AHEAD`] past
    /// `durable`.
    fn ahead_of(&self, durable: Offset, received: Offset) -> Offset {
        let limit = durable.saturating_add(MAX_AHEAD).min(received.max(durable));
        if received <= limit {
            return received.max(durable);
        }
        let end = self.journaling.iter().rev().map(|entry| entry.end).find(|end| *end <= limit);
        // What this node has durable ends with a batch, too.
        let own = self.durable_ends.first().copied().filter(|end| *end <= limit);
        end.or(own).unwrap_or(durable).max(durable)
    }
}
