//! Keeps segments on as many nodes as they are to be on.
//!
//! ```text
//!   a log's sequencer:  replicas draining, gone, too few ─► roll to others
//!                       closed segments short ─► copy elsewhere, tell meta; others: `healing`
//!   a replica's node:   closed segments that it lacks a part of ─► pull
//!                       segments that the chain doesn't have (any more) ─► drop
//! ```
//!
//! A node that joins gets nothing but new segments. Logs are looked at when something has happened
//! to them here, and all of them after a change of the nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use interflow_meta::{Epoch, LogId, NodeId};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::metrics::add;
use super::registry::{HEADS, LogRecord};
use super::service::Inner;
use super::state::{SharedLog, Stage, segment};
use super::{healing, pulling, recovering, retain, scrub};
use crate::core::chain::Closed;
use crate::core::segment::Factor;
use crate::peers::Pull;
use crate::store::{FoundSegment, SegmentId};

/// A node whose disk is full looks so often whether there is room again.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(1);

/// A copy stays for so long, at least, though meta doesn't name this node for it: who had it made
/// says so there when all copies are made.
pub(super) const COPY_STAYS: Duration = Duration::from_secs(600);

/// A segment that is on too few nodes, and can't be copied, is tried again after so long, at first.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Logs that are to be looked at.
#[derive(Debug, Default)]
pub(super) struct Mending {
    logs: Mutex<BTreeSet<LogId>>,
    /// Segments of which the other replicas have something else.
    suspects: Mutex<BTreeSet<SegmentId>>,
    /// Segments that were copied to this node, and when: meta may not name it for them yet.
    copied: Mutex<BTreeMap<SegmentId, Instant>>,
    tally: Mutex<Tally>,
    filled: Notify,
    /// A closed segment is on fewer nodes than its quorum, and appends wait for that.
    wounded: Notify,
    /// Closed segments may be on fewer nodes than they are to be on, though their quorums have them.
    few: Notify,
    /// Other nodes live, take segments, or are gone.
    nodes: Notify,
}

/// What has happened to logs since it was last told: one line for all of them.
#[derive(Debug, Default)]
struct Tally {
    /// Logs that roll since a replica of theirs is slow, by its node.
    slow: BTreeMap<NodeId, usize>,
    /// Logs of whose replicas too few answer.
    stuck: usize,
    repaired: usize,
}

impl Tally {
    fn tell(self) {
        for (node, logs) in self.slow {
            tracing::info!(%node, logs, "replicas are slow: logs roll");
        }
        if self.stuck > 0 {
            let logs = self.stuck;
            tracing::warn!(logs, "too few replicas answer: closing segments with those that do");
        }
        if self.repaired > 0 {
            tracing::info!(segments = self.repaired, "repaired segments");
        }
    }
}

impl Mending {
    /// Something has happened to the log's segments here.
    pub(super) fn look_at(&self, log: LogId) {
        self.logs.lock().insert(log);
        self.filled.notify_one();
    }

    /// The same, with the next round: of two that look at one another neither wakes the other.
    pub(super) fn look_later(&self, log: LogId) {
        self.logs.lock().insert(log);
    }

    /// The log rolls, for its replica at `node` is slow.
    pub(super) fn is_slow(&self, node: NodeId) {
        *self.tally.lock().slow.entry(node).or_default() += 1;
        self.filled.notify_one();
    }

    /// Too few of a log's replicas answer.
    pub(super) fn is_stuck(&self) {
        self.tally.lock().stuck += 1;
        self.filled.notify_one();
    }

    /// Tells people of what has happened.
    fn tell(&self) {
        let tally = std::mem::take(&mut *self.tally.lock());
        tally.tell();
    }

    /// The other replicas have something else: this one is copied anew.
    pub(super) fn suspect(&self, id: SegmentId) {
        self.suspects.lock().insert(id);
        self.look_at(id.log);
    }

    /// Has segments that are on too few nodes copied soon.
    pub(super) fn heal_soon(&self) {
        self.wounded.notify_one();
    }

    /// Has closed segments looked at that may be on fewer nodes than they are to be on.
    pub(super) fn fill_soon(&self) {
        self.few.notify_one();
    }

