//! A group on several gateways whose views differ, that crash and lose their leases, over a store that
//! is slow, loses answers and makes commits late (K17).
//!
//! ```text
//!   seed ─► world: views, leases, crashes ─► Groups × 3 ─► store: slow, lossy, late
//!                    clients: join, sync, commit ─┘           └─► oracle: nothing goes back
//! ```
//!
//! All runs on one thread with a clock of its own, so a seed repeats. More of them:
//! `INTERFLOW_TEST_GROUP_SEEDS=5000 cargo test -p interflow-gateway --lib groups::races`.

mod chance;
mod client;
mod oracle;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use oracle::Totals;
use world::World;

/// Runs the world of `seed` to its end.
fn run(seed: u64, is_blind: bool) -> Totals {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { World::new(seed, is_blind).run().await })
}

#[test]
fn k17_views_that_differ_lose_no_commit_and_accept_no_generation_twice() {
    let mut totals = Totals::default();
    let seeds =
        std::env::var("INTERFLOW_TEST_GROUP_SEEDS").map_or(100, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, false)));
        totals += outcome.unwrap_or_else(|_| panic!("seed {seed}"));
    }
    // What it is about did happen.
    assert!(totals.commits > 10_000 && totals.generations > 400, "{totals:?}");
    assert!(totals.superseded > 80 && totals.kept_generation > 80, "{totals:?}");
    assert!(totals.crashes > 200 && totals.lost_answers > 1_000 && totals.late > 200, "{totals:?}");
}

/// The oracle sees what there would be to see, were claims and writes not in conflict.
#[test]
fn without_conflicts_in_the_store_commits_go_back_or_are_lost() {
    let is_seen = |seed| catch_unwind(AssertUnwindSafe(|| run(seed, true))).is_err();
    assert!((0..100).any(is_seen), "claims that don't exclude writes went unnoticed");
}
