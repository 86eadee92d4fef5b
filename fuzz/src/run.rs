//! Runs a target on mutated inputs and judges it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Target;
use crate::mutate::Mutator;

/// No input may take longer: the slowest take milliseconds.
const MAX_RUN: Duration = Duration::from_secs(10);

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The target panicked; the panic's message was printed.
    Panic,
    /// It allocated more than [`Target::memory`] allows.
    Memory {
        /// Bytes that it allocated.
        allocated: usize,
        /// Bytes that it may allocate for this input.
        limit: usize,
    },
}

/// How a target fared.
#[derive(Clone, Debug)]
pub struct Run {
    /// Inputs that were run.
    pub inputs: u64,
    /// The first failure, with its input.
    pub failure: Option<(Failure, Vec<u8>)>,
}

/// Runs targets one at a time.
pub struct Runner<A> {
    /// Seeds the mutations.
    pub seed: u64,
    /// How long each target runs.
    pub time: Duration,
    /// Bytes that the process allocated so far.
    pub allocated: A,
}

impl<A: Fn() -> usize> Runner<A> {
    /// Runs `target` on its seeds, then on mutations of them, until the time is over or it fails.
    /// `stuck` is called, on another thread, with an input that doesn't end.
    pub fn run(&self, target: &Target, stuck: impl Fn(&[u8]) + Send) -> Run {
        let watch = Watch::default();
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| watch.guard(&ended, stuck));
            let run = self.run_watched(target, &watch);
            ended.store(true, Ordering::Release);
            watcher.thread().unpark();
            run
        })
    }

    fn run_watched(&self, target: &Target, watch: &Watch) -> Run {
        let seeds = (target.seeds)();
        let mut inputs = 0;
        let mut check = |input: &[u8]| {
            inputs += 1;
            watch.begin(input);
            let failure = self.run_once(target, input);
            watch.end();
            failure.map(|failure| (failure, input.to_vec()))
        };
        let mut failure = seeds.iter().find_map(|seed| check(seed));
        let mut mutator = Mutator::new(self.seed, seeds);
        let mut input = Vec::new();
        let start = Instant::now();
        while failure.is_none() && start.elapsed() < self.time {
            for _ in 0..64 {
                mutator.next(&mut input);
                failure = check(&input);
                if failure.is_some() {
                    break;
                }
            }
        }
        Run { inputs, failure }
    }

    /// Runs one input.
    pub fn run_once(&self, target: &Target, input: &[u8]) -> Option<Failure> {
        let before = (self.allocated)();
        if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
            return Some(Failure::Panic);
        }
        let allocated = (self.allocated)().wrapping_sub(before);
        let limit = target.memory.limit(input.len());
        (allocated > limit).then_some(Failure::Memory { allocated, limit })
    }
}

impl<A> std::fmt::Debug for Runner<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner").field("seed", &self.seed).field("time", &self.time).finish()
    }
}

/// The input under way, for the thread that watches.
#[derive(Default)]
struct Watch(Mutex<(Option<Instant>, Vec<u8>)>);

impl Watch {
    fn begin(&self, input: &[u8]) {
        if let Ok(mut current) = self.0.lock() {
            current.0 = Some(Instant::now());
            current.1.clear();
            current.1.extend_from_slice(input);
        }
    }

    fn end(&self) {
        if let Ok(mut current) = self.0.lock() {
            current.0 = None;
        }
    }

    fn guard(&self, ended: &AtomicBool, stuck: impl Fn(&[u8])) {
        while !ended.load(Ordering::Acquire) {
            std::thread::park_timeout(MAX_RUN / 10);
            if let Ok(current) = self.0.lock()
                && current.0.is_some_and(|began| began.elapsed() > MAX_RUN)
            {
                stuck(&current.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Memory, TARGETS};

    fn runner() -> Runner<impl Fn() -> usize> {
        Runner { seed: 1, time: Duration::from_millis(200), allocated: || 0 }
    }

    fn target(run: fn(&[u8])) -> Target {
        let seeds = || vec![b"seed".to_vec()];
        Target { name: "test", run, seeds, memory: Memory { fixed: 10, per_byte: 1 } }
    }

    #[test]
    fn every_target_takes_its_seeds() {
        for target in TARGETS {
            let seeds = (target.seeds)();
            assert!(!seeds.is_empty(), "{}", target.name);
            for seed in seeds {
                assert_eq!(runner().run_once(target, &seed), None, "{}", target.name);
            }
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TARGETS.len());
    }

    #[test]
    fn a_panic_is_found() {
        let run = runner().run(&target(|input| assert!(!input.ends_with(b"\xff"))), |_| ());
        let (failure, input) = run.failure.unwrap();
        assert_eq!(failure, Failure::Panic);
        assert!(input.ends_with(b"\xff"));
    }

    #[test]
    fn too_much_memory_is_found() {
        let counted = std::cell::Cell::new(0);
        let runner = Runner {
            seed: 1,
            time: Duration::ZERO,
            allocated: || {
                counted.set(counted.get() + 15);
                counted.get()
            },
        };
        let failure = runner.run_once(&target(|_| ()), b"seed");
        assert_eq!(failure, Some(Failure::Memory { allocated: 15, limit: 14 }));
    }
}
