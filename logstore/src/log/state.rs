//! One log in memory.
//!
//! ```text
//!   New ──load──► Ready{ Recovered ──first append, crash close──► Active ──roll──► Active … }
//!                   └ deleted ─► Gone
//! ```

use std::sync::Arc;

use interflow_meta::logs::Policy;
use interflow_meta::{Durability, Epoch, LogId, Offset};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::links::NodeLink;
use super::outbox::{Event, Outbox};
use super::peering::Kept;
use super::waiting::Queue;
use crate::core::chain::Chain;
use crate::core::replication::Replication;
use crate::core::roll::Fill;
use crate::core::segment::{Factor, Head, Nodes};
use crate::peers::SentEntry;
use crate::store::{Position, SegmentId};
use crate::{AppendReply, Bounds};

/// What is kept with an entry as long as a peer may have to be sent it; nothing without peers.
pub(super) type Payload = Option<Arc<SentEntry>>;

/// A log and its lock. The lock is short: no disk, no meta, no observer is waited for under it.
pub(crate) struct Log {
    pub(super) id: LogId,
    pub(super) state: Mutex<State>,
    /// Told when the phase changed.
    pub(super) changed: Notify,
    /// Told when an append waits for a close that meta didn't take.
    pub(super) nudged: Notify,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// Appends that wait for the log to be loaded, opened or rolled.
    pub(super) waiting: Queue,
    /// The log is on the list of those that wait for the journal.
    pub(super) is_listed: bool,
    pub(super) outbox: Option<Box<Outbox>>,
}

#[derive(Default)]
pub(super) enum Phase {
    /// Nothing is known; the last attempt to load it failed if there is a reason.
    #[default]
    New,
    /// It could not be loaded; whoever asks next tries again.
    Unloaded(String),
    /// Another node is its sequencer; whoever asks next looks again.
    Elsewhere,
    Loading,
    Ready(Box<Ready>),
    /// Deleted.
    Gone,
}

/// A log whose chain is known.
pub(super) struct Ready {
    pub(super) chain: Chain,
    pub(super) trim: Offset,
    pub(super) durability: Durability,
    pub(super) policy: Policy,
    /// How many replicas a segment is to have.
    pub(super) factor: Factor,
    /// Who stores the open segment; the first is its sequencer.
    pub(super) replicas: Nodes,
    /// Segments on the disk that the chain doesn't have; they go when the producer table no
    /// longer needs them.
    pub(super) superseded: Vec<Epoch>,
    pub(super) writer: Writer,
}

/// The end of the chain.
pub(super) enum Writer {
    /// The open segment was another incarnation's: it takes no appends, and is closed by the
    /// first one that comes.
    Recovered(Recovered),
    /// This node is the sequencer.
    Active(Box<Active>),
}

/// What a restart found of the open segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recovered {
    /// One past its last offset, and past those that are quarantined at its end.
    pub(super) end: Offset,
    /// Where the next segment is to begin: `end`, or past anything that a reader can have seen.
    pub(super) next_base: Offset,
    pub(super) bytes: u64,
    pub(super) max_timestamp: Option<i64>,
    /// Records that a reader may have seen can have been lost: the leader epoch must change.
    pub(super) is_lossy: bool,
    /// A task closes it.
    pub(super) is_opening: bool,
}

/// An open segment of which this node is the sequencer.
pub(super) struct Active {
    pub(super) log: LogId,
    pub(super) head: Head,
    pub(super) replication: Replication<AppendReply, Payload>,
    /// The ways to its peers, the first to peer 1.
    pub(super) links: Vec<Arc<NodeLink>>,
    pub(super) kept: Kept,
    /// Since when something waits for a quorum that can't come about, and when that is too long.
    pub(super) stuck_until_ms: Option<u64>,
    /// When replicas or meta have last said that it is the log's.
    pub(super) confirmed_ms: u64,
    pub(super) stage: Stage,
    pub(super) fill: Fill,
    pub(super) max_timestamp: Option<i64>,
    /// When the last batch came, milliseconds since 1970.
    pub(super) last_append_ms: i64,
    pub(super) snapshot: SnapshotState,
}

/// Where an open segment is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It takes appends.
    Open,
    /// It takes none and is closed when all in flight are durable.
    Draining,
    /// Its close is being written to meta.
    Closing,
    /// Others close it: it takes none, and waits to read where it ended.
    Stopped,
}

