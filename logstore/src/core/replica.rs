//! One replica of one segment: what it takes, what it answers, and how it is sealed.
//!
//! ```text
//!   base          durable_end        local_end
//!    |--- reported ----|--- in flight ---|        store: at local_end only, while not sealed
//!                                                 repair: at local_end only, when sealed
//! ```
//!
//! Entries are journalled by the caller: [`Effect::Journal`] proposes, [`Event::Journaled`] says
//! that it was done. A proposal that the caller can't follow (no room) leaves no trace.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use interflow_meta::{NodeId, Offset};
use smallvec::{SmallVec, smallvec};

use super::rules::{Broken, Rules};
use super::segment::{Entry, Life};
use crate::store::Position;

/// Who may wait for the answer to a seal at a time; others ask again.
const MAX_ASKERS: usize = 16;

/// What happens to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// An entry from a sequencer.
    Store {
        /// Who sends it.
        from: Life,
        /// What it is.
        entry: Entry,
        /// What is committed, as the sender knows.
        committed: Offset,
    },
    /// An entry from whoever recovers the segment or repairs it when it is closed.
    Repair {
        /// Who sends it.
        from: NodeId,
        /// What it is.
        entry: Entry,
    },
    /// The proposed entry is in the journal at this position.
    Journaled {
        /// The proposed one.
        entry: Entry,
        /// Where it is.
        position: Position,
    },
    /// The journal is durable up to this position.
    Durable(Position),
    /// The sequencer's word of what is committed.
    Committed {
        /// Who says so.
        from: Life,
        /// Everything below is.
        committed: Offset,
    },
    /// Someone wants the segment to take no more.
    Seal {
        /// Who.
        by: NodeId,
    },
    /// The seal is on the disk.
    SealPersisted,
}

/// What a replica wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Put the entry into the journal, then tell [`Event::Journaled`] before any other event.
    Journal(Entry),
    /// Put the seal onto the disk, then tell [`Event::SealPersisted`].
    PersistSeal,
    /// To the sequencer: cumulative.
    Stored {
        /// Everything below is here.
        local_end: Offset,
        /// Everything below is durable here.
        durable_end: Offset,
    },
    /// To the sequencer: go on from here.
    Gap {
        /// Everything below is here.
        local_end: Offset,
    },
    /// To the sender of a store.
    Refused(Refusal),
    /// To who asked for the seal.
    Sealed {
        /// Who asked.
        to: NodeId,
        /// Everything below is durable here, and only repairs add to it.
        end: Offset,
        /// Whether the answer counts for the seal quorum: not from a damaged replica.
        counts: bool,
    },
    /// To the sender of a repair.
    Repaired {
        /// Who sent it.
        to: NodeId,
        /// The next entry to send is the one at this offset.
        local_end: Offset,
        /// Everything below is durable here.
        durable_end: Offset,
    },
}

/// Why a store was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// The segment is sealed here: someone closes it.
    Sealed,
    /// The sender is not the segment's sequencer, or that isn't known here.
    Foreign,
    /// What is here is damaged: only a copy from another replica helps.
    Damaged,
}

/// What the disk had of a segment at a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// One past its last offset; all below is durable.
    pub(crate) end: Offset,
    /// Where its newest snapshot lies.
    pub(crate) last_snapshot: Option<Offset>,
    /// It was sealed.
    pub(crate) is_sealed: bool,
    /// Something that had been reported durable is missing.
    pub(crate) is_damaged: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Seal {
    Open,
    /// Asked for; nothing is taken any more, but nobody has been told.
    Persisting,
    /// For ever (I9).
    Sealed,
}

/// A replica of a segment.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Replica {
    /// Nobody: the segment is known by its seal only.
    sequencer: Option<Life>,
    /// Answers when an entry has come, too, not only when it is durable.
    tells_received: bool,
    seal: Seal,
    is_damaged: bool,
    local_end: Offset,
    durable_end: Offset,
    committed: Offset,
    last_snapshot: Option<Offset>,
    journaling: VecDeque<(Position, Offset)>,
    /// Who waits for the answer to a seal.
    askers: SmallVec<[NodeId; 2]>,
    /// Who repaired last.
    repairer: Option<NodeId>,
    rules: Rules,
}

