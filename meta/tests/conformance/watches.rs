//! Watches fire on a change, not before, and outlive their transaction.

use std::sync::Arc;

use interflow_meta::{MetaError, Watch};

use super::Bed;

async fn watch(bed: &Bed, name: &str) -> Watch {
    let key = &bed.key(name);
    bed.meta.transact(|tx| async move { tx.watch(key.clone()).await }).await.unwrap()
}

/// Developer guide, “Watches”: of this key, and only to another value.
pub(super) async fn a_watch_fires_on_a_change_of_its_key_only(bed: Arc<Bed>) {
    bed.set("k", "1").await;
    let mut watching = watch(&bed, "k").await;
    bed.set("other", "2").await;
    bed.set("k", "1").await;
    assert!(!watching.has_fired(), "the value is the same");
    bed.set("k", "2").await;
    watching.changed().await.unwrap();
}

/// Developer guide, “Watches”: every kind of write can be the change.
pub(super) async fn a_watch_sees_clears_atomics_and_first_values(bed: Arc<Bed>) {
    let key = &bed.key("k");
    let watching = watch(&bed, "k").await;
    bed.meta.transact(|tx| async move { tx.add(key.clone(), 1) }).await.unwrap();
    watching.changed().await.unwrap();
    let watching = watch(&bed, "k").await;
    bed.clear().await;
    watching.changed().await.unwrap();
    let watching = watch(&bed, "k").await;
    let stamp = |tx: interflow_meta::Transaction| async move {
        tx.set_versionstamped_value(key.clone(), "..........", 0)
    };
    bed.meta.transact(stamp).await.unwrap();
    watching.changed().await.unwrap();
}

/// C API, `fdb_transaction_watch`: it compares with what the transaction saw, so a change between
/// its read and its commit fires.
pub(super) async fn a_change_between_read_and_commit_is_not_missed(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    let watching = tx.watch(bed.key("k")).await.unwrap();
    bed.set("k", "changed").await;
    tx.commit().await.unwrap();
    watching.changed().await.unwrap();
}

/// C API, `fdb_transaction_watch`: what a transaction wrote before is what its watch has seen.
pub(super) async fn an_own_write_is_what_the_watch_has_seen(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    tx.set(bed.key("k"), "own").unwrap();
    let mut watching = tx.watch(bed.key("k")).await.unwrap();
    tx.commit().await.unwrap();
    bed.set("other", "v").await;
    assert!(!watching.has_fired());
    bed.set("k", "theirs").await;
    watching.changed().await.unwrap();
}

/// Developer guide, “Watches”: a change that is undone may go unnoticed; one that stays is told.
pub(super) async fn a_change_and_a_change_back_may_be_silent_another_is_not(bed: Arc<Bed>) {
    bed.set("k", "1").await;
    let watching = watch(&bed, "k").await;
    bed.set("k", "2").await;
    bed.set("k", "1").await;
    bed.set("k", "3").await;
    watching.changed().await.unwrap();
}

/// Developer guide, “Watches”: it goes on when its transaction and other transactions are gone.
pub(super) async fn a_watch_outlives_its_transaction_and_others(bed: Arc<Bed>) {
    let mut watching = watch(&bed, "k").await;
    for _ in 0..20 {
        bed.set("other", "v").await;
        let tx = bed.begun().await;
        tx.get(&bed.key("k")).await.unwrap();
        tx.set(bed.key("k"), "never committed").unwrap();
    }
    assert!(!watching.has_fired());
    bed.set("k", "v").await;
    watching.changed().await.unwrap();
}

/// Error codes, 1101 `operation_cancelled`: a watch of a transaction that never commits ends.
pub(super) async fn a_watch_ends_with_its_uncommitted_transaction(bed: Arc<Bed>) {
    let watching = {
        let tx = bed.meta.begin();
        tx.watch(bed.key("k")).await.unwrap()
    };
    let ended = watching.changed().await;
    assert!(matches!(ended, Err(MetaError::Unavailable(_))), "{ended:?}");
}

/// C API, `fdb_transaction_watch`: no read conflict range is added.
pub(super) async fn a_watch_is_no_read_conflict(bed: Arc<Bed>) {
    let tx = bed.begun().await;
    let watching = tx.watch(bed.key("k")).await.unwrap();
    tx.set(bed.key("x"), "v").unwrap();
    bed.set("k", "v").await;
    tx.commit().await.unwrap();
    watching.changed().await.unwrap();
}

/// Developer guide, “Watches”: each has its own.
pub(super) async fn many_watch_one_key(bed: Arc<Bed>) {
    let (one, two) = (watch(&bed, "k").await, watch(&bed, "k").await);
    drop(watch(&bed, "k").await);
    bed.set("k", "v").await;
    one.changed().await.unwrap();
    two.changed().await.unwrap();
}
