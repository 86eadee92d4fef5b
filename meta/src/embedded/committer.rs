//! Group commit: one thread makes all waiting commits durable at once.
//!
//! ```text
//!   submit ─► queue ─► take all ─► check each against the window ─► one redb transaction, one sync
//!                                                             └► publish the view ─► answer all
//! ```
//!
//! There is no delay: a batch is what arrived while the one before was being synced.
//!
//! A full disk is waited out: writes are refused, and each batch looks whether there is room
//! again. Then the file is opened anew (redb can't take back what it believes it has written).

use std::sync::Arc;

use bytes::Bytes;
use redb::{Durability, ReadableTable, Table};
use tokio::sync::oneshot;

use super::engine::Engine;
use super::guard::Fault;
use super::queue::{Answer, CommitQueue, Waiting, is_write, unchanged};
use super::view::{Published, View};
use super::watches::Watches;
use super::window::{Verdict, Window};
use super::{OpenError, failed, layout};
use crate::env::Env;
use crate::error::MetaError;
use crate::store::{Committed, KeyRange, Mutation, STAMP_BYTES};

fn reason_of(error: MetaError) -> String {
    match error {
        MetaError::StoreFailed(reason) => reason,
        other => other.to_string(),
    }
}

/// The thread's own things.
pub(super) struct Committer {
    pub(super) engine: Engine,
    /// The cache of the engine, in bytes.
    pub(super) cache_bytes: usize,
    /// The disk had no room for the last commit.
    pub(super) is_full: bool,
    pub(super) queue: Arc<CommitQueue>,
    pub(super) published: Arc<Published>,
    pub(super) env: Env,
    pub(super) version: u64,
    pub(super) window: Window,
    pub(super) watches: Watches,
}

impl Committer {
    /// Commits until the queue is closed.
    pub(super) fn run(mut self) {
        let _guard = FailOnPanic(Arc::clone(&self.queue));
        while let Some(batch) = self.queue.take() {
            if let Err(error) = self.commit_batch(batch) {
                let reason = reason_of(error);
                tracing::error!(reason, "the metadata store has failed; commits are refused");
                for waiting in self.queue.fail(&reason) {
                    let _ = waiting.answer.send(Err(MetaError::StoreFailed(reason.clone())));
                }
            }
        }
        self.watches.clear();
    }

    /// Commits what doesn't conflict and answers all. An error is the store's end.
    fn commit_batch(&mut self, mut batch: Vec<Waiting>) -> Result<(), MetaError> {
        if self.is_full
            && let Err(error) = self.find_room()
        {
            return Err(fail_all(batch.into_iter().map(|waiting| waiting.answer), error));
        }
        if self.is_full {
            for waiting in batch.extract_if(.., |waiting| is_write(&waiting.commit)) {
                let _ = waiting.answer.send(Err(MetaError::DiskFull));
            }
        }
        let mut round = Round::default();
        let mut answers = Vec::with_capacity(batch.len());
        if let Err(error) = self.write_batch(batch, &mut round, &mut answers) {
            // Also those refused: whatever they conflicted with has not come to be.
            return Err(fail_all(answers.into_iter().map(|(answer, _)| answer), error));
        }
        self.settle_watches(round)?;
        // Refusals wait as well: a retry must find the commit that it lost to.
        for (answer, result) in answers {
            let _ = answer.send(result);
        }
        Ok(())
    }

