//! The unanswered appends of a client: what waits, what was sent, what goes next. No I/O.
//!
//! ```text
//!   offer ─► log's waiting ──next──► log's sent ──answered──► reply
//!               ▲    ▲                 │      └─ not the sequencer ─► log's refused
//!          resume    └── cut: keyed ───┘  without a key: unknown
//!
//!   take_back ◄─ refused, keyed of sent, waiting
//! ```
//!
//! 1. A log's `refused`, then `sent`, then `waiting` is always the order of the calls: it reaches
//!    the node in that order.
//!    Should a node take an append behind one that it refused (the log came back to it meanwhile),
//!    a refused one without an append key isn't sent again, and its producer hears of the refusal;
//!    one with a key has the sequencer's check of sequences to keep its producer's order.
//! 2. An append is answered once: its reply goes with it from list to list.
//! 3. What has no append key and may have been kept is never sent again, here or elsewhere.

mod log;
mod taking;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;
use interflow_meta::LogId;
use interflow_proto::log as proto;
use proto::append_request::Kind;
use tokio::time::Instant;

use self::log::{Item, LogQueue, Sent, list};
use super::node::Unanswered;
use crate::rpc::{MAX_NUMBERS, charge, wire};
use crate::{Append, AppendError, AppendReply, AppendResult};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What may be unanswered, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    pub(crate) max_bytes: usize,
    pub(crate) max_log_bytes: usize,
    pub(crate) max_batch_bytes: usize,
    pub(crate) timeout: Duration,
    /// A log whose oldest append isn't answered for so long is told of, and again after as long.
    pub(crate) silence: Duration,
    /// A router makes elsewhere what the node refuses as another's.
    pub(crate) is_routed: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Queues {
    limits: QueueLimits,
    logs: Map<LogId, LogQueue>,
    bytes: usize,
    sent_bytes: usize,
    /// Logs with something to send.
    listed: VecDeque<LogId>,
    /// Logs that had no room in the window; an answer lists them again.
    blocked: Vec<LogId>,
    /// Of what was sent.
    log_of: Map<u64, LogId>,
    next_id: u64,
    /// Of appends that didn't come from a router.
    next_number: u64,
    /// Of this stream: what may be unanswered, once the server has said so; and the numbers bound.
    window: Option<usize>,
    numbers: Map<LogId, u32>,
    by_number: Vec<LogId>,
    next_reused: usize,
}

impl Queues {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            logs: Map::default(),
            bytes: 0,
            sent_bytes: 0,
            listed: VecDeque::new(),
            blocked: Vec::new(),
            log_of: Map::default(),
            next_id: 0,
            next_number: 0,
            window: None,
            numbers: Map::default(),
            by_number: Vec::new(),
            next_reused: 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Puts an append behind those of its log; says when it is late.
    pub(crate) fn offer(&mut self, append: Append, reply: AppendReply, now: Instant) -> Instant {
        let number = self.next_number;
        self.next_number += 1;
        let deadline = now + self.limits.timeout;
        let of =
            Unanswered { append, reply, deadline, number, may_be_kept: false, was_admitted: false };
        self.put(of, now);
        deadline
    }

    /// The same for one that has a deadline and a number. What may have been kept, or was taken by
    /// another node's client before, was counted there and is never refused here.
    pub(crate) fn put(&mut self, of: Unanswered, now: Instant) {
        let (log, batch_bytes) = (of.append.log, of.append.batch.len());
        if batch_bytes > self.limits.max_batch_bytes {
            let max_bytes = self.limits.max_batch_bytes;
            return of.give_up(AppendError::TooLarge { max_bytes });
        }
        let bytes = charge(batch_bytes);
        let of_log = self.logs.get(&log).map_or(0, |queue| queue.bytes);
        let is_full = self.bytes.saturating_add(bytes) > self.limits.max_bytes
            || of_log.saturating_add(bytes) > self.limits.max_log_bytes;
        if is_full && !of.was_admitted {
            return of.give_up(AppendError::Busy);
        }
        let queue = self.logs.entry(log).or_default();
        // 1 of the module.
        debug_assert!(queue.last_number().is_none_or(|last| last < of.number));
        self.bytes += bytes;
        queue.bytes += bytes;
        let of = Unanswered { was_admitted: true, ..of };
        queue.waiting.push_back(Item { of, since: now });
        list(&mut self.listed, log, queue);
    }