impl Replica {
    /// A replica of a segment that begins at `base`. Without a sequencer it is one that the node
    /// never saw, made to be sealed. `tells_received` is for classes that aren't durable.
    #[cfg(test)]
    pub(crate) fn new(
        base: Offset,
        sequencer: Option<Life>,
        tells_received: bool,
        rules: Rules,
    ) -> Self {
        let found = Found { end: base, ..Found::default() };
        Self::restart(base, sequencer, tells_received, &found, rules)
    }

    /// The replica as a start found it.
    pub(crate) fn restart(
        base: Offset,
        sequencer: Option<Life>,
        tells_received: bool,
        found: &Found,
        rules: Rules,
    ) -> Self {
        let end = found.end.max(base);
        Self {
            sequencer,
            tells_received,
            seal: if found.is_sealed { Seal::Sealed } else { Seal::Open },
            is_damaged: found.is_damaged,
            local_end: end,
            durable_end: end,
            committed: base,
            last_snapshot: found.last_snapshot,
            journaling: VecDeque::new(),
            askers: SmallVec::new(),
            repairer: None,
            rules,
        }
    }

    /// The segment's descriptor came after its seal, or its first entry.
    pub(crate) fn learn(&mut self, sequencer: Life, tells_received: bool) {
        debug_assert!(self.sequencer.is_none_or(|known| known == sequencer), "I10");
        self.sequencer.get_or_insert(sequencer);
        self.tells_received |= tells_received;
    }

    /// What the sequencer is told once it is known: what is here, of which it may not have heard
    /// before a crash, and where to go on.
    pub(crate) fn greeting(&self) -> SmallVec<[Effect; 2]> {
        if self.is_damaged {
            return smallvec![Effect::Refused(Refusal::Damaged)];
        }
        if self.seal == Seal::Sealed {
            return smallvec![Effect::Refused(Refusal::Sealed)];
        }
        let mut effects = self.stored();
        effects.push(Effect::Gap { local_end: self.local_end });
        effects
    }

    /// Everything below is here.
    pub(crate) fn local_end(&self) -> Offset {
        self.local_end
    }

    /// Everything below is durable here.
    pub(crate) fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// Who gives out its offsets, if that is known here.
    pub(crate) fn sequencer(&self) -> Option<Life> {
        self.sequencer
    }

    /// Where the newest snapshot here lies.
    pub(crate) fn last_snapshot(&self) -> Option<Offset> {
        self.last_snapshot
    }

    /// Whether entries are in the journal that aren't known to be durable.
    pub(crate) fn is_journaling(&self) -> bool {
        !self.journaling.is_empty()
    }

    /// Everything below, as far as it is here, may be read.
    #[cfg(test)]
    pub(crate) fn committed(&self) -> Offset {
        self.committed.min(self.local_end)
    }

    /// Whether it takes no more from the sequencer, for ever.
    pub(crate) fn is_sealed(&self) -> bool {
        self.seal == Seal::Sealed
    }

    /// What is to be done upon `event`.
    pub(crate) fn handle(&mut self, event: Event) -> SmallVec<[Effect; 2]> {
        match event {
            Event::Store { from, entry, committed } => self.store(from, entry, committed),
            Event::Repair { from, entry } => self.repair(from, entry),
            Event::Journaled { entry, position } => {
                self.journaled(entry, position);
                if self.tells_received { self.stored() } else { SmallVec::new() }
            }
            Event::Durable(position) => self.durable(position),
            Event::Committed { from, committed } => {
                if self.sequencer == Some(from) {
                    self.committed = self.committed.max(committed);
                }
                SmallVec::new()
            }
            Event::Seal { by } => self.seal(by),
            Event::SealPersisted => {
                self.seal = Seal::Sealed;
                self.answer_seals()
            }
        }
    }

