use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::*;
use crate::{AppendError, AppendKind, Appended};

const LOG: LogId = LogId(7);
const OTHER: LogId = LogId(8);

/// A node that takes what it is the sequencer of, and says so like a real one if it isn't.
#[derive(Default)]
struct FakeNode {
    is_elsewhere: AtomicBool,
    is_unreachable: AtomicBool,
    taken: Mutex<Vec<Bytes>>,
    calls: AtomicUsize,
    forget: Mutex<WrongNode>,
}

impl FakeNode {
    fn taken(&self) -> Vec<Bytes> {
        self.taken.lock().clone()
    }

    fn call<T>(&self, answer: T) -> Result<T, LogError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.is_unreachable.load(Ordering::Relaxed) {
            return Err(LogError::Unavailable("no answer".to_owned()));
        }
        match self.is_elsewhere.load(Ordering::Relaxed) {
            true => Err(LogError::NotSequencer),
            false => Ok(answer),
        }
    }
}

#[async_trait]
impl LogClient for FakeNode {
    fn append(&self, append: Append) -> AppendTicket {
        if self.is_elsewhere.load(Ordering::Relaxed) {
            self.forget.lock().tell(append.log);
            return AppendTicket::ready(Err(AppendError::NotSequencer));
        }
        let mut taken = self.taken.lock();
        let base_offset = taken.len() as u64;
        taken.push(append.batch);
        AppendTicket::ready(Ok(Appended { base_offset, log_start: 0, duplicate: false }))
    }

    async fn bounds(&self, _: LogId) -> Result<Bounds, LogError> {
        let committed = self.taken.lock().len() as u64;
        self.call(Bounds { start: 0, committed, stable: committed, leader_epoch: 0 })
    }

    async fn read(&self, _: Read) -> Result<ReadOutcome, ReadError> {
        Err(ReadError::NoSuchLog)
    }

    async fn observe(&self, _: LogId, _: Arc<dyn LogObserver>) -> Result<Observation, LogError> {
        self.call(Observation::new(|| ()))
    }

    async fn batch_at_time(&self, _: LogId, _: i64) -> Result<Option<(Offset, i64)>, LogError> {
        self.call(None)
    }

    async fn batch_of_max_time(&self, _: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        self.call(None)
    }

    async fn end_of_leader_epoch(
        &self,
        _: LogId,
        _: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        self.call(None)
    }

    async fn trim(&self, _: LogId, before: Offset) -> Result<Offset, LogError> {
        self.call(before)
    }

    async fn refresh(&self, _: LogId) -> Result<(), LogError> {
        self.call(())
    }

    async fn describe(&self, _: LogId) -> Result<LogDescription, LogError> {
        Err(LogError::NoSuchLog)
    }
}

/// Says what it is told to, once it may.
struct FakeDirectory {
    nodes: [Arc<FakeNode>; 2],
    at: Mutex<BTreeMap<LogId, Result<usize, RouteError>>>,
    /// A look for a route takes one.
    looks: Semaphore,
    looked: AtomicUsize,
}

impl FakeDirectory {
    fn new(logs: &[(LogId, usize)]) -> Arc<Self> {
        Arc::new(Self {
            nodes: Default::default(),
            at: Mutex::new(logs.iter().map(|(log, node)| (*log, Ok(*node))).collect()),
            looks: Semaphore::new(1_000),
            looked: AtomicUsize::new(0),
        })
    }

    fn hold(&self) {
        self.looks.forget_permits(1_000);
    }

    fn release(&self) {
        self.looks.add_permits(1_000);
    }

    fn put(&self, log: LogId, at: Result<usize, RouteError>) {
        self.at.lock().insert(log, at);
    }

