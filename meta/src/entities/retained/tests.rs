use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::filter::{Next, Verdict, judge};
use super::*;
use crate::Meta;
use crate::ids::LogId;
use crate::testing::TestBed;
use crate::transaction::GETS_AT_A_TIME;

fn version(offset: u64) -> RetainedVersion {
    RetainedVersion { generation: 0, log: LogId(1), offset }
}

pub(super) fn message(offset: u64, payload: impl Into<Bytes>) -> RetainedMessage {
    RetainedMessage {
        version: version(offset),
        qos: 1,
        publisher: "c".to_owned(),
        properties: Bytes::from_static(b"p"),
        payload: payload.into(),
        published_ms: 5,
        expires_ms: None,
    }
}

async fn put_in(meta: &Meta, topic: &str, message: &RetainedMessage) -> Outcome {
    meta.transact(|tx| async move { put(&tx, "", topic, message).await }).await.unwrap()
}

async fn clear_in(meta: &Meta, topic: &str, offset: u64, forget_ms: i64) -> Outcome {
    meta.transact(|tx| async move { clear(&tx, "", topic, version(offset), forget_ms).await })
        .await
        .unwrap()
}

async fn get_in(meta: &Meta, topic: &str, now_ms: i64) -> Option<Bytes> {
    let found = get(&meta.begin(), "", topic, now_ms).await.unwrap();
    found.map(|message| message.payload)
}

/// All matches, over as many pages as it takes.
pub(super) async fn find(meta: &Meta, filter: &str, max_bytes: usize) -> Vec<String> {
    let mut query = MatchQuery { tenant: "", filter, from: None, now_ms: 0, max_bytes };
    let mut topics = Vec::new();
    loop {
        let page = matching(&meta.begin(), &query).await.unwrap();
        topics.extend(page.messages.into_iter().map(|(topic, _)| topic));
        let Some(next) = page.next else { return topics };
        query.from = Some(next);
    }
}

#[tokio::test]
async fn the_later_version_wins_in_any_order() {
    let bed = TestBed::new();
    let meta = &bed.meta;
    assert_eq!(put_in(meta, "a", &message(5, "five")).await, Outcome::Latest);
    assert_eq!(put_in(meta, "a", &message(4, "four")).await, Outcome::Superseded);
    assert_eq!(put_in(meta, "a", &message(5, "five")).await, Outcome::Latest);
    assert_eq!(clear_in(meta, "a", 4, 9).await, Outcome::Superseded);
    assert_eq!(get_in(meta, "a", 0).await, Some("five".into()));
    assert_eq!(clear_in(meta, "a", 7, 9).await, Outcome::Latest);
    assert_eq!(put_in(meta, "a", &message(6, "six")).await, Outcome::Superseded);
    assert_eq!(get_in(meta, "a", 0).await, None);
    assert_eq!(find(meta, "#", 1000).await, [] as [&str; 0]);
    assert_eq!(put_in(meta, "a", &message(8, "eight")).await, Outcome::Latest);
    assert_eq!(find(meta, "#", 1000).await, ["a"]);
}

#[tokio::test]
async fn a_large_message_is_kept_in_parts_that_go_with_it() {
    let bed = TestBed::new();
    let meta = &bed.meta;
    let payload: Bytes = (0..400_000_u32).map(|n| n.to_le_bytes()[n as usize % 2]).collect();
    put_in(meta, "a/b", &message(1, payload.clone())).await;
    put_in(meta, "a", &message(1, "small")).await;
    assert_eq!(get_in(meta, "a/b", 0).await, Some(payload));
    assert_eq!(find(meta, "a/#", 1).await, ["a", "a/b"]);
    put_in(meta, "a/b", &message(2, "short")).await;
    assert_eq!(get_in(meta, "a/b", 0).await, Some("short".into()));
    let tx = meta.begin();
    let parts = tx.get_all(&part_range(&tx, "", "a/b")).await.unwrap();
    assert!(parts.is_empty());
}

#[tokio::test]
async fn an_expired_message_is_not_served_and_swept_in_two_steps() {
    let bed = TestBed::new();
    let meta = &bed.meta;
    let mut short = message(5, "x");
    short.expires_ms = Some(100);
    put_in(meta, "a", &short).await;
    assert!(get_in(meta, "a", 99).await.is_some());
    assert!(get_in(meta, "a", 100).await.is_none());
    let sweep = |now| {
        let meta = meta.clone();
        async move {
            meta.transact(|tx| async move { sweep(&tx, "", now, 200, 10).await }).await.unwrap()
        }
    };
    assert_eq!(sweep(99).await, 0);
    assert_eq!(sweep(100).await, 1);
    assert_eq!(put_in(meta, "a", &message(4, "old")).await, Outcome::Superseded);
    assert_eq!(sweep(199).await, 0);
    assert_eq!(sweep(200).await, 1);
    let tx = meta.begin();
    let all = KeyRange::prefix(tx.root().bytes());
    assert!(tx.get_all(&all).await.unwrap().is_empty(), "nothing is left");
}

