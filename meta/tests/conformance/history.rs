//! Many transactions at the same time, checked afterwards: there is one order, that of the stamps,
//! in which they could have run one by one.
//!
//! Each transaction leaves a mark with its own stamp, so that those whose answer was lost are known
//! as well, with their place in the order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use interflow_meta::{Loss, MetaError, STAMP_BYTES};
use rand::RngExt;

use super::Bed;
use super::steps::{Map, Seed, Seen, Step, contents};

const TASKS: usize = 6;
const EACH: usize = 12;

type Stamp = [u8; STAMP_BYTES];

/// What was done, and what came of it.
struct Done {
    id: usize,
    steps: Vec<Step>,
    seen: Vec<Seen>,
    read_version: u64,
    ended: Result<Stamp, MetaError>,
}

impl Done {
    fn writes(&self) -> bool {
        self.steps.iter().any(Step::is_write)
    }

    /// Plays it on `model`: what it reads there is what it read.
    fn replay(&self, model: &mut Map) {
        for (step, seen) in self.steps.iter().zip(&self.seen) {
            assert_eq!(step.apply(model), *seen, "transaction {}: {step:?}", self.id);
        }
    }
}

/// Where transaction `id` leaves its stamp.
fn mark(bed: &Bed, id: usize) -> Vec<u8> {
    bed.key(format!("mark{id:04}"))
}

/// One transaction. `acked` is the greatest version that anybody was told of.
async fn attempt(bed: &Bed, id: usize, steps: Vec<Step>, acked: &AtomicU64) -> Done {
    let known = acked.load(Ordering::SeqCst);
    let tx = bed.meta.begin();
    let read_version = tx.read_version().await.unwrap();
    assert!(read_version >= known, "an acknowledged commit is not seen");
    let mut seen = Vec::new();
    for step in &steps {
        seen.push(step.run(bed, &tx).await.unwrap());
        tokio::task::yield_now().await;
    }
    if steps.iter().any(Step::is_write) {
        tx.set_versionstamped_value(mark(bed, id), "..........", 0).unwrap();
    }
    let ended = tx.commit().await.map(|committed| {
        acked.fetch_max(committed.version, Ordering::SeqCst);
        committed.stamp
    });
    Done { id, steps, seen, read_version, ended }
}

/// Runs a history of random transactions and checks it.
async fn run(bed: &Arc<Bed>, seed: &mut Seed) {
    bed.clear().await;
    let acked = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let plans: Vec<_> = (0..EACH)
            .map(|_| {
                // Some only read.
                if seed.random.random_range(0..5) == 0 {
                    vec![seed.read(), seed.read(), seed.read()]
                } else {
                    seed.steps(4)
                }
            })
            .collect();
        let (bed, acked) = (Arc::clone(bed), Arc::clone(&acked));
        tasks.spawn(async move {
            let mut done = Vec::new();
            for (n, steps) in plans.into_iter().enumerate() {
                done.push(attempt(&bed, task * EACH + n, steps, &acked).await);
            }
            done
        });
    }
    let mut history = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        history.extend(ended.unwrap());
    }
    check(bed, &history).await;
}

/// Finds the order and plays it again.
async fn check(bed: &Bed, history: &[Done]) {
    let mut order: BTreeMap<Stamp, &Done> = BTreeMap::new();
    for done in history.iter().filter(|done| done.writes()) {
        let marked = bed.value(&format!("mark{:04}", done.id)).await;
        let marked = marked.map(|stamp| Stamp::try_from(&stamp[..]).unwrap());
        match &done.ended {
            Ok(stamp) => assert_eq!(marked, Some(*stamp), "an acknowledged commit is lost"),
            Err(MetaError::CommitUnknown) => {}
            Err(MetaError::Conflict) => assert_eq!(marked, None, "a refused commit was made"),
            Err(other) => panic!("{other}"),
        }
        if let Some(stamp) = marked {
            assert!(order.insert(stamp, done).is_none(), "two have one stamp");
        }
    }
    let mut model = Map::new();
    // What the store held at each version, from nothing.
    let mut versions = BTreeMap::from([(0, model.clone())]);
    for (stamp, done) in order {
        done.replay(&mut model);
        let version = stamp.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes)).unwrap();
        assert!(version > done.read_version);
        versions.insert(version, model.clone());
    }
    assert_eq!(contents(bed).await, model);
    for done in history.iter().filter(|done| !done.writes()) {
        let (_, model) = versions.range(..=done.read_version).next_back().unwrap();
        done.replay(&mut model.clone());
    }
}

/// Consistency, “Strict serializability”: in the order of the stamps each transaction read what
/// those before it wrote, and one that begins behind an acknowledged one sees it.
pub(super) async fn concurrent_histories_are_serializable_in_stamp_order(bed: Arc<Bed>) {
    for mut seed in Seed::several(8) {
        run(&bed, &mut seed).await;
    }
}

/// Error codes, 1021 `commit_unknown_result`: the same when answers and requests are lost.
pub(super) async fn histories_with_lost_answers_are_serializable_in_stamp_order(bed: Arc<Bed>) {
    for mut seed in Seed::several(8) {
        // Not those of the clear before.
        let losses = (0..TASKS * EACH).map(|_| match seed.random.random_range(0..6) {
            0 => Loss::Answer,
            1 => Loss::Request,
            _ => Loss::None,
        });
        let losses: Vec<_> = std::iter::once(Loss::None).chain(losses).collect();
        bed.store.plan(losses);
        run(&bed, &mut seed).await;
    }
}
