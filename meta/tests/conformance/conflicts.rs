//! Which transactions conflict.

use std::sync::Arc;

use interflow_meta::{AtomicOp, KeyRange, MetaError, RangeOptions, Transaction};

use super::Bed;

/// Two transactions that each read what the other writes.
async fn skew(bed: &Bed) -> (Transaction, Transaction) {
    let (x, y) = (bed.key("x"), bed.key("y"));
    let (a, b) = (bed.begun().await, bed.begun().await);
    a.get(&x).await.unwrap();
    b.get(&y).await.unwrap();
    a.set(y, "a").unwrap();
    b.set(x, "b").unwrap();
    (a, b)
}

/// Error codes, 1020 `not_committed`; Developer guide, “How FoundationDB detects conflicts”: of two
/// that each read what the other writes, one fails.
pub(super) async fn write_skew_is_refused(bed: Arc<Bed>) {
    let (a, b) = skew(&bed).await;
    a.commit().await.unwrap();
    let refused = b.commit().await.unwrap_err();
    assert_eq!((refused.code(), refused.is_retryable()), (Some(1020), true));
    assert_eq!(bed.value("x").await, None);
}

/// Error codes, 1020 `not_committed`: also when both commit in one batch.
pub(super) async fn write_skew_is_refused_at_the_same_moment(bed: Arc<Bed>) {
    for _ in 0..50 {
        let (a, b) = skew(&bed).await;
        let (a, b) = tokio::join!(a.commit(), b.commit());
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    }
}

/// Developer guide, “Snapshot reads”: they add no read conflict range.
pub(super) async fn a_snapshot_read_does_not_conflict(bed: Arc<Bed>) {
    let tx = bed.begun().await;
    tx.get_snapshot(&bed.key("x")).await.unwrap();
    tx.get_range(&bed.all(), RangeOptions::default().snapshot()).await.unwrap();
    tx.set(bed.key("y"), "v").unwrap();
    bed.set("x", "other").await;
    tx.commit().await.unwrap();
}

/// Developer guide, “How FoundationDB detects conflicts”: writes alone never conflict; the later
/// commit wins.
pub(super) async fn writes_without_reads_do_not_conflict(bed: Arc<Bed>) {
    let tx = bed.begun().await;
    tx.set(bed.key("x"), "mine").unwrap();
    tx.add(bed.key("n"), 1).unwrap();
    bed.set("x", "theirs").await;
    tx.commit().await.unwrap();
    assert_eq!(bed.value("x").await.unwrap(), b"mine");
}

/// Developer guide, “How FoundationDB detects conflicts”: what writes nothing always commits.
pub(super) async fn a_transaction_without_writes_does_not_conflict(bed: Arc<Bed>) {
    let tx = bed.begun().await;
    tx.get(&bed.key("x")).await.unwrap();
    bed.set("x", "other").await;
    let committed = tx.commit().await.unwrap();
    assert!(committed.version <= bed.begun().await.read_version().await.unwrap());
}

/// C API, option `READ_YOUR_WRITES_DISABLE`: what a read finds in own writes depends on nobody else.
pub(super) async fn a_read_of_an_own_write_does_not_conflict(bed: Arc<Bed>) {
    let tx = bed.begun().await;
    tx.set(bed.key("x"), "mine").unwrap();
    tx.get(&bed.key("x")).await.unwrap();
    bed.set("x", "theirs").await;
    tx.commit().await.unwrap();
    assert_eq!(bed.value("x").await.unwrap(), b"mine");
}

/// C API, `fdb_transaction_atomic_op`: to read the key of an own operation is to read the store.
pub(super) async fn a_read_through_an_own_atomic_conflicts(bed: Arc<Bed>) {
    let tx = bed.begun().await;
    tx.add(bed.key("n"), 1).unwrap();
    tx.get(&bed.key("n")).await.unwrap();
    bed.set("n", "1").await;
    assert_eq!(tx.commit().await, Err(MetaError::Conflict));
}

/// Developer guide, “Conflict ranges”: a limited read conflicts up to its last row.
pub(super) async fn a_range_conflicts_as_far_as_it_was_read(bed: Arc<Bed>) {
    bed.fill(&["b", "d", "f"]).await;
    for (reverse, name, conflicts) in [
        (false, "a", true),
        (false, "c", true),
        (false, "d", true),
        (false, "e", false),
        (true, "e", true),
        (true, "c", false),
    ] {
        let tx = bed.begun().await;
        let options = RangeOptions { reverse, ..RangeOptions::limit(2) };
        tx.get_range(&bed.all(), options).await.unwrap();
        tx.set(bed.key("~"), "v").unwrap();
        let key = &bed.key(name);
        bed.meta.transact(|tx| async move { tx.clear(key.clone()) }).await.unwrap();
        let ended = tx.commit().await;
        assert_eq!(ended.err(), conflicts.then_some(MetaError::Conflict), "{name} {reverse}");
        bed.set("d", "v").await;
        let last = &bed.key("~");
        bed.meta.transact(|tx| async move { tx.clear(last.clone()) }).await.unwrap();
    }
}

