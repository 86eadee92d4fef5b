//! The own lease: how long what depends on it may go on.

use std::time::Duration;

/// Why the process must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LifeOver {
    /// Another process registered under the same id.
    #[error(
        "another process has registered as node {id} (incarnation {incarnation}): give each \
         process a --node-id of its own"
    )]
    Replaced {
        /// The id.
        id: u32,
        /// The other life.
        incarnation: u64,
    },
    /// Somebody removed the node.
    #[error("node {id} was removed from the cluster")]
    Removed {
        /// The id.
        id: u32,
    },
}

/// What is known of the own lease.
#[derive(Debug)]
pub(super) struct OwnLease {
    lease: Duration,
    margin: Duration,
    /// When the last bump that was made had been sent.
    sent: Duration,
    over: Option<LifeOver>,
}

impl OwnLease {
    /// A registration that was sent at `sent` has been made.
    pub(super) fn new(lease: Duration, margin: Duration, sent: Duration) -> Self {
        Self { lease, margin, sent, over: None }
    }

    /// A bump that was sent at `sent` has been made.
    pub(super) fn bumped(&mut self, sent: Duration) {
        self.sent = self.sent.max(sent);
    }

    pub(super) fn end(&mut self, over: LifeOver) {
        self.over.get_or_insert(over);
    }

    pub(super) fn over(&self) -> Option<LifeOver> {
        self.over
    }

    /// Nobody else can take the lease for lapsed yet: they saw the bump after it was sent.
    pub(super) fn holds(&self, now: Duration) -> bool {
        self.over.is_none() && now < self.sent + self.lease.saturating_sub(self.margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_holds_from_when_its_bump_was_sent() {
        let mut own = OwnLease::new(s(6), s(1), s(10));
        assert!(own.holds(s(10)) && own.holds(s(14)));
        assert!(!own.holds(s(15)));
        // It took long to be made, and counts from its start.
        own.bumped(s(13));
        assert!(own.holds(s(17)));
        assert!(!own.holds(s(18)));
        own.bumped(s(12));
        assert!(own.holds(s(17)));
    }

    #[test]
    fn an_ended_life_holds_nothing_and_the_first_reason_stays() {
        let mut own = OwnLease::new(s(6), s(1), s(10));
        let over = LifeOver::Replaced { id: 7, incarnation: 2 };
        own.end(over);
        own.end(LifeOver::Removed { id: 7 });
        own.bumped(s(11));
        assert!(!own.holds(s(11)));
        assert_eq!(own.over(), Some(over));
    }
}
