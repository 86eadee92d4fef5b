//! The end of one log, as its observer sees it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use interflow_logstore::{AppendKey, Bounds, EarlyBatch, LogId, LogObserver, Withheld};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::mqtt::session::Link;

/// What the observer heard, and how far the dispatcher is.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) log: LogId,
    pub(crate) shard: u16,
    committed: AtomicU64,
    heard: AtomicU64,
    ended: AtomicBool,
    early: Mutex<EarlyQueue>,
    max_early_bytes: usize,
    pub(super) work: Notify,
    moved: Notify,
    position: Mutex<Position>,
}

#[derive(Debug, Default)]
struct EarlyQueue {
    batches: VecDeque<EarlyBatch>,
    bytes: usize,
    /// The newest batch that found no room. Until it is committed none is taken: order.
    refused: Option<AppendKey>,
    /// None is taken before everything below was dispatched: there were others that weren't shown.
    not_before: u64,
}

/// Early batches that are remembered until they are committed. Writers have far fewer in flight;
/// those that are never committed, on a disk that is full, don't pile up.
const MAX_REMEMBERED: usize = 4096;

/// The place of an early batch among others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Early {
    pub(crate) number: u64,
    /// The newest early batch, up to this one, before which all were committed.
    pub(crate) alone: u64,
}

/// How far the dispatcher is. Whoever holds its lock sees no delivery half done.
#[derive(Debug, Default)]
pub(crate) struct Position {
    /// Everything below was dispatched.
    pub(crate) next: u64,
    /// The number that the next early batch gets.
    pub(crate) next_early: u64,
    alone: u64,
    /// Early batches that are not committed yet, oldest first.
    remembered: VecDeque<(AppendKey, Early)>,
    /// No link begins at a higher early number.
    newest_early_start: u64,
}

impl Position {
    /// A link that is live from here on. It gets early batches once all that it is still owed are
    /// committed, so that their order holds; those up to `early_seen` it had.
    pub(crate) fn live(&mut self, early_seen: Option<AppendKey>) -> Link {
        self.newest_early_start = self.next_early;
        Link::Live { early_from: self.next_early, early_seen }
    }

    /// The same place, for a session that reads by itself.
    pub(crate) fn behind(&self, link: Link) -> Link {
        match link {
            Link::Live { early_from, early_seen } => Link::Behind {
                cursor: self.next,
                qos0_from: 0,
                early_seen: self.early_seen(early_from).or(early_seen),
            },
            behind @ Link::Behind { .. } => behind,
        }
    }

    /// The newest early batch that a link which begins at `early_from` was pushed.
    pub(crate) fn early_seen(&self, early_from: u64) -> Option<AppendKey> {
        let (key, early) = self.remembered.back()?;
        (early.alone >= early_from).then_some(*key)
    }

    /// An early batch is about to be dispatched.
    pub(super) fn remember(&mut self, key: AppendKey) -> Early {
        let number = self.next_early;
        self.next_early += 1;
        if self.remembered.is_empty() {
            self.alone = number;
        }
        let early = Early { number, alone: self.alone };
        if self.remembered.len() == MAX_REMEMBERED {
            self.remembered.pop_front();
        }
        self.remembered.push_back((key, early));
        early
    }

    /// A batch was committed: its place, if it was dispatched early. Batches before it that never
    /// were committed are forgotten.
    pub(super) fn recall(&mut self, key: AppendKey) -> Option<Early> {
        let at = self.remembered.iter().position(|(other, _)| *other == key)?;
        self.remembered.drain(..=at).next_back().map(|(_, early)| early)
    }

    /// The newest early batch that is not committed, and its [`Early::alone`].
    pub(super) fn newest_early(&self) -> Option<(AppendKey, u64)> {
        self.remembered.back().map(|(key, early)| (*key, early.alone))
    }

    /// Every link got this early batch early.
    pub(super) fn all_had(&self, early: Early) -> bool {
        early.alone >= self.newest_early_start
    }
}

/// Whether `key` is the same producer's as `seen`, and not newer.
pub(crate) fn is_at_or_before(key: AppendKey, seen: AppendKey) -> bool {
    if key.producer_id != seen.producer_id || key.producer_epoch != seen.producer_epoch {
        return key.producer_id == seen.producer_id && key.producer_epoch < seen.producer_epoch;
    }
    seen.sequence.wrapping_sub(key.sequence) & i32::MAX < i32::MAX / 2
}

impl Tail {
    pub(crate) fn new(log: LogId, shard: u16, max_early_bytes: usize) -> Self {
        Self {
            log,
            shard,
            committed: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            early: Mutex::default(),
            max_early_bytes,
            work: Notify::new(),
            moved: Notify::new(),
            position: Mutex::default(),
        }
    }

