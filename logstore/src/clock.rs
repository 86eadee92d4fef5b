//! Time, injected: nothing below reads a clock of its own.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since some moment; never goes back, and says nothing about the date.
    fn monotonic_ms(&self) -> u64;
    /// Milliseconds since 1970; may jump either way.
    fn wall_ms(&self) -> i64;
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    pub fn new() -> Self {
        Self { origin: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn wall_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            // A machine whose clock says "before 1970": all ages are then unknown.
            Err(_) => 0,
        }
    }
}

/// A clock that stands still until it is moved: tests and simulations.
#[derive(Debug, Default)]
pub struct ManualClock {
    monotonic_ms: AtomicU64,
    wall_ms: AtomicI64,
}

impl ManualClock {
    /// A clock at `wall_ms` milliseconds since 1970.
    pub fn new(wall_ms: i64) -> Self {
        Self { monotonic_ms: AtomicU64::new(0), wall_ms: AtomicI64::new(wall_ms) }
    }

    /// Moves both times on.
    pub fn advance(&self, ms: u32) {
        self.monotonic_ms.fetch_add(u64::from(ms), Ordering::SeqCst);
        self.wall_ms.fetch_add(i64::from(ms), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic_ms(&self) -> u64 {
        self.monotonic_ms.load(Ordering::SeqCst)
    }

    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }
}
