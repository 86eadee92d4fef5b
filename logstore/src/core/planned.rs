//! The planned close of a segment by its live sequencer: full, old, a peer too slow, or the node
//! is to be emptied.
//!
//! ```text
//!   drain ─► all committed ─► last snapshot ─► closing ─► the next segment, maybe elsewhere
//! ```
//!
//! No seal: nobody but this sequencer can add to the segment, and it has stopped. The snapshot
//! lies at the end, so that the next sequencer has nothing to replay behind it.

use interflow_meta::Offset;

use super::closing::{self, Closing};
use super::replication::Replication;
use super::segment::Head;

/// What a planned close wants done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Effect {
    /// Journal a snapshot as the segment's last entry, then tell [`PlannedClose::snapshot_done`].
    Snapshot,
    /// As the closing says.
    Closing(closing::Effect),
}

#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
enum Stage {
    Draining,
    Snapshot { end: Offset },
    Closing(Closing),
}

/// A planned close.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone, PartialEq, Eq, Hash))]
pub(crate) struct PlannedClose {
    head: Head,
    token: u64,
    stage: Stage,
}

impl PlannedClose {
    /// Starts to close `head`'s segment: `replication` takes no more. `token` is drawn at random.
    pub(crate) fn new<T, P: Clone>(
        head: Head,
        token: u64,
        replication: &mut Replication<T, P>,
    ) -> Self {
        replication.drain();
        Self { head, token, stage: Stage::Draining }
    }

    /// Something was committed and answered: is that all?
    pub(crate) fn progress<T, P: Clone>(
        &mut self,
        replication: &Replication<T, P>,
    ) -> Option<Effect> {
        let (Stage::Draining, Some(end)) = (&self.stage, replication.drained()) else {
            return None;
        };
        self.stage = Stage::Snapshot { end };
        Some(Effect::Snapshot)
    }

    /// The snapshot is in the journal, or could not be written: a snapshot saves work only.
    pub(crate) fn snapshot_done(&mut self) -> Option<Effect> {
        let Stage::Snapshot { end } = self.stage else { return None };
        let closing = Closing::planned(&self.head, end, self.token);
        let effect = closing.start();
        self.stage = Stage::Closing(closing);
        Some(Effect::Closing(effect))
    }

    /// See [`Closing::handle`].
    pub(crate) fn handle(&mut self, event: closing::Event) -> Option<Effect> {
        match &mut self.stage {
            Stage::Closing(closing) => closing.handle(event).map(Effect::Closing),
            Stage::Draining | Stage::Snapshot { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use interflow_meta::{Durability, Epoch, NodeId};

    use super::closing::{Finish, Outcome};
    use super::*;
    use crate::core::producers::{ProducerLimits, Producers};
    use crate::core::replication::{Offer, ReplicationLimits, Reply};
    use crate::core::rules::Rules;
    use crate::core::segment::{Life, Nodes};
    use crate::core::sequencer::{Candidate, Quorum, Sequencer};
    use crate::store::Position;

    #[test]
    fn all_is_answered_then_a_snapshot_then_the_next_segment() {
        let (producers, limits) = (Producers::default(), ProducerLimits::default());
        let sequencer = Sequencer::new(100, Durability::Durable, Quorum::of(2), producers, limits);
        let mut log =
            Replication::new(sequencer, 1, ReplicationLimits::default(), Rules::default());
        let head = Head {
            acks: 2,
            epoch: Epoch(3),
            base: 100,
            leader_epoch: 4,
            durability: Durability::Durable,
            sequencer: Life { node: NodeId(1), incarnation: 1 },
            replicas: Nodes::from_slice(&[NodeId(1), NodeId(2)]),
            token: 5,
        };
        let batch = Candidate { key: None, count: 3, window: 1, bytes: 10 };
        let Offer::Journal(entry) = log.offer(&batch) else { panic!() };
        log.taken(0, (&batch, &entry, Position(1)), 0, (), ());
        let mut close = PlannedClose::new(head.clone(), 77, &mut log);
        assert_eq!(log.offer(&batch), Offer::Closing);
        log.journal_durable(0, Position(1));
        assert_eq!(close.progress(&log), None, "its quorum lacks it");
        log.reply(0, 1, Reply::Stored { local_end: 103, durable_end: 103 });
        assert_eq!(close.progress(&log), None, "nobody was answered");
        assert!(log.settle().is_some());
        assert_eq!(close.progress(&log), Some(Effect::Snapshot));
        assert_eq!(close.progress(&log), None);
        assert_eq!(close.snapshot_done(), Some(Effect::Closing(closing::Effect::Place)));
        let next = Nodes::from_slice(&[NodeId(4), NodeId(5)]);
        let transact = close.handle(closing::Event::Placed(Some(next.clone())));
        let Some(Effect::Closing(closing::Effect::Transact(written))) = transact else { panic!() };
        // I3: the next begins at the end, and no reader has seen anything go.
        assert_eq!((written.end, written.next_base, written.next_leader_epoch), (103, 103, 4));
        assert_eq!((written.is_short, written.next_replicas), (false, next));
        let other = Head { epoch: Epoch(4), token: 6, ..head };
        let moved = closing::Event::Transacted(Outcome::Moved(other.clone()));
        let lost = closing::Effect::Finished(Finish::Lost(other));
        assert_eq!(close.handle(moved), Some(Effect::Closing(lost)));
    }
}
