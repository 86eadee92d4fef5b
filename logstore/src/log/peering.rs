//! What a sequencer sends its peers, done under its log's lock so that it is sent in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::append::{Effects, Work};
use super::service::Inner;
use super::state::{Active, Payload, SharedLog, Stage, segment};
use crate::Durability;
use crate::core::replication::{self, Effect, Reply};
use crate::peers::{Descriptor, SentEntry, ToReplica};
use crate::store::SegmentId;

/// A segment whose quorum is gone for so long is closed with those that are there. Milliseconds.
const STUCK_MS: u64 = 1_000;

/// Bytes that a log keeps for its peers, as part of those of all logs.
pub(super) struct Kept {
    all: Arc<AtomicU64>,
    own: u64,
}

impl Kept {
    pub(super) fn new(all: &Arc<AtomicU64>) -> Self {
        Self { all: Arc::clone(all), own: 0 }
    }

    /// It keeps `bytes` now; returns what all keep.
    fn set(&mut self, bytes: u64) -> u64 {
        let before = std::mem::replace(&mut self.own, bytes);
        if bytes >= before {
            self.all.fetch_add(bytes - before, Ordering::Relaxed);
        } else {
            self.all.fetch_sub(before - bytes, Ordering::Relaxed);
        }
        self.all.load(Ordering::Relaxed)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Active {
    /// The segment.
    pub(super) fn id(&self) -> SegmentId {
        segment(self.log, self.head.epoch)
    }

    /// What is kept with an entry, if there are peers.
    pub(super) fn for_peers(&self, sent: impl FnOnce() -> SentEntry) -> Payload {
        (!self.links.is_empty()).then(|| Arc::new(sent()))
    }

    /// Finds the ways to the segment's peers, and hears from them from now on.
    pub(super) fn attach(&mut self, inner: &Arc<Inner>, log: &SharedLog, effects: &mut Effects) {
        let (id, me) = (self.id(), inner.me().node);
        let others = self.head.replicas.iter().filter(|node| **node != me);
        self.links = others.map(|node| inner.links.to(inner, *node)).collect();
        for peer in 1..=self.links.len() {
            let is_up = self.links.get(peer - 1).is_some_and(|link| link.enter(id, log, peer));
            if !is_up {
                let now_ms = inner.clock.monotonic_ms();
                let wanted = self.replication.reply(now_ms, peer, Reply::Detached);
                self.replicate(inner, wanted, effects);
            }
        }
    }

    /// Sends a peer word of what is committed: one that is sealed says so.
    pub(super) fn ask_whether_sealed(&self, peer: usize) {
        let link = peer.checked_sub(1).and_then(|index| self.links.get(index));
        if let Some(link) = link {
            let committed = self.replication.sequencer().committed();
            link.send(ToReplica::Committed { id: self.id(), committed });
        }
    }

    /// Nothing more is heard from the segment's peers.
    pub(super) fn detach(&mut self) {
        let id = self.id();
        for link in self.links.drain(..) {
            link.leave(id);
        }
    }

    /// Others close the segment: takes no more, and learns where it ends.
    pub(super) fn stop(&mut self, inner: &Inner, effects: &mut Effects) {
        let wanted = self.replication.stop();
        self.replicate(inner, wanted, effects);
    }

    /// Does what the core wants done.
    pub(super) fn replicate(
        &mut self,
        inner: &Inner,
        wanted: replication::Effects<Payload>,
        effects: &mut Effects,
    ) {
        self.send(inner, wanted, effects);
        let kept = self.kept.set(self.replication.kept_bytes());
        if kept > inner.config.max_kept_bytes {
            let wanted = self.replication.shed();
            self.send(inner, wanted, effects);
            self.kept.set(self.replication.kept_bytes());
        }
        if !self.links.is_empty() {
            self.look_for_quorum(inner);
        }
    }

    /// Looks whether the quorum is gone.
    fn look_for_quorum(&mut self, inner: &Inner) {
        if !self.replication.is_stuck() {
            self.stuck_until_ms = None;
        } else if self.stuck_until_ms.is_none() {
            let until_ms = inner.clock.monotonic_ms().saturating_add(STUCK_MS);
            self.stuck_until_ms = Some(until_ms);
            inner.timers.arm(until_ms, self.log);
        }
    }

    /// Whether the quorum has been gone for too long; says so once.
    pub(super) fn is_to_recover(&mut self, inner: &Inner) -> bool {
        let now_ms = inner.clock.monotonic_ms();
        let is_late = self.stuck_until_ms.is_some_and(|until_ms| until_ms <= now_ms);
        let is_own = matches!(self.stage, Stage::Open | Stage::Draining);
        if is_late {
            self.stuck_until_ms = None;
        }
        is_late && is_own && self.replication.is_stuck()
    }

    fn send(
        &mut self,
        inner: &Inner,
        wanted: replication::Effects<Payload>,
        effects: &mut Effects,
    ) {
        let id = self.id();
        for effect in wanted {
            match effect {
                Effect::Store { peer, entry, payload, committed } => {
                    let (Some(link), Some(sent)) = (self.links.get(peer - 1), payload) else {
                        continue;
                    };
                    let tells_received = self.head.durability != Durability::Durable;
                    let of = Descriptor { id, base: self.head.base, tells_received };
                    link.send(ToReplica::Store { of, entry, committed, sent });
                }
                Effect::Committed { peer, committed } => {
                    if let Some(link) = self.links.get(peer - 1) {
                        link.send(ToReplica::Committed { id, committed });
                    }
                }
                Effect::Timer { at_ms } => inner.timers.arm(at_ms, self.log),
                Effect::WantsRoll { peer } => {
                    let node = self.head.replicas.get(peer);
                    tracing::debug!(log = %self.log, ?node, "a replica is slow: rolling");
                    if self.stage == Stage::Open {
                        node.inspect(|node| inner.mending.is_slow(**node));
                        self.stage = Stage::Draining;
                    }
                }
                Effect::Stopped if self.stage == Stage::Closing => {}
                Effect::Stopped => {
                    self.stage = Stage::Stopped;
                    effects.work = Some(Work::Learn);
                }
            }
        }
    }
}
