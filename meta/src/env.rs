//! What meta takes from its surroundings: a clock and random numbers, so that tests can be repeated.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A clock that never goes back.
pub trait Clock: Debug + Send + Sync {
    /// Time since some fixed moment.
    fn now(&self) -> Duration;
}

/// A source of random numbers.
pub trait Random: Debug + Send + Sync {
    /// The next number.
    fn next_u64(&self) -> u64;
}

/// The machine's monotonic clock.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

/// The process's random numbers.
#[derive(Debug, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn next_u64(&self) -> u64 {
        rand::random()
    }
}

/// Clock and random numbers together.
#[derive(Clone, Debug)]
pub struct Env {
    /// For the 5-second limit and the age of what is kept for conflict checks.
    pub clock: Arc<dyn Clock>,
    /// For backoff and tokens.
    pub random: Arc<dyn Random>,
}

impl Default for Env {
    fn default() -> Self {
        Self { clock: Arc::new(SystemClock::default()), random: Arc::new(SystemRandom) }
    }
}