    /// Resolves when closed segments are to be looked at that may be on too few nodes.
    pub(super) async fn few_changed(&self) {
        self.few.notified().await;
    }

    /// Resolves after a change of the nodes.
    pub(super) async fn nodes_changed(&self) {
        self.nodes.notified().await;
    }

    /// A segment is about to be copied to this node. When that has ended its log is to be looked at.
    pub(super) fn begins_copy(&self, id: SegmentId) {
        self.copied.lock().insert(id, Instant::now());
    }

    /// Takes a segment off the disk that this node needn't have, as far as is known; not if it was
    /// copied to it lately. Says whether it is gone.
    fn drop_unless_copied(&self, inner: &Inner, id: SegmentId) -> bool {
        let mut copied = self.copied.lock();
        copied.retain(|_, begun| begun.elapsed() < COPY_STAYS);
        if copied.contains_key(&id) {
            return false;
        }
        inner.store.drop_segment(id);
        add(&inner.metrics.dropped_segments, 1);
        true
    }

    fn is_suspect(&self, id: SegmentId) -> bool {
        self.suspects.lock().contains(&id)
    }

    fn take(&self) -> BTreeSet<LogId> {
        std::mem::take(&mut *self.logs.lock())
    }
}

/// Looks at all that is here at the start, and then at what changes, until the service stops.
pub(super) async fn run(inner: Arc<Inner>) {
    for found in inner.store.segments() {
        inner.mending.look_at(found.id.log);
    }
    let mut out = inner.progress.watch_out();
    let mut candidates = inner.peers.candidates();
    let mut healing = Healing::default();
    let longest = inner.config.retention_interval;
    let mut again = tokio::time::interval(longest);
    again.set_missed_tick_behavior(MissedTickBehavior::Delay);
    again.reset();
    loop {
        let is_full = inner.progress.is_out() && inner.progress.failure().is_none();
        let look = async {
            match is_full {
                true => tokio::time::sleep(LOOK_FOR_ROOM).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.mending.filled.notified() => mend_logs(&inner).await,
            () = inner.mending.wounded.notified() => {
                healing = Healing::default();
                healing.looked(place_logs(&inner).await, longest);
            }
            () = recovering::until(healing.at) => healing.looked(place_logs(&inner).await, longest),
            // The sender is there as long as `inner`.
            Ok(()) = out.changed() => healing.looked(place_logs(&inner).await, longest),
            () = look => inner.store.look_for_room(),
            () = inner.peers.changed() => {
                let before = std::mem::replace(&mut candidates, inner.peers.candidates());
                for new in candidates.iter().filter(|new| !before.contains(new)) {
                    inner.links.trust(new.node);
                }
                inner.mending.nodes.notify_one();
                healing.looked(place_logs(&inner).await, longest);
            }
            // What could not be done then.
            _ = again.tick() => {
                hear_of_heads(&inner).await;
                healing.looked(place_logs(&inner).await, longest);
                mend_logs(&inner).await;
            }
        }
    }
}

/// When segments that are on too few nodes are looked at again.
#[derive(Default)]
struct Healing {
    at: Option<Instant>,
    pause: Duration,
}

impl Healing {
    fn looked(&mut self, is_healed: bool, longest: Duration) {
        if is_healed {
            *self = Self::default();
            return;
        }
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, longest.max(FIRST_PAUSE));
        self.at = Some(Instant::now() + self.pause);
    }
}

/// Reads in meta who the sequencers are of logs of which this node takes itself for one: a segment that
/// others have closed while nothing was sent tells nobody, nor does a log that was deleted.
async fn hear_of_heads(inner: &Arc<Inner>) {
    let has_peers = |log: &SharedLog| {
        log.state.lock().active_mut().is_some_and(|active| !active.links.is_empty())
    };
    let logs: Vec<_> = inner.all_logs().into_iter().filter(has_peers).collect();
    for page in logs.chunks(HEADS) {
        let ids: Vec<_> = page.iter().map(|log| log.id).collect();
        for (log, head) in page.iter().zip(inner.upkeep.heads(&ids).await) {
            match head {
                Ok(Some(head)) => log.hear_of_head(inner, head.epoch),
                Ok(None) => inner.remove(log),
                Err(error) => tracing::debug!(log = %log.id, %error, "a head can't be read now"),
            }
        }
    }
}

