//! Which transactions conflict, and what the retry loop makes of it.

use std::sync::atomic::Ordering;

use crate::testing::TestBed;
use crate::{KeyRange, Loss, Meta, MetaError, RangeOptions, Transaction};

async fn set(meta: &Meta, key: &'static str, value: &'static str) {
    meta.transact(|tx| async move { tx.set(key, value) }).await.unwrap();
}

async fn begun(meta: &Meta) -> Transaction {
    let tx = meta.begin();
    tx.read_version().await.unwrap();
    tx
}

/// Two transactions that each read what the other writes: one must fail (1020).
#[tokio::test]
async fn write_skew_is_refused() {
    let bed = TestBed::new();
    let (a, b) = (begun(&bed.meta).await, begun(&bed.meta).await);
    a.get(b"x").await.unwrap();
    b.get(b"y").await.unwrap();
    a.set("y", "a").unwrap();
    b.set("x", "b").unwrap();
    a.commit().await.unwrap();
    assert_eq!(b.commit().await, Err(MetaError::Conflict));
    assert_eq!(bed.meta.begin().get(b"x").await.unwrap(), None);
}

/// The same within one batch: both wait for the same sync.
#[tokio::test]
async fn write_skew_is_refused_at_the_same_moment() {
    let bed = TestBed::new();
    for _ in 0..50 {
        let (a, b) = (begun(&bed.meta).await, begun(&bed.meta).await);
        a.get(b"x").await.unwrap();
        b.get(b"y").await.unwrap();
        a.set("y", "a").unwrap();
        b.set("x", "b").unwrap();
        let (a, b) = tokio::join!(a.commit(), b.commit());
        assert!(a.is_ok() != b.is_ok(), "{a:?} {b:?}");
    }
}

