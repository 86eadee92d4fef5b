//! A million retained topics: what a wildcard touches is counted.
//!
//! ```text
//!   $SYS/x/{b…, c, d…}                  1,000
//!   a/{0…}/{b…, c, d…}         1,000 ×    500
//!   f{0…}/{w, x, y, z}/{b…, c, d…} 300 × (450 + 50 + 450 + 450)
//!   narrow/{0…}/{0…}              79 ×  1,000
//! ```

use std::sync::atomic::Ordering;

use super::tests::{find, message};
use super::*;
use crate::Meta;
use crate::testing::TestBed;

const TOPICS: usize = 1_000_000;
/// Topics of one transaction: well below what a transaction may hold.
const TOPICS_A_TRANSACTION: usize = 20_000;

/// Names in their order, `c` in the midst of them.
fn with_c(count: usize) -> impl Iterator<Item = String> + Clone {
    let half = count / 2;
    let before = (0..half).map(|n| format!("b{n:03}"));
    let behind = (half + 1..count).map(|n| format!("d{n:03}"));
    before.chain(["c".to_owned()]).chain(behind)
}

/// All topics in the order of their keys.
fn topics() -> impl Iterator<Item = String> {
    let sys = with_c(1_000).map(|name| format!("$SYS/x/{name}"));
    let a = (0..1_000).flat_map(|n| with_c(500).map(move |name| format!("a/{n:04}/{name}")));
    let f = (0..300).flat_map(|n| {
        [("w", 450), ("x", 50), ("y", 450), ("z", 450)].into_iter().flat_map(
            move |(second, count)| {
                with_c(count).map(move |name| format!("f{n:03}/{second}/{name}"))
            },
        )
    });
    let narrow = (0..79).flat_map(|n| (0..1_000).map(move |m| format!("narrow/{n:02}/{m:03}")));
    sys.chain(a).chain(f).chain(narrow)
}

/// Writes the rows that [`put`] would: a look at each topic first would find nothing.
async fn load_all(meta: &Meta) {
    let row = Row::live(&message(1, "v")).encode();
    let (mut topics, mut loaded) = (topics(), 0);
    let mut commits = tokio::task::JoinSet::new();
    loop {
        let tx = meta.begin();
        let mut count = 0;
        for topic in topics.by_ref().take(TOPICS_A_TRANSACTION) {
            tx.set(key(&tx, "", &topic), row.clone()).unwrap();
            count += 1;
        }
        if count == 0 {
            break;
        }
        loaded += count;
        // The next rows are made while these are committed.
        commits.spawn(async move { tx.commit().await });
        if commits.len() > 2 {
            commits.join_next().await.unwrap().unwrap().unwrap();
        }
    }
    while let Some(committed) = commits.join_next().await {
        committed.unwrap().unwrap();
    }
    assert_eq!(loaded, TOPICS);
}

/// Rows and reads that `act` took.
async fn counted<T>(bed: &TestBed, act: impl Future<Output = T>) -> (T, u64, u64) {
    bed.probe.rows.store(0, Ordering::Relaxed);
    bed.probe.reads.store(0, Ordering::Relaxed);
    let done = act.await;
    (done, bed.probe.rows.load(Ordering::Relaxed), bed.probe.reads.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn of_a_million_topics_a_wildcard_touches_what_matches() {
    let bed = TestBed::new();
    let meta = &bed.meta;
    load_all(meta).await;
    for (filter, matches, most_rows, most_reads) in [
        // A jump to each second level, and one to `c` below it.
        ("a/+/c", 1_000, 3_100, 2_010),
        ("a/+/none", 0, 1_550, 1_010),
        ("narrow/+/042", 79, 265, 160),
        // The plus in front: a jump to each first level, past all of `$SYS`.
        ("+/x/c", 300, 960, 610),
        ("+/+/c", 2_200, 6_940, 4_490),
        ("+/none/#", 0, 480, 310),
        ("+/c", 0, 480, 310),
        ("+", 0, 480, 310),
        // Rows side by side are read many at a time.
        ("+/x/#", 15_000, 21_700, 1_210),
        ("narrow/42/#", 1_000, 1_000, 17),
        ("narrow/42/+", 1_000, 1_000, 17),
        ("$SYS/#", 1_000, 1_000, 17),
        ("$SYS/+/c", 1, 24, 3),
        ("a/0500/c", 1, 1, 1),
        ("a/0500", 0, 1, 1),
        ("none/#", 0, 0, 1),
    ] {
        let (found, rows, reads) = counted(&bed, find(meta, filter, usize::MAX)).await;
        assert_eq!(found.len(), matches, "{filter}");
        assert!(found.iter().all(|topic| topic.starts_with('$') == filter.starts_with('$')));
        assert!(rows <= most_rows, "{filter} touched {rows} rows");
        assert!(reads <= most_reads, "{filter} took {reads} reads");
    }
    // A page of all topics begins behind `$SYS`.
    let mut query = MatchQuery { tenant: "", filter: "#", from: None, now_ms: 0, max_bytes: 1_000 };
    let (page, rows, _) = counted(&bed, matching(&meta.begin(), &query)).await;
    assert_eq!(page.unwrap().messages.first().unwrap().0, "a/0000/b000");
    assert!(rows <= 120, "a page of # touched {rows} rows");
    // A page that finds nothing ends in time for its transaction.
    query.filter = "a/+/none";
    let (page, _, reads) = counted(&bed, matching(&meta.begin(), &query)).await;
    assert!(page.unwrap().next.is_some());
    assert_eq!(reads, 512);
}
