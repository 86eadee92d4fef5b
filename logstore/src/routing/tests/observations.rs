//! Observations that follow their logs.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::fake::{at, key};
use super::*;
use crate::{EarlyBatch, Withheld};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    At(Offset),
    Early(i32),
    Below(Offset),
    UpTo(i32),
    Ended,
}

#[derive(Default)]
struct Recorder {
    told: Mutex<Vec<Told>>,
    changed: Notify,
}

impl Recorder {
    fn push(&self, told: Told) {
        self.told.lock().push(told);
        self.changed.notify_waiters();
    }

    async fn until(&self, last: Told) -> Vec<Told> {
        loop {
            let changed = self.changed.notified();
            let told = self.told.lock().clone();
            if told.last() == Some(&last) {
                return told;
            }
            changed.await;
        }
    }
}

impl LogObserver for Recorder {
    fn advanced(&self, _: LogId, bounds: Bounds) {
        self.push(Told::At(bounds.committed));
    }

    fn early(&self, _: LogId, batch: &EarlyBatch) {
        self.push(Told::Early(batch.key.sequence));
    }

    fn withheld(&self, _: LogId, until: Withheld) {
        self.push(match until {
            Withheld::UpTo(key) => Told::UpTo(key.sequence),
            Withheld::Below(offset) => Told::Below(offset),
        });
    }

    fn moved(&self, _: LogId) {
        panic!("it follows");
    }

    fn ended(&self, _: LogId) {
        self.push(Told::Ended);
    }
}

/// Who observes at the node, the newest.
fn ear(node: &FakeNode) -> Arc<dyn LogObserver> {
    node.observers.lock().last().unwrap().clone()
}

fn early(sequence: i32) -> EarlyBatch {
    EarlyBatch { key: key(sequence), bytes: Bytes::from_static(b"early") }
}

#[tokio::test(start_paused = true)]
async fn an_observation_follows_its_log_and_never_goes_back() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    let recorder = Arc::new(Recorder::default());
    let observation = router.observe(LOG, recorder.clone()).await.unwrap();
    let first = ear(&directory.nodes[0]);
    first.advanced(LOG, at(5));
    first.early(LOG, &early(0));
    first.early(LOG, &early(1));
    directory.put(LOG, Ok(1));
    first.moved(LOG);
    // The new node knows less at first.
    recorder.until(Told::At(5)).await;
    while directory.nodes[1].observers.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    let second = ear(&directory.nodes[1]);
    // What was shown comes again with its append: it is not shown twice. What is new is.
    second.early(LOG, &early(1));
    second.early(LOG, &early(2));
    second.advanced(LOG, at(8));
    // Nothing of an earlier node is heard any more.
    first.early(LOG, &early(3));
    first.advanced(LOG, at(9));
    let told = recorder.until(Told::At(8)).await;
    let before = [Told::At(0), Told::At(5), Told::Early(0), Told::Early(1)];
    let after = [Told::Below(5), Told::At(5), Told::UpTo(1), Told::Early(2), Told::At(8)];
    assert_eq!(told, [&before[..], &after].concat());
    drop(observation);
    second.advanced(LOG, at(10));
    assert_eq!(recorder.told.lock().len(), told.len());
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_moves_while_its_observation_begins_is_followed() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    let recorder = Arc::new(Recorder::default());
    directory.nodes[0].is_leaving.store(true, std::sync::atomic::Ordering::Relaxed);
    let _observation = router.observe(LOG, recorder.clone()).await.unwrap();
    directory.put(LOG, Ok(1));
    let there = async {
        while directory.nodes[1].observers.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), there).await.expect("it is observed there");
    ear(&directory.nodes[1]).advanced(LOG, at(8));
    recorder.until(Told::At(8)).await;
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn after_it_was_tried_elsewhere_in_vain_it_is_observed_anew() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    let recorder = Arc::new(Recorder::default());
    let _observation = router.observe(LOG, recorder.clone()).await.unwrap();
    let follower = router.inner.followers.of(LOG).remove(0);
    assert!(follower.is_placed(&router.inner));
    // The other node didn't take it, and meanwhile the log's route leads to the first again.
    drop(follower.ear());
    assert!(!follower.is_placed(&router.inner));
    follower.moved();
    while directory.nodes[0].observers.lock().len() < 2 {
        tokio::task::yield_now().await;
    }
    ear(&directory.nodes[0]).advanced(LOG, at(8));
    recorder.until(Told::At(8)).await;
    assert!(follower.is_placed(&router.inner));
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_down_is_left() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    let recorder = Arc::new(Recorder::default());
    let _observation = router.observe(LOG, recorder.clone()).await.unwrap();
    directory.nodes[0].set(Mode::Down);
    directory.fails_over_to(1);
    directory.nodes[0].doubt(LOG, Doubt::Unreachable);
    // Appends of others meanwhile.
    while directory.nodes[1].observers.lock().is_empty() {
        tokio::task::yield_now().await;
    }
    ear(&directory.nodes[1]).advanced(LOG, at(3));
    let told = recorder.until(Told::At(3)).await;
    assert_eq!(told, [Told::At(0), Told::Below(0), Told::At(0), Told::At(3)]);
    assert_eq!(directory.failovers(LOG), 1);
    // It is where it belongs: a late doubt about the first node changes nothing.
    directory.nodes[0].doubt(LOG, Doubt::Unreachable);
    router.bounds(LOG).await.unwrap();
    assert_eq!(directory.nodes[1].observers.lock().len(), 1);
    router.close().await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_log_and_not_with_a_client() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    let recorder = Arc::new(Recorder::default());
    let _observation = router.observe(LOG, recorder.clone()).await.unwrap();
    // The client of the node was closed, for the node has another address.
    ear(&directory.nodes[0]).ended(LOG);
    while directory.nodes[0].observers.lock().len() < 2 {
        tokio::task::yield_now().await;
    }
    ear(&directory.nodes[0]).advanced(LOG, at(1));
    recorder.until(Told::At(1)).await;
    directory.put(LOG, Err(RouteError::NoSuchLog));
    ear(&directory.nodes[0]).ended(LOG);
    recorder.until(Told::Ended).await;
    assert_eq!(router.observe(LOG, recorder).await.err(), Some(LogError::NoSuchLog));
    router.close().await;
}

/// Ends its observation when it is told something.
#[derive(Default)]
struct Leaves(Mutex<Option<Observation>>);

impl LogObserver for Leaves {
    fn advanced(&self, _: LogId, _: Bounds) {
        let observation = self.0.lock().take();
        drop(observation);
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_may_end_its_observation_when_it_is_told() {
    let directory = FakeDirectory::new(&[(LOG, 0)]);
    let router = router(&directory);
    let leaves = Arc::new(Leaves::default());
    let observation = router.observe(LOG, leaves.clone()).await.unwrap();
    *leaves.0.lock() = Some(observation);
    ear(&directory.nodes[0]).advanced(LOG, at(1));
    assert!(leaves.0.lock().is_none());
    router.close().await;
}