#[tokio::test]
async fn a_snapshot_read_does_not_conflict() {
    let bed = TestBed::new();
    let tx = begun(&bed.meta).await;
    tx.get_snapshot(b"x").await.unwrap();
    let options = RangeOptions::default().snapshot();
    tx.get_range(&KeyRange::new("a", "z"), options).await.unwrap();
    tx.set("y", "v").unwrap();
    set(&bed.meta, "x", "other").await;
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn writes_without_reads_do_not_conflict() {
    let bed = TestBed::new();
    let tx = begun(&bed.meta).await;
    tx.set("x", "mine").unwrap();
    tx.add("n", 1).unwrap();
    set(&bed.meta, "x", "theirs").await;
    tx.commit().await.unwrap();
    let value = bed.meta.begin().get(b"x").await.unwrap();
    assert_eq!(value, Some("mine".into()));
}

#[tokio::test]
async fn a_transaction_without_writes_does_not_conflict() {
    let bed = TestBed::new();
    let tx = begun(&bed.meta).await;
    tx.get(b"x").await.unwrap();
    set(&bed.meta, "x", "other").await;
    tx.commit().await.unwrap();
}

/// Only what was read of a range conflicts: a limited read ends at its last row.
#[tokio::test]
async fn a_range_conflicts_as_far_as_it_was_read() {
    let bed = TestBed::new();
    for key in ["b", "d", "f"] {
        set(&bed.meta, key, "v").await;
    }
    for (reverse, key, conflicts) in [
        (false, "a", true),
        (false, "c", true),
        (false, "d", true),
        (false, "e", false),
        (true, "e", true),
        (true, "c", false),
    ] {
        let tx = begun(&bed.meta).await;
        let options = RangeOptions { reverse, ..RangeOptions::limit(2) };
        tx.get_range(&KeyRange::new("a", "z"), options).await.unwrap();
        tx.set("~", "v").unwrap();
        bed.meta.transact(|tx| async move { tx.clear(key) }).await.unwrap();
        assert_eq!(tx.commit().await.is_err(), conflicts, "{key} {reverse}");
        set(&bed.meta, "d", "v").await;
    }
}

#[tokio::test]
async fn conflict_ranges_can_be_added_by_hand() {
    let bed = TestBed::new();
    let reader = begun(&bed.meta).await;
    reader.add_read_conflict(KeyRange::new("a", "c")).unwrap();
    reader.set("x", "v").unwrap();
    let writer = begun(&bed.meta).await;
    writer.add_write_conflict(KeyRange::key(b"b")).unwrap();
    writer.commit().await.unwrap();
    assert_eq!(reader.commit().await, Err(MetaError::Conflict));
}

#[tokio::test]
async fn a_cleared_range_conflicts_with_its_readers() {
    let bed = TestBed::new();
    let tx = begun(&bed.meta).await;
    tx.get(b"m").await.unwrap();
    tx.set("x", "v").unwrap();
    bed.meta.transact(|tx| async move { tx.clear_range(KeyRange::new("a", "z")) }).await.unwrap();
    assert_eq!(tx.commit().await, Err(MetaError::Conflict));
}

#[tokio::test]
async fn a_transaction_is_used_once() {
    let bed = TestBed::new();
    let tx = bed.meta.begin();
    tx.set("a", "v").unwrap();
    tx.commit().await.unwrap();
    assert_eq!(tx.set("b", "v"), Err(MetaError::UsedAfterCommit));
    assert_eq!(tx.get(b"a").await, Err(MetaError::UsedAfterCommit));
    assert_eq!(tx.commit().await, Err(MetaError::UsedAfterCommit));
}

async fn increment(tx: Transaction) -> Result<(), MetaError> {
    let old = tx.get(b"n").await?.map_or(0, |value| value[0]);
    tx.set("n", vec![old + 1])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_increments_none_is_lost() {
    let bed = TestBed::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let meta = bed.meta.clone();
        tasks.spawn(async move {
            for _ in 0..5 {
                meta.transact(increment).await.unwrap();
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    let value = bed.meta.begin().get(b"n").await.unwrap().unwrap();
    assert_eq!(value[..], [100]);
}

/// An idempotent body, by its token, runs until the answer is known (1021).
#[tokio::test]
async fn an_unknown_commit_is_resolved_by_reading() {
    for loss in [Loss::Answer, Loss::Request] {
        let bed = TestBed::new();
        bed.lossy.plan([loss]);
        let found = bed
            .meta
            .transact(|tx| async move {
                let found = tx.get(b"token").await?.is_some();
                assert!(tx.is_maybe_committed() || !found);
                if !found {
                    tx.set("token", "t")?;
                    tx.add("n", 1)?;
                }
                Ok::<_, MetaError>(found)
            })
            .await
            .unwrap();
        assert_eq!(found, matches!(loss, Loss::Answer));
        let value = bed.meta.begin().get(b"n").await.unwrap().unwrap();
        assert_eq!(value[0], 1, "once, whichever way it was lost");
        assert!(bed.probe.commits.load(Ordering::Relaxed) >= 2);
    }
}

#[tokio::test]
async fn an_own_error_ends_the_loop_at_once() {
    let bed = TestBed::new();
    let failed = bed
        .meta
        .transact(|tx| async move {
            tx.set("a", "v")?;
            Err::<(), _>(MetaError::InvalidOperation("mine"))
        })
        .await;
    assert_eq!(failed, Err(MetaError::InvalidOperation("mine")));
    assert_eq!(bed.probe.commits.load(Ordering::Relaxed), 0);
    assert_eq!(bed.meta.begin().get(b"a").await.unwrap(), None);
}

#[tokio::test]
async fn a_closed_store_refuses_commits_and_serves_reads() {
    let bed = TestBed::new();
    set(&bed.meta, "a", "v").await;
    bed.meta.close().await;
    let tx = bed.meta.begin();
    assert!(tx.get(b"a").await.unwrap().is_some());
    tx.set("a", "w").unwrap();
    assert!(matches!(tx.commit().await, Err(MetaError::Unavailable(_))));
}
