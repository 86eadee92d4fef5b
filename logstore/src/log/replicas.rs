//! The replicas of this node: segments whose sequencer is another node, and segments that are
//! sealed here.
//!
//! ```text
//!   Store ─► Held (core Replica) ─► EntryStore ─► durable ─► Stored ─► Replies
//!   Seal ──► Held ─► Seals (journal) ─► Sealed
//!   Pull ──► Seal ─► Fetch from another node ─► Repair ─► Held
//! ```
//!
//! A segment that is met for the first time, by a store, is looked up in meta: only its sequencer
//! may add to it. What comes meanwhile is left to be sent again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use interflow_meta::{Epoch, LogId, NodeId, Offset};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::append::Listing;
use super::progress::Listed;
use super::seals::Seals;
use super::service::Inner;
use crate::core::replica::{Effect, Event, Found, Refusal, Replica};
use crate::core::replication::Reply;
use crate::core::rules::Rules;
use crate::core::segment::{Entry as CoreEntry, Life};
use crate::peers::{Replies, Sealed, SentEntry, ToReplica};
use crate::store::{Entry, EntryKind, Position, SegmentId, StoreError};

/// Meta, if it doesn't answer, is asked again for a sequencer after so long.
const LEARN_AGAIN: Duration = Duration::from_millis(100);
/// A seal that the disk had no room for is tried again after so long.
const SEAL_AGAIN: Duration = Duration::from_millis(500);

/// The replicas of this node.
pub(super) struct Replicas {
    held: Mutex<BTreeMap<SegmentId, Arc<Held>>>,
    /// Segments that somebody has wanted sealed here.
    asked: Mutex<BTreeSet<SegmentId>>,
    pub(super) seals: Seals,
}

/// A replica and its lock, which is short: no disk, meta or peer is waited for under it.
pub(super) struct Held {
    pub(super) id: SegmentId,
    state: Mutex<State>,
    /// Told when the replica has gone on.
    changed: Notify,
    /// Who works with it now.
    users: AtomicUsize,
}

struct State {
    core: Replica,
    /// Where answers to the sequencer go.
    replies: Option<Arc<dyn Replies>>,
    /// Who waits for the answer to a seal.
    askers: Vec<(NodeId, oneshot::Sender<(Offset, bool)>)>,
    is_listed: bool,
    /// Its sequencer is being looked up.
    is_learning: bool,
}

/// What is to be done once a replica's lock is released.
#[derive(Default)]
struct After {
    enlist: Option<Position>,
    persist_seal: bool,
}

impl Replicas {
    pub(super) fn new(seals: Seals) -> Self {
        Self { held: Mutex::default(), asked: Mutex::default(), seals }
    }

    /// The replica of a segment that begins at `base`: one that is known, or what a start found.
    ///
    /// # Errors
    /// The disk can't be read.
    async fn held(&self, inner: &Inner, id: SegmentId, base: Offset) -> Result<InUse, StoreError> {
        loop {
            if let Some(held) = self.known_one(id) {
                return Ok(held);
            }
            let on_disk = inner.store.segment(id);
            let mut found = Found { end: base, ..Found::default() };
            match &on_disk {
                Some(segment) => {
                    // What an earlier sequencer here has just written counts when it is durable.
                    inner.progress.wait_settled().await?;
                    found.end = segment.end.max(base);
                    found.is_damaged = !segment.damaged.is_empty() || segment.start > base;
                    match inner.store.last_snapshot(id).await {
                        Ok(last) => {
                            found.last_snapshot = last.map(|(header, _)| header.base_offset);
                        }
                        Err(StoreError::Damaged(_)) => found.is_damaged = true,
                        Err(error) => return Err(error),
                    }
                }
                // What was in it may be in what the disk doesn't give back.
                None => found.is_damaged = self.seals.is_lost(),
            }
            // Where nobody knows what was sealed, everything that was here is taken for it.
            found.is_sealed = self.seals.has(id) || self.seals.is_lost() && on_disk.is_some();
            let core = Replica::restart(base, None, false, &found, inner.rules);
            let mut all = self.held.lock();
            // Another may have come, written, and gone while this one was looking (I6).
            if all.contains_key(&id) || inner.store.segment(id) == on_disk {
                let held = all.entry(id).or_insert_with(|| Arc::new(Held::new(id, core)));
                return Ok(InUse::new(held));
            }
        }
    }

