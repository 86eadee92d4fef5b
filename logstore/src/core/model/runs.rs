//! Which bounds are searched, and that each broken rule is noticed.

use std::collections::BTreeSet;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use super::{Config, Protocol, Value, World};
use crate::core::rules::Broken;

/// One value of each of two producers, three replicas, one send.
const SMALL: Config = Config {
    replicas: [3, 3],
    least: 1,
    values: Vec::new(),
    sends: 1,
    recoveries: 0,
    crashes: 0,
    unknowns: 0,
    plans: 0,
    ticks: false,
    tells_committed: false,
    tail: false,
    first_snapshot: false,
    broken: None,
};

/// Searches what can happen within `config`'s bounds, nearest first, until `most` steps were
/// taken; returns how many there were. What must be reachable is reached if all was searched.
fn hold(config: Config, most: usize) -> usize {
    let begin = Instant::now();
    let bounds = format!("{config:?}");
    let builder = Protocol { config }.checker().threads(2);
    let builder = builder.finish_when(HasDiscoveries::AnyFailures).target_state_count(most);
    let checker = builder.spawn_bfs().join();
    let states = checker.unique_state_count();
    let found = checker.discoveries();
    let is_all = checker.state_count() < most;
    println!("{states} distinct states, all: {is_all}, in {:?}: {bounds}", begin.elapsed());
    for property in checker.model().properties() {
        let is_found = found.contains_key(property.name);
        match property.expectation {
            Expectation::Sometimes => {
                assert!(is_found || !is_all, "not reached: {}", property.name)
            }
            _ => assert!(!is_found, "{}: {:?}", property.name, found[property.name]),
        }
    }
    states
}

/// Takes random ways through `config`'s bounds, deep ones too, the same for the same seed. No
/// invariant fails on them, and all that must be reachable is reached.
fn reach(config: Config, seed: u64) {
    const WAYS: usize = 4_000;
    let begin = Instant::now();
    let bounds = format!("{config:?}");
    let mut ways = Ways::new(config, seed);
    while ways.taken < WAYS && !ways.missing().is_empty() {
        ways.take(usize::MAX);
    }
    println!(
        "{} steps on {} random ways in {:?}: {bounds}",
        ways.steps,
        ways.taken,
        begin.elapsed()
    );
    assert_eq!(ways.missing(), Vec::<&str>::new(), "not reached");
}

/// Random ways from the first state to where nothing can happen any more.
struct Ways {
    model: Protocol,
    properties: Vec<Property<Protocol>>,
    seed: u64,
    rng: StdRng,
    taken: usize,
    steps: usize,
    reached: BTreeSet<&'static str>,
}

impl Ways {
    fn new(config: Config, seed: u64) -> Self {
        let model = Protocol { config };
        let properties = model.properties();
        let rng = StdRng::seed_from_u64(seed);
        Self { model, properties, seed, rng, taken: 0, steps: 0, reached: BTreeSet::new() }
    }

    /// Takes one of at most `most` steps, and checks every invariant after each.
    fn take(&mut self, most: usize) {
        self.taken += 1;
        let end = self.steps.saturating_add(most);
        let mut state = self.model.first();
        let mut actions = Vec::new();
        self.model.actions(&state, &mut actions);
        while !actions.is_empty() && self.steps < end {
            let action = actions.swap_remove(self.rng.random_range(0..actions.len()));
            let Some(next) = self.model.next_state(&state, action) else { continue };
            state = next;
            self.steps += 1;
            self.look_at(&state);
            actions.clear();
            self.model.actions(&state, &mut actions);
        }
    }

    fn look_at(&mut self, state: &World) {
        for property in &self.properties {
            let is_so = (property.condition)(&self.model, state);
            match property.expectation {
                Expectation::Sometimes if is_so => drop(self.reached.insert(property.name)),
                Expectation::Sometimes => {}
                _ => assert!(
                    is_so,
                    "{}: seed {}, way {}: {state:?}",
                    property.name, self.seed, self.taken
                ),
            }
        }
    }

    /// What must be reachable and wasn't reached.
    fn missing(&self) -> Vec<&'static str> {
        let due = self.properties.iter().filter(|p| p.expectation == Expectation::Sometimes);
        due.map(|p| p.name).filter(|name| !self.reached.contains(name)).collect()
    }
}

/// Searches until an invariant fails, and says which.
fn fails(config: Config) -> Vec<&'static str> {
    let begin = Instant::now();
    let bounds = format!("{config:?}");
    let checker = Protocol { config }
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let found: Vec<_> = checker
        .discoveries()
        .into_keys()
        .filter(|name| name.starts_with('I') || name.starts_with("a tail"))
        .collect();
    let states = checker.unique_state_count();
    println!("{found:?} after {states} states in {:?}: {bounds}", begin.elapsed());
    found
}

const TWO: [Value; 2] = [(1, 0), (2, 0)];

/// Two producers, two recoveries, a crash, an unknown commit, retries.
fn whole() -> Config {
    Config { values: TWO.to_vec(), sends: 2, recoveries: 2, crashes: 1, unknowns: 1, ..SMALL }
}

