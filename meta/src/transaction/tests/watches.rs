//! Watches fire on a change, not before, and outlive their transaction.

use crate::testing::TestBed;
use crate::{KeyRange, Meta, MetaError, Watch};

async fn set(meta: &Meta, key: &'static str, value: &'static str) {
    meta.transact(|tx| async move { tx.set(key, value) }).await.unwrap();
}

async fn watch(meta: &Meta, key: &'static str) -> Watch {
    meta.transact(|tx| async move { tx.watch(key).await }).await.unwrap()
}

#[tokio::test]
async fn a_watch_fires_on_a_change_of_its_key_only() {
    let bed = TestBed::new();
    set(&bed.meta, "k", "1").await;
    let mut watching = watch(&bed.meta, "k").await;
    set(&bed.meta, "other", "2").await;
    set(&bed.meta, "k", "1").await;
    assert!(!watching.has_fired(), "the value is the same");
    set(&bed.meta, "k", "2").await;
    watching.changed().await.unwrap();
}

#[tokio::test]
async fn a_watch_sees_clears_atomics_and_first_values() {
    let bed = TestBed::new();
    let watching = watch(&bed.meta, "k").await;
    bed.meta.transact(|tx| async move { tx.add("k", 1) }).await.unwrap();
    watching.changed().await.unwrap();
    let watching = watch(&bed.meta, "k").await;
    bed.meta.transact(|tx| async move { tx.clear_range(KeyRange::new("a", "z")) }).await.unwrap();
    watching.changed().await.unwrap();
}

#[tokio::test]
async fn a_change_between_read_and_commit_is_not_missed() {
    let bed = TestBed::new();
    let tx = bed.meta.begin();
    let watching = tx.watch("k").await.unwrap();
    set(&bed.meta, "k", "changed").await;
    tx.commit().await.unwrap();
    watching.changed().await.unwrap();
}

#[tokio::test]
async fn an_own_write_is_what_the_watch_has_seen() {
    let bed = TestBed::new();
    let tx = bed.meta.begin();
    tx.set("k", "own").unwrap();
    let mut watching = tx.watch("k").await.unwrap();
    tx.commit().await.unwrap();
    set(&bed.meta, "other", "v").await;
    assert!(!watching.has_fired());
    set(&bed.meta, "k", "theirs").await;
    watching.changed().await.unwrap();
}

#[tokio::test]
async fn a_watch_ends_with_its_uncommitted_transaction_or_its_store() {
    let bed = TestBed::new();
    let watching = {
        let tx = bed.meta.begin();
        tx.watch("k").await.unwrap()
    };
    let ended = watching.changed().await;
    assert!(matches!(ended, Err(MetaError::Unavailable(_))));
    let watching = watch(&bed.meta, "k").await;
    bed.meta.close().await;
    let ended = watching.changed().await;
    assert!(matches!(ended, Err(MetaError::Unavailable(_))));
}

#[tokio::test]
async fn many_watch_one_key() {
    let bed = TestBed::new();
    let (one, two) = (watch(&bed.meta, "k").await, watch(&bed.meta, "k").await);
    drop(watch(&bed.meta, "k").await);
    set(&bed.meta, "k", "v").await;
    one.changed().await.unwrap();
    two.changed().await.unwrap();
}
