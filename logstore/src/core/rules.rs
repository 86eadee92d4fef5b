//! The rules of the protocol that tests break, one at a time, to see that it is noticed.

/// A rule that isn't kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// One answer is enough to decide the tail.
    SealQuorumOne,
    /// A sealed replica goes on storing and answering.
    NoSealCheck,
    /// The smallest end among the answers is the tail.
    SmallestTail,
    /// A segment is closed without copies up to its tail.
    NoRepair,
    /// A replica takes entries past its end.
    TakesGaps,
    /// A tail remembers early batches by the offsets that they were to get.
    EarlyByOffset,
    /// A producer snapshot takes an offset.
    SnapshotTakesOffset,
}

/// Which rules hold: all of them, but in tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Rules {
    #[cfg(test)]
    broken: Option<Broken>,
}

impl Rules {
    /// Whether `rule` is broken.
    #[cfg(not(test))]
    pub(crate) fn breaks(self, _rule: Broken) -> bool {
        false
    }

    /// Whether `rule` is broken.
    #[cfg(test)]
    pub(crate) fn breaks(self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    /// All rules but this one.
    #[cfg(test)]
    pub(crate) fn without(broken: Option<Broken>) -> Self {
        Self { broken }
    }
}