/// What is known of the producer snapshots of an open segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SnapshotState {
    /// One must be written before the next entry.
    pub(super) is_due: bool,
    /// Where the newest one lies.
    pub(super) position: Option<Position>,
    pub(super) batches_since: u32,
    pub(super) bytes_since: u64,
}

impl Log {
    pub(super) fn new(id: LogId) -> Self {
        Self { id, state: Mutex::default(), changed: Notify::new(), nudged: Notify::new() }
    }

    /// Whether this node is its sequencer, and knows its chain.
    pub(super) fn is_ready(&self) -> bool {
        self.state.lock().ready().is_some()
    }

    /// Tells observers what is queued for them. Called without the lock.
    pub(super) fn call_observers(&self) {
        {
            let mut state = self.state.lock();
            let Some(outbox) = state.outbox.as_mut() else { return };
            if !outbox.begin() {
                return;
            }
        }
        loop {
            let call = self.state.lock().outbox.as_mut().and_then(|outbox| outbox.next());
            let Some(call) = call else { return };
            call.run(self.id);
        }
    }
}

impl State {
    pub(super) fn ready(&self) -> Option<&Ready> {
        match &self.phase {
            Phase::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    pub(super) fn ready_mut(&mut self) -> Option<&mut Ready> {
        match &mut self.phase {
            Phase::Ready(ready) => Some(ready),
            _ => None,
        }
    }

    pub(super) fn active_mut(&mut self) -> Option<&mut Active> {
        self.ready_mut().and_then(Ready::active_mut)
    }

    /// Goes to another phase, unless the log was deleted meanwhile: that is for ever. Returns the
    /// phase that it leaves, or the one that it couldn't go to.
    pub(super) fn go_to(&mut self, phase: Phase) -> Result<Phase, Phase> {
        match self.phase {
            Phase::Gone => Err(phase),
            _ => Ok(std::mem::replace(&mut self.phase, phase)),
        }
    }

    /// Queues an event for the observers.
    pub(super) fn tell(&mut self, event: Event) {
        if let Some(outbox) = self.outbox.as_mut() {
            outbox.push(event);
        }
    }

    /// Queues the news of where the log is.
    pub(super) fn tell_bounds(&mut self) {
        if self.outbox.is_none() {
            return;
        }
        if let Some(bounds) = self.ready().map(Ready::bounds) {
            self.tell(Event::Advanced(bounds));
        }
    }

    /// Whether observers are to be called.
    pub(super) fn wants_calls(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.wants_calls())
    }
}

impl Ready {
    pub(super) fn active(&self) -> Option<&Active> {
        match &self.writer {
            Writer::Active(active) => Some(active),
            Writer::Recovered(_) => None,
        }
    }

    pub(super) fn active_mut(&mut self) -> Option<&mut Active> {
        match &mut self.writer {
            Writer::Active(active) => Some(active),
            Writer::Recovered(_) => None,
        }
    }

    /// Everything below is committed.
    pub(super) fn committed(&self) -> Offset {
        match &self.writer {
            Writer::Active(active) => active.replication.sequencer().committed(),
            Writer::Recovered(recovered) => recovered.end,
        }
    }

    /// The next offset that is given out.
    pub(super) fn next(&self) -> Offset {
        self.active()
            .map_or_else(|| self.committed(), |active| active.replication.sequencer().next())
    }

    /// The first offset that can be read.
    pub(super) fn start(&self) -> Offset {
        self.trim.max(self.chain.first_base()).min(self.committed())
    }

    pub(super) fn bounds(&self) -> Bounds {
        let committed = self.committed();
        Bounds {
            start: self.start(),
            committed,
            stable: committed,
            leader_epoch: self.chain.open().leader_epoch,
        }
    }

    /// Payload bytes of the open segment.
    pub(super) fn open_bytes(&self) -> u64 {
        match &self.writer {
            Writer::Active(active) => active.fill.bytes,
            Writer::Recovered(recovered) => recovered.bytes,
        }
    }
}

/// The store's name of a segment of `log`.
pub(super) fn segment(log: LogId, epoch: Epoch) -> SegmentId {
    SegmentId { log, epoch }
}

/// A log that can be shared.
pub(super) type SharedLog = Arc<Log>;
