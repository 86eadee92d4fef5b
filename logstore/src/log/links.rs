//! The links from this node's sequencers to their peers: one a node, for all logs.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use futures_util::FutureExt;
use interflow_meta::NodeId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::service::Inner;
use super::state::{Log, SharedLog};
use crate::core::replication::Reply;
use crate::peers::{Link, LinkEvents, ToReplica};
use crate::store::SegmentId;

/// A node that can't take entries is asked again after so long. Milliseconds.
const AVOIDED_MS: u64 = 30_000;

/// The links of a node.
#[derive(Default)]
pub(super) struct Links {
    nodes: Mutex<BTreeMap<NodeId, Arc<NodeLink>>>,
    /// A node has said that it leaves.
    left: Notify,
}

/// The link to one node, and the segments that it is used for.
pub(super) struct NodeLink {
    inner: Weak<Inner>,
    link: OnceLock<Arc<dyn Link>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_up: bool,
    /// It said that it leaves, and hasn't come back.
    is_leaving: bool,
    /// It said that it can't take entries: until then it is given no new segments. Milliseconds
    /// on the monotonic clock.
    avoided_until_ms: u64,
    /// Whose answers come here, and as which of its peers.
    logs: BTreeMap<SegmentId, (Weak<Log>, usize)>,
}

impl Links {
    /// The link to `node`.
    pub(super) fn to(&self, inner: &Arc<Inner>, node: NodeId) -> Arc<NodeLink> {
        let link = {
            let mut nodes = self.nodes.lock();
            Arc::clone(nodes.entry(node).or_insert_with(|| {
                let inner = Arc::downgrade(inner);
                Arc::new(NodeLink { inner, link: OnceLock::new(), state: Mutex::default() })
            }))
        };
        link.link.get_or_init(|| inner.peers.link(node, Arc::clone(&link) as Arc<dyn LinkEvents>));
        link
    }

    /// The node takes segments again, by its own word.
    pub(super) fn trust(&self, node: NodeId) {
        let link = self.nodes.lock().get(&node).cloned();
        if let Some(link) = link {
            link.state.lock().avoided_until_ms = 0;
        }
    }

    /// Whether new segments are better put elsewhere: a link to `node` was made and has no
    /// connection, or it said that it can't take entries.
    pub(super) fn is_avoided(&self, node: NodeId, now_ms: u64) -> bool {
        let link = self.nodes.lock().get(&node).cloned();
        link.is_some_and(|link| {
            let state = link.state.lock();
            !state.is_up || now_ms < state.avoided_until_ms
        })
    }

    fn is_leaving(&self, node: NodeId) -> bool {
        let link = self.nodes.lock().get(&node).cloned();
        link.is_some_and(|link| link.state.lock().is_leaving)
    }
}

impl Inner {
    /// Resolves when no other node is there that could take logs over: all are gone, or leave.
    pub(super) async fn nobody_stays(&self) {
        loop {
            let left = self.links.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            let changed = self.peers.changed();
            tokio::pin!(changed);
            // From here on a change is not missed.
            if changed.as_mut().now_or_never().is_some() {
                continue;
            }
            let is_there = |node| node != self.me().node && !self.links.is_leaving(node);
            if !self.peers.candidates().iter().any(|candidate| is_there(candidate.node)) {
                return;
            }
            tokio::select! {
                () = left => {}
                () = changed => {}
            }
        }
    }
}

impl NodeLink {
    /// Peer `peer` of a log's segment is at this node. Says whether there is a connection; if not,
    /// [`Reply::Attached`] tells when there is.
    pub(super) fn enter(&self, id: SegmentId, log: &SharedLog, peer: usize) -> bool {
        let mut state = self.state.lock();
        state.logs.insert(id, (Arc::downgrade(log), peer));
        state.is_up
    }

    /// Nothing more is to be heard of a segment.
    pub(super) fn leave(&self, id: SegmentId) {
        self.state.lock().logs.remove(&id);
    }

    /// Sends in order; drops it without a connection.
    pub(super) fn send(&self, message: ToReplica) {
        if let Some(link) = self.link.get() {
            link.send(message);
        }
    }

    fn tell_all(&self, is_up: bool, reply: Reply) {
        let logs: Vec<_> = {
            let mut state = self.state.lock();
            state.is_up = is_up;
            if is_up {
                state.avoided_until_ms = 0;
                state.is_leaving = false;
            }
            state.logs.iter().map(|(id, (log, peer))| (*id, log.clone(), *peer)).collect()
        };
        let Some(inner) = self.inner.upgrade() else { return };
        for (id, log, peer) in logs {
            if let Some(log) = log.upgrade() {
                log.peer_replied(&inner, id.epoch, peer, reply);
            }
        }
    }
}

impl LinkEvents for NodeLink {
    fn attached(&self) {
        self.tell_all(true, Reply::Attached);
    }

    fn detached(&self) {
        self.tell_all(false, Reply::Detached);
    }

    fn replied(&self, id: SegmentId, reply: Reply) {
        let Some(inner) = self.inner.upgrade() else { return };
        let found = {
            let mut state = self.state.lock();
            if matches!(reply, Reply::Damaged | Reply::Leaving) {
                let now_ms = inner.clock.monotonic_ms();
                state.avoided_until_ms = now_ms.saturating_add(AVOIDED_MS);
            }
            if reply == Reply::Leaving && !std::mem::replace(&mut state.is_leaving, true) {
                inner.links.left.notify_waiters();
            }
            state.logs.get(&id).cloned()
        };
        if let Some((log, peer)) = found
            && let Some(log) = log.upgrade()
        {
            log.peer_replied(&inner, id.epoch, peer, reply);
        }
    }
}
