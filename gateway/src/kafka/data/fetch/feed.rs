//! News of logs: who waits for a log is woken by its progress, once, and asks no disk meanwhile.

use std::sync::Arc;

use hashbrown::HashMap;
use interflow_logstore::{Bounds, LogClient, LogError, LogId, LogObserver, Observation};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::Notify;

/// Logs that are followed before those that nobody uses are looked for.
const LEAST_SWEEP: usize = 1024;

/// What a log has told.
#[derive(Debug, Default)]
struct News {
    bounds: Option<Bounds>,
    ended: bool,
    waiters: SmallVec<[Arc<Notify>; 2]>,
}

/// The observer's half of a feed.
#[derive(Debug, Default)]
struct Teller(Mutex<News>);

impl LogObserver for Teller {
    fn advanced(&self, _log: LogId, bounds: Bounds) {
        self.tell(|news| news.advance(bounds));
    }

    fn ended(&self, _log: LogId) {
        self.tell(|news| news.ended = true);
    }
}

impl News {
    /// Takes bounds that may be older than those asked for meanwhile: offsets never go back.
    fn advance(&mut self, bounds: Bounds) {
        let before = self.bounds.unwrap_or(bounds);
        self.bounds = Some(Bounds {
            start: bounds.start.max(before.start),
            committed: bounds.committed.max(before.committed),
            stable: bounds.stable.max(before.stable),
            leader_epoch: bounds.leader_epoch.max(before.leader_epoch),
        });
    }
}

impl Teller {
    /// Changes the news and wakes all who wait for it. They wait again if it wasn't enough.
    fn tell(&self, change: impl FnOnce(&mut News)) {
        let waiters = {
            let mut news = self.0.lock();
            change(&mut news);
            std::mem::take(&mut news.waiters)
        };
        for waiter in waiters {
            waiter.notify_one();
        }
    }
}

/// A log that is followed. It is as long as someone holds it.
pub(super) struct Feed {
    log: LogId,
    teller: Arc<Teller>,
    _observation: Observation,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Feed").field("log", &self.log).finish_non_exhaustive()
    }
}

impl Feed {
    /// The log that it is of.
    pub(super) fn log(&self) -> LogId {
        self.log
    }

    /// The log's offsets at last hearing; `None` once the log has ended.
    pub(super) fn bounds(&self) -> Option<Bounds> {
        let news = self.teller.0.lock();
        if news.ended { None } else { news.bounds }
    }

    /// Asks the log itself, whose news may lag behind what a client has heard elsewhere.
    pub(super) async fn ask(&self, log: &dyn LogClient) -> Result<Bounds, LogError> {
        let bounds = log.bounds(self.log).await?;
        let mut news = self.teller.0.lock();
        news.advance(bounds);
        Ok(news.bounds.unwrap_or(bounds))
    }

    /// Has `waiter` notified once by what comes after the news that `seen` was. `false`: there is
    /// other news already.
    pub(super) fn wait_past(&self, seen: Bounds, waiter: &Arc<Notify>) -> bool {
        let mut news = self.teller.0.lock();
        if news.ended || news.bounds != Some(seen) {
            return false;
        }
        news.waiters.push(waiter.clone());
        true
    }

    /// `waiter` waits no more.
    pub(super) fn forget(&self, waiter: &Arc<Notify>) {
        self.teller.0.lock().waiters.retain(|other| !Arc::ptr_eq(other, waiter));
    }
}

/// The logs that are followed, shared by all who fetch.
pub(in crate::kafka::data) struct Feeds {
    log: Arc<dyn LogClient>,
    followed: Mutex<Followed>,
}

#[derive(Debug, Default)]
struct Followed {
    feeds: HashMap<LogId, (Arc<Feed>, bool), foldhash::fast::RandomState>,
    sweep_at: usize,
}

impl Feeds {
    /// No log is followed yet.
    pub(in crate::kafka::data) fn new(log: Arc<dyn LogClient>) -> Self {
        let followed = Followed { sweep_at: LEAST_SWEEP, ..Followed::default() };
        Self { log, followed: Mutex::new(followed) }
    }

    /// The feed of `log`, followed from now on if it wasn't.
    pub(super) async fn get(&self, log: LogId) -> Result<Arc<Feed>, LogError> {
        if let Some(feed) = self.known(log) {
            return Ok(feed);
        }
        let teller = Arc::new(Teller::default());
        let observation = self.log.observe(log, teller.clone()).await?;
        if teller.0.lock().bounds.is_none() {
            let bounds = self.log.bounds(log).await?;
            teller.0.lock().advance(bounds);
        }
        let feed = Arc::new(Feed { log, teller, _observation: observation });
        Ok(self.followed.lock().keep(feed))
    }

    fn known(&self, log: LogId) -> Option<Arc<Feed>> {
        let mut followed = self.followed.lock();
        let (feed, is_used) = followed.feeds.get_mut(&log)?;
        if feed.teller.0.lock().ended {
            followed.feeds.remove(&log);
            return None;
        }
        *is_used = true;
        Some(feed.clone())
    }
}

impl Followed {
    fn keep(&mut self, feed: Arc<Feed>) -> Arc<Feed> {
        if self.feeds.len() >= self.sweep_at {
            // Whatever was not asked for since the last sweep, and nobody holds, goes.
            self.feeds.retain(|_, (feed, is_used)| {
                std::mem::take(is_used) || Arc::strong_count(feed) > 1
            });
            self.sweep_at = (2 * self.feeds.len()).max(LEAST_SWEEP);
        }
        self.feeds.entry(feed.log).or_insert((feed, true)).0.clone()
    }
}