    /// The server takes appends on this stream.
    pub(crate) fn welcomed(&mut self, window: usize) {
        self.window = Some(window);
    }

    /// What is to be sent next, if anything may be.
    pub(crate) fn next(&mut self, now: Instant) -> Option<proto::AppendRequest> {
        let window = self.window?;
        while let Some(log) = self.listed.pop_front() {
            let Some(queue) = self.logs.get_mut(&log) else { continue };
            let first = queue.waiting.front().filter(|_| !queue.is_stopped);
            let Some(bytes) = first.map(Item::bytes) else {
                queue.is_listed = false;
                continue;
            };
            // A log takes as much as it leaves free: however many stand still, some is left.
            let free = window.saturating_sub(self.sent_bytes);
            let fits = bytes <= free && (queue.sent_bytes == 0 || queue.sent_bytes + bytes <= free);
            if !fits && self.sent_bytes > 0 {
                self.blocked.push(log);
                continue;
            }
            let Some(number) = self.numbers.get(&log).copied() else {
                let Some(number) = self.bind(log) else {
                    self.blocked.push(log);
                    continue;
                };
                self.listed.push_front(log);
                let open = proto::Open { number, log: log.0 };
                return Some(proto::AppendRequest { kind: Some(Kind::Open(open)) });
            };
            let put = self.send(log, number, now)?;
            return Some(proto::AppendRequest { kind: Some(Kind::Put(put)) });
        }
        None
    }

    /// A number for `log`: a new one, or that of a log with nothing in flight.
    fn bind(&mut self, log: LogId) -> Option<u32> {
        let bound = u32::try_from(self.by_number.len()).unwrap_or(MAX_NUMBERS);
        if bound < MAX_NUMBERS {
            self.by_number.push(log);
            self.numbers.insert(log, bound);
            return Some(bound);
        }
        for _ in 0..self.by_number.len() {
            let at = self.next_reused;
            self.next_reused = (at + 1) % self.by_number.len();
            let place = self.by_number.get_mut(at)?;
            if self.logs.get(place).is_none_or(|queue| queue.sent.is_empty()) {
                self.numbers.remove(place);
                *place = log;
                let number = u32::try_from(at).ok()?;
                self.numbers.insert(log, number);
                return Some(number);
            }
        }
        None
    }

    /// Moves the log's first to what was sent.
    fn send(&mut self, log: LogId, number: u32, now: Instant) -> Option<proto::Put> {
        let queue = self.logs.get_mut(&log)?;
        let item = queue.waiting.pop_front()?;
        // 3 of the module.
        debug_assert!(item.is_keyed() || !item.of.may_be_kept);
        let (id, bytes) = (self.next_id, item.bytes());
        self.next_id += 1;
        let put = wire::put_message(&item.of.append, number, id);
        queue.sent_bytes += bytes;
        self.sent_bytes += bytes;
        self.log_of.insert(id, log);
        let item = Some(Item { since: now, ..item });
        queue.sent.push_back(Sent { id, bytes, item, is_left: false });
        queue.is_listed = !queue.waiting.is_empty();
        if queue.is_listed {
            self.listed.push_back(log);
        }
        Some(put)
    }

