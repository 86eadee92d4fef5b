//! FoundationDB's limits, with its error codes.

use std::sync::Arc;
use std::time::Duration;

use interflow_meta::{
    Commit, KeyRange, MAX_KEY_BYTES, MAX_VALUE_BYTES, MetaError, Mutation, Store,
};

use super::Bed;

/// A key of this case with `bytes` in all.
fn long_key(bed: &Bed, bytes: usize) -> Vec<u8> {
    let mut key = bed.key("");
    key.resize(bytes, 1);
    key
}

/// Known limitations, “Large keys and values”; Error codes, 2102 `key_too_large`.
pub(super) async fn keys_have_a_greatest_size(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    let longest = long_key(&bed, MAX_KEY_BYTES);
    tx.set(longest.clone(), "v").unwrap();
    tx.get(&longest).await.unwrap();
    let longer = long_key(&bed, MAX_KEY_BYTES + 1);
    for refused in [
        tx.set(longer.clone(), "").unwrap_err(),
        tx.clear(longer.clone()).unwrap_err(),
        tx.add(longer.clone(), 1).unwrap_err(),
        tx.set_versionstamped_key(longer.clone(), 0, "").unwrap_err(),
        tx.set_versionstamped_value(longer.clone(), "..........", 0).unwrap_err(),
        tx.get(&longer).await.unwrap_err(),
        tx.watch(longer.clone()).await.unwrap_err(),
    ] {
        assert_eq!((refused.code(), refused.is_retryable()), (Some(2102), false), "{refused}");
    }
    tx.commit().await.unwrap();
    let tx = bed.meta.begin();
    assert!(tx.get(&longest).await.unwrap().is_some());
    let rows = tx.get_all(&bed.all()).await.unwrap();
    assert_eq!(rows.len(), 1);
    // What was read of it ends one byte behind the longest key.
    tx.clear_range(KeyRange::key(&longest)).unwrap();
    tx.commit().await.unwrap();
    assert_eq!(bed.meta.begin().get(&longest).await.unwrap(), None);
}

/// Known limitations, “Large keys and values”; Error codes, 2103 `value_too_large`.
pub(super) async fn values_have_a_greatest_size(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    tx.set(bed.key("k"), vec![1; MAX_VALUE_BYTES]).unwrap();
    let longer = vec![1; MAX_VALUE_BYTES + 1];
    for refused in [
        tx.set(bed.key("k"), longer.clone()).unwrap_err(),
        tx.byte_max(bed.key("k"), longer.clone()).unwrap_err(),
        tx.set_versionstamped_value(bed.key("k"), longer.clone(), 0).unwrap_err(),
    ] {
        assert_eq!((refused.code(), refused.is_retryable()), (Some(2103), false), "{refused}");
    }
    tx.commit().await.unwrap();
    assert_eq!(bed.value("k").await.unwrap().len(), MAX_VALUE_BYTES);
}

/// Error codes, 2004 `key_outside_legal_range`, 2005 `inverted_range`; Developer guide, “System
/// keys”.
pub(super) async fn keys_and_ranges_have_a_legal_place(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    let system = KeyRange::new("a", vec![0xff, 1]);
    for (refused, code) in [
        (tx.set(vec![0xff], "").unwrap_err(), 2004),
        (tx.clear(vec![0xff, 1]).unwrap_err(), 2004),
        (tx.get(&[0xff, 1]).await.unwrap_err(), 2004),
        (tx.get_all(&system).await.unwrap_err(), 2004),
        (tx.clear_range(system.clone()).unwrap_err(), 2004),
        (tx.add_write_conflict(system.clone()).unwrap_err(), 2004),
        (tx.clear_range(KeyRange::new("b", "a")).unwrap_err(), 2005),
        (tx.get_all(&KeyRange::new("b", "a")).await.unwrap_err(), 2005),
        (tx.add_read_conflict(KeyRange::new("b", "a")).unwrap_err(), 2005),
    ] {
        assert_eq!((refused.code(), refused.is_retryable()), (Some(code), false), "{refused}");
    }
    tx.set(bed.key([0xff]), "legal behind another byte").unwrap();
    tx.commit().await.unwrap();
    assert_eq!(bed.meta.begin().get_all(&bed.all()).await.unwrap().len(), 1);
}

