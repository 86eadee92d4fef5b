//! What must hold, whatever happens.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use parking_lot::Mutex;

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// Commits that were answered as done.
    pub(super) commits: u64,
    /// Generations whose assignments were handed out.
    pub(super) generations: u64,
    /// Commits refused by a gateway that took itself for the coordinator.
    pub(super) superseded: u64,
    /// A member went on with another gateway in the generation that it had.
    pub(super) kept_generation: u64,
    pub(super) crashes: u64,
    pub(super) lost_answers: u64,
    /// Commits of the store that were made after their answer was lost.
    pub(super) late: u64,
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.commits += other.commits;
        self.generations += other.generations;
        self.superseded += other.superseded;
        self.kept_generation += other.kept_generation;
        self.crashes += other.crashes;
        self.lost_answers += other.lost_answers;
        self.late += other.late;
    }
}

/// What was answered so far.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    /// By generation: which assignment it was given.
    accepted: Mutex<BTreeMap<i32, u64>>,
    /// The greatest offset that was answered as committed.
    acked: Mutex<u64>,
    pub(super) totals: Mutex<Totals>,
}

impl Oracle {
    /// A member was given its share of assignment `nonce` for `generation`.
    pub(super) fn accept(&self, generation: i32, nonce: u64) {
        let mut accepted = self.accepted.lock();
        if *accepted.entry(generation).or_insert(nonce) != nonce {
            panic!("generation {generation} was accepted twice");
        }
        self.totals.lock().generations = u64::try_from(accepted.len()).unwrap();
    }

    pub(super) fn acked(&self) -> u64 {
        *self.acked.lock()
    }

    /// The owner of the partition, who goes on from what it has read as committed, was told that
    /// `offset` is committed.
    pub(super) fn commit(&self, offset: u64) {
        let mut acked = self.acked.lock();
        assert!(offset > *acked, "{offset} was committed behind {acked}: by two owners");
        *acked = offset;
        self.totals.lock().commits += 1;
    }
}
