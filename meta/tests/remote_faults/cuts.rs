//! Connections that are cut in the middle of something.

use std::sync::Arc;

use interflow_meta::{Meta, MetaError};

use crate::World;
use crate::proxy::Holds;

const NONE: Holds = Holds { to_server: false, to_client: false };

/// Adds one to `n`, once, by `token`.
async fn add_once(meta: &Meta, token: &[u8]) -> Result<(), MetaError> {
    meta.transact(|tx| async move {
        if tx.get(token).await?.is_none() {
            tx.set(token.to_vec(), "t")?;
            let old = tx.get(b"n").await?.map_or(0, |value| value[0]);
            tx.set("n", vec![old + 1])?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_commit_that_was_cut_before_it_arrived_is_unknown_and_not_there() {
    let world = World::new().await;
    let tx = world.remote.begin();
    tx.read_version().await.unwrap();
    tx.set("k", "v").unwrap();
    world.proxy.hold(Holds { to_server: true, ..NONE });
    let committing = tokio::spawn(async move { tx.commit().await });
    world.proxy.something_held().await;
    world.proxy.cut();
    assert_eq!(committing.await.unwrap(), Err(MetaError::CommitUnknown));
    assert_eq!(world.value(b"k").await, None);
    world.proxy.hold(NONE);
    add_once(&world.remote, b"token").await.unwrap();
    assert_eq!(world.value(b"n").await.unwrap(), [1]);
}

#[tokio::test]
async fn a_commit_whose_answer_was_cut_is_unknown_and_there() {
    let world = World::new().await;
    let seen = world.direct.transact(|tx| async move { tx.watch("k").await }).await.unwrap();
    let tx = world.remote.begin();
    tx.read_version().await.unwrap();
    tx.set("k", "v").unwrap();
    world.proxy.hold(Holds { to_client: true, ..NONE });
    let committing = tokio::spawn(async move { tx.commit().await });
    seen.changed().await.unwrap();
    world.proxy.cut();
    assert_eq!(committing.await.unwrap(), Err(MetaError::CommitUnknown));
    assert_eq!(world.value(b"k").await.unwrap(), b"v");
    // The loop above finds out by reading.
    world.proxy.hold(NONE);
    let found = world.remote.begin().get(b"k").await.unwrap();
    assert_eq!(found, Some("v".into()));
}

/// The caller has given up; the commit goes on.
#[tokio::test]
async fn a_commit_goes_on_when_its_future_is_dropped() {
    let world = World::new().await;
    let seen = world.direct.transact(|tx| async move { tx.watch("k").await }).await.unwrap();
    let tx = world.remote.begin();
    tx.read_version().await.unwrap();
    tx.set("k", "v").unwrap();
    world.proxy.hold(Holds { to_server: true, ..NONE });
    let committing = tokio::spawn(async move { tx.commit().await });
    world.proxy.something_held().await;
    committing.abort();
    assert!(committing.await.unwrap_err().is_cancelled());
    world.proxy.hold(NONE);
    seen.changed().await.unwrap();
}

#[tokio::test]
async fn what_was_never_sent_fails_cleanly() {
    let mut world = World::new().await;
    let tx = world.remote.begin();
    tx.read_version().await.unwrap();
    tx.set("k", "v").unwrap();
    world.proxy.refuse().await;
    // The dead connection may still look alive to the first call: a read finds out.
    let read = world.remote.begin().get(b"k").await;
    assert!(matches!(read, Err(MetaError::Unavailable(_))), "{read:?}");
    let failed = tx.commit().await;
    assert!(matches!(failed, Err(MetaError::Unavailable(_))), "{failed:?}");
    assert_eq!(world.value(b"k").await, None);
    world.proxy.listen().await;
    add_once(&world.remote, b"token").await.unwrap();
    assert_eq!(world.value(b"n").await.unwrap(), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn increments_through_reconnects_are_neither_lost_nor_doubled() {
    const TASKS: u8 = 8;
    const EACH: u8 = 25;
    let world = World::new().await;
    world.proxy.cut_at_random(Some(1));
    world.proxy.cut();
    let remote = Arc::new(world.remote.clone());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let remote = Arc::clone(&remote);
        tasks.spawn(async move {
            for n in 0..EACH {
                add_once(&remote, &[b't', task, n]).await.unwrap();
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(world.value(b"n").await.unwrap(), [TASKS * EACH]);
    assert!(world.proxy.cuts() > 20, "only {} cuts", world.proxy.cuts());
}

/// What was read at a version stays readable on the next connection; not in the server's next life.
#[tokio::test]
async fn a_version_outlives_its_connection_and_not_its_server() {
    let world = World::new().await;
    world.direct.transact(|tx| async move { tx.set("k", "old") }).await.unwrap();
    let tx = world.remote.begin();
    let version = tx.read_version().await.unwrap();
    world.direct.transact(|tx| async move { tx.set("k", "new") }).await.unwrap();
    world.proxy.cut();
    assert_eq!(tx.get(b"k").await.unwrap(), Some("old".into()));
    let next = crate::Served::new(Arc::clone(&world.inner), Default::default()).await;
    world.proxy.redirect(next.address);
    world.proxy.cut();
    assert_eq!(tx.get(b"k").await, Err(MetaError::TooOld));
    let tx = world.remote.begin();
    assert!(tx.read_version().await.unwrap() > version);
    assert_eq!(tx.get(b"k").await.unwrap(), Some("new".into()));
    world.server.stop().await;
}
