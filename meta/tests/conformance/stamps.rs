//! Versionstamps: ten bytes that the commit puts in.

use std::collections::BTreeSet;
use std::sync::Arc;

use interflow_meta::{MetaError, STAMP_BYTES};

use super::Bed;

const BLANK: &str = "..........";

/// C API, `FDB_MUTATION_TYPE_SET_VERSIONSTAMPED_KEY`: keys by stamp are in commit order.
pub(super) async fn stamps_rise_in_commit_order(bed: Arc<Bed>) {
    let mut stamps = Vec::new();
    for n in 0..5_u8 {
        let tx = bed.meta.begin();
        let offset = bed.prefix_bytes() + 1;
        tx.set_versionstamped_key(bed.key("v..........x"), offset, vec![n]).unwrap();
        assert_eq!(tx.versionstamp(), None);
        let committed = tx.commit().await.unwrap();
        assert_eq!(tx.versionstamp(), Some(committed.stamp));
        stamps.push(committed.stamp);
    }
    assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]), "{stamps:?}");
    let rows = bed.meta.begin().get_all(&bed.range("v", "w")).await.unwrap();
    assert_eq!(rows.len(), 5);
    for (((key, value), stamp), n) in rows.iter().zip(&stamps).zip(0_u8..) {
        assert_eq!(key[..], [&bed.key("v")[..], stamp, b"x"].concat());
        assert_eq!(value[..], [n]);
    }
}

/// C API, `fdb_transaction_get_versionstamp`: 8 bytes of the commit's version and 2 of the place in
/// its batch, big-endian; they replace ten bytes at the offset.
pub(super) async fn a_stamp_is_ten_bytes_big_endian_at_its_offset(bed: Arc<Bed>) {
    for (name, value, offset) in [
        ("at the begin", "..........ab", 0),
        ("between", "a..........b", 1),
        ("at the end", "ab..........", 2),
    ] {
        let tx = bed.meta.begin();
        tx.set_versionstamped_value(bed.key(name), value, offset).unwrap();
        let committed = tx.commit().await.unwrap();
        assert_eq!(committed.stamp[..8], committed.version.to_be_bytes());
        let mut expected = value.as_bytes().to_vec();
        expected[offset..offset + STAMP_BYTES].copy_from_slice(&committed.stamp);
        assert_eq!(bed.value(name).await.unwrap(), expected, "{name}");
    }
}

/// C API, `FDB_MUTATION_TYPE_SET_VERSIONSTAMPED_VALUE`: the stamp is the transaction's.
pub(super) async fn one_transaction_has_one_stamp(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    tx.set_versionstamped_value(bed.key("a"), BLANK, 0).unwrap();
    tx.set_versionstamped_value(bed.key("b"), BLANK, 0).unwrap();
    let offset = bed.prefix_bytes() + 1;
    tx.set_versionstamped_key(bed.key("k.........."), offset, "v").unwrap();
    let stamp = tx.commit().await.unwrap().stamp;
    assert_eq!(bed.value("a").await.unwrap(), stamp);
    assert_eq!(bed.value("b").await.unwrap(), stamp);
    let key = [&bed.key("k")[..], &stamp].concat();
    assert_eq!(bed.meta.begin().get(&key).await.unwrap(), Some("v".into()));
}

/// C API, `fdb_transaction_get_versionstamp`: unique, also within one batch of commits.
pub(super) async fn commits_at_one_moment_have_stamps_of_their_own(bed: Arc<Bed>) {
    const COMMITS: usize = 60;
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..COMMITS {
        let bed = Arc::clone(&bed);
        tasks.spawn(async move {
            let tx = bed.meta.begin();
            tx.set_versionstamped_value(bed.key(format!("{n:02}")), BLANK, 0).unwrap();
            (n, tx.commit().await.unwrap().stamp)
        });
    }
    let mut stamps = BTreeSet::new();
    while let Some(ended) = tasks.join_next().await {
        let (n, stamp) = ended.unwrap();
        assert_eq!(bed.value(&format!("{n:02}")).await.unwrap(), stamp);
        stamps.insert(stamp);
    }
    assert_eq!(stamps.len(), COMMITS);
}

/// Error codes, 2000 `client_invalid_operation`: a stamp that doesn't fit at its offset.
pub(super) async fn a_stamp_outside_of_its_bytes_is_refused(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    let key = bed.key("k..........");
    for offset in [key.len() - STAMP_BYTES + 1, key.len(), usize::MAX] {
        let refused = tx.set_versionstamped_key(key.clone(), offset, "v").unwrap_err();
        assert_eq!(refused.code(), Some(2000), "{offset}");
    }
    for (value, offset) in [("", 0), (".........", 0), ("...........", 2), (BLANK, usize::MAX)] {
        let refused = tx.set_versionstamped_value(bed.key("k"), value, offset).unwrap_err();
        assert_eq!(refused.code(), Some(2000), "{value} {offset}");
    }
    tx.set(bed.key("goes on"), "v").unwrap();
    tx.commit().await.unwrap();
    assert_eq!(bed.value("k").await, None);
    assert!(bed.value("goes on").await.is_some());
}

/// Error codes, 1036 `accessed_unreadable`.
pub(super) async fn what_only_the_commit_knows_cannot_be_read(bed: Arc<Bed>) {
    let tx = bed.meta.begin();
    let offset = bed.prefix_bytes() + 1;
    tx.set_versionstamped_key(bed.key("v..........x"), offset, "v").unwrap();
    tx.set_versionstamped_value(bed.key("last"), BLANK, 0).unwrap();
    assert_eq!(tx.get(&bed.key("last")).await, Err(MetaError::AccessedUnreadable));
    let read = tx.get_all(&bed.range("v", "w")).await;
    assert_eq!(read.unwrap_err().code(), Some(1036));
    assert_eq!(tx.get_all(&bed.range("w", "x")).await.unwrap(), [], "others can be read");
    let stamp = tx.commit().await.unwrap().stamp;
    assert_eq!(bed.value("last").await.unwrap(), stamp);
}
