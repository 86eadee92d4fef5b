//! Reads see one version with own writes on top.

use bytes::Bytes;

use crate::testing::TestBed;
use crate::{AtomicOp, KeyRange, KeySelector, Meta, MetaError, RangeOptions, Transaction};

async fn fill(meta: &Meta, keys: &[&'static str]) {
    meta.transact(|tx| async move {
        for key in keys {
            tx.set(*key, *key)?;
        }
        Ok::<_, MetaError>(())
    })
    .await
    .unwrap();
}

async fn keys(tx: &Transaction, begin: &str, end: &str, options: RangeOptions) -> Vec<Bytes> {
    let range = KeyRange::new(begin.to_owned(), end.to_owned());
    let page = tx.get_range(&range, options).await.unwrap();
    page.rows.into_iter().map(|(key, _)| key).collect()
}

/// "Read your writes": a transaction's reads see its own earlier writes.
#[tokio::test]
async fn own_writes_are_read() {
    let bed = TestBed::new();
    fill(&bed.meta, &["a", "b", "c", "d"]).await;
    let tx = bed.meta.begin();
    tx.set("b", "new").unwrap();
    tx.set("bb", "new").unwrap();
    tx.clear("c").unwrap();
    assert_eq!(tx.get(b"b").await.unwrap(), Some("new".into()));
    assert_eq!(tx.get(b"c").await.unwrap(), None);
    let all = RangeOptions::default();
    assert_eq!(keys(&tx, "a", "z", all).await, ["a", "b", "bb", "d"]);
    assert_eq!(keys(&tx, "a", "z", all.reversed()).await, ["d", "bb", "b", "a"]);
    tx.clear_range(KeyRange::new("a", "c")).unwrap();
    assert_eq!(tx.get(b"b").await.unwrap(), None);
    tx.set("ab", "back").unwrap();
    assert_eq!(keys(&tx, "a", "z", all).await, ["ab", "d"]);
    tx.commit().await.unwrap();
    let tx = bed.meta.begin();
    assert_eq!(keys(&tx, "a", "z", all).await, ["ab", "d"]);
}

#[tokio::test]
async fn own_atomics_are_read_on_top_of_the_store() {
    let bed = TestBed::new();
    bed.meta.transact(|tx| async move { tx.add("n", 40) }).await.unwrap();
    let tx = bed.meta.begin();
    tx.add("n", 1).unwrap();
    tx.add("n", 1).unwrap();
    let value = tx.get(b"n").await.unwrap().unwrap();
    assert_eq!(value[..], 42_u64.to_le_bytes());
    tx.clear("n").unwrap();
    tx.add("n", 7).unwrap();
    let value = tx.get(b"n").await.unwrap().unwrap();
    assert_eq!(value[..], 7_u64.to_le_bytes());
}

#[tokio::test]
async fn all_reads_see_one_version() {
    let bed = TestBed::new();
    fill(&bed.meta, &["a"]).await;
    let tx = bed.meta.begin();
    assert!(tx.get(b"a").await.unwrap().is_some());
    bed.meta
        .transact(|tx| async move {
            tx.clear("a")?;
            tx.set("b", "b")
        })
        .await
        .unwrap();
    assert!(tx.get_snapshot(b"a").await.unwrap().is_some());
    assert_eq!(tx.get_snapshot(b"b").await.unwrap(), None);
    assert_eq!(bed.meta.begin().get(b"a").await.unwrap(), None);
}

#[tokio::test]
async fn ranges_stop_at_rows_and_bytes_and_say_so() {
    let bed = TestBed::new();
    fill(&bed.meta, &["a", "b", "c", "d", "e"]).await;
    let tx = bed.meta.begin();
    let range = KeyRange::new("a", "z");
    let page = tx.get_range(&range, RangeOptions::limit(2)).await.unwrap();
    assert!(page.more && page.rows.len() == 2);
    let page = tx.get_range(&range, RangeOptions::limit(9)).await.unwrap();
    assert!(!page.more && page.rows.len() == 5);
    let small = RangeOptions { bytes: 3, ..RangeOptions::default() };
    let page = tx.get_range(&range, small).await.unwrap();
    assert!(page.more && page.rows.len() == 2);
    for options in [small, small.reversed()] {
        let mut scan = tx.scan(range.clone(), options);
        let (mut rows, mut pages) = (0, 0);
        while let Some(page) = scan.next_page().await.unwrap() {
            rows += page.len();
            pages += 1;
        }
        assert_eq!((rows, pages), (5, 3));
    }
}

/// "Key selectors": the four constructors and offsets, over stored and own keys.
#[tokio::test]
async fn selectors_name_keys_by_their_place() {
    let bed = TestBed::new();
    fill(&bed.meta, &["b", "d", "f"]).await;
    let tx = bed.meta.begin();
    tx.set("e", "own").unwrap();
    tx.clear("f").unwrap();
    let last = Bytes::from_static(&[0xff]);
    for (selector, key) in [
        (KeySelector::first_greater_or_equal("d"), "d".into()),
        (KeySelector::first_greater_than("d"), "e".into()),
        (KeySelector::last_less_or_equal("d"), "d".into()),
        (KeySelector::last_less_than("d"), "b".into()),
        (KeySelector::last_less_or_equal("c"), "b".into()),
        (KeySelector::first_greater_or_equal("c") + 1, "e".into()),
        (KeySelector::last_less_than("z") + -1, "d".into()),
        (KeySelector::last_less_than("b"), Bytes::new()),
        (KeySelector::first_greater_than("e"), last.clone()),
        (KeySelector::first_greater_or_equal("a") + 9, last),
    ] {
        assert_eq!(tx.get_key(&selector, true).await.unwrap(), key, "{selector:?}");
    }
    let range = tx
        .select(
            &KeySelector::first_greater_or_equal("c"),
            &KeySelector::first_greater_than("e"),
            true,
        )
        .await
        .unwrap();
    assert_eq!(range.begin, "d");
}

/// FoundationDB's table of atomic operations; numbers are little-endian, as wide as the operand.
#[tokio::test]
async fn atomics_byte_for_byte() {
    use AtomicOp::{Add, And, ByteMax, ByteMin, CompareAndClear, Max, Min, Or, Xor};
    type Case<'a> = (AtomicOp, Option<&'a [u8]>, &'a [u8], Option<&'a [u8]>);
    let cases: &[Case<'_>] = &[
        (Add, None, &[5, 0], Some(&[5, 0])),
        (Add, Some(&[255, 0]), &[1, 0], Some(&[0, 1])),
        (Add, Some(&[255, 255]), &[1, 0], Some(&[0, 0])),
        (Add, Some(&[1]), &[1, 1], Some(&[2, 1])),
        (Add, Some(&[1, 2, 3]), &[1, 1], Some(&[2, 3])),
        (Add, Some(&[1]), &[], Some(&[])),
        (Max, None, &[3], Some(&[3])),
        (Max, Some(&[0, 1]), &[255, 0], Some(&[0, 1])),
        (Max, Some(&[9]), &[1, 1], Some(&[1, 1])),
        (Max, Some(&[0, 0, 9]), &[1, 0], Some(&[1, 0])),
        (Min, None, &[3], Some(&[3])),
        (Min, Some(&[0, 1]), &[255, 0], Some(&[255, 0])),
        (Min, Some(&[4]), &[1, 1], Some(&[4, 0])),
        (And, None, &[6], Some(&[6])),
        (And, Some(&[3]), &[6, 6], Some(&[2, 0])),
        (Or, None, &[6], Some(&[6])),
        (Or, Some(&[1]), &[6, 6], Some(&[7, 6])),
        (Xor, Some(&[7, 7, 7]), &[6, 6], Some(&[1, 1])),
        (ByteMin, None, &[3], Some(&[3])),
        (ByteMin, Some(&[1, 9]), &[2], Some(&[1, 9])),
        (ByteMin, Some(&[2, 0]), &[2], Some(&[2])),
        (ByteMax, Some(&[1, 9]), &[2], Some(&[2])),
        (ByteMax, Some(&[2, 0]), &[2], Some(&[2, 0])),
        (CompareAndClear, None, &[1], None),
        (CompareAndClear, Some(&[1]), &[1], None),
        (CompareAndClear, Some(&[1, 0]), &[1], Some(&[1, 0])),
    ];
    let bed = TestBed::new();
    for (op, old, operand, expected) in cases {
        bed.meta
            .transact(|tx| async move {
                match old {
                    Some(old) => tx.set("k", old.to_vec()),
                    None => tx.clear("k"),
                }
            })
            .await
            .unwrap();
        let tx = bed.meta.begin();
        tx.atomic(*op, "k", operand.to_vec()).unwrap();
        let own = tx.get(b"k").await.unwrap();
        tx.commit().await.unwrap();
        let stored = bed.meta.begin().get(b"k").await.unwrap();
        assert_eq!(own.as_deref(), *expected, "{op:?} {old:?} {operand:?}");
        assert_eq!(stored.as_deref(), *expected, "{op:?} {old:?} {operand:?}");
    }
}

