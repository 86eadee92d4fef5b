//! Random work, a power cut at a random moment, and what must be there afterwards.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::journal::core::Group;
use crate::store::shared::Written;

use super::*;

const LOGS: u64 = 4;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mutant {
    None,
    /// Syncs say Ok and do nothing.
    NoSync,
    /// What was appended counts as durable.
    AckAtAppend,
}

/// A thread of the journal, as far as it got.
enum Worker {
    Idle,
    Took(Group),
    /// Written and synced at the earliest moment; the answer is still on its way.
    Synced(Written),
}

/// What was appended to one log since its last entry that a start has found.
type Appended = Vec<(Position, Vec<u8>)>;

struct World {
    rng: StdRng,
    harness: Option<Harness>,
    workers: Vec<(Worker, WorkerFile)>,
    logs: Vec<Appended>,
    /// What was already there when the store was opened last.
    settled: Vec<usize>,
    serial: u64,
    mutant: Mutant,
    crashes_while_rewriting: usize,
}

impl World {
    fn new(seed: u64, mutant: Mutant) -> Self {
        let disk = FaultDisk::new();
        // The first start is not what is tested.
        let options = Options { seed: Some(seed), rewrite_scan_factor: 1, ..options() };
        let harness = Harness::over(disk.clone(), options);
        tell_lives(&harness, seed);
        disk.set_no_sync(mutant == Mutant::NoSync);
        let workers = (0..3).map(|_| (Worker::Idle, WorkerFile::default())).collect();
        let logs = vec![Vec::new(); LOGS as usize];
        Self {
            rng: StdRng::seed_from_u64(seed),
            harness: Some(harness),
            workers,
            settled: vec![0; logs.len()],
            logs,
            serial: 0,
            mutant,
            crashes_while_rewriting: 0,
        }
    }

    fn step(&mut self) {
        let harness = self.harness.as_ref().unwrap();
        match self.rng.random_range(0..10) {
            0..5 => {
                let log = self.rng.random_range(0..LOGS);
                let len = if self.rng.random_bool(0.1) { 3000 } else { 200 };
                let mut payload = vec![0; self.rng.random_range(8..len)];
                self.rng.fill(&mut payload[..]);
                self.serial += 1;
                payload[..8].copy_from_slice(&self.serial.to_le_bytes());
                let appended = &mut self.logs[log as usize];
                if let Ok(position) = harness.append(log, appended.len() as u64, &payload) {
                    appended.push((position, payload));
                }
            }
            5..9 => {
                let n = self.rng.random_range(0..self.workers.len());
                self.work(n);
            }
            _ => {
                if self.rng.random_bool(0.5) {
                    keeper::keep_one(&harness.store.shared);
                } else if let Some(worker) =
                    self.workers.iter_mut().find(|worker| matches!(worker.0, Worker::Idle))
                    && let Some(group) = harness.store.shared.state.lock().core.take_marker()
                {
                    worker.0 = Worker::Took(group);
                }
            }
        }
    }

    fn work(&mut self, n: usize) {
        let shared = &self.harness.as_ref().unwrap().store.shared;
        let (worker, file) = &mut self.workers[n];
        *worker = match std::mem::replace(worker, Worker::Idle) {
            Worker::Idle => match shared.state.lock().core.take() {
                Some(group) => Worker::Took(group),
                None => Worker::Idle,
            },
            Worker::Took(group) => {
                let written = shared.write(&group, file).unwrap();
                written.file.sync().unwrap();
                Worker::Synced(written)
            }
            Worker::Synced(written) => {
                shared.finish(&written);
                Worker::Idle
            }
        };
    }

    /// Cuts the power, starts again and compares.
    fn crash(&mut self) -> Result<(), String> {
        let harness = self.harness.take().unwrap();
        let is_rewriting = harness.extents().iter().any(|name| name.ends_with(".tmp"));
        self.crashes_while_rewriting += usize::from(is_rewriting);
        let durable = match self.mutant {
            Mutant::AckAtAppend => Position(u64::MAX),
            _ => *harness.events.durable.lock(),
        };
        self.workers.iter_mut().for_each(|worker| *worker = (Worker::Idle, WorkerFile::default()));
        let seed = self.rng.random();
        let harness = harness.crash(seed);
        tell_lives(&harness, seed);
        for log in 0..LOGS {
            let n = log as usize;
            let appended = &mut self.logs[n];
            let reported = appended.iter().take_while(|(p, _)| *p <= durable).count();
            let must = reported.max(self.settled[n]);
            if let Some(found) = harness.store.segment(segment(log))
                && !found.damaged.is_empty()
            {
                return Err(format!("log {log}: damage {:?}", found.damaged));
            }
            let found = harness.payloads(log);
            if found.len() < must {
                return Err(format!("log {log}: {} of {must} reported entries", found.len()));
            }
            for (i, bytes) in found.iter().enumerate() {
                if appended.get(i).is_none_or(|(_, payload)| payload != bytes) {
                    return Err(format!("log {log}: entry {i} is not what was appended"));
                }
            }
            appended.truncate(found.len());
            for (position, _) in appended.iter_mut() {
                *position = Position(0);
            }
            self.settled[n] = appended.len();
        }
        harness.disk.set_no_sync(self.mutant == Mutant::NoSync);
        self.harness = Some(harness);
        Ok(())
    }
}

/// In a quarter of the lives, all is put in order as soon as may be, in two lives.
fn tell_lives(harness: &Harness, seed: u64) {
    if seed.is_multiple_of(4) {
        for log in 0..LOGS {
            let life = if log < 2 { Duration::MAX } else { Duration::from_secs(7200) };
            harness.store.expect_life(LogId(log), Some(life));
        }
    }
}

fn run(seed: u64, mutant: Mutant) -> Result<usize, String> {
    let mut world = World::new(seed, mutant);
    for _ in 0..4 {
        for _ in 0..world.rng.random_range(1..400) {
            world.step();
        }
        world.crash()?;
        if world.rng.random_bool(0.3) {
            world.crash()?;
        }
    }
    Ok(world.crashes_while_rewriting)
}

#[test]
fn what_was_reported_durable_is_there_byte_for_byte() {
    let mut crashes_while_rewriting = 0;
    for seed in 0..400 {
        match run(seed, Mutant::None) {
            Ok(crashes) => crashes_while_rewriting += crashes,
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    assert!(crashes_while_rewriting > 20, "{crashes_while_rewriting}");
}

#[test]
fn a_disk_that_does_not_sync_is_noticed() {
    assert!((0..20).any(|seed| run(seed, Mutant::NoSync).is_err()));
}

#[test]
fn acknowledging_at_the_append_is_noticed() {
    assert!((0..20).any(|seed| run(seed, Mutant::AckAtAppend).is_err()));
}
