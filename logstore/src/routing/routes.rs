//! Where logs are, and the appends that wait until that is known.
//!
//! ```text
//!   (none) ──append──► Looking ──found──► Known ──a call went wrong──► Stale
//!                         ▲                 └──────── doubt ────────┐    │
//!                         └─────────────────────────────────────────┴────┘
//! ```
//!
//! A log's unanswered appends are with the client of its route, those that were made first, and
//! behind them in its queue here. When another node is found, the client gives back what it has,
//! which goes before what waits; all is sent on under the lock, so that nothing overtakes it. So
//!
//! 1. in a log, appends reach a sequencer in the order of the calls;
//! 2. an append is in one place, and is answered once;
//! 3. a route is forgotten only when nothing is unanswered behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use interflow_meta::{LogId, NodeId};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::directory::RouteError;
use crate::{Append, AppendError, AppendTicket, NodeClient, Unanswered};

/// Logs of different shards don't wait for one another.
const SHARDS: usize = 16;
/// A route that has stood for so long without a doubt has none behind it.
const STANDS: Duration = Duration::from_secs(5);

pub(super) type Client = Arc<dyn NodeClient>;

enum Route {
    Known {
        client: Client,
        /// Doubts in a row, and when this one was settled.
        doubts: u32,
        since: Instant,
    },
    /// To be looked for when it is used next.
    Stale(Client),
    Looking(Looking),
}

/// Somebody looks for the route.
struct Looking {
    /// Who has the log's earlier appends.
    from: Option<Client>,
    waiting: VecDeque<Unanswered>,
    doubts: u32,
    /// Ends with it.
    over: CancellationToken,
}

impl Looking {
    fn new(from: Option<Client>, doubts: u32) -> Self {
        Self { from, waiting: VecDeque::new(), doubts, over: CancellationToken::new() }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.over.cancel();
    }
}

#[derive(Default)]
struct Shard {
    routes: HashMap<LogId, Route, foldhash::fast::RandomState>,
    next_number: u64,
}

/// See the module.
pub(super) struct Routes {
    shards: Vec<Mutex<Shard>>,
    waiting_bytes: AtomicUsize,
    max_waiting_bytes: usize,
    /// Of a shard.
    max_routes: usize,
}

/// What became of an append.
pub(super) enum Offered {
    /// It was sent, refused, or waits for a route that somebody looks for.
    Done(AppendTicket),
    /// It waits for a route that is to be looked for.
    Look(AppendTicket),
}

/// What follows from a doubt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doubted {
    /// The route is to be looked for. Doubts in a row, this one included.
    Look(u32),
    /// The route leads to another node.
    Elsewhere,
    /// Somebody looks already, or nobody needs the route.
    Nothing,
}

fn weight(append: &Append) -> usize {
    append.batch.len() + size_of::<Unanswered>()
}

