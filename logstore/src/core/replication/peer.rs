//! One peer: what it has, what is on its way to it, what it is owed.

use std::collections::VecDeque;

use interflow_meta::Offset;

use super::limits::ReplicationLimits;
use crate::core::segment::Entry;

/// What a peer answers, or what its connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Reply {
    /// What it has; cumulative.
    Stored {
        /// Everything below is there.
        local_end: Offset,
        /// Everything below is durable there.
        durable_end: Offset,
    },
    /// It lacks what is before the entry that it was sent.
    Gap {
        /// Everything below is there.
        local_end: Offset,
    },
    /// It is sealed.
    Sealed,
    /// It knows another sequencer.
    Foreign,
    /// What it had is damaged.
    Damaged,
    /// It is about to stop, and goes on until the segment is closed.
    Leaving,
    /// A new connection to it: nothing is in flight.
    Attached,
    /// The connection is gone.
    Detached,
}

/// Entries that a peer may still have to be sent, by number.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(super) struct Queue<P> {
    entries: VecDeque<(Entry, P)>,
    /// The number of the first.
    first: u64,
    bytes: u64,
}

impl<P> Default for Queue<P> {
    fn default() -> Self {
        Self { entries: VecDeque::new(), first: 0, bytes: 0 }
    }
}

