//! The step that decides an append: check, roll due?, snapshot due?, journal, sequencer.

use super::append::Effects;
use super::metrics::add;
use super::service::Inner;
use super::state::{Active, Log, segment};
use crate::core::producers::MAX_WINDOW;
use crate::core::roll::{self, RollPolicy};
use crate::core::sequencer::{Candidate, Check};
use crate::store::{Entry, EntryHeader, EntryKind, Position, StoreError};
use crate::{Append, AppendError, AppendKind, AppendReply, EarlyBatch, Offset};

/// What became of an append.
pub(super) enum Taken {
    /// Answered, refused or on its way; the batch as observers may see it early.
    Done(Option<EarlyBatch>),
    /// It belongs into the next segment.
    RollIsDue(Append, AppendReply),
    /// It has to wait until the journal has gone on.
    NoRoom(Append, AppendReply),
}

impl Active {
    /// A batch was refused without being judged by its sequence.
    pub(super) fn refused(&mut self, batch: &Candidate, inner: &Inner) {
        if let Check::Journal(_) = self.sequencer.check(batch) {
            self.sequencer.refused(batch, inner.clock.wall_ms());
        }
    }

    /// Judges an append and journals it.
    pub(super) fn take(
        &mut self,
        log: &Log,
        inner: &Inner,
        policy: &RollPolicy,
        append: Append,
        reply: AppendReply,
        effects: &mut Effects,
    ) -> Taken {
        let batch = candidate(&append);
        let base = match self.sequencer.check(&batch) {
            Check::Journal(base) => base,
            Check::Answer(answer) => {
                self.sequencer.answer(answer, reply);
                return Taken::Done(None);
            }
        };
        let now_ms = inner.clock.monotonic_ms();
        let bytes = append.batch.len() as u64;
        if roll::is_due(policy, &self.fill, bytes, u64::from(append.count), now_ms) {
            return Taken::RollIsDue(append, reply);
        }
        let wall_ms = inner.clock.wall_ms();
        match self.journal(log, inner, &append, base) {
            Ok(position) => {
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
                self.sequencer.taken(&batch, position, wall_ms, reply);
                let early = append
                    .key
                    .filter(|_| append.early)
                    .map(|key| EarlyBatch { key, bytes: append.batch });
                Taken::Done(early)
            }
            Err(AppendError::Busy) => Taken::NoRoom(append, reply),
            Err(error) => {
                self.sequencer.refused(&batch, wall_ms);
                effects.refuse(reply, error);
                Taken::Done(None)
            }
        }
    }

    /// Puts the batch, and before it a snapshot that is due, into the journal.
    fn journal(
        &mut self,
        log: &Log,
        inner: &Inner,
        append: &Append,
        base: Offset,
    ) -> Result<Position, AppendError> {
        let bytes = append.batch.len();
        let in_flight = self.sequencer.in_flight_bytes();
        if in_flight > 0 && in_flight.saturating_add(bytes) > inner.config.max_in_flight_bytes {
            return Err(AppendError::Busy);
        }
        if self.snapshot.batches_since >= inner.config.snapshot_batches
            || self.snapshot.bytes_since >= inner.config.snapshot_bytes
        {
            self.write_snapshot(log, inner, false).map_err(refusal)?;
        }
        self.write_first_snapshot(log, inner).map_err(refusal)?;
        let header = EntryHeader {
            id: segment(log.id, self.epoch),
            kind: match append.kind {
                AppendKind::Data => EntryKind::Data,
                AppendKind::Commit => EntryKind::Commit,
                AppendKind::Abort => EntryKind::Abort,
            },
            base_offset: base,
            count: append.count,
            max_timestamp: append.max_timestamp,
            key: append.key,
            window: append.window.clamp(1, MAX_WINDOW),
            digest: append.digest.clone(),
        };
        let entry = Entry { header, payload: &append.batch, leader_epoch: Some(self.leader_epoch) };
        inner.store.append(&entry).map_err(refusal)
    }

    /// Writes the snapshot that a segment begins with, if it isn't there yet and anyone is in it.
    pub(super) fn write_first_snapshot(
        &mut self,
        log: &Log,
        inner: &Inner,
    ) -> Result<(), StoreError> {
        if self.snapshot.is_due && !self.sequencer.producers().is_empty() {
            return self.write_snapshot(log, inner, false);
        }
        self.snapshot.is_due = false;
        Ok(())
    }

    /// Writes the producer table into the segment, also an empty one: a restart reads headers
    /// only behind it. The last one of a process says so: then nothing can have been lost.
    pub(super) fn write_snapshot(
        &mut self,
        log: &Log,
        inner: &Inner,
        is_last: bool,
    ) -> Result<(), StoreError> {
        self.sequencer.expire_producers(inner.clock.wall_ms());
        let payload = self.sequencer.producers().encode(is_last);
        let header = EntryHeader {
            id: segment(log.id, self.epoch),
            kind: EntryKind::Snapshot,
            base_offset: self.sequencer.next(),
            count: 0,
            max_timestamp: inner.clock.wall_ms(),
            key: None,
            window: 0,
            digest: None,
        };
        let position =
            inner.store.append(&Entry { header, payload: &payload, leader_epoch: None })?;
        inner.progress.appended(position);
        self.snapshot.position = Some(position);
        self.snapshot.is_due = false;
        self.snapshot.batches_since = 0;
        self.snapshot.bytes_since = 0;
        Ok(())
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