/// One replica less, and no patience.
fn short() -> Config {
    let config = Config { values: TWO.to_vec(), recoveries: 1, ticks: true, ..SMALL };
    Config { replicas: [2, 2], ..config }
}

/// A planned close, which a recovery may overtake.
fn planned() -> Config {
    Config { plans: 1, recoveries: 1, ..whole() }
}

/// All of three replicas acknowledge, and one that is sealed decides.
fn all() -> Config {
    Config { least: 3, ticks: true, recoveries: 1, crashes: 1, values: TWO.to_vec(), ..SMALL }
}

#[test]
fn model_holds() {
    let one = Config { values: vec![(1, 0)], ..SMALL };
    let states: usize = [
        // The tail of what a crash took, searched to the end.
        (early(), usize::MAX),
        // A sequencer and its replicas alone.
        (Config { recoveries: 0, unknowns: 0, tells_committed: true, ..whole() }, 400_000),
        // One recovery, then two that race, then one after a crash.
        (Config { recoveries: 1, ..one.clone() }, 400_000),
        (Config { recoveries: 2, unknowns: 1, ..one.clone() }, 600_000),
        (Config { recoveries: 1, crashes: 1, sends: 2, ..one.clone() }, 600_000),
        (Config { recoveries: 1, plans: 1, unknowns: 1, ..one }, 500_000),
        (planned(), 300_000),
        (short(), 300_000),
        (all(), 300_000),
        (whole(), 1_500_000),
    ]
    .into_iter()
    .map(|(config, most)| hold(config, most))
    .sum();
    println!("{states} distinct states");
    assert!(states >= 1_000_000, "{states}");
}

#[test]
fn model_reaches_planned_closes() {
    reach(planned(), 2);
}

#[test]
fn model_reaches_lost_races_and_lost_writes() {
    reach(whole(), 3);
}

#[test]
fn model_reaches_short_closes() {
    reach(short(), 4);
}

/// More of everything than can be searched: two producers with two values each, four recoveries,
/// three crashes, planned closes, no patience, unknown commits.
fn large() -> Config {
    Config {
        values: vec![(1, 0), (1, 1), (2, 0), (2, 1)],
        sends: 3,
        recoveries: 4,
        crashes: 3,
        unknowns: 3,
        plans: 2,
        ticks: true,
        tells_committed: true,
        ..SMALL
    }
}

/// `MODEL_SEEDS` ways, from seed `MODEL_SEED` on: each is the same for the same seed.
#[test]
fn model_holds_on_long_random_ways() {
    // Messages that come again and again have no end.
    const MOST: usize = 500;
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    const SEEDS: u64 = 1_000;
    let first = number("MODEL_SEED").unwrap_or(0);
    let seeds = number("MODEL_SEEDS").unwrap_or(SEEDS);
    let (mut steps, mut missing) = (0, Ways::new(large(), first).missing());
    for seed in first..first + seeds {
        let mut ways = Ways::new(large(), seed);
        ways.take(MOST);
        steps += ways.steps;
        missing.retain(|name| !ways.reached.contains(name));
    }
    println!("{steps} steps; not reached: {missing:?}");
    assert!(seeds < SEEDS || missing.is_empty(), "not reached: {missing:?}");
}

/// One node that loses what a tail was shown.
fn early() -> Config {
    let config = Config { values: TWO.to_vec(), sends: 2, recoveries: 1, crashes: 1, ..SMALL };
    Config { replicas: [1, 1], tail: true, ..config }
}

/// Each broken rule is noticed, and by the invariant that it is there for.
fn is_noticed(broken: Broken, config: Config, invariants: &[&str]) {
    let found = fails(Config { broken: Some(broken), ..config });
    let is_one = |name: &&str| invariants.iter().any(|invariant| name.starts_with(invariant));
    assert!(found.iter().any(is_one), "{broken:?}: {found:?}");
}

/// One value, one recovery.
fn recovered() -> Config {
    Config { values: vec![(1, 0)], recoveries: 1, ..SMALL }
}

#[test]
fn model_notices_a_seal_quorum_of_one() {
    is_noticed(Broken::SealQuorumOne, recovered(), &["I1:", "I2:", "I5:"]);
}

#[test]
fn model_notices_stores_to_sealed_replicas() {
    is_noticed(Broken::NoSealCheck, recovered(), &["I1:", "I2:", "I5:"]);
}

#[test]
fn model_notices_the_smallest_tail() {
    is_noticed(Broken::SmallestTail, recovered(), &["I1:", "I2:", "I5:"]);
}

#[test]
fn model_notices_a_close_without_copies() {
    is_noticed(Broken::NoRepair, recovered(), &["I4:"]);
}

#[test]
fn model_notices_holes() {
    let values = vec![(1, 0), (2, 0)];
    is_noticed(Broken::TakesGaps, Config { values, ..recovered() }, &["I5:", "I6:"]);
}

#[test]
fn model_notices_early_batches_known_by_offset() {
    is_noticed(Broken::EarlyByOffset, early(), &["a tail"]);
}

#[test]
fn model_notices_snapshots_that_take_an_offset() {
    let config = Config { first_snapshot: true, ..recovered() };
    is_noticed(Broken::SnapshotTakesOffset, config, &["I1:", "I5:", "I7:"]);
}
