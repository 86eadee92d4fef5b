//! Where a session stands in one log.

use interflow_logstore::AppendKey;

use super::deliver::At;
use crate::mqtt::deliver::{Position, is_at_or_before};

/// A session's (or shared subscription's) place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The log's tail pushes to it.
    Live {
        /// It gets early batches once one from this number on was the only one not committed.
        early_from: u64,
        /// Early batches up to this one were pushed to it before.
        early_seen: Option<AppendKey>,
    },
    /// It reads the log by itself, from here.
    Behind {
        cursor: u64,
        /// QoS 0 below is not delivered any more: it was sent while offline.
        qos0_from: u64,
        /// Early batches up to this one were pushed to it.
        early_seen: Option<AppendKey>,
    },
}

impl Link {
    /// A link that begins where the tail stands.
    pub(crate) fn fresh(position: &mut Position) -> Self {
        position.live(None)
    }

    /// The tail is to push what lies at `at`.
    pub(crate) fn is_due(self, at: At) -> bool {
        let Self::Live { early_from, early_seen } = self else { return false };
        let is_pushed_early = at.early.is_some_and(|early| early.alone >= early_from);
        match at.offset {
            Some(_) => {
                let was_seen =
                    at.key.zip(early_seen).is_some_and(|(key, seen)| is_at_or_before(key, seen));
                !is_pushed_early && !was_seen
            }
            None => is_pushed_early,
        }
    }

    /// What lies at `at` and all that follows is to be read from the log, if it is there.
    pub(crate) fn fall_behind(&mut self, at: At) -> bool {
        let (Self::Live { early_from, early_seen }, Some(cursor)) = (*self, at.offset) else {
            return false;
        };
        let pushed = at.newest_early.filter(|(_, alone)| *alone >= early_from);
        let early_seen = pushed.map(|(key, _)| key).or(early_seen);
        *self = Self::Behind { cursor, qos0_from: 0, early_seen };
        true
    }

    pub(crate) fn is_behind(self) -> bool {
        matches!(self, Self::Behind { .. })
    }
}
