//! What the journal reports, carried to the logs that wait for it.
//!
//! Logs with entries that aren't durable are on one list. A report takes the list, lets each log
//! answer whom it can, and puts back those that still wait: the cost is a log's, not an append's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::append::Listing;
use super::service::Inner;
use super::state::SharedLog;
use crate::AppendError;
use crate::store::{Position, StoreEvents};

/// The store's events on their way to a [`LogStore`](super::LogStore): made first, given to the
/// store and then to the log service.
#[derive(Default)]
pub struct Progress {
    /// One past the largest durable position; 0: none yet.
    durable: AtomicU64,
    /// Reports of the journal so far.
    reports: AtomicU64,
    /// One past the largest position that was given out.
    appended: AtomicU64,
    failure: OnceLock<String>,
    listed: Mutex<Vec<SharedLog>>,
    inner: OnceLock<Weak<Inner>>,
}

impl Progress {
    /// Events that nobody listens to yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Why the journal failed, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// How far the durable position is behind what was appended.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let durable = self.durable.load(Ordering::Relaxed);
        self.appended.load(Ordering::Relaxed).saturating_sub(durable)
    }

    pub(super) fn attach(&self, inner: &Arc<Inner>) {
        // Set once, by the only service that is made with these events.
        let _ = self.inner.set(Arc::downgrade(inner));
    }

    pub(super) fn appended(&self, position: Position) {
        self.appended.fetch_max(position.0.saturating_add(1), Ordering::Relaxed);
    }

    /// Everything up to here is durable.
    pub(super) fn durable_position(&self) -> Option<Position> {
        self.durable.load(Ordering::SeqCst).checked_sub(1).map(Position)
    }

    /// How often the journal has reported.
    pub(super) fn reports(&self) -> u64 {
        self.reports.load(Ordering::SeqCst)
    }

    /// Puts a log on the list.
    pub(super) fn enlist(&self, log: &SharedLog, listing: Listing) {
        self.listed.lock().push(Arc::clone(log));
        // A report that came between the append and the line above has not seen the log.
        let is_late = match listing {
            Listing::Durable(position) => {
                self.durable_position().is_some_and(|durable| durable >= position)
            }
            Listing::Room(reports) => self.reports() != reports,
        };
        if is_late {
            self.sweep();
        }
    }

    fn sweep(&self) {
        let Some(inner) = self.inner.get().and_then(Weak::upgrade) else { return };
        loop {
            let seen = self.reports();
            let mut logs = std::mem::take(&mut *self.listed.lock());
            if logs.is_empty() {
                return;
            }
            logs.retain(|log| log.complete(&inner));
            let mut listed = self.listed.lock();
            if listed.is_empty() {
                *listed = logs;
            } else {
                listed.append(&mut logs);
            }
            drop(listed);
            // A report during the loop may have found the list empty.
            if self.reports() == seen {
                return;
            }
        }
    }
}

impl StoreEvents for Progress {
    fn durable(&self, position: Position) {
        self.durable.fetch_max(position.0.saturating_add(1), Ordering::SeqCst);
        self.reports.fetch_add(1, Ordering::SeqCst);
        self.sweep();
    }

    fn failed(&self, reason: &str) {
        if self.failure.set(reason.to_owned()).is_err() {
            return;
        }
        tracing::error!(reason, "the journal failed: no more appends are taken, reads go on");
        let Some(inner) = self.inner.get().and_then(Weak::upgrade) else { return };
        let refusal = AppendError::JournalFailed;
        for log in inner.all_logs() {
            log.abandon(&inner, &refusal, &refusal);
        }
    }
}