/// Looks at each log of which this node is the sequencer; says whether no segment is left short.
pub(super) async fn place_logs(inner: &Arc<Inner>) -> bool {
    let (mut is_healed, mut rolling) = (true, 0_usize);
    for log in inner.all_logs() {
        if inner.stop.is_cancelled() {
            return true;
        }
        let (is_to_roll, short) = {
            let mut state = log.state.lock();
            let Some(ready) = state.ready_mut() else { continue };
            let closed = ready.chain.closed();
            let short: Vec<_> = closed.filter(|closed| closed.is_short).cloned().collect();
            let (factor, replicas) = (ready.factor, ready.replicas.clone());
            let is_open = ready.active().is_some_and(|active| active.stage == Stage::Open);
            (is_open && inner.is_better_elsewhere(log.id, factor, &replicas), short)
        };
        if is_to_roll {
            tracing::debug!(log = %log.id, "rolling to other nodes");
            rolling += 1;
            log.begin_roll(inner);
        }
        for closed in short {
            is_healed &= healing::heal(inner, log.id, &closed, closed.replicas.len()).await;
        }
    }
    if rolling > 0 {
        tracing::info!(logs = rolling, "logs roll to other nodes");
    }
    inner.mending.fill_soon();
    is_healed
}

impl Inner {
    /// Whether a segment on these nodes is better closed: one of them takes none any more, or there
    /// are more to be had.
    fn is_better_elsewhere(&self, log: LogId, factor: Factor, replicas: &[NodeId]) -> bool {
        let me = self.me().node;
        let mut candidates = self.peers.candidates();
        candidates.retain(|candidate| candidate.node != me || self.takes_segments());
        let is_in = |node: &NodeId| candidates.iter().any(|candidate| candidate.node == *node);
        if replicas.iter().all(is_in) && replicas.len() >= factor.replicas {
            return false;
        }
        let Some(next) = self.place(log, factor, replicas, &[]) else { return false };
        let stays = |node: &NodeId| is_in(node) && next.contains(node);
        next.len() > replicas.len()
            || !replicas.iter().all(stays) && next.len() >= replicas.len()
            || replicas.iter().any(|node| !is_in(node)) && next.iter().all(is_in)
    }
}

/// Looks at the logs to which something has happened.
pub(super) async fn mend_logs(inner: &Arc<Inner>) {
    let logs = inner.mending.take();
    if !logs.is_empty() {
        mend_these(inner, logs).await;
    }
    inner.mending.tell();
}

async fn mend_these(inner: &Arc<Inner>, logs: BTreeSet<LogId>) {
    let logs: Vec<_> = logs.into_iter().filter(|log| *log != super::seals::SEALS).collect();
    let me = inner.me().node;
    for page in logs.chunks(HEADS) {
        let records = inner.upkeep.load_many(page).await;
        let others: Vec<_> = page
            .iter()
            .zip(&records)
            .filter_map(|(log, record)| Some((*log, record.as_ref().ok()?.as_ref()?)))
            .filter(|(_, record)| record.head.sequencer.node != me)
            .map(|(log, record)| (log, Some(retain::life(record, inner.clock.wall_ms()))))
            .collect();
        inner.store.expect_lives(&others);
        for (log, record) in page.iter().zip(records) {
            if inner.stop.is_cancelled() {
                return;
            }
            let is_done = match record {
                Ok(Some(record)) => {
                    mend(inner, *log, &record, &inner.store.segments_of(*log)).await
                }
                // Deleted: retention drops what is here.
                Ok(None) => true,
                Err(error) => {
                    tracing::debug!(%log, %error, "a log's segments can't be looked at now");
                    false
                }
            };
            if !is_done {
                inner.mending.logs.lock().insert(*log);
            }
        }
    }
}

