//! A budget of bytes a second, on a clock that the caller reads.

use std::time::Duration;

/// While appends wait for the disk, rewriting gets this part of its budget.
const SHARE_WHILE_BUSY: u64 = 4;

/// When the next bytes may be moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    free_at_us: u64,
}

impl Pace {
    /// How long to wait before anything more is moved.
    pub(crate) fn wait(&self, now_ms: u64) -> Duration {
        Duration::from_micros(self.free_at_us.saturating_sub(now_ms.saturating_mul(1000)))
    }

    /// `bytes` were moved; what time they were too early is waited for afterwards, and time that
    /// was not used is gone. While appends wait (`is_busy`) they count four times.
    pub(crate) fn spend(&mut self, now_ms: u64, bytes: u64, bytes_per_second: u64, is_busy: bool) {
        let weight = if is_busy { SHARE_WHILE_BUSY } else { 1 };
        let us = u128::from(bytes) * 1_000_000 * u128::from(weight);
        let us = us / u128::from(bytes_per_second.max(1));
        self.free_at_us = self
            .free_at_us
            .max(now_ms.saturating_mul(1000))
            .saturating_add(u64::try_from(us).unwrap_or(u64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_bytes_a_second_and_none_saved_up() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(0), Duration::ZERO);
        pace.spend(0, 500, 1000, false);
        pace.spend(0, 500, 1000, false);
        assert_eq!(pace.wait(0), Duration::from_secs(1));
        assert_eq!(pace.wait(400), Duration::from_millis(600));
        assert_eq!(pace.wait(9000), Duration::ZERO);
        pace.spend(9000, 500, 1000, false);
        assert_eq!(pace.wait(9000), Duration::from_millis(500));
        pace.spend(9000, 500, 1000, true);
        assert_eq!(pace.wait(9000), Duration::from_millis(2500), "appends come first");
        pace.spend(9000, u64::MAX, 0, true);
        assert!(pace.wait(9000) > Duration::from_secs(1 << 40));
    }

    #[test]
    fn small_pieces_are_not_free() {
        let mut pace = Pace::default();
        (0..1000).for_each(|_| pace.spend(0, 10, 100_000, false));
        assert_eq!(pace.wait(0), Duration::from_millis(100));
    }
}
