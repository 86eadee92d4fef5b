//! The reads of a stream that are unanswered, and the answers that wait for its reader.
//!
//! A read counts, by its credit, from when it is taken on until its answer leaves: what a reader that
//! doesn't read makes the server keep is no more than the window.

use std::collections::VecDeque;

use interflow_proto::log as proto;
use parking_lot::Mutex;
use prost::Message;
use proto::read_answer::Kind;
use tokio::sync::Notify;
use tonic::Status;

use crate::rpc::{MAX_MESSAGE_BYTES, charge, wire};
use crate::{ReadError, ReadOutcome};

/// Answers in one message, and their bytes unless the first has more.
const MAX_ANSWERS: usize = 1_024;
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// What is around an answer in a message.
const FRAME_BYTES: usize = 16;

/// What was granted to a read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) id: u64,
    pub(super) credit_bytes: usize,
}

#[derive(Debug)]
struct Answer {
    message: proto::ReadAnswer,
    /// As it is encoded.
    bytes: usize,
    /// What it gives back to the window.
    charged: usize,
}

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Answer>,
    /// Of all that was taken on and hasn't left.
    reads: usize,
    charged: usize,
    /// Nothing is taken on any more, and what was is answered.
    is_over: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Finished {
    state: Mutex<State>,
    changed: Notify,
    window_bytes: usize,
    max_reads: usize,
}

impl Finished {
    pub(super) fn new(window_bytes: usize, max_reads: usize) -> Self {
        Self { state: Mutex::default(), changed: Notify::new(), window_bytes, max_reads }
    }

    /// Takes a read on.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: more is unanswered than the client was told that may be.
    pub(super) fn take_on(&self, granted: Granted) -> Result<(), Status> {
        let mut state = self.state.lock();
        let charged = state.charged.saturating_add(charge(granted.credit_bytes));
        if state.reads >= self.max_reads || state.reads > 0 && charged > self.window_bytes {
            return Err(Status::resource_exhausted("more is read than the window allows"));
        }
        state.reads += 1;
        state.charged = charged;
        Ok(())
    }

    /// A read that was taken on is done.
    pub(super) fn done(&self, granted: Granted, result: Result<ReadOutcome, ReadError>) {
        let Granted { id, credit_bytes } = granted;
        let mut message = proto::ReadAnswer { id, kind: Some(kind(result, credit_bytes)) };
        let mut bytes = message.encoded_len();
        if bytes > MAX_MESSAGE_BYTES - FRAME_BYTES {
            message.kind = Some(too_large(bytes));
            bytes = message.encoded_len();
        }
        self.push(Answer { message, bytes, charged: charge(credit_bytes) });
    }

    /// A read that was taken on won't be done.
    pub(super) fn dropped(&self, granted: Granted) {
        let kind = Some(Kind::Dropped(proto::Dropped {}));
        let message = proto::ReadAnswer { id: granted.id, kind };
        let bytes = message.encoded_len();
        self.push(Answer { message, bytes, charged: charge(granted.credit_bytes) });
    }

    fn push(&self, answer: Answer) {
        self.state.lock().answers.push_back(answer);
        self.changed.notify_one();
    }

    /// Nobody waits for a read any more: if it is done, what it brought isn't sent.
    pub(super) fn forget(&self, id: u64) {
        let mut state = self.state.lock();
        let found = state.answers.iter_mut().find(|answer| answer.message.id == id);
        if let Some(answer) = found {
            answer.message.kind = Some(Kind::Dropped(proto::Dropped {}));
            answer.bytes = answer.message.encoded_len();
        }
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        self.state.lock().is_over = true;
        self.changed.notify_one();
    }

    /// The next answers, when there are any; `None` when there will be none.
    pub(super) async fn next(&self) -> Option<proto::ReadAnswers> {
        loop {
            {
                let mut state = self.state.lock();
                let answers = state.take();
                if !answers.is_empty() {
                    return Some(proto::ReadAnswers { answers });
                }
                if state.is_over {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }
}

impl State {
    fn take(&mut self) -> Vec<proto::ReadAnswer> {
        let (mut answers, mut bytes) = (Vec::new(), 0);
        while let Some(answer) = self.answers.pop_front_if(|answer| {
            let is_full = answers.len() >= MAX_ANSWERS || bytes + answer.bytes > MAX_ANSWER_BYTES;
            bytes == 0 || !is_full
        }) {
            bytes += answer.bytes;
            // Each was counted when it was taken on.
            debug_assert!(self.reads > 0 && self.charged >= answer.charged);
            self.reads -= 1;
            self.charged -= answer.charged;
            answers.push(answer.message);
        }
        answers
    }
}

/// The answer to a read with so much credit.
fn kind(result: Result<ReadOutcome, ReadError>, credit_bytes: usize) -> Kind {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) => return Kind::Error(wire::read_error_message(&error)),
    };
    let bytes = outcome.bytes();
    if bytes > MAX_MESSAGE_BYTES - FRAME_BYTES {
        return too_large(bytes);
    }
    if bytes > credit_bytes {
        return Kind::NeedsBytes(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
    Kind::Outcome(wire::outcome_message(outcome))
}

/// No credit is enough for so much.
fn too_large(bytes: usize) -> Kind {
    let error = ReadError::Io(format!("a batch is too large to send: {bytes} bytes"));
    Kind::Error(wire::read_error_message(&error))
}
