//! The step that decides an append: check, roll due?, snapshot due?, journal, sequencer.

use super::append::Effects;
use super::metrics::add;
use super::service::Inner;
use super::state::{Active, Log, Payload, Stage, segment};
use crate::core::producers::MAX_WINDOW;
use crate::core::replication::Offer;
use crate::core::roll::{self, RollPolicy};
use crate::core::segment as core;
use crate::core::sequencer::{Answer, Candidate, Check};
use crate::peers::SentEntry;
use crate::store::{Entry, EntryHeader, EntryKind, Position, StoreError};
use crate::{Append, AppendError, AppendKind, AppendReply, Durability, EarlyBatch};

/// What became of an append.
pub(super) enum Taken {
    /// Answered, refused or on its way; the batch as observers may see it early.
    Done(Option<EarlyBatch>),
    /// It belongs into the next segment.
    RollIsDue(Append, AppendReply),
    /// It has to wait until the journal has gone on.
    NoRoom(Append, AppendReply),
    /// The disk takes nothing, for this reason, and the log has other replicas.
    NoDisk(Append, AppendReply, AppendError),
}

impl Active {
    /// A batch was refused without being judged by its sequence.
    pub(super) fn refused(&mut self, batch: &Candidate, inner: &Inner) {
        if let Check::Journal(_) = self.replication.sequencer().check(batch) {
            self.replication.refused(batch, inner.clock.wall_ms());
        }
    }

    /// Judges an append and journals it.
    pub(super) fn take(
        &mut self,
        inner: &Inner,
        policy: &RollPolicy,
        append: Append,
        reply: AppendReply,
        effects: &mut Effects,
    ) -> Taken {
        let batch = candidate(&append);
        match self.replication.offer(&batch) {
            Offer::Journal(_) => {}
            Offer::Answer(answer) => {
                if matches!(answer, Answer::Refused(_)) && !self.links.is_empty() {
                    // Others may have closed the segment and gone on; nothing is sent that would tell.
                    inner.mending.look_at(self.log);
                }
                self.replication.answer(answer, reply);
                return Taken::Done(None);
            }
            Offer::Busy | Offer::Closing => return Taken::NoRoom(append, reply),
        }
        let now_ms = inner.clock.monotonic_ms();
        let bytes = append.batch.len() as u64;
        if roll::is_due(policy, &self.fill, bytes, u64::from(append.count), now_ms) {
            return Taken::RollIsDue(append, reply);
        }
        let wall_ms = inner.clock.wall_ms();
        match self.journal(inner, &append, &batch, effects) {
            Ok((entry, position, sent)) => {
                inner.progress.appended(position);
                if self.fill.offsets == 0 {
                    self.fill.first_ms = now_ms;
                }
                self.fill.bytes = self.fill.bytes.saturating_add(bytes);
                self.fill.offsets = self.fill.offsets.saturating_add(u64::from(append.count));
                self.max_timestamp = self.max_timestamp.max(Some(append.max_timestamp));
                self.last_append_ms = wall_ms;
                self.snapshot.batches_since = self.snapshot.batches_since.saturating_add(1);
                self.snapshot.bytes_since = self.snapshot.bytes_since.saturating_add(bytes);
                add(&inner.metrics.appends, 1);
                add(&inner.metrics.records, u64::from(append.count));
                add(&inner.metrics.bytes, bytes);
                add(&inner.metrics.in_flight, 1);
                let taken = (&batch, &entry, position);
                let wanted = self.replication.taken(now_ms, taken, wall_ms, reply, sent);
                self.replicate(inner, wanted, effects);
                let early = append
                    .key
                    .filter(|_| append.early)
                    .map(|key| EarlyBatch { key, bytes: append.batch });
                Taken::Done(early)
            }
            Err(AppendError::Busy) => Taken::NoRoom(append, reply),
            Err(error @ (AppendError::DiskFull | AppendError::JournalFailed))
                if !self.links.is_empty() =>
            {
                Taken::NoDisk(append, reply, error)
            }
            Err(error) => {
                self.replication.refused(&batch, wall_ms);
                effects.refuse(reply, error);
                Taken::Done(None)
            }
        }
    }