    /// The replica, if it is in memory.
    fn known_one(&self, id: SegmentId) -> Option<InUse> {
        self.held.lock().get(&id).map(InUse::new)
    }

    /// Whether the segment is sealed here, or going to be: nobody may begin as its sequencer, for
    /// its end here may have been told.
    pub(super) fn is_to_be_sealed(&self, id: SegmentId) -> bool {
        self.asked.lock().contains(&id) || self.seals.has(id)
    }

    /// A segment of which this node was the sequencer until now has ended at `end` here.
    pub(super) fn resign(
        &self,
        id: SegmentId,
        base: Offset,
        end: Offset,
        last_snapshot: Option<Offset>,
        rules: Rules,
    ) {
        let found = Found { end, last_snapshot, is_sealed: self.seals.has(id), is_damaged: false };
        let core = Replica::restart(base, None, false, &found, rules);
        self.held.lock().entry(id).or_insert_with(|| Arc::new(Held::new(id, core)));
    }

    /// Forgets replicas in memory: their segments are closed.
    pub(super) fn forget(&self, ids: &[SegmentId]) {
        let mut all = self.held.lock();
        let mut asked = self.asked.lock();
        for id in ids {
            asked.remove(id);
            if all.get(id).is_some_and(|held| held.is_idle()) {
                all.remove(id);
            }
        }
    }

    /// Tells the sequencers whose segments are here that this node is about to stop; returns the
    /// segments.
    pub(super) fn say_goodbye(&self) -> Vec<SegmentId> {
        let all: Vec<_> = self.held.lock().values().cloned().collect();
        let mut open = Vec::new();
        for held in all {
            let state = held.state.lock();
            if state.core.sequencer().is_some() && !state.core.is_sealed() {
                state.reply(held.id, Reply::Leaving);
                open.push(held.id);
            }
        }
        open
    }

    /// The replicas of a log in memory.
    pub(super) fn known(&self, log: LogId) -> Vec<SegmentId> {
        let first = SegmentId { log, epoch: Epoch(0) };
        let last = SegmentId { log, epoch: Epoch(u32::MAX) };
        self.held.lock().range(first..=last).map(|(id, _)| *id).collect()
    }
}

/// A replica that somebody works with: it stays in memory meanwhile, for two of one segment would
/// each write as if there were no other (I6).
struct InUse(Arc<Held>);

impl InUse {
    /// Called with the replicas' lock held.
    fn new(held: &Arc<Held>) -> Self {
        held.users.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(held))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::SeqCst);
    }
}

impl std::ops::Deref for InUse {
    type Target = Arc<Held>;

    fn deref(&self) -> &Arc<Held> {
        &self.0
    }
}

impl Held {
    /// Whether it can be forgotten.
    fn is_idle(&self) -> bool {
        let state = self.state.lock();
        self.users.load(Ordering::SeqCst) == 0
            && state.askers.is_empty()
            && !state.is_learning
            && !state.core.is_journaling()
    }
}

