//! When groups are to be called: one list, one task.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::core::Ms;
use super::slot::Slot;

/// Groups by the time at which they are called.
#[derive(Default)]
pub(super) struct Timers {
    state: Mutex<State>,
    /// An earlier time than all others was added.
    earlier: Notify,
}

#[derive(Default)]
struct State {
    due: BTreeMap<(Ms, u64), Weak<Slot>>,
    next: u64,
}

impl Timers {
    /// Calls `slot` at `at`, unless it is called before that anyhow. Call with its group locked.
    pub(super) fn schedule(&self, slot: &Arc<Slot>, at: Option<Ms>) {
        let Some(at) = at.filter(|at| *at < slot.scheduled()) else { return };
        slot.set_scheduled(at);
        let mut state = self.state.lock();
        let number = state.next;
        state.next += 1;
        let is_first = state.due.first_key_value().is_none_or(|((first, _), _)| at < *first);
        state.due.insert((at, number), Arc::downgrade(slot));
        drop(state);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// The next time at which somebody is called.
    pub(super) fn next(&self) -> Option<Ms> {
        self.state.lock().due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes one that is due at `now`, with the time for which it was scheduled.
    pub(super) fn take(&self, now: Ms) -> Option<(Ms, Weak<Slot>)> {
        let mut state = self.state.lock();
        let first = state.due.first_entry()?;
        let at = first.key().0;
        (at <= now).then(|| (at, first.remove()))
    }

    /// Resolves when [`next`](Timers::next) has become earlier.
    pub(super) async fn earlier(&self) {
        self.earlier.notified().await;
    }
}
