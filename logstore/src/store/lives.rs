//! How long segments are likely to be kept: what the logs above said of it.

use std::time::Duration;

use hashbrown::HashMap;

use crate::LogId;

const HOUR_MS: u64 = 3_600_000;

/// What is known of each log.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    ms: HashMap<LogId, u64, foldhash::fast::RandomState>,
    /// Rises when a log's life becomes quite another one.
    version: u64,
}

/// Segments of one class die at about the same time: what is left of the longest life is at most
/// twice what is left of the shortest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LifeClass {
    /// Less than an hour, or it should be gone already.
    Soon,
    /// At least 2ⁿ hours, and less than twice as many.
    Hours(u32),
    /// For ever.
    Forever,
    /// Nobody said.
    Unknown,
}

impl Lives {
    /// Segments of `log` are likely to be kept for so long after their newest record. `None`:
    /// nothing is known, or not any more. Returns whether it is quite another time than before.
    pub(crate) fn expect(&mut self, log: LogId, life: Option<Duration>) -> bool {
        let ms = life.map(|life| u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
        let before = match ms {
            Some(ms) => self.ms.insert(log, ms),
            None => self.ms.remove(&log),
        };
        let is_other = class(before) != class(ms);
        self.version += u64::from(is_other);
        is_other
    }

    /// Whether anything is known of a log.
    pub(crate) fn knows(&self, log: LogId) -> bool {
        self.ms.contains_key(&log)
    }

    /// Rises when what was judged by lives has to be judged anew.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Milliseconds that a segment still has. A newest record without a timestamp is as old as
    /// `now_ms`.
    pub(crate) fn left_ms(&self, log: LogId, newest_ms: i64, now_ms: i64) -> Option<u64> {
        let life = *self.ms.get(&log)?;
        if life == u64::MAX {
            return Some(life);
        }
        let age = if newest_ms < 0 { 0 } else { now_ms.saturating_sub(newest_ms).max(0) };
        Some(life.saturating_sub(age.unsigned_abs()))
    }
}

/// The class of what has so long to live.
pub(crate) fn class(left_ms: Option<u64>) -> LifeClass {
    match left_ms {
        None => LifeClass::Unknown,
        Some(u64::MAX) => LifeClass::Forever,
        Some(left) => (left / HOUR_MS).checked_ilog2().map_or(LifeClass::Soon, LifeClass::Hours),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: LogId = LogId(3);

    #[test]
    fn what_is_left_is_the_life_less_the_age() {
        let mut lives = Lives::default();
        assert_eq!(lives.left_ms(LOG, 0, 0), None);
        assert!(lives.expect(LOG, Some(Duration::from_secs(10))));
        let cases =
            [(0, 4_000, 6_000), (0, 20_000, 0), (-1, 20_000, 10_000), (30_000, 20_000, 10_000)];
        for (newest, now, left) in cases {
            assert_eq!(lives.left_ms(LOG, newest, now), Some(left), "{newest} {now}");
        }
        assert!(lives.expect(LOG, Some(Duration::MAX)));
        assert_eq!(lives.left_ms(LOG, 0, i64::MAX), Some(u64::MAX));
        assert!(lives.expect(LOG, None));
        assert_eq!(lives.left_ms(LOG, 0, 0), None);
    }

    #[test]
    fn a_life_that_is_about_the_same_is_no_news() {
        let mut lives = Lives::default();
        let hours = |n: u64| Some(Duration::from_millis(n * HOUR_MS));
        let news: Vec<bool> = [hours(4), hours(7), hours(8), hours(8), None, None]
            .into_iter()
            .map(|life| lives.expect(LOG, life))
            .collect();
        assert_eq!(news, [true, false, true, false, true, false]);
        assert_eq!(lives.version(), 3);
        assert_eq!(class(Some(HOUR_MS - 1)), LifeClass::Soon);
        assert_eq!(class(Some(HOUR_MS)), LifeClass::Hours(0));
        assert!(class(Some(HOUR_MS * 9)) < class(Some(u64::MAX)));
    }
}
