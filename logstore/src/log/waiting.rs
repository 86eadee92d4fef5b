//! Appends that wait: for the log to be loaded, opened or rolled, or for room in the journal.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::take::candidate;
use crate::core::sequencer::Candidate;
use crate::{Append, AppendReply};

/// The most that a queue holds besides what its bytes bound.
const MAX_ITEMS: usize = 100_000;

/// Something in a log's queue.
pub(super) enum Queued {
    Append(Append, AppendReply),
    /// An append was refused here. What its producer sent behind it must not overtake it, so the
    /// sequencer has to hear of it in its place.
    Refused(Candidate),
}

/// The queue of one log, in the order of the calls.
#[derive(Default)]
pub(super) struct Queue {
    items: VecDeque<Queued>,
    bytes: usize,
}

/// The bytes of all logs' queues.
pub(super) struct Budget {
    bytes: AtomicUsize,
    max_bytes: usize,
}

impl Budget {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), max_bytes }
    }

    /// Takes `bytes` of what there may be; false if that is too much.
    fn acquire(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_enough = before.saturating_add(bytes) <= self.max_bytes;
        if !is_enough {
            self.release(bytes);
        }
        is_enough
    }

    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What an append weighs in a queue.
pub(super) fn charge(append: &Append) -> usize {
    append.batch.len().saturating_add(size_of::<Queued>())
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Puts an append at the end; gives it back if the queue or the budget is full.
    pub(super) fn push(
        &mut self,
        append: Append,
        reply: AppendReply,
        max_bytes: usize,
        budget: &Budget,
    ) -> Result<(), (Append, AppendReply)> {
        let bytes = charge(&append);
        if self.bytes.saturating_add(bytes) > max_bytes
            || self.items.len() >= MAX_ITEMS
            || !budget.acquire(bytes)
        {
            return Err((append, reply));
        }
        self.bytes += bytes;
        self.items.push_back(Queued::Append(append, reply));
        Ok(())
    }

    /// Remembers in its place that an append was refused.
    pub(super) fn push_refused(&mut self, refused: Candidate) {
        if refused.key.is_some() && self.items.len() < MAX_ITEMS {
            self.items.push_back(Queued::Refused(refused));
        }
    }

    /// Takes the first.
    pub(super) fn pop(&mut self, budget: &Budget) -> Option<Queued> {
        let first = self.items.pop_front()?;
        if let Queued::Append(append, _) = &first {
            let bytes = charge(append);
            self.bytes = self.bytes.saturating_sub(bytes);
            budget.release(bytes);
        }
        if self.items.is_empty() {
            // A burst's room isn't kept: there may be many logs.
            self.items = VecDeque::new();
        }
        Some(first)
    }

    /// Puts what was just taken back in its place.
    pub(super) fn put_back(&mut self, append: Append, reply: AppendReply, budget: &Budget) {
        let bytes = charge(&append);
        self.bytes += bytes;
        budget.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.items.push_front(Queued::Append(append, reply));
    }

    /// Takes all appends out; that they were refused stays remembered in their place.
    pub(super) fn refuse_all(&mut self, budget: &Budget) -> Vec<AppendReply> {
        let mut replies = Vec::new();
        for item in std::mem::take(&mut self.items) {
            match item {
                Queued::Append(append, reply) => {
                    budget.release(charge(&append));
                    self.push_refused(candidate(&append));
                    replies.push(reply);
                }
                Queued::Refused(refused) => self.push_refused(refused),
            }
        }
        self.bytes = 0;
        replies
    }
}
