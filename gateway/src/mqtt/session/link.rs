//! Where a session stands in one log.

use interflow_logstore::AppendKey;

/// A session's (or shared subscription's) place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// The log's tail pushes to it.
    Live {
        /// It gets early batches once one from this number on was the only one not committed.
        early_from: u64,
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
    pub(crate) fn is_behind(self) -> bool {
        matches!(self, Self::Behind { .. })
    }
}
