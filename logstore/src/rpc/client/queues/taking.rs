//! What a router does with a log's appends here: takes them back, or has them sent after all.

use std::collections::VecDeque;

use interflow_meta::LogId;
use tokio::time::Instant;

use super::super::node::Unanswered;
use super::Queues;
use super::log::{Item, list};
use crate::AppendError;

impl Queues {
    /// The log's appends, in the order of the calls, but those without an append key that are in
    /// flight: these stay until they are answered. The others' places in the window do too.
    pub(crate) fn take_back(&mut self, log: LogId) -> VecDeque<Unanswered> {
        let Some(queue) = self.logs.get_mut(&log) else { return VecDeque::new() };
        let overtaken = if queue.is_in_flight() { queue.overtaken() } else { VecDeque::new() };
        for item in overtaken {
            self.bytes -= item.bytes();
            item.answer(Err(AppendError::NotSequencer));
        }
        let mut taken = std::mem::take(&mut queue.refused);
        for sent in &mut queue.sent {
            match sent.item.take_if(|item| item.is_keyed()) {
                Some(mut item) => {
                    item.of.may_be_kept = true;
                    taken.push_back(item);
                }
                None => sent.is_left = true,
            }
        }
        taken.append(&mut queue.waiting);
        queue.is_stopped = false;
        let bytes: usize = taken.iter().map(Item::bytes).sum();
        queue.bytes -= bytes;
        self.bytes -= bytes;
        if queue.is_empty() {
            self.logs.remove(&log);
        }
        let taken: VecDeque<_> = taken.into_iter().map(|item| item.of).collect();
        debug_assert!(taken.iter().is_sorted_by(|a, b| a.number < b.number));
        taken
    }

    /// What was refused of the log is sent again, unless something behind it is in flight: its
    /// answer tells of the log once more.
    pub(crate) fn resume(&mut self, log: LogId) {
        if let Some(queue) = self.logs.get_mut(&log)
            && queue.is_stopped
            && !queue.is_in_flight()
        {
            queue.resume();
            list(&mut self.listed, log, queue);
        }
    }

    pub(crate) fn has_unanswered(&self, log: LogId) -> bool {
        self.logs.get(&log).is_some_and(|queue| queue.items().next().is_some())
    }

    /// The logs that somebody waits for.
    pub(crate) fn unanswered(&self) -> Vec<LogId> {
        let waits = self.logs.iter().filter(|(_, queue)| queue.items().next().is_some());
        waits.map(|(log, _)| *log).collect()
    }

    /// The logs whose oldest append wasn't answered for too long at `now`, each once in as long.
    /// Without a stream none is: that is another matter.
    pub(crate) fn silent(&mut self, now: Instant) -> Vec<LogId> {
        if !self.limits.is_routed {
            return Vec::new();
        }
        let silence = self.limits.silence;
        let is_silent = |since: Instant| since + silence <= now;
        let mut silent = Vec::new();
        for (log, queue) in &mut self.logs {
            let Some(since) = queue.items().next().map(|item| item.since) else { continue };
            if is_silent(since) && queue.told_silent.is_none_or(is_silent) {
                queue.told_silent = Some(now);
                if self.window.is_some() {
                    silent.push(*log);
                }
            }
        }
        silent
    }
}