/// Pulls what this node lacks of a log and drops what it needn't have. Says whether it is done.
async fn mend(inner: &Arc<Inner>, log: LogId, record: &LogRecord, here: &[FoundSegment]) -> bool {
    if let Some(known) = inner.known(log) {
        known.hear_of_head(inner, record.head.epoch);
    }
    let me = inner.me().node;
    let mut is_done = true;
    let mut over: Vec<SegmentId> = Vec::new();
    for closed in &record.closed {
        let id = segment(log, closed.epoch);
        over.push(id);
        let is_right = inner.has_all(id, closed) && !inner.mending.is_suspect(id);
        if closed.replicas.len() < 2 || !closed.replicas.contains(&me) || is_right {
            continue;
        }
        is_done &= fill(inner, id, closed).await;
    }
    let is_sequencer = record.head.sequencer.node == me;
    for found in here {
        let epoch = found.id.epoch;
        let is_before = epoch < record.head.epoch;
        if !is_before {
            continue;
        }
        over.push(found.id);
        let closed = record.closed.iter().find(|closed| closed.epoch == epoch);
        let is_wanted = match closed {
            Some(closed) => closed.replicas.contains(&me),
            // The one before the head may have the newest snapshot of the producers.
            None => epoch.0.saturating_add(1) == record.head.epoch.0,
        };
        // A log's own sequencer sees to what it doesn't need (its producers may be in there).
        if !is_wanted && !is_sequencer {
            is_done &= inner.mending.drop_unless_copied(inner, found.id);
        }
    }
    let earlier = SegmentId { log, epoch: Epoch(record.head.epoch.0) };
    inner.forget_earlier(earlier);
    inner.replicas.seals.forget(&over);
    is_done
}

/// Copies what this node lacks of a closed segment from another replica.
async fn fill(inner: &Arc<Inner>, id: SegmentId, closed: &Closed) -> bool {
    let me = inner.me().node;
    let mut sources: Vec<_> = closed.replicas.iter().copied().filter(|node| *node != me).collect();
    let is_damaged = inner.store.segment(id).is_some_and(|found| !found.damaged.is_empty());
    let is_anew = is_damaged || inner.mending.is_suspect(id);
    if is_anew {
        // Nothing is put behind damage: the copy begins anew, once there is one to copy. What is
        // sound here may be all that there is of it.
        let mut whole = Vec::new();
        for source in sources {
            if scrub::is_whole_at(inner, source, id, closed).await {
                whole.push(source);
            }
        }
        sources = whole;
        if sources.is_empty() {
            tracing::error!(log = %id.log, epoch = %id.epoch, "no replica is whole");
            return false;
        }
        inner.store.drop_segment(id);
        inner.replicas.forget(&[id]);
        inner.mending.suspects.lock().remove(&id);
    }
    for source in sources {
        let (base, until) = (closed.base, closed.end);
        let pull = Pull { id, base, source, until, is_anew: false };
        match pulling::pull_at(inner, me, pull).await {
            Ok(end) if end >= closed.end => {
                add(&inner.metrics.copied_segments, 1);
                inner.store.close_segment(id);
                if is_anew {
                    add(&inner.metrics.repaired_segments, 1);
                    inner.mending.tally.lock().repaired += 1;
                    tracing::debug!(log = %id.log, epoch = %id.epoch, %source, "repaired a segment");
                }
                return true;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(log = %id.log, %error, "a segment could not be copied"),
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_can_not_be_healed_is_tried_again_after_longer_and_longer_pauses() {
        let (mut healing, longest) = (Healing::default(), Duration::from_secs(10));
        for seconds in [1, 2, 4, 8, 10, 10] {
            healing.looked(false, longest);
            let at = healing.at.expect("it is tried again");
            assert_eq!(at - Instant::now(), Duration::from_secs(seconds));
        }
        healing.looked(true, longest);
        assert_eq!(healing.at, None);
        healing.looked(false, longest);
        assert_eq!(healing.pause, FIRST_PAUSE);
        // A pass of retention may come sooner than that.
        healing.looked(false, Duration::ZERO);
        assert_eq!(healing.pause, FIRST_PAUSE);
    }
}
