//! The unanswered appends of a client: what waits, what was sent, what goes next. No I/O.
//!
//! ```text
//!   offer ─► log's waiting ──next──► log's sent ──answered──► reply
//!                 ▲                      │
//!                 └──── cut: keyed ──────┘   without a key: unknown
//! ```
//!
//! A log's `sent` then `waiting` is always the order of the calls.

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;
use interflow_meta::LogId;
use interflow_proto::log as proto;
use proto::append_request::Kind;
use tokio::time::Instant;

use crate::rpc::{MAX_NUMBERS, charge, wire};
use crate::{Append, AppendError, AppendReply, AppendResult};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// What may be unanswered, and for how long.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub(super) max_bytes: usize,
    pub(super) max_log_bytes: usize,
    pub(super) max_batch_bytes: usize,
    pub(super) timeout: Duration,
}

#[derive(Debug)]
struct Item {
    append: Append,
    /// Taken when the append was given up; its place is kept until the server answers.
    reply: Option<AppendReply>,
    deadline: Instant,
    /// On a stream before this one: it may have been kept.
    was_sent: bool,
}

impl Item {
    fn bytes(&self) -> usize {
        charge(self.append.batch.len())
    }

    fn answer(self, result: AppendResult) {
        if let Some(reply) = self.reply {
            reply.send(result);
        }
    }
}

#[derive(Debug, Default)]
struct LogQueue {
    waiting: VecDeque<Item>,
    sent: VecDeque<(u64, Item)>,
    sent_bytes: usize,
    /// Of both.
    bytes: usize,
    is_listed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queues {
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
    /// Of this stream: what may be unanswered, once the server has said so; and the numbers bound.
    window: Option<usize>,
    numbers: Map<LogId, u32>,
    by_number: Vec<LogId>,
    next_reused: usize,
}

impl Queues {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            logs: Map::default(),
            bytes: 0,
            sent_bytes: 0,
            listed: VecDeque::new(),
            blocked: Vec::new(),
            log_of: Map::default(),
            next_id: 0,
            window: None,
            numbers: Map::default(),
            by_number: Vec::new(),
            next_reused: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.logs.is_empty()
    }

    /// Puts an append behind those of its log.
    pub(super) fn offer(&mut self, append: Append, reply: AppendReply, now: Instant) {
        let bytes = charge(append.batch.len());
        if append.batch.len() > self.limits.max_batch_bytes {
            let max_bytes = self.limits.max_batch_bytes;
            return reply.send(Err(AppendError::TooLarge { max_bytes }));
        }
        let of_log = self.logs.get(&append.log).map_or(0, |queue| queue.bytes);
        if self.bytes.saturating_add(bytes) > self.limits.max_bytes
            || of_log.saturating_add(bytes) > self.limits.max_log_bytes
        {
            return reply.send(Err(AppendError::Busy));
        }
        let log = append.log;
        let deadline = now + self.limits.timeout;
        let queue = self.logs.entry(log).or_default();
        self.bytes += bytes;
        queue.bytes += bytes;
        queue.waiting.push_back(Item { append, reply: Some(reply), deadline, was_sent: false });
        if !std::mem::replace(&mut queue.is_listed, true) {
            self.listed.push_back(log);
        }
    }

    /// The server takes appends on this stream.
    pub(super) fn welcomed(&mut self, window: usize) {
        self.window = Some(window);
    }

    /// What is to be sent next, if anything may be.
    pub(super) fn next(&mut self) -> Option<proto::AppendRequest> {
        let window = self.window?;
        while let Some(log) = self.listed.pop_front() {
            let Some(queue) = self.logs.get_mut(&log) else { continue };
            let Some(bytes) = queue.waiting.front().map(Item::bytes) else {
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
            let put = self.send(log, number)?;
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
    fn send(&mut self, log: LogId, number: u32) -> Option<proto::Put> {
        let queue = self.logs.get_mut(&log)?;
        let item = queue.waiting.pop_front()?;
        let id = self.next_id;
        self.next_id += 1;
        let put = wire::put_message(&item.append, number, id);
        queue.sent_bytes += item.bytes();
        self.sent_bytes += item.bytes();
        self.log_of.insert(id, log);
        queue.sent.push_back((id, item));
        queue.is_listed = !queue.waiting.is_empty();
        if queue.is_listed {
            self.listed.push_back(log);
        }
        Some(put)
    }

    /// The log of an append that was sent on this stream.
    pub(super) fn log_of(&self, id: u64) -> Option<LogId> {
        self.log_of.get(&id).copied()
    }

    /// The server has answered. `None`: it answered what nobody asked, or not in a log's order.
    pub(super) fn answered(&mut self, id: u64, result: AppendResult) -> Option<()> {
        let log = self.log_of.remove(&id)?;
        let queue = self.logs.get_mut(&log)?;
        let (first, item) = queue.sent.pop_front()?;
        let bytes = item.bytes();
        queue.sent_bytes -= bytes;
        queue.bytes -= bytes;
        self.sent_bytes -= bytes;
        self.bytes -= bytes;
        if queue.sent.is_empty() && queue.waiting.is_empty() {
            self.logs.remove(&log);
        }
        self.listed.extend(self.blocked.drain(..));
        if first != id {
            // Nobody knows what became of it.
            item.answer(Err(AppendError::Unknown));
            return None;
        }
        item.answer(result);
        Some(())
    }

    /// The stream is gone. What has an append key is sent again on the next one.
    pub(super) fn cut(&mut self) {
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
            while let Some((_, mut item)) = queue.sent.pop_back() {
                if item.append.key.is_some() && item.reply.is_some() {
                    item.was_sent = true;
                    queue.waiting.push_front(item);
                } else {
                    *bytes -= item.bytes();
                    queue.bytes -= item.bytes();
                    item.answer(Err(AppendError::Unknown));
                }
            }
            queue.sent_bytes = 0;
            queue.is_listed = !queue.waiting.is_empty();
            queue.is_listed
        });
        self.listed.extend(self.logs.keys());
    }

    /// Gives up what is late at `now`; what was never sent because of `reason`.
    pub(super) fn give_up(&mut self, now: Instant, reason: &str) {
        let (all, mut freed) = (&mut self.bytes, false);
        self.logs.retain(|_, queue| {
            for (_, item) in queue.sent.iter_mut().take_while(|(_, item)| item.deadline <= now) {
                if let Some(reply) = item.reply.take() {
                    reply.send(Err(AppendError::Unknown));
                }
            }
            while let Some(item) = queue.waiting.pop_front_if(|item| item.deadline <= now) {
                *all -= item.bytes();
                queue.bytes -= item.bytes();
                freed = true;
                let error = if item.was_sent {
                    AppendError::Unknown
                } else {
                    AppendError::Unavailable(reason.to_owned())
                };
                item.answer(Err(error));
            }
            !queue.sent.is_empty() || !queue.waiting.is_empty()
        });
        if freed {
            self.listed.retain(|log| self.logs.contains_key(log));
            self.blocked.retain(|log| self.logs.contains_key(log));
        }
    }

    /// When the next append is late.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let first = |queue: &LogQueue| {
            let mut sent = queue.sent.iter().map(|(_, item)| item);
            let unanswered = sent.find(|item| item.reply.is_some());
            unanswered.or_else(|| queue.waiting.front()).map(|item| item.deadline)
        };
        self.logs.values().filter_map(first).min()
    }
}

#[cfg(test)]
mod tests;
