//! The network between the nodes of a test: links that break, delays, nodes that don't answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use interflow_meta::NodeId;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Notify, mpsc};

use super::super::super::service::Inner;
use super::super::super::{pulling, replicas, scrub};
use crate::Offset;
use crate::core::replication::Reply;
use crate::core::segment::Life;
use crate::peers::{
    Checked, Checking, Fetch, Fetched, Link, LinkEvents, LogNode, PeerError, Peers, Pull, Replies,
    Seal, Sealed, ToReplica,
};
use crate::store::SegmentId;

/// A call that isn't answered fails after this.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);

/// The network, and who is on it.
pub(super) struct Net {
    state: Mutex<State>,
    /// Told of each change of who reaches whom.
    changed: Notify,
}

struct State {
    nodes: BTreeMap<NodeId, (Life, Weak<Inner>)>,
    racks: BTreeMap<NodeId, String>,
    /// Nodes that take segments.
    writable: BTreeSet<NodeId>,
    /// Nodes that were removed.
    gone: BTreeSet<NodeId>,
    /// Messages from the first don't reach the second.
    cut: BTreeSet<(NodeId, NodeId)>,
    rng: StdRng,
    max_delay_ms: u64,
    /// Of a thousand messages so many break their connection.
    breaks: u32,
    pub(super) broken: u64,
    pub(super) unanswered: u64,
    /// Calls that seal.
    seals: u64,
    /// A node that is gone is taken for live so long.
    lease: Duration,
    ghosts: BTreeMap<NodeId, tokio::time::Instant>,
    seen: Seen,
}

/// What replicas have answered.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) gaps: u64,
    /// The largest durable end that each has reported.
    pub(super) reported: BTreeMap<(NodeId, SegmentId), Offset>,
    /// Seals that were answered, and count.
    pub(super) sealed: BTreeSet<(NodeId, SegmentId)>,
}