    /// Puts the batch, and before it a snapshot that is due, into the journal.
    fn journal(
        &mut self,
        inner: &Inner,
        append: &Append,
        batch: &Candidate,
        effects: &mut Effects,
    ) -> Result<(core::Entry, Position, Payload), AppendError> {
        let bytes = append.batch.len();
        let in_flight = self.replication.sequencer().in_flight_bytes();
        if in_flight > 0 && in_flight.saturating_add(bytes) > inner.config.max_in_flight_bytes {
            return Err(AppendError::Busy);
        }
        if self.snapshot.batches_since >= inner.config.snapshot_batches
            || self.snapshot.bytes_since >= inner.config.snapshot_bytes
        {
            self.write_snapshot(inner, false, effects).map_err(refusal)?;
        }
        self.write_first_snapshot(inner, effects).map_err(refusal)?;
        // Behind the snapshot, if there was one.
        let Offer::Journal(entry) = self.replication.offer(batch) else {
            return Err(AppendError::Busy);
        };
        let header = EntryHeader {
            id: segment(self.log, self.head.epoch),
            kind: match append.kind {
                AppendKind::Data => EntryKind::Data,
                AppendKind::Commit => EntryKind::Commit,
                AppendKind::Abort => EntryKind::Abort,
            },
            base_offset: entry.first,
            count: append.count,
            max_timestamp: append.max_timestamp,
            key: append.key,
            window: append.window.clamp(1, MAX_WINDOW),
            digest: append.digest.clone(),
        };
        let leader_epoch = Some(self.head.leader_epoch);
        let sent = self.for_peers(|| {
            let (header, payload) = (header.clone(), append.batch.clone());
            SentEntry { header, payload, leader_epoch }
        });
        let stored = Entry { header, payload: &append.batch, leader_epoch };
        let position = inner.store.append(&stored).map_err(refusal)?;
        Ok((entry, position, sent))
    }

    /// Writes the snapshot that a segment begins with, if it isn't there yet and anyone is in it.
    pub(super) fn write_first_snapshot(
        &mut self,
        inner: &Inner,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        if self.snapshot.is_due && !self.replication.sequencer().producers().is_empty() {
            return self.write_snapshot(inner, false, effects);
        }
        self.snapshot.is_due = false;
        Ok(())
    }

    /// Writes the producer table into the segment, also an empty one: a restart reads headers
    /// only behind it. The last one of a process says so: then nothing can have been lost.
    pub(super) fn write_snapshot(
        &mut self,
        inner: &Inner,
        is_last: bool,
        effects: &mut Effects,
    ) -> Result<(), StoreError> {
        if !self.links.is_empty() && self.replication.has_snapshot_here() {
            // Peers could not tell the two apart; and nothing was appended since.
            return Ok(());
        }
        self.replication.expire_producers(inner.clock.wall_ms());
        let payload = self.replication.sequencer().producers().encode(is_last);
        let entry = self.replication.snapshot(payload.len() as u64);
        let header = EntryHeader {
            id: segment(self.log, self.head.epoch),
            kind: EntryKind::Snapshot,
            base_offset: entry.first,
            count: 0,
            max_timestamp: inner.clock.wall_ms(),
            key: None,
            window: 0,
            digest: None,
        };
        let sent = self.for_peers(|| SentEntry {
            header: header.clone(),
            payload: payload.clone(),
            leader_epoch: None,
        });
        let position =
            inner.store.append(&Entry { header, payload: &payload, leader_epoch: None })?;
        inner.progress.appended(position);
        self.snapshot.position = Some(position);
        self.snapshot.is_due = false;
        self.snapshot.batches_since = 0;
        self.snapshot.bytes_since = 0;
        let wanted = self.replication.snapshot_taken(inner.clock.monotonic_ms(), &entry, sent);
        self.replicate(inner, wanted, effects);
        Ok(())
    }
}

impl Log {
    /// Leaves a snapshot for the next start: where the log isn't durable it says that nothing was
    /// lost, elsewhere it saves the reading of many headers.
    pub(super) fn write_last_snapshot(&self, inner: &Inner) {
        let mut state = self.state.lock();
        let Some(ready) = state.ready_mut() else { return };
        let durability = ready.durability;
        let Some(active) = ready.active_mut() else { return };
        let has_producers = !active.replication.sequencer().producers().is_empty();
        let is_wanted = durability != Durability::Durable
            || active.snapshot.batches_since > 100 && has_producers;
        // With peers, the next sequencer has it from them.
        let is_open = !matches!(active.stage, Stage::Closing | Stage::Stopped);
        if is_wanted && is_open && active.links.is_empty() {
            // Without it the next start reads more, or jumps: nothing is lost.
            if let Err(error) = active.write_snapshot(inner, true, &mut Effects::default()) {
                tracing::debug!(log = %self.id, %error, "no last snapshot");
            }
        }
    }
}

/// What the sequencer needs to know of an append.
pub(super) fn candidate(append: &Append) -> Candidate {
    Candidate {
        key: append.key,
        count: append.count,
        window: append.window,
        bytes: append.batch.len(),
    }
}

/// When the log's open segment has had its share.
pub(super) fn roll_policy(inner: &Inner, max_bytes: u64, max_age_ms: u64) -> RollPolicy {
    RollPolicy { max_bytes, max_age_ms, max_offsets: inner.config.max_segment_offsets }
}

/// The store's refusal as an appender is told it.
fn refusal(error: StoreError) -> AppendError {
    match error {
        StoreError::DiskFull => AppendError::DiskFull,
        StoreError::Busy => AppendError::Busy,
        StoreError::TooLarge { max_bytes } => AppendError::TooLarge { max_bytes },
        StoreError::Failed(_) | StoreError::Damaged(_) | StoreError::Io(_) => {
            AppendError::JournalFailed
        }
    }
}
