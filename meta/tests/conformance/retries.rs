//! The retry loop, and commits whose answer is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use interflow_meta::{Loss, Meta, MetaError};

use super::Bed;

/// Adds one to `counter`, once, however often it runs: by `token`. Says whether an earlier attempt
/// had done it.
async fn add_once(meta: &Meta, token: &[u8], counter: &[u8]) -> Result<bool, MetaError> {
    meta.transact(|tx| async move {
        let found = tx.get(token).await?.is_some();
        assert!(tx.is_maybe_committed() || !found);
        if !found {
            tx.set(token.to_vec(), "t")?;
            let old = tx.get(counter).await?.map_or(0, |value| value[0]);
            tx.set(counter.to_vec(), vec![old + 1])?;
        }
        Ok(found)
    })
    .await
}

/// Developer guide, “Transactions with unknown results”; Error codes, 1021 `commit_unknown_result`.
pub(super) async fn an_unknown_commit_is_resolved_by_reading(bed: Arc<Bed>) {
    for (loss, name) in [(Loss::Answer, "answer"), (Loss::Request, "request")] {
        let tx = bed.meta.begin();
        tx.set(bed.key("k"), name).unwrap();
        bed.store.plan([loss]);
        let unknown = tx.commit().await.unwrap_err();
        assert_eq!((unknown.code(), unknown.is_retryable()), (Some(1021), true));
        assert!(unknown.is_maybe_committed());
        let was_made = bed.value("k").await == Some(name.as_bytes().to_vec());
        assert_eq!(was_made, loss == Loss::Answer);

        bed.store.plan([loss]);
        let found = add_once(&bed.meta, &bed.key(name), &bed.key("n")).await.unwrap();
        assert_eq!(found, loss == Loss::Answer);
    }
    assert_eq!(bed.value("n").await.unwrap(), [2], "once each, whichever way it was lost");
}

/// Developer guide, “Transactions with unknown results”: an idempotent body is made exactly once.
pub(super) async fn increments_by_token_survive_lost_answers(bed: Arc<Bed>) {
    const TASKS: u8 = 8;
    const EACH: u8 = 10;
    let losses = [Loss::Answer, Loss::None, Loss::Request, Loss::None, Loss::Answer];
    bed.store.plan(losses.into_iter().cycle().take(100));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let bed = Arc::clone(&bed);
        tasks.spawn(async move {
            for n in 0..EACH {
                add_once(&bed.meta, &bed.key([b't', task, n]), &bed.key("n")).await.unwrap();
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(bed.value("n").await.unwrap(), [TASKS * EACH]);
}

/// Developer guide, “Transaction retry loops”: pauses double from attempt to attempt.
pub(super) async fn pauses_grow_between_attempts(bed: Arc<Bed>) {
    const LOST: usize = 8;
    bed.store.plan([Loss::Request; LOST]);
    let attempts = AtomicU32::new(0);
    let (attempts, key) = (&attempts, &bed.key("k"));
    let began = Instant::now();
    bed.meta
        .transact(|tx| async move {
            attempts.fetch_add(1, Ordering::Relaxed);
            tx.set(key.clone(), "v")
        })
        .await
        .unwrap();
    assert_eq!(attempts.load(Ordering::Relaxed), 9);
    // None, then 1, 2, 4, … 64 ms, of each at least half.
    assert!(began.elapsed() >= Duration::from_micros(63_500), "{:?}", began.elapsed());
}

/// Error codes, 1031 `transaction_timed_out`.
pub(super) async fn the_loop_gives_up_after_a_minute(bed: Arc<Bed>) {
    let (clock, key) = (&bed.clock, &bed.key("k"));
    let gave_up = bed
        .meta
        .transact(|tx| async move {
            tx.get(key).await?;
            tx.set(key.clone(), "v")?;
            clock.advance(Duration::from_secs(61));
            Ok::<_, MetaError>(())
        })
        .await
        .unwrap_err();
    assert_eq!(gave_up, MetaError::TimedOut(Box::new(MetaError::TooOld)));
    assert_eq!((gave_up.code(), gave_up.is_retryable()), (Some(1031), false));
    assert_eq!(bed.value("k").await, None);
}

/// Developer guide, “Transaction retry loops”: what isn't the store's is the caller's.
pub(super) async fn an_own_error_ends_the_loop_at_once(bed: Arc<Bed>) {
    let attempts = AtomicU32::new(0);
    let (attempts, key) = (&attempts, &bed.key("k"));
    let failed = bed
        .meta
        .transact(|tx| async move {
            attempts.fetch_add(1, Ordering::Relaxed);
            tx.set(key.clone(), "v")?;
            Err::<(), _>(MetaError::InvalidOperation("mine"))
        })
        .await;
    assert_eq!(failed, Err(MetaError::InvalidOperation("mine")));
    assert_eq!(attempts.load(Ordering::Relaxed), 1);
    assert_eq!(bed.value("k").await, None);
}

/// Developer guide, “Transaction retry loops”: the body runs anew on a new version.
pub(super) async fn a_conflict_is_retried_until_it_gets_through(bed: Arc<Bed>) {
    let attempts = AtomicU32::new(0);
    let (attempts, bed, key) = (&attempts, &bed, &bed.key("k"));
    let seen = bed
        .meta
        .transact(|tx| async move {
            let seen = tx.get(key).await?;
            if attempts.fetch_add(1, Ordering::Relaxed) < 3 {
                bed.set("k", "theirs").await;
            }
            tx.set(key.clone(), "mine")?;
            Ok::<_, MetaError>(seen)
        })
        .await
        .unwrap();
    assert_eq!((seen, attempts.load(Ordering::Relaxed)), (Some("theirs".into()), 4));
    assert_eq!(bed.value("k").await.unwrap(), b"mine");
}

/// C API, `fdb_database_destroy`: no commit is taken any more, and no watch waits for ever.
pub(super) async fn a_closed_store_refuses_commits_and_ends_watches(bed: Arc<Bed>) {
    bed.set("a", "v").await;
    let key = &bed.key("a");
    let watching =
        bed.meta.transact(|tx| async move { tx.watch(key.clone()).await }).await.unwrap();
    let tx = bed.begun().await;
    tx.set(bed.key("a"), "w").unwrap();
    if bed.is_shared {
        bed.clear().await;
    }
    bed.meta.close().await;
    let refused = tx.commit().await;
    assert!(matches!(refused, Err(MetaError::Unavailable(_))), "{refused:?}");
    let ended = watching.changed().await;
    assert!(ended.is_ok() == bed.is_shared || matches!(ended, Err(MetaError::Unavailable(_))));
}
