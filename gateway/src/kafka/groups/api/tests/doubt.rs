//! Writes of which nobody knows whether they were made.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use interflow_meta::groups::coordinator;
use interflow_meta::{Clock, DEFAULT_TENANT, EmbeddedStore, Env, Meta};

use super::*;

/// A clock that stands still, or is ahead by ten seconds each time that it is looked at.
#[derive(Debug, Default)]
struct Jumping {
    seconds: AtomicU64,
    jumps: AtomicBool,
}

impl Clock for Jumping {
    fn now(&self) -> Duration {
        let step = if self.jumps.load(Ordering::Relaxed) { 10 } else { 0 };
        Duration::from_secs(self.seconds.fetch_add(step, Ordering::Relaxed))
    }
}

#[tokio::test]
async fn a_group_is_claimed_anew_behind_a_write_that_was_given_up() {
    let clock = Arc::new(Jumping::default());
    let store = Arc::new(EmbeddedStore::in_memory(Env::default()).unwrap());
    let env = Env { clock: clock.clone(), ..Env::default() };
    let meta = Meta::new(store, env, "test");
    let bench = Bench::over(meta.clone(), config(), false).await;
    with_topic(&bench, "t").await;
    let mut client = bench.connect();
    let (member, generation) = alone(&mut client, 9).await;
    let synced = client.ask(5, &sync(&member, generation, &[(&member, "all")])).await;
    assert_eq!(synced.error_code, 0);
    let epoch = || async {
        let found = coordinator(&meta.begin(), DEFAULT_TENANT, "g").await.unwrap();
        found.map(|found| found.epoch)
    };
    assert_eq!(epoch().await, Some(1));

    clock.jumps.store(true, Ordering::Relaxed);
    let answer = client.ask(9, &commit(&member, generation, &[("t", 0, 5)])).await;
    let code = answer.topics[0].partitions[0].error_code;
    assert_eq!(code, ResponseError::CoordinatorNotAvailable.code());
    clock.jumps.store(false, Ordering::Relaxed);

    // Its member goes on, and what it commits now can't be overtaken.
    assert_eq!(client.ask(4, &heartbeat(&member, generation)).await.error_code, 0);
    assert_eq!(epoch().await, Some(2));
    let answer = client.ask(9, &commit(&member, generation, &[("t", 0, 6)])).await;
    assert_eq!(answer.topics[0].partitions[0].error_code, 0);
    assert_eq!(committed(&mut client, "t", 0).await, 6);
}