    fn store(&mut self, from: Life, entry: Entry, committed: Offset) -> SmallVec<[Effect; 2]> {
        if self.sequencer != Some(from) {
            return smallvec![Effect::Refused(Refusal::Foreign)];
        }
        if self.is_damaged {
            return smallvec![Effect::Refused(Refusal::Damaged)];
        }
        if !self.rules.breaks(Broken::NoSealCheck) {
            match self.seal {
                // Below its end, too: what a repair has added since counts for no append (I2).
                Seal::Sealed => return smallvec![Effect::Refused(Refusal::Sealed)],
                // A crash may still undo it: the sender is not to give up for that.
                Seal::Persisting => return SmallVec::new(),
                Seal::Open => {}
            }
        }
        self.committed = self.committed.max(committed);
        match self.place_of(&entry) {
            Place::Here => smallvec![Effect::Journal(entry)],
            Place::Below => self.stored(),
            Place::Above => smallvec![Effect::Gap { local_end: self.local_end }],
        }
    }

    fn repair(&mut self, from: NodeId, entry: Entry) -> SmallVec<[Effect; 2]> {
        // A repair of what isn't sealed could meet a store, and an answer to the sequencer could
        // then count what it has not sent (I2).
        if self.seal != Seal::Sealed || self.is_damaged {
            return SmallVec::new();
        }
        self.repairer = Some(from);
        match self.place_of(&entry) {
            Place::Here => smallvec![Effect::Journal(entry)],
            Place::Below | Place::Above => self.repaired(),
        }
    }

    fn place_of(&self, entry: &Entry) -> Place {
        if entry.first < self.local_end
            || entry.is_snapshot && self.last_snapshot == Some(entry.first)
        {
            Place::Below
        } else if self.rules.breaks(Broken::TakesGaps)
            || entry.first == self.local_end && entry.behind == self.last_snapshot
        {
            Place::Here
        } else {
            // No holes (I6).
            Place::Above
        }
    }

    fn journaled(&mut self, entry: Entry, position: Position) {
        debug_assert!(
            entry.first == self.local_end || self.rules.breaks(Broken::TakesGaps),
            "I6: no holes"
        );
        self.local_end = entry.end();
        self.last_snapshot = entry.last_snapshot();
        self.journaling.push_back((position, self.local_end));
    }

    fn durable(&mut self, position: Position) -> SmallVec<[Effect; 2]> {
        let before = self.durable_end;
        while let Some((at, end)) = self.journaling.front()
            && *at <= position
        {
            // I6: it rises only.
            self.durable_end = self.durable_end.max(*end);
            self.journaling.pop_front();
        }
        let mut effects = SmallVec::new();
        if self.durable_end > before {
            effects.extend(self.stored());
            effects.extend(self.repaired());
        }
        effects.extend(self.answer_seals());
        effects
    }

    /// The answer to the sequencer. A sealed replica gives none: after its answer to the seal
    /// nothing may be counted towards a commit (I2).
    fn stored(&self) -> SmallVec<[Effect; 2]> {
        if self.seal != Seal::Open && !self.rules.breaks(Broken::NoSealCheck) {
            return SmallVec::new();
        }
        smallvec![Effect::Stored { local_end: self.local_end, durable_end: self.durable_end }]
    }

    fn repaired(&self) -> SmallVec<[Effect; 2]> {
        let Some(to) = self.repairer else { return SmallVec::new() };
        let (local_end, durable_end) = (self.local_end, self.durable_end);
        smallvec![Effect::Repaired { to, local_end, durable_end }]
    }

    fn seal(&mut self, by: NodeId) -> SmallVec<[Effect; 2]> {
        if !self.askers.contains(&by) && self.askers.len() < MAX_ASKERS {
            self.askers.push(by);
        }
        match self.seal {
            Seal::Open => {
                self.seal = Seal::Persisting;
                smallvec![Effect::PersistSeal]
            }
            Seal::Persisting => SmallVec::new(),
            Seal::Sealed => self.answer_seals(),
        }
    }

    /// Answers the seals when the seal is durable and no write is in flight: what such a write
    /// would add to is the tail (I1, I9).
    fn answer_seals(&mut self) -> SmallVec<[Effect; 2]> {
        if self.seal != Seal::Sealed || !self.journaling.is_empty() {
            return SmallVec::new();
        }
        let (end, counts) = (self.local_end, !self.is_damaged);
        std::mem::take(&mut self.askers)
            .into_iter()
            .map(|to| Effect::Sealed { to, end, counts })
            .collect()
    }
}

enum Place {
    Here,
    Below,
    Above,
}