impl<P> Queue<P> {
    pub(super) fn push(&mut self, entry: Entry, payload: P) {
        self.entries.push_back((entry, payload));
        self.bytes += entry.bytes;
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn get(&self, number: u64) -> Option<&Entry> {
        self.at_number(number).map(|(entry, _)| entry)
    }

    fn at_number(&self, number: u64) -> Option<&(Entry, P)> {
        self.entries.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    /// The number of the first entry at or past `offset`.
    fn at(&self, offset: Offset) -> u64 {
        self.first + self.entries.partition_point(|(entry, _)| entry.first < offset) as u64
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Drops what lies before entry `number`; everything if nobody needs any.
    pub(super) fn forget(&mut self, number: Option<u64>) {
        while self.first < number.unwrap_or(u64::MAX)
            && let Some((entry, _)) = self.entries.pop_front()
        {
            self.bytes -= entry.bytes;
            self.first += 1;
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Up,
    Down,
    /// For the rest of the segment.
    Dropped,
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(super) struct Peer {
    link: Link,
    /// The first entry that isn't known to be durable there.
    acked: u64,
    /// The next entry to send.
    next: u64,
    /// Bytes between the two.
    in_flight: u64,
    durable_end: Offset,
    base: Offset,
    /// The `Gap` that was heeded last: the entries behind a lost one are all answered so.
    rewound_to: Option<Offset>,
    committed_told: Offset,
    /// Since when `committed_told` is less than what is committed.
    owing_since_ms: Option<u64>,
    /// Since when it lacks the entry `acked`, though others have it.
    behind_since_ms: Option<u64>,
    has_asked_for_roll: bool,
}

impl Peer {
    pub(super) fn new(base: Offset) -> Self {
        Self {
            link: Link::Up,
            acked: 0,
            next: 0,
            in_flight: 0,
            durable_end: base,
            base,
            rewound_to: None,
            committed_told: base,
            owing_since_ms: None,
            behind_since_ms: None,
            has_asked_for_roll: false,
        }
    }

    /// The first entry that it may have to be sent.
    pub(super) fn lacks(&self) -> Option<u64> {
        (self.link != Link::Dropped).then_some(self.acked)
    }

    pub(super) fn stored<P>(&mut self, queue: &Queue<P>, durable_end: Offset, now_ms: u64) {
        if durable_end <= self.durable_end {
            return;
        }
        self.durable_end = durable_end;
        self.rewound_to = None;
        while let Some(entry) = queue.get(self.acked)
            && entry.is_below(durable_end)
        {
            if self.acked < self.next {
                self.in_flight -= entry.bytes;
            }
            self.acked += 1;
            self.behind_since_ms = self.behind_since_ms.map(|_| now_ms);
        }
        self.next = self.next.max(self.acked);
    }

    pub(super) fn rewind<P>(&mut self, queue: &Queue<P>, local_end: Offset) {
        // An answer from before a later one, or the echo of one that was heeded.
        if local_end < self.durable_end || self.rewound_to == Some(local_end) {
            return;
        }
        self.rewound_to = Some(local_end);
        self.go_back_to(queue, queue.at(local_end).max(self.acked));
    }

    fn go_back_to<P>(&mut self, queue: &Queue<P>, number: u64) {
        while self.next > number {
            self.next -= 1;
            self.in_flight -= queue.get(self.next).map_or(0, |entry| entry.bytes);
        }
    }

    pub(super) fn attach<P>(&mut self, queue: &Queue<P>) {
        if self.link == Link::Dropped {
            return;
        }
        self.link = Link::Up;
        self.rewound_to = None;
        // The last word may have been lost with the connection before, and no entry may follow.
        self.committed_told = self.base;
        self.go_back_to(queue, self.acked);
    }

    pub(super) fn detach(&mut self) {
        if self.link == Link::Up {
            self.link = Link::Down;
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.link == Link::Up
    }

    /// Whether it is connected, and no roll to a segment without it was asked for.
    pub(super) fn is_in_sync(&self) -> bool {
        self.is_up() && !self.has_asked_for_roll
    }

    pub(super) fn drop_out(&mut self) {
        self.link = Link::Dropped;
        self.behind_since_ms = None;
        self.owing_since_ms = None;
    }

    /// A `Gap` that was heeded is heeded again: what was sent then may be lost, too.
    pub(super) fn allow_rewind(&mut self) {
        self.rewound_to = None;
    }

    /// Takes the next entry to send, if the window has room.
    pub(super) fn next<P: Clone>(
        &mut self,
        queue: &Queue<P>,
        window_bytes: u64,
    ) -> Option<(Entry, P)> {
        let (entry, payload) = queue.at_number(self.next)?;
        let has_room =
            self.in_flight == 0 || self.in_flight.saturating_add(entry.bytes) <= window_bytes;
        if self.link != Link::Up || !has_room {
            return None;
        }
        self.next += 1;
        self.in_flight += entry.bytes;
        Some((*entry, payload.clone()))
    }

    pub(super) fn told(&mut self, committed: Offset) {
        self.committed_told = self.committed_told.max(committed);
        self.owing_since_ms = None;
    }

    pub(super) fn owes_word(&self, committed: Offset, now_ms: u64) -> bool {
        self.link == Link::Up
            && self.committed_told < committed
            && self.owing_since_ms.is_some_and(|since_ms| since_ms < now_ms)
    }

    /// Notes since when it is behind and owed a word; returns when that is to be looked at again.
    pub(super) fn look<P>(
        &mut self,
        queue: &Queue<P>,
        committed: Offset,
        now_ms: u64,
        limits: &ReplicationLimits,
    ) -> Option<u64> {
        if self.link == Link::Dropped {
            return None;
        }
        let is_behind = queue.get(self.acked).is_some_and(|entry| entry.is_below(committed));
        let is_owed = self.link == Link::Up && self.committed_told < committed;
        let since = |is: bool, since: Option<u64>| is.then(|| since.unwrap_or(now_ms));
        self.behind_since_ms = since(is_behind, self.behind_since_ms);
        self.owing_since_ms = since(is_owed, self.owing_since_ms);
        let word = self.owing_since_ms.map(|since_ms| since_ms.saturating_add(limits.idle_ms));
        let slow = self.behind_since_ms.filter(|_| !self.has_asked_for_roll);
        let slow = slow.map(|since_ms| since_ms.saturating_add(limits.slow_ms));
        word.into_iter().chain(slow).min()
    }

    /// Whether it lacks too much, or for too long.
    pub(super) fn is_slow<P>(
        &self,
        queue: &Queue<P>,
        committed: Offset,
        now_ms: u64,
        limits: &ReplicationLimits,
    ) -> bool {
        let is_behind = queue.get(self.acked).is_some_and(|entry| entry.is_below(committed));
        let is_late = self
            .behind_since_ms
            .is_some_and(|since_ms| now_ms.saturating_sub(since_ms) >= limits.slow_ms);
        self.link != Link::Dropped
            && !self.has_asked_for_roll
            && (is_late || is_behind && self.lacking_bytes(queue) > limits.slow_bytes)
    }

    /// Bytes of entries that aren't known to be durable there.
    fn lacking_bytes<P>(&self, queue: &Queue<P>) -> u64 {
        // The front is what the slowest lacks: only it can be past the bound before others.
        if self.acked == queue.first {
            return queue.bytes;
        }
        (self.acked..queue.end()).filter_map(|number| queue.get(number)).map(|e| e.bytes).sum()
    }

    /// Whether it is the first time.
    pub(super) fn ask_for_roll(&mut self) -> bool {
        !std::mem::replace(&mut self.has_asked_for_roll, true)
    }
}
