//! Ranges: their limits, both directions, own writes between stored rows.

use std::sync::Arc;

use interflow_meta::{KeyRange, MetaError, RangeOptions, Transaction};

use super::Bed;

/// All rows of all keys, page by page; the names, and how many pages there were.
async fn scan(bed: &Bed, tx: &Transaction, options: RangeOptions) -> (Vec<String>, usize) {
    let mut scan = tx.scan(bed.all(), options);
    let (mut names, mut pages) = (Vec::new(), 0);
    while let Some(page) = scan.next_page().await.unwrap() {
        assert!(!page.is_empty(), "a page that is there has a row");
        names.extend(page.iter().map(|(key, _)| bed.name(key)));
        pages += 1;
    }
    (names, pages)
}

/// C API, `fdb_transaction_get_range`: `limit` rows at most, and `out_more` when there are more.
pub(super) async fn ranges_stop_at_rows_and_say_so(bed: Arc<Bed>) {
    bed.fill(&["a", "b", "c", "d", "e"]).await;
    let tx = bed.meta.begin();
    let page = tx.get_range(&bed.all(), RangeOptions::limit(2)).await.unwrap();
    assert!(page.more);
    assert_eq!(bed.names(&tx, RangeOptions::limit(2)).await, ["a", "b"]);
    assert_eq!(bed.names(&tx, RangeOptions::limit(2).reversed()).await, ["e", "d"]);
    assert_eq!(bed.names(&tx, RangeOptions::limit(9)).await.len(), 5);
    assert!(bed.names(&tx, RangeOptions::limit(0)).await.is_empty());
    let (names, _) = scan(&bed, &tx, RangeOptions::limit(3).reversed()).await;
    assert_eq!(names, ["e", "d", "c"], "a scan's limit is that of all its pages");
}

/// C API, `fdb_transaction_get_range`: `target_bytes` is a soft limit; at least one row comes.
pub(super) async fn ranges_stop_at_bytes_and_go_on(bed: Arc<Bed>) {
    bed.fill(&["a", "b", "c", "d", "e"]).await;
    let tx = bed.meta.begin();
    // Room for one row and a bit.
    let small = RangeOptions { bytes: bed.prefix_bytes() + 3, ..RangeOptions::default() };
    let (names, pages) = scan(&bed, &tx, small).await;
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(pages, 3, "two rows a page");
    let (names, pages) = scan(&bed, &tx, small.reversed()).await;
    assert_eq!(names, ["e", "d", "c", "b", "a"]);
    assert_eq!(pages, 3);
    let tiny = RangeOptions { bytes: 1, ..RangeOptions::default() };
    assert_eq!(bed.names(&tx, tiny).await, ["a"]);
}

/// Developer guide, “Range reads”: the begin belongs to a range, the end doesn't; an empty range is
/// legal.
pub(super) async fn a_range_has_its_begin_and_not_its_end(bed: Arc<Bed>) {
    bed.fill(&["a", "b", "c"]).await;
    let tx = bed.meta.begin();
    let names = async |range: KeyRange| {
        let rows = tx.get_all(&range).await.unwrap();
        rows.iter().map(|(key, _)| bed.name(key)).collect::<Vec<_>>()
    };
    assert_eq!(names(bed.range("a", "c")).await, ["a", "b"]);
    assert_eq!(names(bed.range("aa", "cc")).await, ["b", "c"]);
    assert!(names(bed.range("b", "b")).await.is_empty());
    tx.clear_range(bed.range("b", "b")).unwrap();
    tx.clear_range(bed.range("a", "b")).unwrap();
    assert_eq!(names(bed.all()).await, ["b", "c"]);
    tx.commit().await.unwrap();
    assert_eq!(bed.names(&bed.meta.begin(), RangeOptions::default()).await, ["b", "c"]);
}

/// Developer guide, “Transactions in FoundationDB”: own writes are in their place of a range, in
/// both directions and at every limit.
pub(super) async fn own_writes_lie_between_stored_rows(bed: Arc<Bed>) {
    bed.fill(&["b", "d", "f", "h"]).await;
    let tx = bed.meta.begin();
    for own in ["a", "c", "d", "z"] {
        tx.set(bed.key(own), "own").unwrap();
    }
    tx.clear(bed.key("f")).unwrap();
    tx.add(bed.key("g"), 1).unwrap();
    let expected = ["a", "b", "c", "d", "g", "h", "z"];
    let backwards: Vec<&str> = expected.iter().rev().copied().collect();
    for limit in 1..=expected.len() {
        let options = RangeOptions::limit(limit);
        assert_eq!(bed.names(&tx, options).await, expected[..limit]);
        assert_eq!(bed.names(&tx, options.reversed()).await, backwards[..limit]);
    }
    let tiny = RangeOptions { bytes: 1, ..RangeOptions::default() };
    assert_eq!(scan(&bed, &tx, tiny).await.0, expected);
    assert_eq!(scan(&bed, &tx, tiny.reversed()).await.0, backwards);
}

/// C API, `fdb_transaction_get_range`: a limit is of rows that are there for this transaction.
pub(super) async fn a_limit_counts_what_own_clears_leave(bed: Arc<Bed>) {
    let names: Vec<String> = (0..30).map(|n| format!("{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    bed.fill(&names).await;
    let tx = bed.meta.begin();
    tx.clear_range(bed.range("01", "25")).unwrap();
    assert_eq!(bed.names(&tx, RangeOptions::limit(3)).await, ["00", "25", "26"]);
    assert_eq!(bed.names(&tx, RangeOptions::limit(6).reversed()).await.last().unwrap(), "00");
}

/// C API, `fdb_transaction_get_range`: what doesn't fit into one answer comes in the next ones.
pub(super) async fn a_long_range_comes_whole(bed: Arc<Bed>) {
    const ROWS: u32 = 2_000;
    bed.meta
        .transact(|tx| {
            let bed = &bed;
            async move {
                for n in 0..ROWS {
                    tx.set(bed.key(n.to_be_bytes()), vec![1; 200])?;
                }
                Ok::<_, MetaError>(())
            }
        })
        .await
        .unwrap();
    let tx = bed.meta.begin();
    let rows = tx.get_all(&bed.all()).await.unwrap();
    let keys: Vec<_> = rows.iter().map(|(key, _)| key.to_vec()).collect();
    let expected: Vec<_> = (0..ROWS).map(|n| bed.key(n.to_be_bytes())).collect();
    assert_eq!(keys, expected);
    assert!(rows.iter().all(|(_, value)| value.len() == 200));
}