/// A message from a sequencer, in the order of its stream. Waits while the journal has no room.
///
/// # Errors
/// The disk can't be read, or the journal failed.
pub(super) async fn receive(
    inner: &Arc<Inner>,
    from: Life,
    message: &ToReplica,
    replies: &Arc<dyn Replies>,
) -> Result<(), StoreError> {
    match message {
        ToReplica::Committed { id, committed } => {
            let held = inner.replicas.known_one(*id);
            let is_sealed = match held {
                Some(held) => {
                    held.handle(inner, Event::Committed { from, committed: *committed }, None)?;
                    held.state.lock().core.is_sealed()
                }
                None => inner.replicas.seals.has(*id),
            };
            // It may have nothing to store, and would never know.
            if is_sealed {
                replies.reply(*id, Reply::Sealed);
            }
            Ok(())
        }
        ToReplica::Store { of, entry, committed, sent } => {
            let held = inner.replicas.held(inner, of.id, of.base).await?;
            if !held.is_learned(inner, from, of.tells_received, replies) {
                return Ok(());
            }
            let event = Event::Store { from, entry: *entry, committed: *committed };
            loop {
                let report = inner.progress.next_report();
                match held.handle(inner, event, Some(sent)) {
                    Err(StoreError::Busy) => report.await,
                    // It can't take it: the sequencer is to go on without this one.
                    Err(StoreError::DiskFull | StoreError::Failed(_)) => {
                        replies.reply(of.id, Reply::Damaged);
                        return Ok(());
                    }
                    done => return done,
                }
            }
        }
    }
}

/// Seals a segment at this node, and answers when nothing of it is in flight any more.
///
/// # Errors
/// The disk can't be read, or the journal failed.
pub(super) async fn seal(
    inner: &Arc<Inner>,
    id: SegmentId,
    base: Offset,
    by: NodeId,
) -> Result<Sealed, StoreError> {
    let sealed = seal_here(inner, id, base, by).await;
    // It is closed somewhere, and may go on past what is here.
    inner.mending.look_at(id.log);
    sealed
}

/// The same of one that is being mended already: who fails at that tries again later.
async fn seal_here(
    inner: &Arc<Inner>,
    id: SegmentId,
    base: Offset,
    by: NodeId,
) -> Result<Sealed, StoreError> {
    // First: a sequencer that begins meanwhile sees it, and one that has begun resigns.
    inner.replicas.asked.lock().insert(id);
    super::resign::resign(inner, id).await?;
    let held = inner.replicas.held(inner, id, base).await?;
    let (answer, answered) = oneshot::channel();
    held.state.lock().askers.push((by, answer));
    held.handle(inner, Event::Seal { by }, None)?;
    let failed = || StoreError::Failed("the journal failed".to_owned());
    let (end, counts) = tokio::select! {
        biased;
        answered = answered => answered.map_err(|_| failed())?,
        () = inner.progress.failed_for_good() => return Err(failed()),
    };
    let found = inner.store.segment(id);
    Ok(Sealed {
        id,
        end,
        counts,
        bytes: found.as_ref().map_or(0, |found| found.bytes),
        max_timestamp: found
            .map(|found| found.max_timestamp)
            .filter(|timestamp| *timestamp != i64::MIN),
    })
}

/// What a copy goes on from.
pub(super) struct Copying {
    held: InUse,
    inner: Arc<Inner>,
}

impl Copying {
    /// A copy of a segment to this node, where it is sealed.
    ///
    /// # Errors
    /// The disk can't be read, or the journal failed.
    pub(super) async fn begin(
        inner: &Arc<Inner>,
        id: SegmentId,
        base: Offset,
    ) -> Result<Self, StoreError> {
        seal_here(inner, id, base, inner.me().node).await?;
        let held = inner.replicas.held(inner, id, base).await?;
        Ok(Self { held, inner: Arc::clone(inner) })
    }

    /// The end of what is here, and whether its last entry is a snapshot there.
    pub(super) fn at(&self) -> (Offset, bool) {
        let state = self.held.state.lock();
        let end = state.core.local_end();
        (end, state.core.last_snapshot() == Some(end))
    }

    /// The next entry; whatever doesn't fit behind those that are here leaves no trace.
    ///
    /// # Errors
    /// The disk is full, or the journal failed.
    pub(super) async fn take(&self, sent: &SentEntry) -> Result<(), StoreError> {
        let me = self.inner.me().node;
        loop {
            let report = self.inner.progress.next_report();
            let entry = {
                let behind = self.held.state.lock().core.last_snapshot();
                entry_of(sent, behind)
            };
            let event = Event::Repair { from: me, entry };
            match self.held.handle(&self.inner, event, Some(sent)) {
                Err(StoreError::Busy) => report.await,
                done => return done,
            }
        }
    }

