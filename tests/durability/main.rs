//! The whole standalone (journal and embedded metadata) on a disk that loses what was not synced.
//!
//! `kill -9` loses nothing that was written, so it shows nothing of syncs. Here the power goes at a
//! random moment of a load: of what was not synced a random subset stays. After the restart
//! everything acknowledged must be there: MQTT publishes, Kafka records at their offsets, committed
//! group offsets, retained messages, topics. A build that doesn't sync, and one that acknowledges
//! before the sync, must be found out.
//!
//! The other files make one thing of the disk fail each, and look through the sockets at what was
//! promised for it: a failed sync of the journal and of the metadata, a full disk, writes that are
//! torn, bits that flip.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod admin;
mod check;
mod failed_meta;
mod failed_sync;
mod flips;
mod full_disk;
mod kafka;
mod load;
mod meta_file;
mod mqtt5;
mod running;
mod scene;
mod torn;
mod wire;
mod world;

use world::{Mutant, World};

/// Lives of the disk in CI; each has a load, a power cut and a restart.
const SEEDS: u64 = 200;
/// A mutant that survives this many lives was not found.
const MUTANT_SEEDS: u64 = 100;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("DURABILITY_SEED").unwrap_or(0);
    first..first + number("DURABILITY_SEEDS").unwrap_or(SEEDS)
}

#[test]
fn what_was_acknowledged_survives_a_power_cut() {
    let mut acknowledged = 0;
    for seed in seeds() {
        let world = World::new(seed, Mutant::None);
        match world.life_and_death() {
            Ok(seen) => acknowledged += seen,
            Err(lost) => panic!("seed {seed} (DURABILITY_SEED={seed}): {lost}"),
        }
    }
    assert!(acknowledged > 0, "no load ever got an acknowledgement");
    println!("{acknowledged} acknowledgements, none lost");
}

fn is_found_out(mutant: Mutant) -> bool {
    (0..MUTANT_SEEDS).any(|seed| World::new(seed, mutant).life_and_death().is_err())
}

#[test]
fn a_build_that_does_not_sync_is_found_out() {
    assert!(is_found_out(Mutant::NoSync));
}

#[test]
fn a_build_that_acknowledges_before_the_sync_is_found_out() {
    assert!(is_found_out(Mutant::EarlyAck));
}