#[tokio::test]
async fn an_overwritten_expiry_has_no_effect() {
    let bed = TestBed::new();
    let meta = &bed.meta;
    let mut short = message(5, "x");
    short.expires_ms = Some(100);
    put_in(meta, "a", &short).await;
    put_in(meta, "a", &message(6, "stays")).await;
    let swept =
        meta.transact(|tx| async move { sweep(&tx, "", 500, 900, 10).await }).await.unwrap();
    assert_eq!(swept, 0);
    assert_eq!(get_in(meta, "a", 500).await, Some("stays".into()));
}

/// What `changes` in one transaction come to: their outcomes, and all rows behind them.
async fn made(changes: &[(&str, Change<'_>)], all: bool) -> (Vec<Outcome>, Vec<(Bytes, Bytes)>) {
    let bed = TestBed::new();
    put_in(&bed.meta, "b", &message(2, vec![1; 100_000])).await;
    let outcomes = bed
        .meta
        .transact(|tx| async move {
            if all {
                return change_all(&tx, "", changes).await;
            }
            let mut outcomes = Vec::new();
            for (topic, change) in changes {
                outcomes.push(match change {
                    Change::Put(message) => put(&tx, "", topic, message).await?,
                    Change::Clear { version, forget_ms } => {
                        clear(&tx, "", topic, *version, *forget_ms).await?
                    }
                });
            }
            Ok::<_, MetaError>(outcomes)
        })
        .await
        .unwrap();
    let tx = bed.meta.begin();
    (outcomes, tx.get_all(&KeyRange::prefix(tx.root().bytes())).await.unwrap())
}

#[tokio::test]
async fn many_changes_do_what_one_after_the_other_does() {
    let [five, four, large, six] =
        [message(5, "5"), message(4, "4"), message(7, vec![7; 200_000]), message(6, "6")];
    let cleared = |offset| Change::Clear { version: version(offset), forget_ms: 9 };
    let changes = [
        ("a", Change::Put(&five)),
        ("b", Change::Put(&five)),
        ("a", Change::Put(&four)),
        ("a", cleared(6)),
        ("a", Change::Put(&six)),
        ("b", Change::Put(&large)),
        ("b", cleared(8)),
        ("c", Change::Put(&large)),
        ("c", cleared(1)),
    ];
    let (outcomes, rows) = made(&changes, true).await;
    assert_eq!((outcomes.clone(), rows), made(&changes, false).await);
    let superseded: Vec<_> =
        (0..).zip(outcomes).filter(|(_, o)| *o == Outcome::Superseded).collect();
    assert_eq!(superseded.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2, 8]);
}

#[tokio::test]
async fn many_changes_are_read_for_at_the_same_time() {
    let bed = TestBed::new();
    let topics: Vec<_> = (0..500).map(|n| format!("t/{n}")).collect();
    let message = message(1, "v");
    let changes: Vec<_> = topics.iter().map(|t| (t.as_str(), Change::Put(&message))).collect();
    let changes = &changes;
    bed.meta.transact(|tx| async move { change_all(&tx, "", changes).await }).await.unwrap();
    assert_eq!(bed.probe.rows.load(Ordering::Relaxed), 500);
    assert_eq!(bed.probe.most_getting.load(Ordering::Relaxed), GETS_AT_A_TIME as u64);
    assert_eq!(find(&bed.meta, "t/+", 1_000).await.len(), 500);
}

async fn fill(meta: &Meta, topics: &[String]) {
    for some in topics.chunks(500) {
        meta.transact(|tx| async move {
            for topic in some {
                put(&tx, "", topic, &message(1, "v")).await?;
            }
            Ok::<_, MetaError>(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn rows_that_all_must_be_looked_at_are_read_many_at_a_time() {
    let bed = TestBed::new();
    let topics: Vec<_> = (0..2_000).map(|n| format!("{n:04}/status")).collect();
    fill(&bed.meta, &topics).await;
    for (filter, matches) in [("+/config", 0), ("+/status", 2_000), ("+/status/#", 2_000)] {
        bed.probe.reads.store(0, Ordering::Relaxed);
        assert_eq!(find(&bed.meta, filter, usize::MAX).await.len(), matches, "{filter}");
        let reads = bed.probe.reads.load(Ordering::Relaxed);
        assert!(reads <= 2_000 / 64 + 4, "{filter} took {reads} reads");
    }
}

#[tokio::test]
async fn dollar_topics_want_their_first_level_named() {
    let bed = TestBed::new();
    let topics = ["$SYS/a", "$SYS", "!/a", "%/a", "x/a", "$"];
    fill(&bed.meta, &topics.map(str::to_owned)).await;
    assert_eq!(find(&bed.meta, "#", 100).await, ["!/a", "%/a", "x/a"]);
    assert_eq!(find(&bed.meta, "+/a", 100).await, ["!/a", "%/a", "x/a"]);
    assert_eq!(find(&bed.meta, "$SYS/#", 100).await, ["$SYS", "$SYS/a"]);
    assert_eq!(find(&bed.meta, "+", 100).await, [] as [&str; 0]);
}

#[test]
fn a_verdict_names_the_least_topic_that_can_match() {
    let judge = |filter: &'static str, topic: &'static str| {
        let filter: Vec<_> = filter.split('/').collect();
        let topic: Vec<_> = topic.split('/').collect();
        judge(&filter, &topic)
    };
    assert_eq!(judge("a/+/c", "a/x/b"), Verdict::Skip(Next::At(vec!["a", "x", "c"])));
    assert_eq!(judge("a/+/c", "a/x/d"), Verdict::Skip(Next::Past(2)));
    assert_eq!(judge("a/+/c", "a/x/c"), Verdict::Match(Next::Past(2)));
    assert_eq!(judge("a/b", "a/b"), Verdict::Match(Next::Nowhere));
    assert_eq!(judge("a/#", "a"), Verdict::Match(Next::Behind));
    assert_eq!(judge("+/b/c", "x"), Verdict::Skip(Next::At(vec!["x", "b", "c"])));
}

/// The plain rule, level by level (MQTT 5.0 §4.7).
fn plainly_matches(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) | ([], []) => true,
        (["+", filter @ ..], [_, topic @ ..]) => plainly_matches(filter, topic),
        ([wanted, filter @ ..], [level, topic @ ..]) => {
            wanted == level && plainly_matches(filter, topic)
        }
        _ => false,
    }
}

fn level() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["", "a", "b", "c", "a\u{1}", "$a", "ü"])
}

fn filter_level() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(vec!["+", "+", "a", "b", "c", "", "$a"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_scan_finds_exactly_what_matches(
        topics in proptest::collection::btree_set(proptest::collection::vec(level(), 1..5), 0..40),
        mut filters in proptest::collection::vec(
            (proptest::collection::vec(filter_level(), 0..4), any::<bool>()), 1..6),
        max_bytes in 1_usize..100,
    ) {
        let topics: Vec<String> = topics.iter().map(|topic| topic.join("/")).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let bed = TestBed::new();
            fill(&bed.meta, &topics).await;
            for (filter, open) in &mut filters {
                if *open || filter.is_empty() {
                    filter.push("#");
                }
                let mut expected: Vec<&str> = topics
                    .iter()
                    .map(String::as_str)
                    .filter(|topic| {
                        let levels: Vec<&str> = topic.split('/').collect();
                        let hidden = topic.starts_with('$') && matches!(filter[0], "+" | "#");
                        !hidden && plainly_matches(filter, &levels)
                    })
                    .collect();
                expected.sort_by_key(|topic| topic.split('/').collect::<Vec<_>>());
                let found = find(&bed.meta, &filter.join("/"), max_bytes).await;
                assert_eq!(found, expected, "{filter:?}");
            }
        });
    }

    #[test]
    fn a_row_comes_back_as_it_was(
        numbers: [u64; 3], cleared: bool, qos in 0_u8..3, publisher in ".{0,9}",
        published_ms: i64, due_ms: Option<i64>, properties: Vec<u8>, payload: Vec<u8>, parts: u32,
    ) {
        let row = Row {
            version: RetainedVersion {
                generation: numbers[0], log: LogId(numbers[1]), offset: numbers[2],
            },
            cleared, qos, publisher, published_ms, due_ms, parts,
            body: proto::RetainedBody { properties: properties.into(), payload: payload.into() },
        };
        prop_assert_eq!(Row::decode(row.clone().encode()).unwrap(), row);
    }
}
