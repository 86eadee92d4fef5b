//! The reads of a client: what waits, what was asked, whose answer isn't taken yet. No I/O.
//!
//! ```text
//!   ask ─► log's waiting ──next──► sent ──answered──► answered ──done──► gone
//!               ▲                   │ └─ given up: cancelled, and gone with its answer
//!               └─── cut, dropped, ─┘
//!                needs a larger credit
//! ```
//!
//! 1. A read is granted a credit when it is sent, and holds it until it is answered; then it holds
//!    what the answer has, until its caller takes that. All together hold no more than the window,
//!    but for one that is larger and goes alone.
//! 2. A log holds no more than it leaves free, in bytes and in reads: however many stand still, some
//!    is left. When little is free, less is granted, and reads bring less.
//! 3. A read is answered once: its reply goes with its answer.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use hashbrown::HashMap;
use interflow_meta::LogId;
use interflow_proto::log as proto;
use proto::read_answer::Kind as Answer;
use proto::read_request::Kind;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::rpc::{MAX_MESSAGE_BYTES, MAX_READ_BYTES, OVERHEAD, charge, wire};
use crate::{Read, ReadError, ReadOutcome};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;
pub(super) type ReadResult = Result<ReadOutcome, ReadError>;
pub(super) type ReadReply = oneshot::Sender<ReadResult>;

/// So much is granted to any read: batches are seldom larger, however little is wanted.
const MIN_CREDIT_BYTES: usize = 64 << 10;
/// So much of a window is the least that is granted, unless less will do, …
const LEAST_SHARES: usize = 64;
/// … and more than this isn't waited for.
const MAX_LEAST_BYTES: usize = 1 << 20;

/// What may be unanswered on a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) bytes: usize,
    pub(super) reads: usize,
}

impl Window {
    /// The least that is granted to a read that wants as much.
    fn least(self) -> usize {
        (self.bytes / LEAST_SHARES).clamp(1, MAX_LEAST_BYTES)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Waiting,
    /// Asked under this id.
    Sent(u64),
    /// Its caller has what there is to be had.
    Answered,
}

#[derive(Debug)]
struct Asked {
    read: Read,
    began: Instant,
    deadline: Instant,
    place: Place,
    /// `None` once it was used or its caller has gone.
    reply: Option<ReadReply>,
    /// The credit of the last time, and what it holds of the window.
    credit: usize,
    held: usize,
    /// What its first batch is known to need.
    needs: usize,
    /// Streams that were lost or couldn't be made while it waited.
    failures: u32,
}

#[derive(Debug, Default)]
struct LogReads {
    waiting: VecDeque<u64>,
    held: usize,
    unanswered: usize,
    /// It is in `listed` or in `blocked`.
    is_listed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Reads {
    reads: Map<u64, Asked>,
    logs: Map<LogId, LogReads>,
    next_key: u64,
    held: usize,
    /// Logs whose next read may go, and those that found no room; who frees some lists them again.
    listed: VecDeque<LogId>,
    blocked: Vec<LogId>,
    /// Of this stream: what may be unanswered, once the server has said so; who was asked what.
    window: Option<Window>,
    of: Map<u64, u64>,
    cancelled: VecDeque<u64>,
    next_id: u64,
}

impl Reads {
    /// Something waits for a stream.
    pub(super) fn has_waiting(&self) -> bool {
        self.logs.values().any(|log| !log.waiting.is_empty())
    }

    /// A new read, and what it goes by here.
    pub(super) fn ask(&mut self, read: Read, reply: ReadReply, now: Instant, end: Instant) -> u64 {
        let (key, log) = (self.next_key, read.log);
        self.next_key += 1;
        let asked = Asked {
            read,
            began: now,
            deadline: end,
            place: Place::Waiting,
            reply: Some(reply),
            credit: 0,
            held: 0,
            needs: 0,
            failures: 0,
        };
        self.reads.insert(key, asked);
        self.logs.entry(log).or_default().waiting.push_back(key);
        self.list(log);
        key
    }

    fn list(&mut self, log: LogId) {
        if let Some(reads) = self.logs.get_mut(&log)
            && !reads.waiting.is_empty()
            && !std::mem::replace(&mut reads.is_listed, true)
        {
            self.listed.push_back(log);
        }
    }

    /// The server takes reads on this stream.
    pub(super) fn welcomed(&mut self, window: Window) {
        self.window = Some(window);
    }

    /// What is free of the window; `None` where nothing may be sent.
    fn room(&self) -> Option<(Window, usize)> {
        let window = self.window?;
        let free = window.bytes.saturating_sub(self.held);
        let is_full = self.of.len() >= window.reads || self.held > 0 && free < window.least();
        (!is_full).then_some((window, free))
    }