    /// Goes on where the disk was full, if there is room again.
    fn find_room(&mut self) -> Result<(), MetaError> {
        let broken = |error: std::io::Error| MetaError::StoreFailed(error.to_string());
        if !self.engine.guard.has_room().map_err(broken)? {
            return Ok(());
        }
        let backend = Arc::clone(self.engine.guard.backend());
        let engine = match Engine::reopen(backend, self.cache_bytes) {
            Ok(engine) => engine,
            Err(OpenError::Io(error)) if error.kind() == std::io::ErrorKind::StorageFull => {
                return Ok(());
            }
            Err(error) => return Err(MetaError::StoreFailed(error.to_string())),
        };
        let view = View::open(&engine)?;
        if view.version != self.version {
            let found = view.version;
            let text = format!("version {found} after a full disk, where {} was", self.version);
            return Err(MetaError::StoreFailed(text));
        }
        // The old engine's pages are written over from here on: its views end first.
        self.published.replace(view);
        self.engine.guard.retire();
        self.engine = engine;
        self.is_full = false;
        tracing::info!("there is room again: the metadata store takes commits");
        Ok(())
    }

    /// The disk had no room for the batch: none of it was written.
    fn disk_was_full(
        &mut self,
        version: u64,
        round: &mut Round,
        answers: &mut [(oneshot::Sender<Answer>, Answer)],
    ) {
        tracing::warn!("the disk is full: the metadata store refuses commits");
        self.is_full = true;
        // It remembers writes that have not come to be.
        self.window = Window::new(self.version);
        round.touched.clear();
        for (_, result) in answers {
            if matches!(result, Ok(committed) if committed.version == version) {
                *result = Err(MetaError::DiskFull);
            }
        }
    }

    fn write_batch(
        &mut self,
        batch: Vec<Waiting>,
        round: &mut Round,
        answers: &mut Vec<(oneshot::Sender<Answer>, Answer)>,
    ) -> Result<(), MetaError> {
        let version = self.version + 1;
        let mut refused = None;
        let accepted: Vec<_> = batch
            .into_iter()
            .filter_map(|mut waiting| {
                let order = u16::try_from(round.order).unwrap_or(u16::MAX);
                let result = self.admit(&mut waiting, version, order, round);
                let writes = matches!(&result, Ok(committed) if committed.version == version);
                answers.push((waiting.answer, result));
                writes.then_some(waiting.commit.mutations)
            })
            .collect();
        if accepted.is_empty() {
            return Ok(());
        }
        let mut write = self.engine.database.begin_write().map_err(failed)?;
        // One sync, not two: redb's one-phase commit writes the pages, the new root with a
        // checksum, and the byte that chooses between old and new root, and then syncs. Any subset
        // of these writes may survive a crash. Checksums form a Merkle tree (XXH3, 128 bits) from
        // the root over all pages, and after an unclean stop redb verifies the whole tree, going
        // back to the old root, whose pages were synced by the commit before and are not reused
        // before this one is durable. What a second sync would add: a page of the very last commit that
        // rots on the device before an unclean stop would be told, where now it looks torn. It would
        // cost a fifth of the commits of 64 committers, and a third more time at their median.
        write.set_durability(Durability::Immediate).map_err(failed)?;
        {
            let mut data = write.open_table(layout::DATA).map_err(failed)?;
            for mutation in accepted.into_iter().flatten() {
                if let Err(error) = apply(&mut data, mutation) {
                    refused = Some(error);
                    break;
                }
            }
            let mut system = write.open_table(layout::SYSTEM).map_err(failed)?;
            system.insert(layout::VERSION, version).map_err(failed)?;
        }
        if let Some(error) = refused {
            return Err(error);
        }
        write.commit().map_err(failed)?;
        match self.engine.guard.fault() {
            None => {}
            Some(Fault::Full) => {
                self.disk_was_full(version, round, answers);
                return Ok(());
            }
            Some(Fault::Failed(reason)) => return Err(MetaError::StoreFailed(reason)),
        }
        self.version = version;
        self.window.prune(self.env.clock.now(), version);
        self.published.replace(View::open(&self.engine)?);
        Ok(())
    }

