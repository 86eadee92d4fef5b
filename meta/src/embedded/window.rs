//! Who wrote what lately: the memory by which commits are checked for conflicts.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;

use crate::store::KeyRange;
use crate::transaction::MAX_TRANSACTION_TIME;

/// Keys and bookkeeping kept at most, in bytes. Above it everything is forgotten, and transactions
/// that read before that moment start again.
const MAX_BYTES: usize = 4 << 20;
/// What an entry of the map costs besides its key.
const ENTRY_BYTES: usize = 64;

/// What a check of a transaction found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing that it read was written since.
    Clean,
    /// Something was.
    Conflict,
    /// It read before what is remembered.
    TooOld,
}

/// For each key the version of its last write, as a step function: an entry holds from its key up
/// to the next entry's.
#[derive(Debug)]
pub(super) struct Window {
    steps: BTreeMap<Bytes, u64>,
    bytes: usize,
    /// Writes at or below this version are forgotten.
    floor: u64,
    /// When versions were made, oldest first, at most one a tenth of a second.
    marks: VecDeque<(Duration, u64)>,
}

impl Window {
    /// Nothing is known of versions up to `floor`.
    pub(super) fn new(floor: u64) -> Self {
        Self { steps: BTreeMap::new(), bytes: 0, floor, marks: VecDeque::new() }
    }

    /// Whether a transaction that read `reads` at `version` may commit now.
    pub(super) fn check(&self, version: u64, reads: &[KeyRange]) -> Verdict {
        if version < self.floor && !reads.is_empty() {
            return Verdict::TooOld;
        }
        if reads.iter().any(|range| self.last_write(range) > version) {
            return Verdict::Conflict;
        }
        Verdict::Clean
    }

    /// The version of the last write in `range`.
    fn last_write(&self, range: &KeyRange) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let inside = self
            .steps
            .range::<[u8], _>((Bound::Excluded(&range.begin[..]), Bound::Excluded(&range.end[..])))
            .map(|(_, version)| *version)
            .max()
            .unwrap_or(0);
        inside.max(self.at(&range.begin))
    }

    /// The version of the last write of `key`; 0 when it is forgotten.
    fn at(&self, key: &[u8]) -> u64 {
        self.steps
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .map_or(0, |(_, version)| *version)
    }

    /// All keys of `range` were written at `version`, the highest so far.
    pub(super) fn record(&mut self, range: &KeyRange, version: u64) {
        if range.is_empty() {
            return;
        }
        let behind = self.at(&range.end);
        let covered: Vec<Bytes> = self
            .steps
            .range::<[u8], _>((Bound::Included(&range.begin[..]), Bound::Excluded(&range.end[..])))
            .map(|(key, _)| key.clone())
            .collect();
        for key in covered {
            self.steps.remove(&key);
            self.bytes -= key.len() + ENTRY_BYTES;
        }
        for (key, version) in [(&range.end, behind), (&range.begin, version)] {
            if self.steps.insert(key.clone(), version).is_none() {
                self.bytes += key.len() + ENTRY_BYTES;
            }
        }
    }

    /// Forgets what no transaction within its 5 s can need; `version` is the newest.
    pub(super) fn prune(&mut self, now: Duration, version: u64) {
        const GRAIN: Duration = Duration::from_millis(100);
        if self.marks.back().is_none_or(|(at, _)| *at + GRAIN <= now) {
            self.marks.push_back((now, version));
        }
        // A second more than transactions have: clocks of reads and commits are read apart.
        let keep = MAX_TRANSACTION_TIME + Duration::from_secs(1);
        let mut floor = None;
        while let Some((at, mark)) = self.marks.front().copied()
            && at + keep < now
        {
            floor = Some(mark);
            self.marks.pop_front();
        }
        if self.bytes > MAX_BYTES {
            floor = Some(version);
        }
        if let Some(floor) = floor {
            self.forget(floor);
        }
    }

    /// Drops writes up to `floor`, and steps that say the same as the one before.
    fn forget(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        let mut before = 0;
        let bytes = &mut self.bytes;
        self.steps.retain(|key, version| {
            if *version <= floor {
                *version = 0;
            }
            let keep = *version != before;
            before = *version;
            if !keep {
                *bytes -= key.len() + ENTRY_BYTES;
            }
            keep
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range() -> impl Strategy<Value = KeyRange> {
        (0_u8..12, 0_u8..4).prop_map(|(begin, len)| KeyRange::new(vec![begin], vec![begin + len]))
    }

    proptest! {
        /// The step function says what a list of all writes says.
        #[test]
        fn the_window_remembers_the_last_write_of_each_key(
            writes in proptest::collection::vec(range(), 0..30),
            reads in proptest::collection::vec(range(), 1..4),
            forgotten in 0_u64..10,
        ) {
            let mut window = Window::new(0);
            for (range, version) in writes.iter().zip(1_u64..) {
                window.record(range, version);
            }
            window.forget(forgotten);
            let bytes: usize = window.steps.keys().map(|key| key.len() + ENTRY_BYTES).sum();
            prop_assert_eq!(bytes, window.bytes);
            for version in 0_u64..=31 {
                let conflicts = writes.iter().zip(1_u64..).any(|(write, at)| {
                    at > version
                        && reads.iter().any(|read| {
                            (0_u8..16).any(|key| write.contains(&[key]) && read.contains(&[key]))
                        })
                });
                let expected = match (version < forgotten, conflicts) {
                    (true, _) => Verdict::TooOld,
                    (false, true) => Verdict::Conflict,
                    (false, false) => Verdict::Clean,
                };
                prop_assert_eq!(window.check(version, &reads), expected);
            }
        }
    }

    #[test]
    fn memory_is_bounded_by_forgetting() {
        let mut window = Window::new(0);
        for n in 1..=100_000_u64 {
            window.record(&KeyRange::key(&(n * 7).to_be_bytes()), n);
            window.prune(Duration::ZERO, n);
            assert!(window.bytes <= MAX_BYTES + 1_000);
        }
        assert_eq!(window.check(1, &[KeyRange::key(b"x")]), Verdict::TooOld);
    }
}
