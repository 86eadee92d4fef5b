//! Watches over connections and servers.

use std::sync::Arc;

use interflow_meta::{Commit, MetaError, Store, Watch, WatchRequest};
use tokio::sync::oneshot;

use crate::{Served, World};

async fn watch(world: &World, key: &'static str) -> Watch {
    world.remote.transact(|tx| async move { tx.watch(key).await }).await.unwrap()
}

async fn set(world: &World, key: &'static str) {
    world.direct.transact(|tx| async move { tx.set(key, "changed") }).await.unwrap();
}

#[tokio::test]
async fn a_change_while_there_was_no_connection_is_told() {
    let mut world = World::new().await;
    let before = watch(&world, "before").await;
    set(&world, "before").await;
    before.changed().await.unwrap();
    let meanwhile = watch(&world, "meanwhile").await;
    let later = watch(&world, "later").await;
    let mut never = watch(&world, "never").await;
    world.proxy.refuse().await;
    set(&world, "meanwhile").await;
    world.proxy.listen().await;
    meanwhile.changed().await.unwrap();
    set(&world, "later").await;
    later.changed().await.unwrap();
    assert!(!never.has_fired());
}

#[tokio::test]
async fn watches_go_on_at_the_next_server() {
    let world = World::new().await;
    let watching = watch(&world, "k").await;
    let next = Served::new(Arc::clone(&world.inner), Default::default()).await;
    world.proxy.redirect(next.address);
    world.server.stop().await;
    world.inner.snapshot().await.unwrap();
    world.direct.transact(|tx| async move { tx.set("k", "changed") }).await.unwrap();
    watching.changed().await.unwrap();
}

/// A server is told to end while clients watch: it doesn't wait for them, nor they for it.
#[tokio::test]
async fn a_closed_client_ends_its_watches() {
    let world = World::new().await;
    let watching = watch(&world, "k").await;
    world.remote.close().await;
    let ended = watching.changed().await;
    assert!(matches!(ended, Err(MetaError::Unavailable(_))), "{ended:?}");
    world.server.stop().await;
}

/// Watches of `count` keys of their own, and who waits for them.
fn watches(count: u32) -> (Vec<WatchRequest>, Vec<oneshot::Receiver<()>>) {
    let pair = |n: u32| {
        let (fire, fired) = oneshot::channel();
        (WatchRequest { key: n.to_be_bytes().to_vec().into(), seen: None, fire }, fired)
    };
    (0..count).map(pair).unzip()
}

/// FoundationDB's limit of a connection: 10,000 (Error codes, 1032 `too_many_watches`).
#[tokio::test]
async fn dropped_watches_make_room_for_others() {
    let world = World::new().await;
    let snapshot = world.store.snapshot().await.unwrap();
    // More in all than may be kept, each dropped before the next come.
    for _ in 0..12 {
        let (watches, waiting) = self::watches(1_000);
        snapshot.commit(Commit { watches, ..Commit::default() }).await.unwrap();
        drop(waiting);
    }
    let (watches, waiting) = self::watches(9_999);
    snapshot.commit(Commit { watches, ..Commit::default() }).await.unwrap();
    let watching = watch(&world, "k").await;
    let (one_more, _) = self::watches(1);
    let refused = snapshot.commit(Commit { watches: one_more, ..Commit::default() }).await;
    assert_eq!(refused, Err(MetaError::TooManyWatches));
    set(&world, "k").await;
    watching.changed().await.unwrap();
    drop(waiting);
}
