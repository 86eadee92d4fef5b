//! When sessions expire and delayed wills are due: one task, one heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::session::Session;

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// The session's will.
    Will,
    /// The session's end.
    Expiry,
}

/// Something due for a session, unless its generation is another by then.
#[derive(Debug)]
pub(crate) struct Entry {
    at: Instant,
    pub(crate) due: Due,
    pub(crate) session: Weak<Session>,
    pub(crate) generation: u64,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.due) == (other.at, other.due)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.due).cmp(&(other.at, other.due))
    }
}

/// The timers of all sessions, on tokio's clock.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Mutex<BinaryHeap<Reverse<Entry>>>,
    sooner: Notify,
}

/// The furthest that a timer reaches: a session that "never" expires is looked at again then.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Timers {
    pub(crate) fn set(&self, after_s: u32, due: Due, session: Weak<Session>, generation: u64) {
        let after = Duration::from_secs(u64::from(after_s)).min(FAR);
        let entry = Entry { at: Instant::now() + after, due, session, generation };
        let mut heap = self.heap.lock();
        let is_first = heap.peek().is_none_or(|Reverse(first)| entry.at < first.at);
        heap.push(Reverse(entry));
        drop(heap);
        if is_first {
            self.sooner.notify_one();
        }
    }

    /// Calls `each` with what is due, when it is due.
    pub(crate) async fn run(&self, each: impl Fn(Entry)) {
        loop {
            let next = self.heap.lock().peek().map(|Reverse(first)| first.at);
            match next {
                None => self.sooner.notified().await,
                Some(at) if at <= Instant::now() => {
                    let entry = self.heap.lock().pop();
                    if let Some(Reverse(entry)) = entry {
                        each(entry);
                    }
                }
                Some(at) => tokio::select! {
                    () = sleep_until(at) => {}
                    () = self.sooner.notified() => {}
                },
            }
        }
    }
}