    /// There may be something to send, or something waits for a stream.
    pub(super) fn is_ready(&self) -> bool {
        let may_send = self.window.is_none() || self.room().is_some();
        !self.cancelled.is_empty() || !self.listed.is_empty() && may_send
    }

    /// What is to be sent next, if anything may be.
    pub(super) fn next(&mut self, now: Instant) -> Option<proto::ReadRequest> {
        while let Some(id) = self.cancelled.pop_front() {
            if self.of.contains_key(&id) {
                return Some(proto::ReadRequest { kind: Some(Kind::Cancel(id)) });
            }
        }
        let (window, free) = self.room()?;
        while let Some(log) = self.listed.pop_front() {
            let Some(reads) = self.logs.get_mut(&log) else { continue };
            let Some(key) = reads.waiting.front().copied() else {
                reads.is_listed = false;
                self.clear(log);
                continue;
            };
            let asked = self.reads.get_mut(&key).filter(|asked| asked.deadline > now);
            let Some(asked) = asked else {
                // It is late: its caller hears of that from its own clock.
                reads.waiting.pop_front();
                self.listed.push_front(log);
                self.reads.entry(key).and_modify(|asked| asked.place = Place::Answered);
                continue;
            };
            let wanted = asked.read.max_bytes.min(MAX_READ_BYTES);
            let full = wanted.max(MIN_CREDIT_BYTES.min(window.least())).max(asked.needs);
            let least = full.min(window.least()).max(asked.needs);
            // 2 of the module.
            let room = free.saturating_sub(reads.held);
            let left = window.reads.saturating_sub(self.of.len());
            let has_room = charge(least) <= room && reads.unanswered < left;
            if !has_room && self.held > 0 {
                self.blocked.push(log);
                continue;
            }
            let credit = full.min(least.max((room / 2).saturating_sub(OVERHEAD)));
            // 1 of the module.
            debug_assert!(self.held == 0 || self.held + charge(credit) <= window.bytes);
            let id = self.next_id;
            self.next_id += 1;
            let terms = wire::ReadTerms {
                id,
                max_bytes: credit,
                credit_bytes: credit,
                timeout: (asked.deadline - now).max(Duration::from_millis(1)),
            };
            let message = wire::read_message(&asked.read, terms);
            (asked.place, asked.credit, asked.held) = (Place::Sent(id), credit, charge(credit));
            reads.waiting.pop_front();
            reads.held += asked.held;
            reads.unanswered += 1;
            self.held += asked.held;
            self.of.insert(id, key);
            reads.is_listed = !reads.waiting.is_empty();
            if reads.is_listed {
                self.listed.push_back(log);
            }
            return Some(proto::ReadRequest { kind: Some(Kind::Read(message)) });
        }
        None
    }

    /// The server has answered; who is to be told what. `None`: it answered what nobody asked, or
    /// more than was granted, or what isn't understood.
    pub(super) fn answered(
        &mut self,
        message: proto::ReadAnswer,
    ) -> Option<Option<(ReadReply, ReadResult)>> {
        let key = *self.of.get(&message.id)?;
        let asked = self.reads.get_mut(&key)?;
        let log = asked.read.log;
        let credit = asked.credit;
        let mut result = None;
        match message.kind? {
            Answer::Outcome(outcome) => {
                let outcome = wire::outcome(outcome)?;
                (outcome.bytes() <= credit).then_some(())?;
                result = Some(Ok(outcome));
            }
            Answer::Error(error) => result = Some(Err(wire::read_error(error)?)),
            Answer::NeedsBytes(bytes) => {
                let bytes = usize::try_from(bytes).ok()?;
                (bytes > credit && bytes <= MAX_MESSAGE_BYTES).then_some(())?;
                asked.needs = bytes;
            }
            Answer::Dropped(_) => {}
            Answer::Welcome(_) => return None,
        }
        self.of.remove(&message.id);
        if let Some(reads) = self.logs.get_mut(&log) {
            reads.unanswered -= 1;
        }
        let bytes = match &result {
            Some(Ok(outcome)) => charge(outcome.bytes()),
            Some(Err(_)) | None => 0,
        };
        match (asked.reply.take(), result) {
            (Some(reply), Some(result)) => {
                asked.place = Place::Answered;
                let over = asked.held - bytes;
                asked.held = bytes;
                self.free(log, over);
                Some(Some((reply, result)))
            }
            (Some(reply), None) => {
                asked.reply = Some(reply);
                asked.place = Place::Waiting;
                let held = std::mem::take(&mut asked.held);
                self.free(log, held);
                self.logs.entry(log).or_default().waiting.push_front(key);
                self.list(log);
                Some(None)
            }
            // Its caller has gone.
            (None, _) => {
                let held = asked.held;
                self.reads.remove(&key);
                self.free(log, held);
                Some(None)
            }
        }
    }

