//! Observations that follow their logs from node to node.
//!
//! ```text
//!   RemoteLogs ─► Ear (of one stay at a node) ─► Follower ─► the observer
//! ```
//!
//! An ear of an earlier stay is not heard. Between stays early batches can be missed, which the
//! observer is told; offsets never go back, though the new node may know less at first.

mod ear;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use hashbrown::HashMap;
use interflow_meta::LogId;
use interflow_meta::grpc::Backoff;
use parking_lot::Mutex;

use self::ear::{Ear, Heard, MAX_PRODUCERS};
use super::Inner;
use super::routes::{Client, is_same};
use crate::{LogError, LogObserver, Observation};

/// The followers of all logs.
#[derive(Default)]
pub(super) struct Followers {
    of: Mutex<HashMap<LogId, Vec<Weak<Follower>>>>,
}

impl Followers {
    fn add(&self, follower: &Arc<Follower>) {
        let mut of = self.of.lock();
        let followers = of.entry(follower.log).or_default();
        followers.push(Arc::downgrade(follower));
    }

    fn remove(&self, follower: &Follower) {
        let mut of = self.of.lock();
        if let Some(followers) = of.get_mut(&follower.log) {
            followers.retain(|other| !std::ptr::eq(other.as_ptr(), follower));
            if followers.is_empty() {
                of.remove(&follower.log);
            }
        }
    }

    pub(super) fn of(&self, log: LogId) -> Vec<Arc<Follower>> {
        let followers = self.of.lock().get(&log).cloned().unwrap_or_default();
        followers.iter().filter_map(Weak::upgrade).collect()
    }

    /// The log's route may lead elsewhere.
    pub(super) fn moved(&self, log: LogId) {
        for follower in self.of(log) {
            follower.moved();
        }
    }
}

/// One observation through a router.
pub(super) struct Follower {
    log: LogId,
    observer: Arc<dyn LogObserver>,
    router: Weak<Inner>,
    /// The stay that is heard; 0 when it is over.
    stay: AtomicU64,
    heard: Mutex<Heard>,
    at: Mutex<Option<Placed>>,
    moving: Mutex<Moving>,
}

/// Where it observes.
struct Placed {
    client: Client,
    /// While another is heard, this one isn't: it was tried to go elsewhere.
    stay: u64,
    /// Ends when it is dropped.
    _observation: Observation,
}

#[derive(Default)]
struct Moving {
    is_running: bool,
    /// It moved once more meanwhile.
    again: bool,
    ended: bool,
}

impl Follower {
    /// Observes `log`, and follows it until the observation is dropped.
    pub(super) async fn begin(
        router: &Arc<Inner>,
        log: LogId,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Observation, LogError> {
        let follower = Arc::new(Self {
            log,
            observer,
            router: Arc::downgrade(router),
            stay: AtomicU64::new(0),
            heard: Mutex::default(),
            at: Mutex::default(),
            moving: Mutex::default(),
        });
        router.followers.add(&follower);
        let kept = Arc::clone(&follower);
        let observation = Observation::new(move || kept.end());
        follower.stay(router).await?;
        Ok(observation)
    }

    /// Observes at the log's node of now. An observer that is dropped meanwhile ends it.
    async fn stay(self: &Arc<Self>, router: &Arc<Inner>) -> Result<(), LogError> {
        router
            .call(self.log, |client| {
                let follower = Arc::clone(self);
                async move {
                    let ear = follower.ear();
                    let stay = ear.stay;
                    let observation = client.observe(follower.log, Arc::new(ear)).await?;
                    let placed = Placed { client, stay, _observation: observation };
                    let before = {
                        let mut at = follower.at.lock();
                        if follower.stay.load(Ordering::SeqCst) == stay {
                            at.replace(placed)
                        } else {
                            Some(placed)
                        }
                    };
                    // Outside of the lock: its drop takes others.
                    drop(before);
                    Ok(())
                }
            })
            .await
    }

    /// Who is listened to from now on.
    pub(super) fn ear(self: &Arc<Self>) -> Ear {
        let mut heard = self.heard.lock();
        heard.stays += 1;
        let stay = heard.stays;
        heard.is_back = heard.bounds.is_some();
        let shown = std::mem::take(&mut heard.shown);
        heard.shown_before.extend(shown);
        if heard.shown_before.len() > MAX_PRODUCERS {
            heard.shown_before.clear();
        }
        self.stay.store(stay, Ordering::SeqCst);
        // Who ends it sets that first: one of the two sees the other.
        if self.moving.lock().ended {
            self.stay.store(0, Ordering::SeqCst);
        }
        Ear { follower: Arc::downgrade(self), stay }
    }

    /// The log is elsewhere: observes there, in a task.
    pub(super) fn moved(self: &Arc<Self>) {
        let Some(router) = self.router.upgrade() else { return };
        {
            // Until it has begun, who begins it sees to that.
            let has_begun = self.heard.lock().bounds.is_some();
            let mut moving = self.moving.lock();
            moving.again = true;
            if moving.ended || !has_begun || std::mem::replace(&mut moving.is_running, true) {
                return;
            }
        }
        let (follower, inner) = (Arc::downgrade(self), Arc::clone(&router));
        router.tasks.spawn(async move {
            inner.closing.run_until_cancelled(follow(follower, &inner)).await;
        });
    }

    /// Whether there is something to follow.
    fn next_move(&self) -> bool {
        let mut moving = self.moving.lock();
        moving.is_running = std::mem::take(&mut moving.again) && !moving.ended;
        moving.is_running
    }

    /// It is at the node that the log's route leads to, and heard from there.
    pub(super) fn is_placed(&self, router: &Inner) -> bool {
        let Some(known) = router.routes.client(self.log) else { return false };
        let heard = self.stay.load(Ordering::SeqCst);
        let at = self.at.lock();
        at.as_ref().is_some_and(|at| at.stay == heard && is_same(&at.client, &known))
    }

    /// Nothing more is told.
    fn end(&self) {
        self.moving.lock().ended = true;
        // Without the lock of what was heard: an observer may end its observation when it is told.
        self.stay.store(0, Ordering::SeqCst);
        let at = self.at.lock().take();
        drop(at);
        if let Some(router) = self.router.upgrade() {
            router.followers.remove(self);
        }
    }
}

/// Observes at the node where the log is, until it stays there.
async fn follow(follower: Weak<Follower>, router: &Arc<Inner>) {
    let backoff = Backoff::default();
    while let Some(follower) = follower.upgrade().filter(|follower| follower.next_move()) {
        if follower.is_placed(router) {
            continue;
        }
        match follower.stay(router).await {
            Ok(()) => backoff.worked(),
            Err(LogError::NoSuchLog) => {
                let observer = Arc::clone(&follower.observer);
                follower.end();
                return observer.ended(follower.log);
            }
            Err(error) => {
                tracing::debug!(log = %follower.log, %error, "an observation is tried again");
                follower.moving.lock().again = true;
                drop(follower);
                backoff.failed();
                backoff.ready().await;
            }
        }
    }
}
