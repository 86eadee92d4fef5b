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
        timeout(Duration::from_secs(3600), done).await.unwrap();
        stop.cancel();
    });
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
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_upkeep() {
    let (store, meta, retained) = retained();
    store.hold_up(true);
    retained.seen(seen(&retained, "t", 4, 1, None));
    run_until(&retained, async { retained.settled().unwrap().await }).await;
    let page = retained.page("t", None, 0).await.unwrap();
    assert_eq!(page.messages.len(), 1);
    assert_eq!(position(&meta, 1).await, None);

    store.hold_up(false);
    store.take_counts();
    retained.upkeep.advance([(LogId(1), 5)]);
    run_until(&retained, async {
        while position(&meta, 1).await.is_none() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(position(&meta, 1).await, Some(5));
    assert_eq!(store.take_counts().1, 1);
}

#[tokio::test(start_paused = true)]
async fn what_has_expired_is_removed_in_the_background() {
    let (store, meta, retained) = retained();
    retained.seen(seen(&retained, "t", 4, 1, Some(1)));
    run_until(&retained, async { retained.settled().unwrap().await }).await;
    let is_there = async || {
        // Its time lies behind, as for whoever looks at another.
        let query = MatchQuery { tenant: "", filter: "t", from: None, now_ms: 0, max_bytes: 1 };
        !retained::matching(&meta.begin(), &query).await.unwrap().messages.is_empty()
    };
    assert!(is_there().await);
    store.take_counts();
    let mut looks = 0;
    run_until(&retained, async {
        while is_there().await {
            looks += 1;
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    })
    .await;
    let (requests, background) = store.take_counts();
    assert_eq!(requests, looks + 1, "only the test's own");
    assert!(background > 0);
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
    run_until(&retained, async { retained.settled().unwrap().await }).await;
    retained.save(&all).await.unwrap();
    assert_eq!([position(&meta, 1).await, position(&meta, 2).await], [None, Some(9)]);
}
