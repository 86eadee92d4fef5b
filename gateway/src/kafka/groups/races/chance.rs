//! Chance that repeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use interflow_meta::Random;
use tokio::task::yield_now;
use tokio::time::sleep;

/// Numbers that follow from a seed.
#[derive(Clone, Debug)]
pub(super) struct Chance(Arc<AtomicU64>);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
    }

    /// Below `bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    pub(super) fn percent(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Lets others go first: for some turns, or some milliseconds.
    pub(super) async fn pause(&self) {
        if self.percent(30) {
            return sleep(Duration::from_millis(self.below(30))).await;
        }
        for _ in 0..self.below(6) {
            yield_now().await;
        }
    }
}

impl Random for Chance {
    fn next_u64(&self) -> u64 {
        // splitmix64
        let mut x = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}
