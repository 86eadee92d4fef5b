//! What a tail has shown before it was committed.
//!
//! Batches of QoS 0 publishes are shown as soon as the sequencer has them. Such a batch has no
//! offset yet: after a crash another can get the one that it was to have. So it is remembered by
//! its append key until it is seen committed, and then not shown again.

use std::collections::VecDeque;

use interflow_meta::Offset;

use super::rules::{Broken, Rules};
use crate::AppendKey;

/// How many early batches are remembered; a batch beyond that isn't shown early.
const MAX_REMEMBERED: usize = 1024;

/// The early batches of one tail of one log.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Early {
    shown: VecDeque<(AppendKey, Offset)>,
    rules: Rules,
}

impl Early {
    /// Nothing was shown.
    pub(crate) fn new(rules: Rules) -> Self {
        Self { shown: VecDeque::new(), rules }
    }

    /// Whether to show a batch that isn't committed. `log_end` is where the log ended when it was
    /// sent; it decides nothing.
    pub(crate) fn early(&mut self, key: AppendKey, log_end: Offset) -> bool {
        if self.shown.len() >= MAX_REMEMBERED || self.shown.iter().any(|(shown, _)| *shown == key) {
            return false;
        }
        self.shown.push_back((key, log_end));
        true
    }

    /// Whether to show a committed batch: not if it was shown early.
    pub(crate) fn committed(&mut self, key: Option<&AppendKey>, first: Offset) -> bool {
        let by_offset = self.rules.breaks(Broken::EarlyByOffset);
        let is_it = |(shown, at): &(AppendKey, Offset)| {
            if by_offset { *at == first } else { Some(shown) == key }
        };
        let Some(index) = self.shown.iter().position(is_it) else { return true };
        self.shown.remove(index);
        false
    }

    /// The sequencer changed: what it showed may never be committed, or only by a retry that
    /// comes with the same key.
    pub(crate) fn forget_older_than(&mut self, producer_id: i64, producer_epoch: i16) {
        self.shown.retain(|(key, _)| {
            key.producer_id != producer_id || key.producer_epoch >= producer_epoch
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(producer_id: i64, producer_epoch: i16, sequence: i32) -> AppendKey {
        AppendKey { producer_id, producer_epoch, sequence }
    }

    #[test]
    fn what_was_shown_early_is_shown_once_and_no_other_in_its_place() {
        let mut tail = Early::default();
        assert!(tail.early(key(1, 0, 0), 10));
        assert!(!tail.early(key(1, 0, 0), 10));
        assert!(tail.committed(Some(&key(2, 0, 0)), 10), "another batch got its offset");
        assert!(tail.committed(None, 11));
        assert!(!tail.committed(Some(&key(1, 0, 0)), 12));
        assert!(tail.committed(Some(&key(1, 0, 0)), 12), "it is remembered once");
    }

    #[test]
    fn a_full_memory_shows_nothing_early() {
        let mut tail = Early::default();
        for sequence in 0..i32::try_from(MAX_REMEMBERED).unwrap() {
            assert!(tail.early(key(1, i16::from(sequence % 2 == 0), sequence), 0));
        }
        assert!(!tail.early(key(2, 0, 0), 0));
        tail.forget_older_than(1, 1);
        assert_eq!(tail.shown.len(), MAX_REMEMBERED / 2);
        assert!(tail.early(key(2, 0, 0), 0));
    }
}
