//! What the wired cluster shows.

use std::collections::BTreeMap;

use super::faults::Kind;
use super::simulate;

const COMMAND: &str =
    "cargo test -p interflow-logstore --lib log::tests::cluster::wired -- --nocapture";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs seeds with faults of `kinds`, each of which must come up.
fn run(kinds: &'static [Kind], count: u64) -> BTreeMap<&'static str, u64> {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + number("SIM_SEEDS").unwrap_or(count),
    };
    let mut totals = BTreeMap::new();
    let mut failures = Vec::new();
    for seed in seeds.clone() {
        match simulate(seed, kinds) {
            Ok(counts) => {
                for (what, count) in counts {
                    *totals.entry(what).or_insert(0) += count;
                }
            }
            Err(what) => {
                eprintln!("SIM_SEED={seed} SIM_TRACE=1 {COMMAND}\n    {kinds:?}: {what}");
                failures.push((seed, what));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
    eprintln!("{kinds:?}, {seeds:?}: {totals:#?}");
    if seeds.end - seeds.start >= count {
        for what in kinds.iter().map(|kind| kind.name()).chain(["acks", "followed"]) {
            assert!(totals.get(what).is_some_and(|count| *count > 0), "there were no {what}");
        }
    }
    totals
}

#[test]
fn without_faults_no_append_fails() {
    let totals = run(&[], 1);
    assert_eq!((totals.get("errors"), totals.get("failed reads")), (None, None));
}

const PARTITIONS: &[Kind] = &[Kind::TwoWay, Kind::OneWay, Kind::Isolated];

#[test]
fn partitions_lose_nothing() {
    run(PARTITIONS, 3);
}

/// A sequencer whose segment was closed while it had nothing to send didn't hear of it, refused what it was sent by its
/// old table for ever, and was the next but one sequencer, too.
#[test]
fn seeds_that_failed_pass() {
    for seed in [8, 10] {
        simulate(seed, PARTITIONS).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
    }
}

#[test]
fn lossy_and_slow_links_lose_nothing() {
    run(&[Kind::Loss, Kind::Slow, Kind::Held], 3);
}

#[test]
fn crashes_lose_nothing() {
    let totals = run(&[Kind::Crash, Kind::Blackout], 3);
    assert!(totals["recoveries"] > 0, "{totals:?}");
}

#[test]
fn all_at_once_loses_nothing() {
    const ALL: &[Kind] = &[
        Kind::TwoWay,
        Kind::OneWay,
        Kind::Loss,
        Kind::Slow,
        Kind::Held,
        Kind::Isolated,
        Kind::Crash,
        Kind::Blackout,
    ];
    run(ALL, 5);
}