    /// The server has answered. `None`: it answered what nobody asked, or not in a log's order.
    pub(crate) fn answered(&mut self, id: u64, result: AppendResult) -> Option<Answered> {
        let log = self.log_of.remove(&id)?;
        let queue = self.logs.get_mut(&log)?;
        let sent = queue.sent.pop_front()?;
        queue.sent_bytes -= sent.bytes;
        self.sent_bytes -= sent.bytes;
        self.listed.extend(self.blocked.drain(..));
        let is_right = sent.id == id;
        let is_elsewhere = result == Err(AppendError::NotSequencer);
        if let Some(item) = sent.item {
            if is_right && is_elsewhere && self.limits.is_routed && !sent.is_left {
                queue.refused.push_back(item);
                queue.is_stopped = true;
            } else {
                // The node may have kept it: those that it refused before would come after it.
                if !sent.is_left {
                    for refused in queue.overtaken() {
                        self.bytes -= refused.bytes();
                        refused.answer(Err(AppendError::NotSequencer));
                    }
                }
                queue.bytes -= sent.bytes;
                self.bytes -= sent.bytes;
                // Out of order, nobody knows what became of it.
                item.answer(if is_right { result } else { Err(AppendError::Unknown) });
            }
        }
        if queue.refused.is_empty() && std::mem::take(&mut queue.is_stopped) {
            list(&mut self.listed, log, queue);
        }
        let moved = queue.is_stopped && !queue.is_in_flight();
        if queue.is_empty() {
            self.logs.remove(&log);
        }
        is_right.then_some(if moved { Answered::Refused(log) } else { Answered::Heard })
    }

    /// The stream is gone. What has an append key is sent again on the next one.
    pub(crate) fn cut(&mut self) {
        self.window = None;
        self.numbers.clear();
        self.by_number.clear();
        self.next_reused = 0;
        self.log_of.clear();
        self.sent_bytes = 0;
        self.listed.clear();
        self.blocked.clear();
        let bytes = &mut self.bytes;
        self.logs.retain(|_, queue| {
            let overtaken = if queue.is_in_flight() { queue.overtaken() } else { VecDeque::new() };
            for item in overtaken {
                *bytes -= item.bytes();
                item.answer(Err(AppendError::NotSequencer));
            }
            while let Some(sent) = queue.sent.pop_back() {
                let Some(mut item) = sent.item else { continue };
                if item.is_keyed() {
                    item.of.may_be_kept = true;
                    queue.waiting.push_front(item);
                } else {
                    *bytes -= sent.bytes;
                    queue.bytes -= sent.bytes;
                    item.answer(Err(AppendError::Unknown));
                }
            }
            queue.resume();
            queue.sent_bytes = 0;
            queue.is_listed = !queue.waiting.is_empty();
            queue.is_listed
        });
        self.listed.extend(self.logs.keys());
    }

    /// Gives up what is late at `now`; what was never kept because of `reason`.
    pub(crate) fn give_up(&mut self, now: Instant, reason: &str) {
        let (all, mut freed) = (&mut self.bytes, false);
        self.logs.retain(|_, queue| {
            let is_late = |item: &mut Item| item.of.deadline <= now;
            let mut late = Vec::new();
            while let Some(item) = queue.refused.pop_front_if(is_late) {
                late.push(item);
            }
            for sent in &mut queue.sent {
                if let Some(mut item) = sent.item.take_if(is_late) {
                    item.of.may_be_kept = true;
                    late.push(item);
                }
            }
            while let Some(item) = queue.waiting.pop_front_if(is_late) {
                late.push(item);
            }
            freed |= !late.is_empty();
            for item in late {
                *all -= item.bytes();
                queue.bytes -= item.bytes();
                item.of.give_up(AppendError::Unavailable(reason.to_owned()));
            }
            !queue.is_empty()
        });
        if freed {
            self.listed.retain(|log| self.logs.contains_key(log));
            self.blocked.retain(|log| self.logs.contains_key(log));
        }
    }

    /// When an append that comes at `now` is late or silent.
    pub(crate) fn due(&self, now: Instant, deadline: Instant) -> Instant {
        let silent = self.limits.is_routed.then(|| now + self.limits.silence);
        silent.map_or(deadline, |silent| silent.min(deadline))
    }

    /// When the next append is late, or its log silent.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let first = |queue: &LogQueue| {
            let item = queue.items().next()?;
            let since = queue.told_silent.map_or(item.since, |told| told.max(item.since));
            Some(self.due(since, item.of.deadline))
        };
        self.logs.values().filter_map(first).min()
    }
}

/// What an answer of the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// Somebody heard it, or nobody waited.
    Heard,
    /// The node isn't the log's sequencer, and nothing of the log is in flight any more.
    Refused(LogId),
}