/// Versionstamps: 10 bytes, rising in commit order, unreadable before the commit (error 1036).
#[tokio::test]
async fn versionstamps_rise_in_commit_order() {
    let bed = TestBed::new();
    let mut stamps = Vec::new();
    for n in 0..3_u8 {
        let tx = bed.meta.begin();
        tx.set_versionstamped_key("v..........x", 1, vec![n]).unwrap();
        tx.set_versionstamped_value("last", "..........", 0).unwrap();
        assert_eq!(tx.get(b"last").await, Err(MetaError::AccessedUnreadable));
        let range = KeyRange::prefix(b"v");
        assert_eq!(tx.get_all(&range).await.unwrap_err(), MetaError::AccessedUnreadable);
        assert_eq!(tx.versionstamp(), None);
        let committed = tx.commit().await.unwrap();
        assert_eq!(tx.versionstamp(), Some(committed.stamp));
        stamps.push(committed.stamp);
    }
    assert!(stamps.is_sorted() && stamps[0] != stamps[1] && stamps[1] != stamps[2]);
    let tx = bed.meta.begin();
    let rows = tx.get_all(&KeyRange::prefix(b"v")).await.unwrap();
    for ((n, (key, value)), stamp) in rows.iter().enumerate().zip(&stamps) {
        assert_eq!(key[..], [b"v", &stamp[..], b"x"].concat());
        assert_eq!(value[..], [n as u8]);
    }
    assert_eq!(rows.len(), 3);
    assert_eq!(tx.get(b"last").await.unwrap().unwrap()[..], stamps[2]);
}