    fn looked(&self) -> usize {
        self.looked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Directory for FakeDirectory {
    async fn client(&self, log: LogId) -> Result<Arc<dyn LogClient>, RouteError> {
        self.looks.acquire().await.unwrap().forget();
        self.looked.fetch_add(1, Ordering::Relaxed);
        let node = self.at.lock().get(&log).cloned().unwrap_or(Err(RouteError::NoSuchLog))?;
        Ok(self.nodes[node].clone())
    }

    fn on_wrong_node(&self, forget: WrongNode) {
        for node in &self.nodes {
            *node.forget.lock() = forget.clone();
        }
    }

    async fn close(&self) {}
}

fn append(log: LogId, name: &'static str) -> Append {
    Append {
        log,
        kind: AppendKind::Data,
        key: None,
        window: 5,
        count: 1,
        max_timestamp: 0,
        digest: None,
        early: false,
        batch: Bytes::from_static(name.as_bytes()),
    }
}

fn router(directory: &Arc<FakeDirectory>) -> Router {
    Router::new(directory.clone(), RouterOptions::default())
}

#[tokio::test(start_paused = true)]
async fn appends_wait_for_the_route_in_their_order_and_then_go_at_once() {
    let directory = FakeDirectory::new(&[(LOG, 0), (OTHER, 1)]);
    let router = router(&directory);
    directory.hold();
    let mut waiting: Vec<_> = ["a", "b", "c"].map(|name| router.append(append(LOG, name))).into();
    let other = router.append(append(OTHER, "other"));
    assert!((&mut waiting[0]).now_or_never().is_none());
    assert!(directory.nodes[0].taken().is_empty());
    directory.release();
    for (offset, ticket) in waiting.into_iter().enumerate() {
        assert_eq!(ticket.await.unwrap().base_offset, offset as u64);
    }
    other.await.unwrap();
    assert_eq!(directory.looked(), 2, "one a log, however many wait");
    // From here on it is known, and the call itself makes the append.
    let ticket = router.append(append(LOG, "d"));
    assert_eq!(directory.nodes[0].taken(), ["a", "b", "c", "d"]);
    assert_eq!(ticket.await.unwrap().base_offset, 3);
    assert_eq!(directory.nodes[1].taken(), ["other"]);
    assert_eq!(directory.looked(), 2);
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_moved_is_looked_for_again() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    router.append(append(LOG, "a")).await.unwrap();
    directory.nodes[0].is_elsewhere.store(true, Ordering::Relaxed);
    directory.put(LOG, Ok(1));
    // The producer's own: nobody may make it again for it.
    let refused = router.append(append(LOG, "b")).await;
    assert_eq!(refused, Err(AppendError::NotSequencer));
    router.append(append(LOG, "b")).await.unwrap();
    assert_eq!(directory.nodes[1].taken(), ["b"]);
    // A call is made again until it is answered.
    directory.nodes[0].is_elsewhere.store(false, Ordering::Relaxed);
    directory.nodes[1].is_elsewhere.store(true, Ordering::Relaxed);
    directory.put(LOG, Ok(0));
    assert_eq!(router.bounds(LOG).await.unwrap().committed, 1);
    assert_eq!(directory.nodes[1].calls.load(Ordering::Relaxed), 1);
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_can_not_be_reached_is_looked_for_until_patience_ends() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    directory.nodes[0].is_unreachable.store(true, Ordering::Relaxed);
    let began = Instant::now();
    let error = router.bounds(LOG).await.unwrap_err();
    assert!(matches!(error, LogError::Unavailable(_)), "{error}");
    assert!(began.elapsed() >= RouterOptions::default().patience);
    assert!(directory.looked() > 3, "its address may have changed");
    // It comes back, elsewhere.
    directory.put(LOG, Ok(1));
    router.trim(LOG, 3).await.unwrap();
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_no_route_is_told_why() {
    let directory = FakeDirectory::new(&[]);
    let router = router(&directory);
    assert_eq!(router.append(append(LOG, "a")).await, Err(AppendError::NoSuchLog));
    assert_eq!(router.bounds(LOG).await, Err(LogError::NoSuchLog));
    let down = || RouteError::Unavailable("metadata is down".to_owned());
    directory.put(LOG, Err(down()));
    let error = router.append(append(LOG, "a")).await.unwrap_err();
    assert_eq!(error, AppendError::Unavailable("metadata is down".to_owned()));
    let waiting = router.append(append(LOG, "b"));
    directory.put(LOG, Ok(0));
    waiting.await.unwrap();
    assert_eq!(directory.nodes[0].taken(), ["b"]);
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_and_given_up_at_the_end() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let options = RouterOptions { max_waiting_bytes: 1_000, ..RouterOptions::default() };
    let router = Router::new(directory.clone(), options);
    directory.hold();
    let waiting = router.append(append(LOG, "a"));
    let large = Append { batch: Bytes::from(vec![0; 1_000]), ..append(LOG, "") };
    assert_eq!(router.append(large.clone()).await, Err(AppendError::Busy));
    directory.release();
    waiting.await.unwrap();
    router.append(large).await.unwrap();

    directory.hold();
    let late = router.append(append(OTHER, "late"));
    let closing = router.close();
    let (late, ()) = tokio::join!(late, closing);
    assert!(matches!(late, Err(AppendError::Unavailable(_))), "{late:?}");
    let after = router.append(append(LogId(9), "after"));
    assert!(matches!(after.await, Err(AppendError::Unavailable(_))));
}