    /// Waits until all that was taken is durable; returns the end of it.
    ///
    /// # Errors
    /// The journal failed.
    pub(super) async fn finish(&self) -> Result<Offset, StoreError> {
        loop {
            let changed = self.held.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.held.state.lock();
                if !state.core.is_journaling() {
                    return Ok(state.core.durable_end());
                }
            }
            tokio::select! {
                biased;
                () = changed => {}
                () = self.inner.progress.failed_for_good() => {
                    return Err(StoreError::Failed("the journal failed".to_owned()));
                }
            }
        }
    }
}

/// The entry as the cores see it.
pub(super) fn entry_of(sent: &SentEntry, behind: Option<Offset>) -> CoreEntry {
    CoreEntry {
        first: sent.header.base_offset,
        count: sent.header.count,
        bytes: sent.payload.len() as u64,
        behind,
        is_snapshot: sent.header.kind == EntryKind::Snapshot,
    }
}

impl Held {
    fn new(id: SegmentId, core: Replica) -> Self {
        let state =
            State { core, replies: None, askers: Vec::new(), is_listed: false, is_learning: false };
        Self { id, state: Mutex::new(state), changed: Notify::new(), users: AtomicUsize::new(0) }
    }

    /// Whether the segment's sequencer is known. If not, it is looked up in meta, and then `from`
    /// is told where to go on.
    fn is_learned(
        self: &Arc<Self>,
        inner: &Arc<Inner>,
        from: Life,
        tells_received: bool,
        replies: &Arc<dyn Replies>,
    ) -> bool {
        let mut state = self.state.lock();
        state.replies = Some(Arc::clone(replies));
        if state.core.sequencer().is_some() {
            return true;
        }
        if !std::mem::replace(&mut state.is_learning, true) {
            let (held, inner_) = (Arc::clone(self), Arc::clone(inner));
            inner.spawn(async move { held.learn(&inner_, from, tells_received).await });
        }
        false
    }

    async fn learn(self: Arc<Self>, inner: &Arc<Inner>, from: Life, tells_received: bool) {
        // Whoever sent may have nothing else to send before this is answered.
        let head = loop {
            match inner.registry.head(self.id.log).await {
                Ok(head) => break head,
                Err(error) => {
                    tracing::debug!(log = %self.id.log, %error, "a sequencer can't be looked up");
                    tokio::time::sleep(LEARN_AGAIN).await;
                }
            }
        };
        let reply = {
            let mut state = self.state.lock();
            state.is_learning = false;
            let reply = match head {
                Some(head) if head.epoch == self.id.epoch => {
                    if head.sequencer == from && head.replicas.contains(&inner.me().node) {
                        state.core.learn(head.sequencer, tells_received);
                        // It sends again what was left, and whatever it has sent since.
                        for effect in state.core.greeting() {
                            state.tell_sequencer(self.id, effect);
                        }
                        None
                    } else {
                        Some(Reply::Foreign)
                    }
                }
                Some(head) if head.epoch > self.id.epoch => Some(Reply::Sealed),
                _ => Some(Reply::Foreign),
            };
            reply.zip(state.replies.clone())
        };
        self.changed.notify_waiters();
        if let Some((reply, replies)) = reply {
            replies.reply(self.id, reply);
        }
        if self.id.epoch.0 > 0 {
            // Those before are closed: this node may lack a part of them.
            inner.mending.look_at(self.id.log);
        }
    }

    /// The journal went on. Says whether it still waits for it.
    pub(super) fn complete(self: &Arc<Self>, inner: &Arc<Inner>) -> bool {
        let Some(position) = inner.progress.durable_position() else { return true };
        // Nothing that it does then can fail.
        let _ = self.handle(inner, Event::Durable(position), None);
        let mut state = self.state.lock();
        state.is_listed = state.core.is_journaling();
        state.is_listed
    }

