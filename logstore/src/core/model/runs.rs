//! Which bounds are searched, and that each broken rule is noticed.

use std::collections::BTreeSet;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use stateright::{Checker, Expectation, HasDiscoveries, Model};

use super::{Config, Protocol, Value};
use crate::core::rules::Broken;

/// One value of each of two producers, three replicas, one send.
const SMALL: Config = Config {
    replicas: [3, 3],
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
    let model = Protocol { config };
    let properties = model.properties();
    let mut rng = StdRng::seed_from_u64(seed);
    let (mut steps, mut ways, mut reached) = (0, 0, BTreeSet::new());
    let due = properties.iter().filter(|p| p.expectation == Expectation::Sometimes).count();
    while reached.len() < due && ways < WAYS {
        ways += 1;
        let mut state = model.first();
        let mut actions = Vec::new();
        model.actions(&state, &mut actions);
        while !actions.is_empty() {
            let action = actions.swap_remove(rng.random_range(0..actions.len()));
            let Some(next) = model.next_state(&state, action) else { continue };
            (state, steps) = (next, steps + 1);
            for property in &properties {
                let is_so = (property.condition)(&model, &state);
                match property.expectation {
                    Expectation::Sometimes if is_so => drop(reached.insert(property.name)),
                    Expectation::Sometimes => {}
                    _ => assert!(is_so, "{}: seed {seed}, way {ways}: {state:?}", property.name),
                }
            }
            actions.clear();
            model.actions(&state, &mut actions);
        }
    }
    println!("{steps} steps on {ways} random ways in {:?}: {bounds}", begin.elapsed());
    let missing = properties.iter().filter(|p| p.expectation == Expectation::Sometimes);
    let missing: Vec<_> = missing.map(|p| p.name).filter(|name| !reached.contains(name)).collect();
    assert!(missing.is_empty(), "not reached: {missing:?}");
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
