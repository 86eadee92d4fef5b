//! What is written when, and what nobody waits for.

use std::time::Duration;

use interflow_meta::{EmbeddedStore, Env, PriorityStore};
use tokio::time::timeout;

use super::super::clock::SystemWallClock;
use super::*;

/// Retained messages over a store that holds up what is in the background when it is told to.
fn retained() -> (PriorityStore, Meta, Retained) {
    let store = PriorityStore::new(Arc::new(EmbeddedStore::in_memory(Env::default()).unwrap()));
    let meta = Meta::new(Arc::new(store.clone()), Env::default(), "test");
    let retained = Retained::new(meta.clone(), Arc::new(SystemWallClock), Arc::default());
    (store, meta, retained)
}

/// What a dispatcher saw at this offset.
fn seen(
    retained: &Retained,
    topic: &str,
    offset: u64,
    bytes: usize,
    expires_ms: Option<i64>,
) -> Seen {
    let version = RetainedVersion { generation: 0, log: LogId(1), offset };
    let message = RetainedMessage {
        version,
        qos: 0,
        publisher: String::new(),
        properties: Bytes::new(),
        payload: vec![0; bytes].into(),
        published_ms: 0,
        expires_ms,
    };
    let update = Update { version, message: Some(message) };
    let updates = vec![(topic.to_owned(), update)];
    Seen { log: LogId(1), until: offset + 1, updates, pass: retained.enter() }
}

async fn position(meta: &Meta, log: u64) -> Option<u64> {
    materialised::get(&meta.begin(), LogId(log)).await.unwrap()
}

/// Runs until `done`.
async fn run_until(retained: &Retained, done: impl Future<Output = ()>) {
    let stop = CancellationToken::new();
    tokio::join!(retained.run(stop.clone()), async {
        done.await;
        stop.cancel();
    });
}

/// Runs until what is under way is written.
async fn run_until_settled(retained: &Retained) {
    let settled = retained.settled().unwrap();
    run_until(retained, settled).await;
}

#[tokio::test(start_paused = true)]
async fn dispatchers_wait_while_meta_is_behind() {
    let (_, _, retained) = retained();
    let mut came = 0;
    while timeout(Duration::from_millis(1), retained.has_room()).await.is_ok() {
        let topic = format!("t/{}", came % 3);
        retained.seen(seen(&retained, &topic, came, 60 << 10, None));
        came += 1;
    }
    assert!((500..600).contains(&came), "{came}");
    run_until(&retained, retained.has_room()).await;
    let latest = format!("t/{}", (came - 1) % 3);
    let page = retained.page(&latest, None, 0).await.unwrap();
    let versions: Vec<_> = page.messages.iter().map(|(_, it)| it.version.offset).collect();
    assert_eq!(versions, [came - 1]);
    assert_eq!(retained.backlog.lock().seen_bytes, 0);
}

/// A metadata store that holds up what is in the background holds up neither publishers nor
/// subscribers.
#[tokio::test]
async fn nobody_waits_for_upkeep() {
    let (store, meta, retained) = retained();
    store.hold_up(true);
    retained.seen(seen(&retained, "t", 4, 1, None));
    // Less than the minute after which meta gives up.
    timeout(Duration::from_secs(30), run_until_settled(&retained)).await.unwrap();
    let page = retained.page("t", None, 0).await.unwrap();
    assert_eq!(page.messages.len(), 1);
    assert_eq!(position(&meta, 1).await, None);

    store.hold_up(false);
    store.take_counts();
    retained.upkeep.save_all().await;
    assert_eq!(store.take_counts(), (0, 1));
    assert_eq!(position(&meta, 1).await, Some(5));
}

#[tokio::test]
async fn what_has_expired_is_removed_in_the_background() {
    let (store, meta, retained) = retained();
    for (offset, topic, expires_ms) in [(4, "gone", Some(1)), (5, "stays", None)] {
        retained.seen(seen(&retained, topic, offset, 1, expires_ms));
    }
    run_until_settled(&retained).await;
    store.take_counts();
    retained.upkeep.sweep().await;
    assert_eq!(store.take_counts(), (0, 1));
    // Its time lies behind, as for whoever looks at another.
    let query = MatchQuery { tenant: "", filter: "#", from: None, now_ms: 0, max_bytes: 1 << 20 };
    let page = retained::matching(&meta.begin(), &query).await.unwrap();
    let topics: Vec<_> = page.messages.iter().map(|(topic, _)| topic.as_str()).collect();
    assert_eq!(topics, ["stays"]);
}

/// What was seen and could not be written is looked for again by the next start.
#[tokio::test]
async fn a_position_stays_before_what_is_not_written() {
    let (_, meta, retained) = retained();
    retained.upkeep.lost([(LogId(1), 5)]);
    retained.seen(Seen { log: LogId(2), ..seen(&retained, "t", 4, 1, None) });
    let all = [1, 2, 3].map(|log| (LogId(log), 9));
    retained.save(&all).await.unwrap();
    assert_eq!([position(&meta, 1).await, position(&meta, 2).await], [None, None]);
    assert_eq!(position(&meta, 3).await, Some(9));
    run_until_settled(&retained).await;
    retained.save(&all).await.unwrap();
    assert_eq!([position(&meta, 1).await, position(&meta, 2).await], [None, Some(9)]);
}