    /// An event for the replica. `sent` is what a store or a repair carries.
    ///
    /// # Errors
    /// The store's, about an entry that it doesn't take: then nothing has changed.
    fn handle(
        self: &Arc<Self>,
        inner: &Arc<Inner>,
        event: Event,
        sent: Option<&SentEntry>,
    ) -> Result<(), StoreError> {
        let mut after = After::default();
        let done = {
            let mut state = self.state.lock();
            self.run(inner, &mut state, event, sent, &mut after)
        };
        if let Some(position) = after.enlist {
            inner.progress.enlist(Listed::Held(Arc::clone(self)), Listing::Durable(position));
        }
        if after.persist_seal {
            let (held, inner_) = (Arc::clone(self), Arc::clone(inner));
            inner.spawn(async move { held.persist_seal(&inner_).await });
        }
        self.changed.notify_waiters();
        done
    }

    fn run(
        &self,
        inner: &Inner,
        state: &mut State,
        event: Event,
        sent: Option<&SentEntry>,
        after: &mut After,
    ) -> Result<(), StoreError> {
        for effect in state.core.handle(event) {
            match effect {
                Effect::Journal(entry) => {
                    let Some(sent) = sent else { continue };
                    let position = self.journal(inner, sent)?;
                    if !std::mem::replace(&mut state.is_listed, true) {
                        after.enlist = Some(position);
                    }
                    let journaled = Event::Journaled { entry, position };
                    self.run(inner, state, journaled, None, after)?;
                }
                Effect::PersistSeal => after.persist_seal = true,
                Effect::Stored { .. } | Effect::Gap { .. } | Effect::Refused(_) => {
                    state.tell_sequencer(self.id, effect);
                }
                Effect::Sealed { to, end, counts } => {
                    for (_, answer) in state.askers.extract_if(.., |(by, _)| *by == to) {
                        // Who asked may have gone.
                        let _ = answer.send((end, counts));
                    }
                }
                // Who copies waits for `changed`.
                Effect::Repaired { .. } => {}
            }
        }
        Ok(())
    }

    fn journal(&self, inner: &Inner, sent: &SentEntry) -> Result<Position, StoreError> {
        let (header, leader_epoch) = (sent.header.clone(), sent.leader_epoch);
        let entry = Entry { header, payload: &sent.payload, leader_epoch };
        let position = inner.store.append(&entry)?;
        inner.progress.appended(position);
        Ok(position)
    }

    async fn persist_seal(self: Arc<Self>, inner: &Arc<Inner>) {
        loop {
            match inner.replicas.seals.seal(inner, self.id).await {
                Ok(()) => {
                    // Nothing that it does then can fail.
                    let _ = self.handle(inner, Event::SealPersisted, None);
                    // It may have nothing to store, and would not hear of it otherwise.
                    self.state.lock().reply(self.id, Reply::Sealed);
                    return;
                }
                Err(error) => {
                    let (log, epoch) = (self.id.log, self.id.epoch);
                    tracing::warn!(%log, %epoch, %error, "not sealed");
                }
            }
            // Without it the replica would neither take nor answer anything, for ever.
            if inner.progress.failure().is_some() {
                return;
            }
            tokio::time::sleep(SEAL_AGAIN).await;
        }
    }
}

impl State {
    fn tell_sequencer(&self, id: SegmentId, effect: Effect) {
        let reply = match effect {
            Effect::Stored { local_end, durable_end } => Reply::Stored { local_end, durable_end },
            Effect::Gap { local_end } => Reply::Gap { local_end },
            Effect::Refused(Refusal::Sealed) => Reply::Sealed,
            Effect::Refused(Refusal::Foreign) => Reply::Foreign,
            Effect::Refused(Refusal::Damaged) => Reply::Damaged,
            // Not for it.
            Effect::Journal(_)
            | Effect::PersistSeal
            | Effect::Sealed { .. }
            | Effect::Repaired { .. } => return,
        };
        self.reply(id, reply);
    }

    fn reply(&self, id: SegmentId, reply: Reply) {
        if let Some(replies) = &self.replies {
            replies.reply(id, reply);
        }
    }
}
