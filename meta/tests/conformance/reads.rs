//! Reads see one version with the transaction's own writes on top.

use std::sync::Arc;

use interflow_meta::{MetaError, RangeOptions};

use super::Bed;

/// Developer guide, “Transactions in FoundationDB”: reads see the transaction's own earlier writes.
pub(super) async fn own_writes_are_read(bed: Arc<Bed>) {
    bed.fill(&["a", "b", "c", "d"]).await;
    let tx = bed.meta.begin();
    tx.set(bed.key("b"), "new").unwrap();
    tx.set(bed.key("bb"), "new").unwrap();
    tx.clear(bed.key("c")).unwrap();
    assert_eq!(tx.get(&bed.key("b")).await.unwrap(), Some("new".into()));
    assert_eq!(tx.get_snapshot(&bed.key("b")).await.unwrap(), Some("new".into()));
    assert_eq!(tx.get(&bed.key("c")).await.unwrap(), None);
    let all = RangeOptions::default();
    assert_eq!(bed.names(&tx, all).await, ["a", "b", "bb", "d"]);
    assert_eq!(bed.names(&tx, all.reversed()).await, ["d", "bb", "b", "a"]);
    tx.clear_range(bed.range("a", "c")).unwrap();
    assert_eq!(tx.get(&bed.key("b")).await.unwrap(), None);
    tx.set(bed.key("ab"), "back").unwrap();
    assert_eq!(bed.names(&tx, all).await, ["ab", "d"]);
    tx.commit().await.unwrap();
    assert_eq!(bed.names(&bed.meta.begin(), all).await, ["ab", "d"]);
}

/// C API, `fdb_transaction_atomic_op`: an atomic operation is a write like any other to later reads
/// of its transaction.
pub(super) async fn own_atomics_are_read_on_top_of_the_store(bed: Arc<Bed>) {
    let key = &bed.key("n");
    bed.meta.transact(|tx| async move { tx.add(key.clone(), 40) }).await.unwrap();
    let tx = bed.meta.begin();
    tx.add(key.clone(), 1).unwrap();
    tx.add(key.clone(), 1).unwrap();
    assert_eq!(tx.get(key).await.unwrap().unwrap()[..], 42_u64.to_le_bytes());
    tx.clear(key.clone()).unwrap();
    tx.add(key.clone(), 7).unwrap();
    assert_eq!(tx.get(key).await.unwrap().unwrap()[..], 7_u64.to_le_bytes());
}

/// Developer guide, “ACID properties”: all reads of a transaction see one version.
pub(super) async fn all_reads_see_one_version(bed: Arc<Bed>) {
    let (a, b) = (&bed.key("a"), &bed.key("b"));
    bed.fill(&["a"]).await;
    let tx = bed.meta.begin();
    assert!(tx.get(a).await.unwrap().is_some());
    bed.meta
        .transact(|tx| async move {
            tx.clear(a.clone())?;
            tx.set(b.clone(), "b")
        })
        .await
        .unwrap();
    assert!(tx.get_snapshot(a).await.unwrap().is_some());
    assert_eq!(tx.get_snapshot(b).await.unwrap(), None);
    assert_eq!(bed.names(&tx, RangeOptions::default()).await, ["a"]);
    assert_eq!(bed.names(&bed.meta.begin(), RangeOptions::default()).await, ["b"]);
}

/// Consistency, “External consistency”: a transaction that begins after another was acknowledged
/// sees it.
pub(super) async fn a_read_sees_every_commit_acknowledged_before(bed: Arc<Bed>) {
    for n in 0..100_u8 {
        let tx = bed.meta.begin();
        tx.set(bed.key("k"), vec![n]).unwrap();
        let committed = tx.commit().await.unwrap();
        let tx = bed.meta.begin();
        assert!(tx.read_version().await.unwrap() >= committed.version);
        assert_eq!(tx.get(&bed.key("k")).await.unwrap().unwrap()[..], [n]);
    }
}

/// Data modeling, “The core data model”: values are byte strings, the empty one as well.
pub(super) async fn an_empty_value_is_not_an_absent_one(bed: Arc<Bed>) {
    bed.set("k", "").await;
    assert_eq!(bed.value("k").await, Some(Vec::new()));
    assert_eq!(bed.value("other").await, None);
    assert_eq!(bed.names(&bed.meta.begin(), RangeOptions::default()).await, ["k"]);
}

/// Error codes, 2017 `used_during_commit`.
pub(super) async fn a_transaction_is_used_once(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    tx.set(bed.key("a"), "v").unwrap();
    tx.commit().await.unwrap();
    assert_eq!(tx.set(bed.key("b"), "v"), Err(MetaError::UsedAfterCommit));
    assert_eq!(tx.get(&bed.key("a")).await, Err(MetaError::UsedAfterCommit));
    assert_eq!(tx.commit().await, Err(MetaError::UsedAfterCommit));
    assert_eq!(MetaError::UsedAfterCommit.code(), Some(2017));
}

/// Developer guide, “ACID properties”: what was not committed never was.
pub(super) async fn nothing_is_seen_before_its_commit(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    tx.set(bed.key("a"), "v").unwrap();
    tx.add(bed.key("n"), 1).unwrap();
    assert!(tx.get(&bed.key("a")).await.unwrap().is_some());
    assert_eq!(bed.value("a").await, None);
    drop(tx);
    assert!(bed.names(&bed.meta.begin(), RangeOptions::default()).await.is_empty());
}