    /// `bytes` of what a log held are free again.
    fn free(&mut self, log: LogId, bytes: usize) {
        self.held -= bytes;
        if let Some(reads) = self.logs.get_mut(&log) {
            reads.held -= bytes;
        }
        for log in self.blocked.drain(..).rev() {
            self.listed.push_front(log);
        }
        self.clear(log);
    }

    /// Forgets a log of which nothing is here.
    fn clear(&mut self, log: LogId) {
        let is_empty =
            |reads: &LogReads| reads.waiting.is_empty() && reads.held == 0 && reads.unanswered == 0;
        if self.logs.get(&log).is_some_and(|reads| is_empty(reads) && !reads.is_listed) {
            self.logs.remove(&log);
        }
    }

    /// The caller of a read has its answer, or doesn't wait any more.
    pub(super) fn done(&mut self, key: u64) {
        let Some(asked) = self.reads.get_mut(&key) else { return };
        match asked.place {
            Place::Sent(id) => {
                asked.reply = None;
                self.cancelled.push_back(id);
            }
            Place::Waiting | Place::Answered => self.remove(key),
        }
    }

    fn remove(&mut self, key: u64) {
        let Some(asked) = self.reads.remove(&key) else { return };
        let log = asked.read.log;
        if asked.place == Place::Waiting
            && let Some(reads) = self.logs.get_mut(&log)
        {
            reads.waiting.retain(|waiting| *waiting != key);
        }
        self.free(log, asked.held);
    }

    /// The stream is gone: what was asked is asked again on the next one.
    pub(super) fn cut(&mut self) {
        self.window = None;
        self.cancelled.clear();
        let mut sent: Vec<_> = self.of.drain().collect();
        sent.sort_unstable();
        for (_, key) in sent.into_iter().rev() {
            let Some(asked) = self.reads.get_mut(&key) else { continue };
            let (log, held) = (asked.read.log, std::mem::take(&mut asked.held));
            asked.place = Place::Waiting;
            let is_wanted = asked.reply.is_some();
            if let Some(reads) = self.logs.get_mut(&log) {
                reads.unanswered -= 1;
                if is_wanted {
                    reads.waiting.push_front(key);
                }
            }
            if !is_wanted {
                self.reads.remove(&key);
            }
            self.free(log, held);
            self.list(log);
        }
    }

    /// There is no stream: the reads that wait for it no longer, because it won't come or they had
    /// their `patience`.
    pub(super) fn give_up(
        &mut self,
        now: Instant,
        is_final: bool,
        patience: Duration,
    ) -> Vec<(LogId, ReadReply)> {
        let mut over = Vec::new();
        for (key, asked) in &mut self.reads {
            if asked.place != Place::Waiting {
                continue;
            }
            asked.failures += 1;
            // A connection that was lost is made anew at least once.
            if is_final || asked.failures > 1 && now - asked.began >= patience {
                over.push(*key);
            }
        }
        over.sort_unstable();
        let mut given_up = Vec::new();
        for key in over {
            if let Some(asked) = self.reads.get_mut(&key)
                && let Some(reply) = asked.reply.take()
            {
                given_up.push((asked.read.log, reply));
            }
            self.remove(key);
        }
        given_up
    }
}

/// Any answers, to reads that were asked under their ids: for fuzzing.
pub(crate) fn fuzz_answers(answers: proto::ReadAnswers) {
    let mut reads = Reads::default();
    reads.welcomed(Window { bytes: 1 << 20, reads: 8 });
    let now = Instant::now();
    for log in 0..8 {
        let (reply, _) = oneshot::channel();
        let read =
            Read { log: LogId(log), offset: 0, max_bytes: 100, stable_only: false, filter: None };
        reads.ask(read, reply, now, now + Duration::from_secs(1));
    }
    while reads.next(now).is_some() {}
    for answer in answers.answers {
        if reads.answered(answer).is_none() {
            reads.cut();
            reads.welcomed(Window { bytes: 1 << 20, reads: 8 });
        }
        while reads.next(now).is_some() {}
    }
    reads.cut();
    (0..8).for_each(|key| reads.done(key));
    assert!(reads.held == 0 && reads.reads.is_empty());
}