/// Developer guide, “How FoundationDB detects conflicts”: that a key is absent was read as well.
pub(super) async fn an_absent_key_conflicts_with_its_first_write(bed: Arc<Bed>) {
    let tx = bed.begun().await;
    assert_eq!(tx.get(&bed.key("x")).await.unwrap(), None);
    tx.set(bed.key("y"), "v").unwrap();
    bed.set("x", "first").await;
    assert_eq!(tx.commit().await, Err(MetaError::Conflict));
}

/// C API, `fdb_transaction_add_conflict_range`, read.
pub(super) async fn read_conflicts_can_be_added_by_hand(bed: Arc<Bed>) {
    for (name, conflicts) in [("a", true), ("b", true), ("c", false)] {
        let tx = bed.begun().await;
        tx.add_read_conflict(bed.range("a", "c")).unwrap();
        tx.set(bed.key("x"), "v").unwrap();
        bed.set(name, "v").await;
        let ended = tx.commit().await;
        assert_eq!(ended.err(), conflicts.then_some(MetaError::Conflict), "{name}");
    }
}

/// C API, `fdb_transaction_add_conflict_range`, write: a commit with nothing else conflicts with
/// those who read there, and changes nothing.
pub(super) async fn write_conflicts_can_be_added_by_hand(bed: Arc<Bed>) {
    let reader = bed.begun().await;
    reader.get(&bed.key("b")).await.unwrap();
    reader.set(bed.key("x"), "v").unwrap();
    let writer = bed.begun().await;
    writer.add_write_conflict(KeyRange::key(&bed.key("b"))).unwrap();
    let committed = writer.commit().await.unwrap();
    assert!(committed.version > reader.read_version().await.unwrap());
    assert_eq!(reader.commit().await, Err(MetaError::Conflict));
    assert_eq!(bed.value("b").await, None);
}

/// C API, `fdb_transaction_clear_range`: all of the range is written, also where there was nothing.
pub(super) async fn a_cleared_range_conflicts_with_its_readers(bed: Arc<Bed>) {
    let tx = bed.begun().await;
    tx.get(&bed.key("m")).await.unwrap();
    tx.set(bed.key("x"), "v").unwrap();
    bed.clear().await;
    assert_eq!(tx.commit().await, Err(MetaError::Conflict));
}

/// C API, `FDB_MUTATION_TYPE_SET_VERSIONSTAMPED_KEY`: the key that it becomes is written.
pub(super) async fn a_stamped_key_conflicts_with_its_readers(bed: Arc<Bed>) {
    let tx = bed.begun().await;
    tx.get_range(&bed.range("s", "t"), RangeOptions::default()).await.unwrap();
    tx.set(bed.key("x"), "v").unwrap();
    let stamped = bed.begun().await;
    let offset = bed.prefix_bytes() + 1;
    stamped.set_versionstamped_key(bed.key("s.........."), offset, "v").unwrap();
    stamped.commit().await.unwrap();
    assert_eq!(tx.commit().await, Err(MetaError::Conflict));
}

/// Developer guide, “Atomic operations”: they read nothing.
pub(super) async fn atomics_on_one_key_never_conflict(bed: Arc<Bed>) {
    let mut begun = Vec::new();
    for _ in 0..20 {
        let tx = bed.begun().await;
        tx.add(bed.key("n"), 1).unwrap();
        tx.atomic(AtomicOp::Max, bed.key("max"), vec![1, 0]).unwrap();
        begun.push(tx);
    }
    for tx in begun {
        tx.commit().await.unwrap();
    }
    assert_eq!(bed.value("n").await.unwrap(), 20_u64.to_le_bytes());
}

/// Error codes, 1020 `not_committed`: nothing of the transaction was written.
pub(super) async fn a_failed_commit_leaves_nothing(bed: Arc<Bed>) {
    bed.fill(&["keep"]).await;
    let tx = bed.begun().await;
    tx.get(&bed.key("x")).await.unwrap();
    tx.set(bed.key("a"), "v").unwrap();
    tx.add(bed.key("n"), 1).unwrap();
    tx.clear_range(bed.range("k", "l")).unwrap();
    tx.set_versionstamped_value(bed.key("s"), "..........", 0).unwrap();
    bed.set("x", "other").await;
    assert_eq!(tx.commit().await, Err(MetaError::Conflict));
    assert_eq!(tx.versionstamp(), None);
    assert_eq!(bed.names(&bed.meta.begin(), RangeOptions::default()).await, ["keep", "x"]);
}

/// Developer guide, “Transaction retry loops”.
pub(super) async fn of_many_increments_none_is_lost(bed: Arc<Bed>) {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let bed = Arc::clone(&bed);
        tasks.spawn(async move {
            let key = &bed.key("n");
            for _ in 0..5 {
                bed.meta
                    .transact(|tx| async move {
                        let old = tx.get(key).await?.map_or(0, |value| value[0]);
                        tx.set(key.clone(), vec![old + 1])
                    })
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(bed.value("n").await.unwrap(), [100]);
}
