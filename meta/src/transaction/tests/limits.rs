//! FoundationDB's limits, with its error codes.

use std::time::Duration;

use crate::testing::TestBed;
use crate::{KeyRange, MAX_KEY_BYTES, MAX_VALUE_BYTES, MetaError};

#[tokio::test]
async fn keys_and_values_have_a_greatest_size() {
    let bed = TestBed::new();
    let tx = bed.meta.begin();
    tx.set(vec![1; MAX_KEY_BYTES], vec![1; MAX_VALUE_BYTES]).unwrap();
    tx.get(&vec![1; MAX_KEY_BYTES]).await.unwrap();
    let too_long = vec![1; MAX_KEY_BYTES + 1];
    for (error, code) in [
        (tx.set(too_long.clone(), "").unwrap_err(), 2102),
        (tx.clear(too_long.clone()).unwrap_err(), 2102),
        (tx.add(too_long.clone(), 1).unwrap_err(), 2102),
        (tx.get(&too_long).await.unwrap_err(), 2102),
        (tx.set("k", vec![1; MAX_VALUE_BYTES + 1]).unwrap_err(), 2103),
        (tx.set(vec![0xff], "").unwrap_err(), 2004),
        (tx.get(&[0xff, 1]).await.unwrap_err(), 2004),
        (tx.clear_range(KeyRange::new("b", "a")).unwrap_err(), 2005),
        (tx.set_versionstamped_key("short", 0, "").unwrap_err(), 2000),
    ] {
        assert_eq!(error.code(), Some(code), "{error}");
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_transaction_has_a_greatest_size() {
    let bed = TestBed::new();
    let tx = bed.meta.begin();
    for n in 0..99_u8 {
        tx.set(vec![n], vec![0; MAX_VALUE_BYTES]).unwrap();
    }
    let refused = tx
        .set("last", vec![0; MAX_VALUE_BYTES])
        .and_then(|()| tx.set("one more", vec![0; MAX_VALUE_BYTES]));
    assert_eq!(refused.unwrap_err().code(), Some(2101));
    // Conflict ranges count as well.
    let tx = bed.meta.begin();
    for n in 0..510_u32 {
        let mut key = vec![1; MAX_KEY_BYTES];
        key[..4].copy_from_slice(&n.to_be_bytes());
        tx.get(&key).await.unwrap();
    }
    tx.set("k", "v").unwrap();
    assert_eq!(tx.commit().await.unwrap_err().code(), Some(2101));
}

#[tokio::test]
async fn a_transaction_has_five_seconds() {
    let bed = TestBed::new();
    let tx = bed.meta.begin();
    tx.get(b"a").await.unwrap();
    tx.set("a", "v").unwrap();
    bed.clock.advance(Duration::from_secs(5));
    tx.get(b"a").await.unwrap();
    bed.clock.advance(Duration::from_millis(1));
    assert_eq!(tx.get(b"b").await, Err(MetaError::TooOld));
    assert_eq!(tx.commit().await, Err(MetaError::TooOld));
    assert_eq!(bed.meta.begin().get(b"a").await.unwrap(), None);
}

/// The store itself refuses what it can't check any more, also if a clock above it stood still.
#[tokio::test]
async fn the_store_forgets_old_writes_and_says_so() {
    use crate::store::{Commit, Mutation, Store};
    use crate::testing::ManualClock;
    use crate::{EmbeddedStore, Env};
    let clock = std::sync::Arc::new(ManualClock::default());
    let env = Env {
        clock: std::sync::Arc::clone(&clock) as std::sync::Arc<dyn crate::Clock>,
        ..Env::default()
    };
    let store = EmbeddedStore::in_memory(env).unwrap();
    let write = |reads| Commit {
        reads,
        mutations: vec![Mutation::Set("x".into(), "v".into())],
        ..Commit::default()
    };
    let old = store.snapshot().await.unwrap();
    for _ in 0..3 {
        let newer = store.snapshot().await.unwrap();
        newer.commit(write(Vec::new())).await.unwrap();
        clock.advance(Duration::from_secs(7));
    }
    let reads = vec![KeyRange::key(b"never written")];
    assert_eq!(old.commit(write(reads)).await, Err(MetaError::TooOld));
}
