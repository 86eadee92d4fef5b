//! What one stay at a node tells, and what of it the observer is to hear.

use std::sync::Weak;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use interflow_meta::LogId;

use super::Follower;
use crate::{AppendKey, Bounds, EarlyBatch, LogObserver, Withheld};

/// Producers of one log whose newest early batch is remembered. Beyond it all are forgotten.
pub(super) const MAX_PRODUCERS: usize = 4_096;

/// What was told.
#[derive(Default)]
pub(super) struct Heard {
    /// Stays so far.
    pub(super) stays: u64,
    pub(super) bounds: Option<Bounds>,
    /// The next offsets are the first of a stay that isn't the first.
    pub(super) is_back: bool,
    /// The newest early batch shown of each producer.
    pub(super) shown: HashMap<i64, AppendKey>,
    /// Those that the stays before this one showed: they come again when their appends do.
    pub(super) shown_before: HashMap<i64, AppendKey>,
}

/// The observer of one stay.
pub(in crate::routing) struct Ear {
    pub(super) follower: Weak<Follower>,
    pub(super) stay: u64,
}

/// Whether `key` is at or before `shown`, of the same producer.
fn was_shown(shown: &HashMap<i64, AppendKey>, key: AppendKey) -> bool {
    shown.get(&key.producer_id).is_some_and(|shown| {
        // Sequences wrap from the greatest to 0.
        let behind = shown.sequence.wrapping_sub(key.sequence) & i32::MAX;
        key.producer_epoch < shown.producer_epoch
            || key.producer_epoch == shown.producer_epoch && behind < i32::MAX / 2
    })
}

impl Heard {
    fn advance(&mut self, bounds: Bounds) -> Bounds {
        let before = self.bounds.unwrap_or(bounds);
        let bounds = Bounds {
            start: bounds.start.max(before.start),
            committed: bounds.committed.max(before.committed),
            stable: bounds.stable.max(before.stable),
            leader_epoch: bounds.leader_epoch.max(before.leader_epoch),
        };
        self.bounds = Some(bounds);
        bounds
    }
}

impl LogObserver for Ear {
    fn advanced(&self, log: LogId, bounds: Bounds) {
        self.tell(|follower, heard| {
            let bounds = heard.advance(bounds);
            if std::mem::take(&mut heard.is_back) {
                follower.observer.withheld(log, Withheld::Below(bounds.committed));
            }
            follower.observer.advanced(log, bounds);
        });
    }

    fn early(&self, log: LogId, batch: &EarlyBatch) {
        self.tell(|follower, heard| {
            if was_shown(&heard.shown_before, batch.key) {
                return follower.observer.withheld(log, Withheld::UpTo(batch.key));
            }
            if heard.shown.len() >= MAX_PRODUCERS {
                heard.shown.clear();
            }
            heard.shown.insert(batch.key.producer_id, batch.key);
            follower.observer.early(log, batch);
        });
    }

    fn withheld(&self, log: LogId, until: Withheld) {
        self.tell(|follower, _| follower.observer.withheld(log, until));
    }

    fn moved(&self, _: LogId) {
        self.leave();
    }

    /// The log was deleted, or the client of its node is none any more: meta knows.
    fn ended(&self, _: LogId) {
        self.leave();
    }
}

impl Ear {
    /// Calls the observer under a lock, so that nothing of an earlier stay comes after this.
    fn tell(&self, tell: impl FnOnce(&Follower, &mut Heard)) {
        let Some(follower) = self.follower.upgrade() else { return };
        let mut heard = follower.heard.lock();
        if self.is_heard(&follower) {
            tell(&follower, &mut heard);
        }
    }

    fn is_heard(&self, follower: &Follower) -> bool {
        follower.stay.load(Ordering::SeqCst) == self.stay
    }

    fn leave(&self) {
        let Some(follower) = self.follower.upgrade() else { return };
        // Its observation is over, and is none to be placed at any more, also if who begins it
        // doesn't know yet that it has begun.
        let ordering = Ordering::SeqCst;
        if follower.stay.compare_exchange(self.stay, 0, ordering, ordering).is_err() {
            return;
        }
        let at = follower.at.lock().take();
        if let (Some(router), Some(at)) = (follower.router.upgrade(), &at) {
            router.routes.forget(follower.log, &at.client);
        }
        drop(at);
        follower.moved();
    }
}
