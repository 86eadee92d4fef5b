//! The unanswered appends of one log.

use std::collections::VecDeque;

use interflow_meta::LogId;
use tokio::time::Instant;

use super::super::node::Unanswered;
use crate::AppendResult;
use crate::rpc::charge;

#[derive(Debug)]
pub(super) struct Item {
    pub(super) of: Unanswered,
    /// When it came here or was sent.
    pub(super) since: Instant,
}

impl Item {
    pub(super) fn bytes(&self) -> usize {
        charge(self.of.append.batch.len())
    }

    pub(super) fn is_keyed(&self) -> bool {
        self.of.append.key.is_some()
    }

    pub(super) fn answer(self, result: AppendResult) {
        self.of.reply.send(result);
    }
}

/// A place in the stream's window, kept until the server answers.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: u64,
    pub(super) bytes: usize,
    /// Given up or taken back before that: nobody hears the answer.
    pub(super) item: Option<Item>,
    /// What was behind it is elsewhere.
    pub(super) is_left: bool,
}

#[derive(Debug, Default)]
pub(super) struct LogQueue {
    /// The node isn't the sequencer of these; nothing is sent until that is looked into.
    pub(super) refused: VecDeque<Item>,
    pub(super) sent: VecDeque<Sent>,
    pub(super) waiting: VecDeque<Item>,
    /// Of the window.
    pub(super) sent_bytes: usize,
    /// Of all that is here and unanswered.
    pub(super) bytes: usize,
    pub(super) is_listed: bool,
    pub(super) is_stopped: bool,
    pub(super) told_silent: Option<Instant>,
}

impl LogQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.sent.is_empty() && self.waiting.is_empty()
    }

    /// Its appends in the order of the calls.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        let sent = self.sent.iter().filter_map(|sent| sent.item.as_ref());
        self.refused.iter().chain(sent).chain(&self.waiting)
    }

    /// What was sent since it was last taken back and isn't answered.
    pub(super) fn in_flight(&self) -> impl DoubleEndedIterator<Item = &Item> {
        let sent = self.sent.iter().filter(|sent| !sent.is_left);
        sent.filter_map(|sent| sent.item.as_ref())
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight().next().is_some()
    }

    pub(super) fn last_number(&self) -> Option<u64> {
        let last = self.waiting.back().or_else(|| self.in_flight().next_back());
        last.or(self.refused.back()).map(|item| item.of.number)
    }

    /// Takes out of the refused what must not be sent again when others behind it may have been kept:
    /// what has no append key.
    pub(super) fn overtaken(&mut self) -> VecDeque<Item> {
        let (keyed, overtaken): (VecDeque<_>, VecDeque<_>) =
            self.refused.drain(..).partition(Item::is_keyed);
        self.refused = keyed;
        let bytes: usize = overtaken.iter().map(Item::bytes).sum();
        self.bytes -= bytes;
        overtaken
    }

    /// What was refused is to be sent again, before what waits.
    pub(super) fn resume(&mut self) {
        self.is_stopped = false;
        while let Some(item) = self.refused.pop_back() {
            self.waiting.push_front(item);
        }
    }
}

/// There may be something to send of the log.
pub(super) fn list(listed: &mut VecDeque<LogId>, log: LogId, queue: &mut LogQueue) {
    let is_due = !queue.is_stopped && !queue.waiting.is_empty();
    if is_due && !std::mem::replace(&mut queue.is_listed, true) {
        listed.push_back(log);
    }
}