impl Routes {
    pub(super) fn new(max_waiting_bytes: usize, max_routes: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            waiting_bytes: AtomicUsize::new(0),
            max_waiting_bytes,
            max_routes: max_routes.div_ceil(SHARDS),
        }
    }

    fn shard(&self, log: LogId) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(log.0 % SHARDS as u64).unwrap_or(0);
        self.shards[at].lock()
    }

    pub(super) fn offer(&self, append: Append, deadline: Instant) -> Offered {
        let (log, bytes) = (append.log, weight(&append));
        let mut shard = self.shard(log);
        let (reply, ticket) = AppendTicket::pair();
        let (may_be_kept, was_admitted, number) = (false, false, shard.next_number);
        let of = Unanswered { append, reply, deadline, number, may_be_kept, was_admitted };
        shard.next_number += 1;
        if let Some(Route::Known { client, .. }) = shard.routes.get(&log) {
            client.send(of);
            return Offered::Done(ticket);
        }
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting.saturating_add(bytes) > self.max_waiting_bytes {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            of.give_up(AppendError::Busy);
            return Offered::Done(ticket);
        }
        if let Some(Route::Looking(looking)) = shard.routes.get_mut(&log) {
            looking.waiting.push_back(of);
            return Offered::Done(ticket);
        }
        let mut looking = Looking::new(shard.leave(log), 0);
        looking.waiting.push_back(of);
        shard.routes.insert(log, Route::Looking(looking));
        Offered::Look(ticket)
    }

    /// The route of a log was looked for. Says whether it leads to another node than before.
    pub(super) fn found(&self, log: LogId, client: &Client) -> bool {
        let mut shard = self.shard(log);
        let Some(Route::Looking(looking)) = shard.routes.get_mut(&log) else { return false };
        let (from, doubts) = (looking.from.take(), looking.doubts);
        let waiting = std::mem::take(&mut looking.waiting);
        self.free(&waiting);
        let has_moved = shard.settle(log, from, client, doubts, waiting);
        shard.forget_many(self.max_routes);
        has_moved
    }

    /// There is no route: those that wait are told so, and those that are at the node that was.
    pub(super) fn not_found(&self, log: LogId, error: &RouteError) {
        let mut shard = self.shard(log);
        let Some(Route::Looking(mut looking)) = shard.routes.remove(&log) else { return };
        let waiting = std::mem::take(&mut looking.waiting);
        self.free(&waiting);
        let before = looking.from.as_ref().map(|from| from.take_back(log)).unwrap_or_default();
        drop(shard);
        before.into_iter().chain(waiting).for_each(|of| of.give_up(error.clone().into()));
    }

    /// Gives up what waits and is late at `now`, because of `reason`. Says when the next is late;
    /// `None` when nothing waits.
    pub(super) fn give_up(&self, log: LogId, now: Instant, reason: &str) -> Option<Instant> {
        let mut late = VecDeque::new();
        let next = {
            let mut shard = self.shard(log);
            let Some(Route::Looking(looking)) = shard.routes.get_mut(&log) else { return None };
            while let Some(of) = looking.waiting.pop_front_if(|of| of.deadline <= now) {
                late.push_back(of);
            }
            looking.waiting.front().map(|of| of.deadline)
        };
        self.free(&late);
        late.into_iter().for_each(|of| of.give_up(AppendError::Unavailable(reason.to_owned())));
        next
    }

    /// Ends a search for which nobody waits; says whether it did.
    pub(super) fn give_up_looking(&self, log: LogId) -> bool {
        let mut shard = self.shard(log);
        let Some(Route::Looking(looking)) = shard.routes.get_mut(&log) else { return true };
        let has_before = looking.from.as_ref().is_some_and(|from| from.has_unanswered(log));
        if has_before || !looking.waiting.is_empty() {
            return false;
        }
        shard.routes.remove(&log);
        true
    }

    pub(super) fn client(&self, log: LogId) -> Option<Client> {
        match self.shard(log).routes.get(&log) {
            Some(Route::Known { client, .. }) => Some(Arc::clone(client)),
            _ => None,
        }
    }

    /// Ends when nobody looks for the log's route.
    pub(super) async fn settled(&self, log: LogId) {
        let over = match self.shard(log).routes.get(&log) {
            Some(Route::Looking(looking)) => looking.over.clone(),
            _ => return,
        };
        over.cancelled().await;
    }

    /// A route that was found for a call. Says whether it leads to another node than before.
    pub(super) fn remember(&self, log: LogId, client: &Client) -> bool {
        let mut shard = self.shard(log);
        // Those who look for it see to what waits; and what is known is newer.
        if matches!(shard.routes.get(&log), Some(Route::Looking(_) | Route::Known { .. })) {
            return false;
        }
        let from = shard.leave(log);
        let has_moved = shard.settle(log, from, client, 0, VecDeque::new());
        shard.forget_many(self.max_routes);
        has_moved
    }

    /// The log may be elsewhere than at `client`.
    pub(super) fn forget(&self, log: LogId, client: &Client) {
        let mut shard = self.shard(log);
        if let Some(Route::Known { client: known, .. }) = shard.routes.get(&log)
            && is_same(known, client)
        {
            let known = Arc::clone(known);
            shard.routes.insert(log, Route::Stale(known));
        }
    }

    /// `node` may not be the log's. If it is the one that the route leads to, the route is to be
    /// looked for.
    pub(super) fn doubt(&self, log: LogId, node: NodeId) -> Doubted {
        let mut shard = self.shard(log);
        let (client, doubts) = match shard.routes.get(&log) {
            None | Some(Route::Looking(_)) => return Doubted::Nothing,
            Some(Route::Known { client, doubts, since }) if since.elapsed() < STANDS => {
                (client, *doubts)
            }
            Some(Route::Known { client, .. } | Route::Stale(client)) => (client, 0),
        };
        if client.node() != node {
            return Doubted::Elsewhere;
        }
        let (client, doubts) = (Arc::clone(client), doubts.saturating_add(1));
        shard.routes.insert(log, Route::Looking(Looking::new(Some(client), doubts)));
        Doubted::Look(doubts)
    }

    fn free(&self, waiting: &VecDeque<Unanswered>) {
        let bytes = waiting.iter().map(|of| weight(&of.append)).sum();
        self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Shard {
    /// Takes a route out that isn't trusted; who has the log's earlier appends.
    fn leave(&mut self, log: LogId) -> Option<Client> {
        match self.routes.remove(&log)? {
            Route::Known { client, .. } | Route::Stale(client) => Some(client),
            Route::Looking(_) => None,
        }
    }

    /// The log's route leads to `client` now: what is at `from` goes there before what waits.
    fn settle(
        &mut self,
        log: LogId,
        from: Option<Client>,
        client: &Client,
        doubts: u32,
        waiting: VecDeque<Unanswered>,
    ) -> bool {
        let left = from.filter(|from| !is_same(from, client));
        let before = left.as_ref().map(|left| left.take_back(log)).unwrap_or_default();
        let doubts = if left.is_some() { 0 } else { doubts };
        client.resume(log);
        let mut last = None;
        for of in before.into_iter().chain(waiting) {
            debug_assert!(last < Some(of.number), "appends are sent in the order of the calls");
            debug_assert!(of.append.key.is_some() || !of.may_be_kept, "it can't be told twice");
            last = Some(of.number);
            client.send(of);
        }
        let (client, since) = (Arc::clone(client), Instant::now());
        self.routes.insert(log, Route::Known { client, doubts, since });
        left.is_some()
    }

    /// Forgets routes when there are more than `max`, all that nothing is behind.
    fn forget_many(&mut self, max: usize) {
        if self.routes.len() > max {
            self.routes.retain(|log, route| match route {
                Route::Known { client, .. } | Route::Stale(client) => client.has_unanswered(*log),
                Route::Looking(_) => true,
            });
        }
    }
}

/// Whether both are the same client.
pub(super) fn is_same(one: &Client, other: &Client) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}
