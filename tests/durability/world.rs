//! The lives of a disk: loaded, cut off, started again.

use interflow_logstore::disk::FaultDisk;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::check;
use crate::load::{Acknowledged, Load};
use crate::running::{Addresses, Running, config};

/// What is wrong with the build under test.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Nothing.
    None,
    /// `fdatasync` does nothing.
    NoSync,
    /// Records are acknowledged when they are in memory.
    EarlyAck,
}

/// One seed's disk.
pub(crate) struct World {
    seed: u64,
    mutant: Mutant,
    disk: FaultDisk,
}

/// The lives of a disk: load and power cut, so many times, and a last look.
const LIVES: u64 = 2;

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let disk = FaultDisk::new();
        disk.set_no_sync(mutant == Mutant::NoSync);
        Self { seed, mutant, disk }
    }

    /// Loads and cuts the power, twice, and checks after each restart. Returns how many
    /// acknowledgements were given, or what was lost.
    pub(crate) fn life_and_death(&self) -> Result<u64, String> {
        let mut all = Acknowledged::default();
        for life in 0..LIVES {
            self.with_standalone(|addresses| {
                if life > 0 {
                    check::everything(addresses, &all)?;
                }
                let mut rng = StdRng::seed_from_u64(self.seed * LIVES + life);
                let load = Load {
                    mqtt: addresses.mqtt,
                    kafka: addresses.kafka,
                    life,
                    is_early: self.mutant == Mutant::EarlyAck,
                };
                let cut_after = rng.random_range(5..80);
                let crash_seed = rng.random();
                load.run(cut_after, &mut all, || self.disk.crash(crash_seed));
                Ok(())
            })?;
        }
        self.with_standalone(|addresses| check::everything(addresses, &all))?;
        Ok(all.count())
    }

    fn with_standalone(
        &self,
        act: impl FnOnce(&Addresses) -> Result<(), String>,
    ) -> Result<(), String> {
        let running = Running::start(&self.disk, config())?;
        act(&running.addresses)
    }
}
