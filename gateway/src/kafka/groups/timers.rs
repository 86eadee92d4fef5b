//! When groups are to be called: one list, one task.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::sleep_until;

use super::core::Ms;
use super::registry::Groups;
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

impl Groups {
    /// Calls groups when they are due.
    pub(super) async fn run_timers(self: Arc<Self>) {
        loop {
            let now = self.now();
            while let Some((at, slot)) = self.timers.take(now) {
                let Some(slot) = slot.upgrade() else { continue };
                if self.check(&slot.name).is_err() {
                    // Its members were not let through, so their silence means nothing.
                    self.let_go(&slot);
                    continue;
                }
                let mut group = slot.group.lock();
                if slot.scheduled() != at {
                    // An earlier time came up since; this one is void.
                    continue;
                }
                slot.set_scheduled(Ms::MAX);
                let mut out = Vec::new();
                group.tick(now, self.settings(), &mut out);
                self.apply(&slot, &mut group, out);
            }
            match self.timers.next() {
                Some(at) => {
                    let until = self.epoch + Duration::from_millis(at);
                    tokio::select! {
                        () = sleep_until(until) => {}
                        () = self.timers.earlier() => {}
                    }
                }
                None => self.timers.earlier().await,
            }
        }
    }
}
