//! The transaction that closes a segment and opens the next one, until its outcome is known.
//!
//! ```text
//!   Place ─► Transact ─► committed, moved ─► finished
//!     ▲         ▲ └─► misplaced ─► later, place again
//!     └ nodes?  └─ head unchanged ─ ReadHead ◄─ unknown
//! ```
//!
//! It is written with a token drawn at random, once: whoever finds the token in the head knows
//! that the commit was its own (I12). The transaction checks that the head is as it was, so of
//! several that close a segment exactly one wins (I3), and the others take what it opened.

use interflow_meta::{Epoch, Offset};

use super::segment::{Head, Nodes};
use super::sequencer::MAX_AHEAD;

/// How a segment ends.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Close {
    /// The segment.
    pub(crate) epoch: Epoch,
    /// One past its last offset.
    pub(crate) end: Offset,
    /// Fewer than Q replicas hold all of it: to be repaired before anything else.
    pub(crate) is_short: bool,
    /// Where the next one begins.
    pub(crate) next_base: Offset,
    /// Kafka's leader epoch of the next one.
    pub(crate) next_leader_epoch: u32,
    /// Who stores the next one; the first is its sequencer.
    pub(crate) next_replicas: Nodes,
    /// The attempt's.
    pub(crate) token: u64,
}

/// How a transaction went.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// The segment is closed as it said; this is the new head.
    Committed(Head),
    /// Another had closed it: this is the head.
    Moved(Head),
    /// It may or may not have been written.
    Unknown,
    /// It was not written, and can't be with these nodes: others are to be chosen.
    Misplaced,
    /// There is no such log any more.
    Gone,
}

/// What happens to a closing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// Nodes for the next segment, from [`place`](super::place::place); `None`: too few live ones.
    Placed(Option<Nodes>),
    /// The transaction has an outcome.
    Transacted(Outcome),
    /// The head as it was read; `None`: no such log.
    Head(Option<Head>),
    /// It could not be read.
    HeadUnread,
    /// The time that was asked for has come.
    Tick,
}

/// What a closing wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Choose nodes for the next segment.
    Place,
    /// Close and open, if the head still is the segment's.
    Transact(Close),
    /// Read the head, after anything that a transaction of unknown outcome may still write.
    ReadHead,
    /// Tell [`Event::Tick`] after some time.
    Later,
    /// It is decided.
    Finished(Finish),
}

/// Who closed the segment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Finish {
    /// This attempt did; the head that it wrote.
    Won(Head),
    /// Another did; the head as it is.
    Lost(Head),
    /// The log was deleted.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Placing,
    Transacting,
    Reading,
    /// Waiting to do one of the above again.
    PlaceLater,
    ReadLater,
    Finished,
}

/// The close of a segment at a known end.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct Closing {
    close: Close,
    stage: Stage,
}

impl Closing {
    /// Closes `head`'s segment at `end`, where its live sequencer has committed all.
    pub(crate) fn planned(head: &Head, end: Offset, token: u64) -> Self {
        Self::new(head, end, end, head.leader_epoch, token)
    }

    /// Closes `head`'s segment at `end`, which is the tail that its replicas told. Of a log that
    /// isn't durable, readers may have seen more: no offset of that is used again (I3).
    pub(crate) fn crashed(head: &Head, end: Offset, is_short: bool, token: u64) -> Self {
        let mut closing = match head.durability {
            interflow_meta::Durability::Durable => {
                Self::new(head, end, end, head.leader_epoch, token)
            }
            interflow_meta::Durability::Replicated | interflow_meta::Durability::Volatile => {
                let next_base = end.saturating_add(MAX_AHEAD);
                Self::new(head, end, next_base, head.leader_epoch.saturating_add(1), token)
            }
        };
        closing.close.is_short = is_short;
        closing
    }

    fn new(
        head: &Head,
        end: Offset,
        next_base: Offset,
        next_leader_epoch: u32,
        token: u64,
    ) -> Self {
        debug_assert!(end >= head.base && next_base >= end, "I3");
        let close = Close {
            epoch: head.epoch,
            end,
            is_short: false,
            next_base,
            next_leader_epoch,
            next_replicas: Nodes::new(),
            token,
        };
        Self { close, stage: Stage::Placing }
    }

    /// What is being written.
    pub(crate) fn close(&self) -> &Close {
        &self.close
    }

    /// The first thing to be done.
    pub(crate) fn start(&self) -> Effect {
        Effect::Place
    }

    /// What is to be done upon `event`; `None`: nothing, it came late.
    pub(crate) fn handle(&mut self, event: Event) -> Option<Effect> {
        match (self.stage, event) {
            (Stage::Placing, Event::Placed(Some(nodes))) => {
                self.close.next_replicas = nodes;
                Some(self.transact())
            }
            (Stage::Placing, Event::Placed(None)) => Some(self.wait(Stage::PlaceLater)),
            (Stage::Transacting, Event::Transacted(outcome)) => Some(match outcome {
                Outcome::Committed(head) => self.finish(Finish::Won(head)),
                Outcome::Moved(head) => self.judge(head),
                Outcome::Unknown => self.read(),
                Outcome::Misplaced => self.wait(Stage::PlaceLater),
                Outcome::Gone => self.finish(Finish::Gone),
            }),
            (Stage::Reading, Event::Head(Some(head))) => Some(self.judge(head)),
            (Stage::Reading, Event::Head(None)) => Some(self.finish(Finish::Gone)),
            (Stage::Reading, Event::HeadUnread) => Some(self.wait(Stage::ReadLater)),
            (Stage::PlaceLater, Event::Tick) => {
                self.stage = Stage::Placing;
                Some(Effect::Place)
            }
            (Stage::ReadLater, Event::Tick) => Some(self.read()),
            _ => None,
        }
    }

    /// Who wrote `head`.
    fn judge(&mut self, head: Head) -> Effect {
        if head.epoch == self.close.epoch {
            // The same transaction, to the letter: should the first one still be on its way, then
            // one of the two finds the head changed.
            return self.transact();
        }
        let is_next = self.close.epoch.0.checked_add(1) == Some(head.epoch.0);
        let finish = if is_next && head.token == self.close.token {
            Finish::Won(head)
        } else {
            Finish::Lost(head)
        };
        self.finish(finish)
    }

    fn transact(&mut self) -> Effect {
        self.stage = Stage::Transacting;
        Effect::Transact(self.close.clone())
    }

    fn read(&mut self) -> Effect {
        self.stage = Stage::Reading;
        Effect::ReadHead
    }

    fn wait(&mut self, stage: Stage) -> Effect {
        self.stage = stage;
        Effect::Later
    }

    fn finish(&mut self, finish: Finish) -> Effect {
        self.stage = Stage::Finished;
        Effect::Finished(finish)
    }
}
