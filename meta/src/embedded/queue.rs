//! Commits on their way to the thread that makes them.

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::error::MetaError;
use crate::store::{Commit, Committed, Mutation, STAMP_BYTES};

/// Transactions and bytes in one batch at most; bounds what redb holds in memory.
const MAX_BATCH: usize = 4_096;
const MAX_BATCH_BYTES: usize = 16 << 20;

pub(super) type Answer = Result<Committed, MetaError>;

/// A commit on its way.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) read_version: u64,
    pub(super) commit: Commit,
    pub(super) answer: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    closed: bool,
    /// Why nothing more can be written.
    failure: Option<String>,
}

/// Where transactions hand in their commits.
#[derive(Debug, Default)]
pub(super) struct CommitQueue {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

impl CommitQueue {
    /// Hands in `commit` of a transaction that read at `read_version` and waits for its answer.
    pub(super) async fn submit(&self, read_version: u64, commit: Commit) -> Answer {
        let (answer, answered) = oneshot::channel();
        {
            let mut queue = self.queue.lock();
            if queue.closed {
                return Err(closed());
            }
            if !is_write(&commit) && commit.watches.is_empty() {
                // It has been read: nothing has to be decided, and a failed store goes on reading.
                return Ok(unchanged(read_version));
            }
            if let Some(failure) = &queue.failure {
                return Err(MetaError::StoreFailed(failure.clone()));
            }
            queue.waiting.push(Waiting { read_version, commit, answer });
        }
        self.arrived.notify_one();
        // A sender that is dropped without an answer: the thread ended while it had the commit.
        answered.await.unwrap_or(Err(MetaError::CommitUnknown))
    }

    /// Waits for commits; `None` when the store is closed and all are answered.
    pub(super) fn take(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock();
        while queue.waiting.is_empty() {
            if queue.closed {
                return None;
            }
            self.arrived.wait(&mut queue);
        }
        let mut bytes = 0;
        let count = queue
            .waiting
            .iter()
            .take(MAX_BATCH)
            .take_while(|waiting| {
                let fits = bytes < MAX_BATCH_BYTES;
                bytes += waiting.commit.mutations.iter().map(Mutation::byte_size).sum::<usize>();
                fits
            })
            .count();
        Some(queue.waiting.drain(..count).collect())
    }

    /// No commit is taken any more; those that wait are still made.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.arrived.notify_all();
    }

    /// Why nothing more can be written, if so.
    pub(super) fn failure(&self) -> Option<String> {
        self.queue.lock().failure.clone()
    }

    /// Takes nothing that writes from now on; returns what waits.
    pub(super) fn fail(&self, reason: &str) -> Vec<Waiting> {
        let mut queue = self.queue.lock();
        queue.failure = Some(reason.to_owned());
        std::mem::take(&mut queue.waiting)
    }
}

/// Whether `commit` changes anything.
pub(super) fn is_write(commit: &Commit) -> bool {
    !commit.mutations.is_empty() || !commit.writes.is_empty()
}

/// The answer to a commit that writes nothing.
pub(super) fn unchanged(read_version: u64) -> Committed {
    Committed { version: read_version, stamp: [0xff; STAMP_BYTES] }
}

fn closed() -> MetaError {
    MetaError::Unavailable("the metadata store is closed".to_owned())
}