impl Net {
    pub(super) fn new(seed: u64, max_delay_ms: u64, breaks: u32) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                nodes: BTreeMap::new(),
                racks: BTreeMap::new(),
                writable: BTreeSet::new(),
                gone: BTreeSet::new(),
                cut: BTreeSet::new(),
                rng: StdRng::seed_from_u64(seed),
                max_delay_ms,
                breaks,
                broken: 0,
                unanswered: 0,
                seals: 0,
                lease: Duration::ZERO,
                ghosts: BTreeMap::new(),
                seen: Seen::default(),
            }),
            changed: Notify::new(),
        })
    }

    pub(super) fn join(&self, life: Life, inner: &Arc<Inner>) {
        {
            let mut state = self.state.lock();
            state.nodes.insert(life.node, (life, Arc::downgrade(inner)));
            state.writable.insert(life.node);
        }
        self.changed.notify_waiters();
    }

    pub(super) fn leave(&self, node: NodeId) {
        {
            let mut state = self.state.lock();
            state.nodes.remove(&node);
            let until = tokio::time::Instant::now() + state.lease;
            state.ghosts.insert(node, until);
        }
        self.changed.notify_waiters();
    }

    /// Whether the node takes segments.
    pub(super) fn set_writable(&self, node: NodeId, is_writable: bool) {
        let mut state = self.state.lock();
        if is_writable {
            state.writable.insert(node);
        } else {
            state.writable.remove(&node);
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// The node never comes back.
    pub(super) fn remove(&self, node: NodeId) {
        self.state.lock().gone.insert(node);
        self.changed.notify_waiters();
    }

    pub(super) fn set_lease(&self, lease: Duration) {
        self.state.lock().lease = lease;
    }

    pub(super) fn set_delay(&self, max_delay_ms: u64, breaks: u32) {
        let mut state = self.state.lock();
        state.max_delay_ms = max_delay_ms;
        state.breaks = breaks;
    }

    /// Calls that have sealed anything.
    pub(super) fn seals(&self) -> u64 {
        self.state.lock().seals
    }

    pub(super) fn seen(&self) -> Seen {
        self.state.lock().seen.clone()
    }

    pub(super) fn mend(&self, from: NodeId, to: NodeId) {
        self.state.lock().cut.remove(&(from, to));
        self.changed.notify_waiters();
    }

    /// The node is on the network again, in all directions.
    pub(super) fn mend_all(&self, node: NodeId) {
        self.state.lock().cut.retain(|(from, to)| *from != node && *to != node);
        self.changed.notify_waiters();
    }

    /// Whether a message from the first gets to the second.
    fn is_open(&self, from: NodeId, to: NodeId) -> bool {
        !self.state.lock().cut.contains(&(from, to))
    }

    fn saw_reply(&self, node: NodeId, id: SegmentId, reply: Reply) {
        let mut state = self.state.lock();
        match reply {
            Reply::Stored { durable_end, .. } => {
                let known = state.seen.reported.entry((node, id)).or_insert(0);
                *known = durable_end.max(*known);
            }
            Reply::Gap { .. } => state.seen.gaps += 1,
            _ => {}
        }
    }

    fn saw_sealed(&self, node: NodeId, sealed: &[Sealed]) {
        let mut state = self.state.lock();
        for one in sealed.iter().filter(|one| one.counts) {
            state.seen.sealed.insert((node, one.id));
            let known = state.seen.reported.entry((node, one.id)).or_insert(0);
            *known = one.end.max(*known);
        }
    }

    pub(super) fn cut(&self, from: NodeId, to: NodeId) {
        self.state.lock().cut.insert((from, to));
        self.changed.notify_waiters();
    }

    pub(super) fn heal(&self) {
        self.state.lock().cut.clear();
        self.changed.notify_waiters();
    }

    /// Connections that broke, and calls without an answer.
    pub(super) fn faults(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.broken, state.unanswered)
    }

    /// The service that `from` reaches at `to` now, if both ways are open.
    fn reach(&self, from: Life, to: NodeId) -> Option<Arc<Inner>> {
        let state = self.state.lock();
        let is_alive = state.nodes.get(&from.node).is_some_and(|(life, _)| *life == from);
        let is_cut = state.cut.contains(&(from.node, to)) || state.cut.contains(&(to, from.node));
        let (_, inner) = state.nodes.get(&to)?;
        (is_alive && !is_cut).then(|| inner.upgrade()).flatten()
    }

    fn life(&self, node: NodeId) -> Option<Life> {
        self.state.lock().nodes.get(&node).map(|(life, _)| *life)
    }

    /// The service that a question of `from` reaches at `to`, whether or not it can be answered.
    fn request(&self, from: Life, to: NodeId) -> Option<Arc<Inner>> {
        if !self.is_open(from.node, to) {
            return None;
        }
        let state = self.state.lock();
        let is_alive = state.nodes.get(&from.node).is_some_and(|(life, _)| *life == from);
        let (_, inner) = state.nodes.get(&to).filter(|_| is_alive)?;
        inner.upgrade()
    }

    async fn delay(&self) {
        let ms = {
            let mut state = self.state.lock();
            let max = state.max_delay_ms;
            if max == 0 { 0 } else { state.rng.random_range(0..=max) }
        };
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    fn breaks(&self) -> bool {
        let mut state = self.state.lock();
        let breaks = state.breaks;
        let is_broken = breaks > 0 && state.rng.random_range(0..1000) < breaks;
        state.broken += u64::from(is_broken);
        is_broken
    }
}

/// The others, as one life of a node sees them.
pub(super) struct NetPeers {
    pub(super) net: Arc<Net>,
    pub(super) me: Life,
}

struct NetLink(Mutex<Option<mpsc::UnboundedSender<ToReplica>>>);

impl Link for NetLink {
    fn send(&self, message: ToReplica) {
        if let Some(queue) = &*self.0.lock() {
            let _ = queue.send(message);
        }
    }
}

/// Answers of a replica, on their way.
struct Back(mpsc::UnboundedSender<(SegmentId, Reply)>);

impl Replies for Back {
    fn reply(&self, id: SegmentId, reply: Reply) {
        let _ = self.0.send((id, reply));
    }
}

impl NetPeers {
    async fn keep(
        net: Arc<Net>,
        me: Life,
        to: NodeId,
        link: Arc<NetLink>,
        events: Arc<dyn LinkEvents>,
    ) {
        loop {
            let changed = net.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let Some(inner) = net.reach(me, to) else {
                changed.await;
                continue;
            };
            drop(inner);
            net.delay().await;
            let (queue, messages) = mpsc::unbounded_channel();
            *link.0.lock() = Some(queue);
            events.attached();
            Self::one_connection(&net, me, to, messages, &events).await;
            *link.0.lock() = None;
            events.detached();
            net.delay().await;
        }
    }

    /// Until the connection breaks.
    async fn one_connection(
        net: &Arc<Net>,
        me: Life,
        to: NodeId,
        mut messages: mpsc::UnboundedReceiver<ToReplica>,
        events: &Arc<dyn LinkEvents>,
    ) {
        let life = net.life(to);
        let (back, mut answers) = mpsc::unbounded_channel();
        let replies: Arc<dyn Replies> = Arc::new(Back(back));
        let there = async {
            while let Some(message) = messages.recv().await {
                net.delay().await;
                if net.breaks() {
                    return;
                }
                let Some(inner) = net.reach(me, to) else { return };
                if replicas::receive(&inner, me, &message, &replies).await.is_err() {
                    return;
                }
            }
        };
        let back = async {
            while let Some((id, reply)) = answers.recv().await {
                net.delay().await;
                if net.breaks() || net.reach(me, to).is_none() {
                    return;
                }
                net.saw_reply(to, id, reply);
                events.replied(id, reply);
            }
        };
        let cut = async {
            loop {
                let changed = net.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                // Another life of the node knows nothing of the connection.
                if net.reach(me, to).is_none() || net.life(to) != life {
                    return;
                }
                changed.await;
            }
        };
        tokio::select! {
            biased;
            () = cut => {}
            () = there => {}
            () = back => {}
        }
    }

    async fn call<T>(
        &self,
        to: NodeId,
        call: impl AsyncFnOnce(Arc<Inner>) -> Result<T, PeerError>,
    ) -> Result<T, PeerError> {
        let unreachable = || PeerError::Unreachable(to, "the network".to_owned());
        let calling = async {
            self.net.delay().await;
            // The answer's way is looked at when there is one.
            let reached = self.net.request(self.me, to);
            let Some(inner) = reached.filter(|_| !self.net.breaks()) else {
                self.net.state.lock().unanswered += 1;
                return Err(unreachable());
            };
            let answer = call(inner).await;
            self.net.delay().await;
            if self.net.reach(self.me, to).is_none() || self.net.breaks() {
                self.net.state.lock().unanswered += 1;
                return Err(unreachable());
            }
            answer
        };
        tokio::time::timeout(CALL_TIMEOUT, calling).await.unwrap_or_else(|_| Err(unreachable()))
    }
}

#[async_trait]
impl Peers for NetPeers {
    fn candidates(&self) -> Vec<LogNode> {
        let state = self.net.state.lock();
        let now = tokio::time::Instant::now();
        let ghosts = state.ghosts.iter().filter(|(_, until)| **until > now).map(|(node, _)| *node);
        let live: BTreeSet<_> = state.nodes.keys().copied().chain(ghosts).collect();
        let live = live.iter().filter(|node| state.writable.contains(node));
        live.map(|node| LogNode {
            node: *node,
            rack: state.racks.get(node).cloned().unwrap_or_default(),
        })
        .collect()
    }

    fn is_gone(&self, node: NodeId) -> bool {
        self.net.state.lock().gone.contains(&node)
    }

    fn link(&self, to: NodeId, events: Arc<dyn LinkEvents>) -> Arc<dyn Link> {
        let link = Arc::new(NetLink(Mutex::default()));
        let (net, me) = (Arc::clone(&self.net), self.me);
        tokio::spawn(Self::keep(net, me, to, Arc::clone(&link), events));
        link
    }

    async fn seal(&self, to: NodeId, seals: Vec<Seal>) -> Result<Vec<Sealed>, PeerError> {
        let by = self.me.node;
        self.net.state.lock().seals += 1;
        self.call(to, async move |inner| {
            let sealing = seals.iter().map(|seal| replicas::seal(&inner, seal.id, seal.base, by));
            let all: Result<Vec<_>, _> = join_all(sealing).await.into_iter().collect();
            let all = all.map_err(|error| PeerError::Refused(to, error.to_string()))?;
            self.net.saw_sealed(to, &all);
            Ok(all)
        })
        .await
    }

    async fn fetch(&self, to: NodeId, fetch: Fetch) -> Result<Fetched, PeerError> {
        self.call(to, async move |inner| {
            let fetched = pulling::fetch(&inner, fetch).await;
            fetched.map_err(|error| PeerError::Refused(to, error.to_string()))
        })
        .await
    }

    async fn pull(&self, to: NodeId, pull: Pull) -> Result<Offset, PeerError> {
        self.call(to, async move |inner| pulling::pull(&inner, pull).await).await
    }

    async fn check(&self, to: NodeId, ask: Checking) -> Result<Checked, PeerError> {
        self.call(to, async move |inner| scrub::check(&inner, ask).await).await
    }

    async fn changed(&self) {
        self.net.changed.notified().await;
    }
}
