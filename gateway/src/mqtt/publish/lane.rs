//! One lane of a log's writer: batches that are filled, and the sequence they are appended with.

use std::collections::VecDeque;

use bytes::Bytes;
use interflow_logstore::{
    Append, AppendError, AppendKey, AppendKind, AppendTicket, Appended, LogId,
};

use super::completion::Completion;
use super::digest::DigestBuilder;
use super::record::Inbound;
use crate::mqtt::gate::GatePass;
use crate::records::{BatchBuilder, BatchFull};

/// A retained record of a batch.
#[derive(Debug)]
pub(crate) struct RetainedRecord {
    /// Its offset less the batch's.
    pub(crate) delta: u32,
    pub(crate) completion: Completion,
    pub(crate) pass: GatePass,
}

/// Who waits for the records of a batch.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) completions: Vec<Completion>,
    pub(super) retained: Vec<RetainedRecord>,
}

#[derive(Debug, Default)]
struct OpenBatch {
    builder: BatchBuilder,
    digest: DigestBuilder,
    waiting: Waiting,
}

/// A batch that was handed to the log.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) ticket: AppendTicket,
    /// What the ticket said, if that was known at once.
    pub(super) answer: Option<Result<Appended, AppendError>>,
    pub(super) waiting: Waiting,
    /// The batch itself, if records of it are retained.
    pub(super) batch: Option<Bytes>,
    pub(super) bytes: usize,
    key: AppendKey,
}

/// Batches of one kind to one log, in order, under one producer id.
#[derive(Debug)]
pub(super) struct Lane {
    log: LogId,
    early: bool,
    max_in_flight: u16,
    max_batch_bytes: usize,
    /// The last one is being filled.
    open: VecDeque<OpenBatch>,
    unclaimed: VecDeque<InFlight>,
    in_flight: u16,
    next: AppendKey,
    /// An append was refused: nothing goes out until those behind it are answered too, and then
    /// from this key on.
    resume_at: Option<AppendKey>,
}

impl Lane {
    pub(super) fn new(
        log: LogId,
        producer_id: i64,
        early: bool,
        max_in_flight: u16,
        max_batch_bytes: usize,
    ) -> Self {
        Self {
            log,
            early,
            max_in_flight: max_in_flight.max(1),
            max_batch_bytes,
            open: VecDeque::new(),
            unclaimed: VecDeque::new(),
            in_flight: 0,
            next: AppendKey { producer_id, producer_epoch: 0, sequence: 0 },
            resume_at: None,
        }
    }

    /// Adds a message to the open batch. Returns the bytes that it took.
    pub(super) fn push(
        &mut self,
        message: &Inbound<'_>,
        completion: Completion,
        pass: Option<GatePass>,
    ) -> Result<usize, BatchFull> {
        let is_full = self.open.back().is_some_and(|open| {
            !open.builder.is_empty() && open.builder.len() + message.bytes() > self.max_batch_bytes
        });
        if is_full || self.open.is_empty() {
            self.open.push_back(OpenBatch::default());
        }
        let Some(open) = self.open.back_mut() else { return Err(BatchFull) };
        let before = open.builder.len();
        let delta = open.builder.count();
        message.append_to(&mut open.builder)?;
        open.digest.add(message.topic);
        match pass {
            Some(pass) => {
                open.waiting.retained.push(RetainedRecord { delta, completion, pass });
            }
            None => open.waiting.completions.push(completion),
        }
        Ok(open.builder.len() - before)
    }

    pub(super) fn can_append(&self) -> bool {
        self.in_flight < self.max_in_flight
            && self.resume_at.is_none()
            && self.open.front().is_some_and(|open| !open.builder.is_empty())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.open.iter().all(|open| open.builder.is_empty())
    }

    /// The next append, if one may go out; its ticket goes to [`Lane::appended`].
    pub(super) fn next_append(&mut self) -> Option<(Append, Pending)> {
        if !self.can_append() {
            return None;
        }
        let mut open = self.open.pop_front()?;
        let key = self.next;
        open.builder.set_producer(key.producer_id, key.producer_epoch, key.sequence);
        let built = open.builder.finish()?;
        self.next.sequence = advance(key.sequence, built.count);
        let pending = Pending {
            batch: (!open.waiting.retained.is_empty()).then(|| built.bytes.clone()),
            waiting: open.waiting,
            bytes: built.bytes.len(),
            key,
            records: built.count,
        };
        let append = Append {
            log: self.log,
            kind: AppendKind::Data,
            key: Some(key),
            window: self.max_in_flight.max(5),
            count: built.count,
            max_timestamp: built.max_timestamp,
            digest: open.digest.finish(),
            early: self.early,
            batch: built.bytes,
        };
        if self.open.is_empty() {
            open.waiting = Waiting::default();
            self.open.push_back(open); // its memory serves the next batch
        }
        Some((append, pending))
    }

    pub(super) fn appended(
        &mut self,
        pending: Pending,
        ticket: AppendTicket,
        answer: Option<Result<Appended, AppendError>>,
    ) {
        let Pending { waiting, batch, bytes, key, records: _ } = pending;
        self.in_flight += 1;
        self.unclaimed.push_back(InFlight { ticket, answer, waiting, batch, bytes, key });
    }

    /// The oldest append that nobody waits for yet.
    pub(super) fn claim(&mut self) -> Option<InFlight> {
        self.unclaimed.pop_front()
    }

    /// An append was answered.
    pub(super) fn settled(&mut self, key: AppendKey, error: Option<&AppendError>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(error) = error
            && self.resume_at.is_none()
        {
            self.resume_at = Some(match error {
                // Whether it was kept isn't known: a new epoch begins a new sequence.
                AppendError::Unknown
                | AppendError::ProducerFenced { .. }
                | AppendError::OutOfOrderSequence { .. }
                | AppendError::DuplicateSequence => AppendKey {
                    producer_epoch: key.producer_epoch.checked_add(1).unwrap_or(0),
                    sequence: 0,
                    ..key
                },
                _ => key,
            });
        }
        if self.in_flight == 0
            && let Some(key) = self.resume_at.take()
        {
            self.next = key;
        }
    }
}

/// An append between its making and its ticket.
#[derive(Debug)]
pub(super) struct Pending {
    waiting: Waiting,
    batch: Option<Bytes>,
    bytes: usize,
    key: AppendKey,
    pub(super) records: u32,
}

impl InFlight {
    pub(super) fn key(&self) -> AppendKey {
        self.key
    }
}

/// Sequences wrap from `i32::MAX` to 0.
fn advance(sequence: i32, records: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(records)) & i64::from(i32::MAX);
    i32::try_from(next).unwrap_or(0)
}
