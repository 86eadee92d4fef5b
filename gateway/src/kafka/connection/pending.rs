//! Requests between their reading and their answer.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use crate::kafka::budget::Share;
use crate::kafka::data::Produce;
use crate::kafka::route::Request;

/// What a queued request is.
pub(super) enum Work {
    /// Run when it is its turn.
    Request(Request),
    /// A Produce whose appends have begun.
    Begun(Box<Produce>),
    /// A SASL token without a header.
    Token(Bytes),
}

/// A request that was read.
pub(super) struct Pending {
    pub(super) correlation_id: i32,
    /// The response header has tagged fields.
    pub(super) tagged: bool,
    pub(super) api_key: i16,
    pub(super) is_barrier: bool,
    pub(super) may_wait: bool,
    pub(super) work: Work,
    pub(super) bytes: usize,
    /// Its memory: given back when it is answered.
    pub(super) share: Share,
    pub(super) read_at: Instant,
}

/// The requests that wait for their turn, and what they take.
#[derive(Default)]
pub(super) struct Pendings {
    queue: VecDeque<Pending>,
    bytes: usize,
    barriers: usize,
}

impl Pendings {
    pub(super) fn push(&mut self, pending: Pending) {
        self.bytes += pending.bytes;
        self.barriers += usize::from(pending.is_barrier);
        self.queue.push_back(pending);
    }

    pub(super) fn pop(&mut self) -> Option<Pending> {
        let pending = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(pending.bytes);
        self.barriers = self.barriers.saturating_sub(usize::from(pending.is_barrier));
        if self.queue.is_empty() {
            // An idle connection keeps no memory for what it queued once.
            self.queue = VecDeque::new();
        }
        Some(pending)
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Bytes of the requests that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn any(&self, is: impl Fn(&Pending) -> bool) -> bool {
        // Only barriers are asked for, and they are rare.
        self.barriers > 0 && self.queue.iter().any(is)
    }

    /// Whether one of them may change what later ones see.
    pub(super) fn has_barrier(&self) -> bool {
        self.barriers > 0
    }

    /// Those that stand before the next barrier.
    pub(super) fn up_to_barrier(&mut self) -> impl Iterator<Item = &mut Pending> {
        self.queue.iter_mut().take_while(|pending| !pending.is_barrier)
    }

    /// Drops those that may wait for others: nobody will see their answers.
    pub(super) fn drop_waiting(&mut self) {
        self.queue.retain(|pending| !pending.may_wait);
        self.bytes = self.queue.iter().map(|pending| pending.bytes).sum();
        self.barriers = self.queue.iter().filter(|pending| pending.is_barrier).count();
    }
}
