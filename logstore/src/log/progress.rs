//! What the journal reports, carried to the logs that wait for it.
//!
//! Logs with entries that aren't durable are on one list. A report takes the list, lets each log
//! answer whom it can, and puts back those that still wait: the cost is a log's, not an append's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use tokio::sync::{Notify, watch};

use super::append::Listing;
use super::replicas::Held;
use super::service::Inner;
use super::state::SharedLog;
use crate::AppendError;
use crate::store::{Position, StoreError, StoreEvents};

/// Who waits for the journal: a log at its sequencer, or a replica.
pub(super) enum Listed {
    Log(SharedLog),
    Held(Arc<Held>),
}

impl Listed {
    /// The journal went on. Says whether it still waits.
    fn complete(&self, inner: &Arc<Inner>) -> bool {
        match self {
            Self::Log(log) => log.complete(inner),
            Self::Held(held) => held.complete(inner),
        }
    }
}

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
    /// The disk takes nothing: it is full, or the journal has failed.
    is_out: watch::Sender<bool>,
    listed: Mutex<Vec<Listed>>,
    /// Tasks that wait for a report.
    reported: Notify,
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

    /// Whether the disk takes nothing: it is full, or the journal has failed.
    pub(super) fn is_out(&self) -> bool {
        *self.is_out.borrow()
    }

    /// Tells of changes of that.
    pub(super) fn watch_out(&self) -> watch::Receiver<bool> {
        self.is_out.subscribe()
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

    /// Resolves when the journal has reported after this call, or failed.
    pub(super) fn next_report(&self) -> impl Future<Output = ()> + Send + '_ {
        let mut reported = Box::pin(self.reported.notified());
        reported.as_mut().enable();
        let has_failed = self.failure().is_some();
        async move {
            if !has_failed {
                reported.await;
            }
        }
    }

    /// Resolves when the journal has failed.
    pub(super) async fn failed_for_good(&self) {
        while self.failure().is_none() {
            self.next_report().await;
        }
    }

    /// Resolves when everything up to `position` is durable.
    ///
    /// # Errors
    /// The journal failed.
    pub(super) async fn wait_durable(&self, position: Position) -> Result<(), StoreError> {
        loop {
            let report = self.next_report();
            if self.durable_position().is_some_and(|durable| durable >= position) {
                return Ok(());
            }
            if let Some(reason) = self.failure() {
                return Err(StoreError::Failed(reason.to_owned()));
            }
            report.await;
        }
    }

    /// Resolves when all that was appended until now is durable.
    ///
    /// # Errors
    /// The journal failed.
    pub(super) async fn wait_settled(&self) -> Result<(), StoreError> {
        match self.appended.load(Ordering::Relaxed).checked_sub(1) {
            Some(last) => self.wait_durable(Position(last)).await,
            None => Ok(()),
        }
    }

    /// Puts a log or a replica on the list.
    pub(super) fn enlist(&self, listed: Listed, listing: Listing) {
        self.listed.lock().push(listed);
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
            let mut logs: Vec<Listed> = std::mem::take(&mut *self.listed.lock());
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
        self.reported.notify_waiters();
    }

    fn failed(&self, reason: &str) {
        if self.failure.set(reason.to_owned()).is_err() {
            return;
        }
        tracing::error!(reason, "the journal failed: no more appends are taken, reads go on");
        self.reported.notify_waiters();
        self.is_out.send_replace(true);
        let Some(inner) = self.inner.get().and_then(Weak::upgrade) else { return };
        let refusal = AppendError::JournalFailed;
        for log in inner.all_logs() {
            if !log.leave_failed_journal(&inner) {
                log.abandon(&inner, &refusal, &refusal);
            }
        }
    }

    fn full(&self, is_full: bool) {
        self.is_out.send_if_modified(|is_out| {
            let is_to_be = is_full || self.failure().is_some();
            std::mem::replace(is_out, is_to_be) != is_to_be
        });
    }
}
