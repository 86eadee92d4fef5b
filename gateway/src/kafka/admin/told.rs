//! What log stores say of a topic with many partitions: asked once for all clients that ask meanwhile,
//! and kept for a few times as long as it took, an error as long as it took. Clients ask for all of a
//! topic when one of its partitions fails: without this they would keep the log stores from whatever
//! makes them ask.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

/// What was said is kept for so many times as long as it took to ask …
const TIMES: u32 = 5;
/// … and no longer.
const LONGEST: Duration = Duration::from_secs(5);

/// What was said of topics, each a `T`.
pub(in crate::kafka) struct Told<T> {
    topics: Mutex<HashMap<Uuid, Arc<Asked<T>>>>,
}

/// Locked by who asks: others wait for what that one is told.
type Asked<T> = tokio::sync::Mutex<Option<Said<T>>>;

struct Said<T> {
    what: Arc<T>,
    until: Instant,
}

impl<T> Default for Told<T> {
    fn default() -> Self {
        Self { topics: Mutex::default() }
    }
}

impl<T> Told<T> {
    /// What is said of a topic; `ask` finds out, and whether that is all that there is to say. Topics
    /// that don't live any more are forgotten.
    pub(in crate::kafka) async fn of<F: Future<Output = (T, bool)>>(
        &self,
        topic: Uuid,
        lives: impl Fn(Uuid) -> bool,
        ask: impl FnOnce() -> F,
    ) -> Arc<T> {
        let asked = {
            let mut topics = self.topics.lock();
            if !topics.contains_key(&topic) {
                topics.retain(|known, _| lives(*known));
            }
            Arc::clone(topics.entry(topic).or_default())
        };
        let mut said = asked.lock().await;
        if let Some(said) = &*said
            && Instant::now() < said.until
        {
            return Arc::clone(&said.what);
        }
        let begun = Instant::now();
        let (what, is_all) = ask().await;
        let (what, times) = (Arc::new(what), if is_all { TIMES } else { 1 });
        let until = Instant::now() + (begun.elapsed() * times).min(LONGEST);
        *said = Some(Said { what: Arc::clone(&what), until });
        what
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::future::join_all;
    use tokio::time::sleep;

    use super::*;

    /// What takes so many milliseconds fails.
    const ERROR: u64 = 1_000;

    #[tokio::test(start_paused = true)]
    async fn who_asks_meanwhile_and_shortly_after_is_told_the_same() {
        let (told, asked) = (Told::default(), AtomicU32::new(0));
        let ask = |took: u64| {
            let (told, asked) = (&told, &asked);
            told.of(
                Uuid::from_u128(1),
                |_| true,
                move || async move {
                    sleep(Duration::from_millis(took)).await;
                    (asked.fetch_add(1, Ordering::SeqCst), took != ERROR)
                },
            )
        };
        let same = join_all((0..100).map(|_| ask(200))).await;
        assert!(same.iter().all(|said| **said == 0));
        sleep(Duration::from_millis(999)).await;
        assert_eq!(*ask(200).await, 0);
        sleep(Duration::from_millis(1)).await;
        assert_eq!(*ask(60_000).await, 1);
        // What took long isn't kept for long.
        sleep(LONGEST).await;
        assert_eq!(*ask(0).await, 2);
        // What takes no time is asked each time.
        assert_eq!(*ask(0).await, 3);
        // An error is shared, and not kept for longer than it took.
        assert!(join_all((0..100).map(|_| ask(ERROR))).await.iter().all(|said| **said == 4));
        sleep(Duration::from_millis(ERROR)).await;
        assert_eq!(*ask(0).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_while_it_asks_leaves_that_to_the_next() {
        let told = Told::default();
        let topic = Uuid::from_u128(1);
        let never = told.of(topic, |_| true, std::future::pending::<(u32, bool)>);
        assert!(tokio::time::timeout(Duration::from_secs(1), never).await.is_err());
        assert_eq!(*told.of(topic, |_| true, || async { (7, true) }).await, 7);
        // Another topic comes, and this one is gone.
        told.of(Uuid::from_u128(2), |known| known != topic, || async { (8, true) }).await;
        assert!(!told.topics.lock().contains_key(&topic));
    }
}