    /// Decides on one commit and remembers its writes.
    fn admit(
        &mut self,
        waiting: &mut Waiting,
        version: u64,
        order: u16,
        round: &mut Round,
    ) -> Answer {
        let commit = &mut waiting.commit;
        match self.window.check(waiting.read_version, &commit.reads) {
            Verdict::Clean => {}
            Verdict::Conflict => return Err(MetaError::Conflict),
            Verdict::TooOld => return Err(MetaError::TooOld),
        }
        let mut stamp = [0; STAMP_BYTES];
        let (high, low) = stamp.split_at_mut(8);
        high.copy_from_slice(&version.to_be_bytes());
        low.copy_from_slice(&order.to_be_bytes());
        commit.mutations = std::mem::take(&mut commit.mutations)
            .into_iter()
            .map(|mutation| mutation.stamped(stamp))
            .collect::<Result<_, _>>()?;
        round.watches.append(&mut commit.watches);
        if !is_write(commit) {
            return Ok(unchanged(waiting.read_version));
        }
        round.order += 1;
        let touched = commit.mutations.iter().map(Mutation::touches);
        for range in touched.chain(commit.writes.drain(..)) {
            self.window.record(&range, version);
            if !self.watches.is_empty() {
                round.touched.extend(self.watches.watched_in(&range));
            }
        }
        Ok(Committed { version, stamp })
    }

    /// Fires the watches whose key has changed, and begins those of this round.
    fn settle_watches(&mut self, round: Round) -> Result<(), MetaError> {
        if round.touched.is_empty() && round.watches.is_empty() {
            return Ok(());
        }
        let view = self.published.latest();
        let new: Vec<Bytes> = round.watches.iter().map(|watch| watch.key.clone()).collect();
        for watch in round.watches {
            self.watches.add(watch);
        }
        // Also the new ones: what they saw may be older than this round.
        for key in round.touched.into_iter().chain(new) {
            let value = view.get(&key)?;
            self.watches.check(&key, value.as_ref());
        }
        Ok(())
    }
}

/// Answers all with the store's end; returns its reason.
fn fail_all(answers: impl Iterator<Item = oneshot::Sender<Answer>>, error: MetaError) -> MetaError {
    let reason = reason_of(error);
    for answer in answers {
        let _ = answer.send(Err(MetaError::StoreFailed(reason.clone())));
    }
    MetaError::StoreFailed(reason)
}

/// Should the thread panic, nobody waits for it for ever.
struct FailOnPanic(Arc<CommitQueue>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Dropping what waits answers it: commit unknown.
            drop(self.0.fail("its thread panicked"));
        }
    }
}

/// What one batch leaves to be done when it is durable.
#[derive(Default)]
struct Round {
    order: usize,
    touched: Vec<Bytes>,
    watches: Vec<crate::store::WatchRequest>,
}

/// Makes one mutation in redb's tree.
fn apply(
    data: &mut Table<'_, &'static [u8], &'static [u8]>,
    mutation: Mutation,
) -> Result<(), MetaError> {
    match mutation {
        Mutation::Set(key, value) => {
            data.insert(&key[..], &value[..]).map_err(failed)?;
        }
        Mutation::Clear(key) => {
            data.remove(&key[..]).map_err(failed)?;
        }
        Mutation::ClearRange(KeyRange { begin, end }) => {
            data.retain_in::<&[u8], _>(&begin[..]..&end[..], |_, _| false).map_err(failed)?;
        }
        Mutation::Atomic(op, key, operand) => {
            let old = data
                .get(&key[..])
                .map_err(failed)?
                .map(|value| Bytes::copy_from_slice(value.value()));
            match op.apply(old.as_ref(), &operand) {
                Some(value) => {
                    data.insert(&key[..], &value[..]).map_err(failed)?;
                }
                None if old.is_some() => {
                    data.remove(&key[..]).map_err(failed)?;
                }
                None => {}
            }
        }
        Mutation::SetStampedKey { .. } | Mutation::SetStampedValue { .. } => {
            return Err(MetaError::InvalidOperation("a stamp was not put in"));
        }
    }
    Ok(())
}
