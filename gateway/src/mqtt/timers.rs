//! When sessions expire and delayed wills are due: one task, one ordered map with at most one entry
//! a session.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::session::Session;

/// The timers of all sessions, on tokio's clock.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// By time and the session's key.
    due: Mutex<BTreeMap<(Instant, u64), Weak<Session>>>,
    sooner: Notify,
}

impl Timers {
    pub(crate) fn set(&self, at: Instant, session: &Arc<Session>) {
        let key = (at, session.key);
        let mut due = self.due.lock();
        let is_first = due.first_key_value().is_none_or(|(first, _)| key < *first);
        due.insert(key, Arc::downgrade(session));
        drop(due);
        if is_first {
            self.sooner.notify_one();
        }
    }

    pub(crate) fn cancel(&self, at: Instant, session: &Arc<Session>) {
        self.due.lock().remove(&(at, session.key));
    }

    /// How many are set.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.due.lock().len()
    }

    /// Calls `each` with each session when it is due.
    pub(crate) async fn run(&self, each: impl Fn(&Arc<Session>)) {
        loop {
            let next = self.due.lock().first_key_value().map(|((at, _), _)| *at);
            match next {
                None => self.sooner.notified().await,
                Some(at) if at <= Instant::now() => {
                    let entry = self.due.lock().pop_first();
                    if let Some(session) = entry.and_then(|(_, session)| session.upgrade()) {
                        each(&session);
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
