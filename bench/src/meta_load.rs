//! The metadata generator: committers in a closed loop, each on things of its own.
//!
//! ```text
//!   Cursor (committer c of n) ──► things c, c + n, c + 2n, … and round again: the next pass
//!        └──► act(thing, pass) ──► latency, items
//! ```
//!
//! A thing (a group, a log, a node, a topic) is acted on by one committer only, so that no two
//! conflict, and `pass` says how often it was acted on before.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::latency::Latencies;

/// Spreads neighbours over all things: a prime, so it shares no factor with their number.
const STRIDE: u64 = 611_953;

/// Where a committer is on its way round its things.
#[derive(Clone, Debug)]
pub struct Cursor {
    first: u64,
    committers: u64,
    things: u64,
    turn: u64,
}

impl Cursor {
    /// A cursor for each of `committers`; of fewer things than committers, one for each thing.
    pub fn spread(things: u64, committers: u64) -> Vec<Self> {
        let committers = committers.min(things);
        (0..committers).map(|first| Self { first, committers, things, turn: 0 }).collect()
    }

    /// The thing to act on, and how often that was done before.
    fn current(&self) -> (u64, u64) {
        let own = (self.things - self.first).div_ceil(self.committers);
        let thing = self.first + self.turn % own * self.committers;
        (thing, self.turn / own)
    }
}

/// The place of number `n` when `things` are visited in no order: all of them, each once.
pub fn scattered(n: u64, things: u64) -> u64 {
    let place = u128::from(n) * u128::from(STRIDE) % u128::from(things.max(1));
    u64::try_from(place).unwrap_or(0)
}

/// When a load ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this time.
    Time(Duration),
    /// When each thing was acted on once.
    OnePass,
}

/// What a load brought.
#[derive(Debug)]
pub struct Outcome {
    /// Transactions that were made.
    pub transactions: u64,
    /// What they wrote or read, as the load counts it.
    pub items: u64,
    /// From the first beginning to the last end.
    pub seconds: f64,
    /// Of each transaction, its retries included.
    pub latencies: Latencies,
}

/// Lets each cursor act in turn on its things, all cursors at the same time. `act` gives how many
/// items there were. The first error ends all.
pub async fn run<A, F>(cursors: &mut [Cursor], until: Until, act: A) -> anyhow::Result<Outcome>
where
    A: Fn(u64, u64) -> F + Clone + Send + 'static,
    F: Future<Output = anyhow::Result<u64>> + Send,
{
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (place, cursor) in cursors.iter().enumerate() {
        let (mut cursor, act) = (cursor.clone(), act.clone());
        tasks.spawn(async move {
            let (mut latencies, mut items) = (Latencies::new()?, 0);
            loop {
                let (thing, pass) = cursor.current();
                let at = Instant::now();
                let is_over = match until {
                    Until::Time(time) => at - begun >= time,
                    Until::OnePass => pass > 0,
                };
                if is_over {
                    return anyhow::Ok((place, cursor, latencies, items));
                }
                items += act(thing, pass).await?;
                latencies.record_us(u64::try_from(at.elapsed().as_micros())?);
                cursor.turn += 1;
                // Reads out of memory are always ready: between two, not within one, is the place to
                // let other tasks run.
                tokio::task::yield_now().await;
            }
        });
    }
    let (mut latencies, mut items) = (Latencies::new()?, 0);
    while let Some(ended) = tasks.join_next().await {
        let (place, cursor, own, count) = ended??;
        latencies.merge(&own)?;
        items += count;
        if let Some(before) = cursors.get_mut(place) {
            *before = cursor;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    Ok(Outcome { transactions: latencies.count(), items, seconds, latencies })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use tokio::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn a_pass_acts_once_on_each_thing_and_goes_on_where_it_was() -> anyhow::Result<()> {
        for (things, committers) in [(1, 1), (10, 3), (3, 10), (100, 64)] {
            let mut cursors = Cursor::spread(things, committers);
            assert_eq!(cursors.len() as u64, things.min(committers));
            let seen = Arc::new(Mutex::new(Vec::new()));
            let shared = seen.clone();
            let act = move |thing, pass| {
                let seen = shared.clone();
                async move {
                    seen.lock().await.push((thing, pass));
                    Ok(2)
                }
            };
            let outcome = run(&mut cursors, Until::OnePass, act.clone()).await?;
            assert_eq!((outcome.transactions, outcome.items), (things, 2 * things));
            let first: BTreeSet<_> = seen.lock().await.drain(..).collect();
            assert_eq!(first, (0..things).map(|thing| (thing, 0)).collect());
            // The pass is over: a second one is a matter of time.
            let outcome = run(&mut cursors, Until::OnePass, act.clone()).await?;
            assert_eq!(outcome.transactions, 0);
            run(&mut cursors, Until::Time(Duration::from_millis(5)), act).await?;
            assert!(seen.lock().await.iter().all(|(_, pass)| *pass > 0));
        }
        Ok(())
    }

    #[test]
    fn scattering_visits_all() {
        for things in [1, 100, 10_000] {
            let places: BTreeSet<_> = (0..things).map(|n| scattered(n, things)).collect();
            assert_eq!(places, (0..things).collect());
        }
    }

    #[tokio::test]
    async fn an_error_ends_the_load() {
        let mut cursors = Cursor::spread(10, 2);
        let act = |thing, _| async move { if thing == 5 { anyhow::bail!("five") } else { Ok(1) } };
        assert!(run(&mut cursors, Until::Time(Duration::from_secs(60)), act).await.is_err());
    }
}