    /// Nothing before `from` is dispatched; up to the end of `bounds` only retained messages are
    /// looked for.
    pub(crate) fn begin(&self, bounds: Bounds, from: u64) {
        self.position.lock().next = from.max(bounds.start);
        self.note_committed(bounds.stable);
        self.heard.fetch_max(bounds.stable, Ordering::AcqRel);
    }

    pub(crate) fn position(&self) -> MutexGuard<'_, Position> {
        self.position.lock()
    }

    /// Everything below is committed, by all that was heard or acknowledged.
    pub(crate) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Everything below is committed, and was shown early before if it ever is.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Acquire)
    }

    /// The dispatcher has moved on.
    pub(super) fn note_moved(&self) {
        self.moved.notify_waiters();
    }

    /// Nothing more is dispatched.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.moved.notify_waiters();
    }

    /// Everything that is committed was dispatched.
    pub(crate) fn is_even(&self) -> bool {
        self.has_ended() || self.position().next >= self.committed()
    }

    /// Waits until everything below `offset` was dispatched.
    pub(crate) async fn reached(&self, offset: u64) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if self.has_ended() || self.position().next >= offset {
                return;
            }
            moved.await;
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Everything below `offset` is committed.
    pub(crate) fn note_committed(&self, offset: u64) {
        self.committed.fetch_max(offset, Ordering::AcqRel);
    }

    /// A batch was committed and dispatched: early ones may be taken again if it was the last one
    /// refused.
    pub(super) fn note_dispatched(&self, key: AppendKey) {
        let mut early = self.early.lock();
        if early.refused.is_some_and(|refused| is_at_or_before(refused, key)) {
            early.refused = None;
        }
    }

    pub(super) fn pop_early(&self) -> Option<EarlyBatch> {
        let mut early = self.early.lock();
        let batch = early.batches.pop_front()?;
        early.bytes = early.bytes.saturating_sub(batch.bytes.len());
        Some(batch)
    }
}

impl LogObserver for Tail {
    fn advanced(&self, _: LogId, bounds: Bounds) {
        self.note_committed(bounds.stable);
        if self.heard.fetch_max(bounds.stable, Ordering::AcqRel) < bounds.stable {
            self.work.notify_one();
        }
    }

    /// What the queue can't hold is not shown early: subscribers get it when it is committed.
    fn early(&self, _: LogId, batch: &EarlyBatch) {
        let mut early = self.early.lock();
        let is_full =
            early.bytes + batch.bytes.len() > self.max_early_bytes && !early.batches.is_empty();
        if early.not_before > 0 {
            // Who holds the position is dispatching, and not done.
            let is_past = |position: MutexGuard<'_, Position>| position.next >= early.not_before;
            if !self.position.try_lock().is_some_and(is_past) {
                early.refused = Some(batch.key);
                return;
            }
            early.not_before = 0;
        }
        if is_full || early.refused.is_some() {
            early.refused = Some(batch.key);
            return;
        }
        early.bytes += batch.bytes.len();
        early.batches.push_back(batch.clone());
        drop(early);
        self.work.notify_one();
    }

    fn withheld(&self, _: LogId, until: Withheld) {
        let mut early = self.early.lock();
        match until {
            Withheld::UpTo(key) => early.refused = Some(key),
            Withheld::Below(offset) => early.not_before = early.not_before.max(offset),
        }
    }

    fn ended(&self, _: LogId) {
        self.ended.store(true, Ordering::Release);
        self.work.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn no_early_batch_overtakes_what_was_withheld() {
        let tail = Tail::new(LogId(1), 0, 1 << 20);
        let key = |sequence| AppendKey { producer_id: 1, producer_epoch: 0, sequence };
        let show = |sequence| {
            let batch = EarlyBatch { key: key(sequence), bytes: Bytes::from_static(b"b") };
            tail.early(tail.log, &batch);
            tail.pop_early().is_some()
        };
        assert!(show(0));
        tail.withheld(tail.log, Withheld::UpTo(key(1)));
        assert!(!show(2));
        tail.note_dispatched(key(1));
        assert!(!show(3));
        tail.note_dispatched(key(3));
        assert!(show(4));
        // Some were in flight that nobody can name.
        tail.withheld(tail.log, Withheld::Below(7));
        assert!(!show(5));
        tail.position().next = 7;
        assert!(!show(6));
        tail.note_dispatched(key(6));
        assert!(show(7));
    }

    #[test]
    fn early_batches_that_are_never_committed_do_not_pile_up() {
        let mut position = Position::default();
        let key = |sequence| AppendKey { producer_id: 1, producer_epoch: 0, sequence };
        (0..10_000).for_each(|sequence| {
            position.remember(key(sequence));
        });
        assert_eq!(position.remembered.len(), MAX_REMEMBERED);
        let early = position.recall(key(9_999)).unwrap();
        assert_eq!((early.number, position.remembered.len()), (9_999, 0));
    }
}