/// Known limitations, “Large transactions”; Error codes, 2101 `transaction_too_large`. Conflict
/// ranges count.
pub(super) async fn a_transaction_has_a_greatest_size(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    for n in 0..99_u8 {
        tx.set(bed.key([n]), vec![0; MAX_VALUE_BYTES]).unwrap();
    }
    let refused = tx
        .set(bed.key("last"), vec![0; MAX_VALUE_BYTES])
        .and_then(|()| tx.set(bed.key("one more"), vec![0; MAX_VALUE_BYTES]));
    assert_eq!(refused.unwrap_err().code(), Some(2101));
    let tx = bed.meta.begin();
    for n in 0..510_u32 {
        let mut key = long_key(&bed, MAX_KEY_BYTES);
        key.splice(bed.prefix_bytes()..bed.prefix_bytes() + 4, n.to_be_bytes());
        tx.add_read_conflict(KeyRange::key(&key)).unwrap();
    }
    tx.set(bed.key("k"), "v").unwrap();
    assert_eq!(tx.commit().await.unwrap_err().code(), Some(2101));
    assert_eq!(bed.value("k").await, None);
}

/// Known limitations, “Large transactions”: up to 10,000,000 bytes are one commit.
pub(super) async fn a_large_transaction_commits(bed: Arc<Bed>) {
    const VALUES: u8 = 90;
    let tx = bed.meta.begin();
    for n in 0..VALUES {
        tx.set(bed.key([b'v', n]), vec![n; MAX_VALUE_BYTES]).unwrap();
    }
    tx.commit().await.unwrap();
    let mut scan = bed.meta.begin().scan(bed.all(), interflow_meta::RangeOptions::default());
    let mut rows = 0;
    while let Some(page) = scan.next_page().await.unwrap() {
        for (key, value) in page {
            assert_eq!(key[..], bed.key([b'v', rows]));
            assert_eq!(value, vec![rows; MAX_VALUE_BYTES]);
            rows += 1;
        }
    }
    assert_eq!(rows, VALUES);
}

/// Known limitations, “Long-running transactions”; Error codes, 1007 `transaction_too_old`.
pub(super) async fn a_transaction_has_five_seconds(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    tx.get(&bed.key("a")).await.unwrap();
    tx.set(bed.key("a"), "v").unwrap();
    bed.clock.advance(Duration::from_secs(5));
    tx.get(&bed.key("a")).await.unwrap();
    bed.clock.advance(Duration::from_millis(1));
    let refused = tx.get(&bed.key("b")).await.unwrap_err();
    assert_eq!((refused.code(), refused.is_retryable()), (Some(1007), true));
    assert_eq!(tx.commit().await, Err(MetaError::TooOld));
    assert_eq!(bed.value("a").await, None);
}

/// Error codes, 1007 `transaction_too_old`: from the store itself, also where no clock above it saw
/// the time pass. Writes without reads have nothing to be checked.
pub(super) async fn a_store_refuses_what_it_cannot_check_any_more(bed: Arc<Bed>) {
    let write = |reads| Commit {
        reads,
        mutations: vec![Mutation::Set(bed.key("x").into(), "v".into())],
        ..Commit::default()
    };
    let old = bed.store.snapshot().await.unwrap();
    old.get(&bed.key("x")).await.unwrap();
    for _ in 0..2 {
        let newer = bed.store.snapshot().await.unwrap();
        newer.commit(write(Vec::new())).await.unwrap();
        bed.pass(Duration::from_secs(7)).await;
    }
    let newer = bed.store.snapshot().await.unwrap();
    newer.commit(write(Vec::new())).await.unwrap();
    let reads = vec![KeyRange::key(&bed.key("never written"))];
    assert_eq!(old.commit(write(reads)).await, Err(MetaError::TooOld));
}
