//! The store against a model: random transactions, some at the same time, in a repeatable order.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use crate::testing::TestBed;
use crate::{AtomicOp, KeyRange, Meta, RangeOptions, Transaction};

type Map = BTreeMap<Vec<u8>, Bytes>;

#[derive(Clone, Debug)]
enum Step {
    Set(Vec<u8>, Vec<u8>),
    Clear(Vec<u8>),
    ClearRange(Vec<u8>, Vec<u8>),
    Atomic(AtomicOp, Vec<u8>, Vec<u8>),
    Get(Vec<u8>),
    Range(Vec<u8>, Vec<u8>, usize, usize, bool),
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(0_u8..3, 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    use AtomicOp::{Add, And, ByteMax, ByteMin, CompareAndClear, Max, Min, Or, Xor};
    let ops = vec![Add, And, ByteMax, ByteMin, CompareAndClear, Max, Min, Or, Xor];
    let value = || proptest::collection::vec(0_u8..3, 0..4);
    prop_oneof![
        3 => (key(), value()).prop_map(|(key, value)| Step::Set(key, value)),
        1 => key().prop_map(Step::Clear),
        1 => (key(), key()).prop_map(|(a, b)| Step::ClearRange(a.clone().min(b.clone()), a.max(b))),
        3 => (proptest::sample::select(ops), key(), value())
            .prop_map(|(op, key, value)| Step::Atomic(op, key, value)),
        2 => key().prop_map(Step::Get),
        3 => (key(), key(), 1_usize..6, 1_usize..12, any::<bool>()).prop_map(
            |(a, b, rows, bytes, reverse)| {
                Step::Range(a.clone().min(b.clone()), a.max(b), rows, bytes, reverse)
            }
        ),
    ]
}

/// Makes one step on both and compares what is read.
async fn run(step: &Step, tx: &Transaction, model: &mut Map) {
    match step.clone() {
        Step::Set(key, value) => {
            tx.set(key.clone(), value.clone()).unwrap();
            model.insert(key, value.into());
        }
        Step::Clear(key) => {
            tx.clear(key.clone()).unwrap();
            model.remove(&key);
        }
        Step::ClearRange(begin, end) => {
            tx.clear_range(KeyRange::new(begin.clone(), end.clone())).unwrap();
            model.retain(|key, _| *key < begin || *key >= end);
        }
        Step::Atomic(op, key, operand) => {
            tx.atomic(op, key.clone(), operand.clone()).unwrap();
            match op.apply(model.get(&key), &operand.into()) {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        Step::Get(key) => {
            assert_eq!(tx.get(&key).await.unwrap().as_ref(), model.get(&key));
        }
        Step::Range(begin, end, rows, bytes, reverse) => {
            let options = RangeOptions { rows, bytes, reverse, snapshot: false };
            let mut scan = tx.scan(KeyRange::new(begin.clone(), end.clone()), options);
            let mut found = Vec::new();
            while let Some(page) = scan.next_page().await.unwrap() {
                found.extend(page);
            }
            let mut expected: Vec<(Bytes, Bytes)> = model
                .range(begin..end)
                .map(|(key, value)| (key.clone().into(), value.clone()))
                .collect();
            if reverse {
                expected.reverse();
            }
            expected.truncate(rows);
            assert_eq!(found, expected);
        }
    }
}

async fn contents(meta: &Meta) -> Map {
    let all = KeyRange::new(Bytes::new(), vec![0xff]);
    let rows = meta.begin().get_all(&all).await.unwrap();
    rows.into_iter().map(|(key, value)| (key.to_vec(), value)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn transactions_one_after_the_other_do_what_the_model_does(
        transactions in proptest::collection::vec(
            (proptest::collection::vec(step(), 1..12), any::<bool>()), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bed = TestBed::new();
            let mut model = Map::new();
            for (steps, commits) in transactions {
                let tx = bed.meta.begin();
                let mut mine = model.clone();
                for step in &steps {
                    run(step, &tx, &mut mine).await;
                }
                if commits {
                    tx.commit().await.unwrap();
                    model = mine;
                }
                assert_eq!(contents(&bed.meta).await, model);
            }
        });
    }

    /// Two transactions interleaved: if both commit, the outcome is that of one after the other in
    /// the order of their commits, reads included.
    #[test]
    fn what_commits_is_serializable(
        a in proptest::collection::vec(step(), 1..6),
        b in proptest::collection::vec(step(), 1..6),
        start in proptest::collection::vec(step(), 0..6),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bed = TestBed::new();
            let mut model = Map::new();
            let tx = bed.meta.begin();
            for step in &start {
                run(step, &tx, &mut model).await;
            }
            tx.commit().await.unwrap();
            let (first, second) = (bed.meta.begin(), bed.meta.begin());
            let (mut seen_first, mut seen_second) = (model.clone(), model.clone());
            for step in &a {
                run(step, &first, &mut seen_first).await;
            }
            for step in &b {
                run(step, &second, &mut seen_second).await;
            }
            first.commit().await.unwrap();
            assert_eq!(contents(&bed.meta).await, seen_first);
            // Without writes it belongs where its reads are: before the first.
            let writes = b.iter().any(is_write);
            if second.commit().await.is_ok() && writes {
                // Played again behind the first one, its reads and writes come out the same.
                let mut after = seen_first.clone();
                for step in &b {
                    if let Step::Get(key) = step {
                        let before = seen_at(&model, &b, step);
                        let now = seen_at(&seen_first, &b, step);
                        assert_eq!(before.get(key), now.get(key));
                    }
                    apply(step, &mut after);
                }
                assert_eq!(contents(&bed.meta).await, after);
            }
        });
    }
}

fn is_write(step: &Step) -> bool {
    match step {
        Step::Set(..) | Step::Clear(_) | Step::Atomic(..) => true,
        Step::ClearRange(begin, end) => begin < end,
        Step::Get(_) | Step::Range(..) => false,
    }
}

/// The writes of `step` alone.
fn apply(step: &Step, model: &mut Map) {
    match step.clone() {
        Step::Set(key, value) => {
            model.insert(key, value.into());
        }
        Step::Clear(key) => {
            model.remove(&key);
        }
        Step::ClearRange(begin, end) => model.retain(|key, _| *key < begin || *key >= end),
        Step::Atomic(op, key, operand) => {
            match op.apply(model.get(&key), &operand.into()) {
                Some(value) => model.insert(key, value),
                None => model.remove(&key),
            };
        }
        Step::Get(_) | Step::Range(..) => {}
    }
}

/// `base` as it is before `until` (that very step) in `steps`.
fn seen_at(base: &Map, steps: &[Step], until: &Step) -> Map {
    let mut map = base.clone();
    for step in steps {
        if std::ptr::eq(step, until) {
            break;
        }
        apply(step, &mut map);
    }
    map
}
