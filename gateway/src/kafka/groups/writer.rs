//! A group's writes, in order, many in a transaction, each of which holds the group: once another has
//! claimed it they fail, and the group ends here.

use std::collections::VecDeque;
use std::sync::Arc;

use interflow_meta::groups::{self, CommittedOffset, Coordinator, GroupError, GroupMetadata};
use interflow_meta::{DEFAULT_TENANT, MetaError, Transaction};
use tokio::sync::oneshot;

use super::core::SaveId;
use super::registry::Groups;
use super::slot::Slot;

/// Bytes in one transaction, far below what meta takes.
const BATCH_BYTES: usize = 1024 * 1024;
/// What a row costs besides its text.
const ROW_BYTES: usize = 128;

/// Told when a write is durable, or why it isn't.
pub(super) type Done = oneshot::Sender<Result<(), GroupError>>;

/// One write.
pub(super) enum Write {
    /// Committed offsets.
    Offsets(Vec<(String, u32, CommittedOffset)>, Done),
    /// Offsets to be forgotten.
    Forget(Vec<(String, u32)>, Done),
    /// The state of the group.
    Save(SaveId, GroupMetadata),
    /// All of the group.
    Delete(Done),
}

/// Writes that wait.
#[derive(Default)]
pub(super) struct WriteQueue {
    queue: VecDeque<Write>,
    is_running: bool,
}

impl Write {
    fn bytes(&self) -> usize {
        match self {
            Self::Offsets(rows, _) => rows
                .iter()
                .map(|(topic, _, offset)| topic.len() + offset.metadata.len() + ROW_BYTES)
                .sum(),
            Self::Forget(rows, _) => rows.iter().map(|(topic, _)| topic.len() + ROW_BYTES).sum(),
            Self::Save(_, metadata) => metadata.members.len() + ROW_BYTES,
            Self::Delete(_) => ROW_BYTES,
        }
    }

    fn put(&self, tx: &Transaction, name: &str, held: Coordinator) -> Result<(), GroupError> {
        match self {
            Self::Offsets(rows, _) => groups::commit_offsets(tx, DEFAULT_TENANT, name, rows)?,
            Self::Forget(rows, _) => {
                for (topic, partition) in rows {
                    groups::delete_offset(tx, DEFAULT_TENANT, name, topic, *partition)?;
                }
            }
            Self::Save(_, metadata) => {
                let metadata = GroupMetadata {
                    coordinator_epoch: held.epoch,
                    ..GroupMetadata::clone(metadata)
                };
                groups::put_metadata(tx, DEFAULT_TENANT, name, &metadata)?;
            }
            Self::Delete(_) => groups::delete(tx, DEFAULT_TENANT, name)?,
        }
        Ok(())
    }
}

impl WriteQueue {
    /// Nothing waits and nothing is being written.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_running
    }

    fn take(&mut self) -> Vec<Write> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(write) = self.queue.front() {
            bytes += write.bytes();
            if bytes > BATCH_BYTES && !batch.is_empty() {
                break;
            }
            let is_end = matches!(write, Write::Delete(_));
            batch.extend(self.queue.pop_front());
            if is_end {
                // It ends the claim, too: what comes behind it makes a new one.
                break;
            }
        }
        self.is_running = !batch.is_empty();
        batch
    }
}

impl Groups {
    /// Queues a write. Call with the group locked: so writes have the order of what led to them.
    pub(super) fn write(self: &Arc<Self>, slot: &Arc<Slot>, write: Write) {
        let mut writes = slot.writes.lock();
        writes.queue.push_back(write);
        if !writes.is_running {
            writes.is_running = true;
            let (groups, slot) = (self.clone(), slot.clone());
            // Ends by itself when the queue is empty; at shutdown it is waited for.
            self.spawn(async move { groups.drain(&slot).await });
        }
    }

    async fn drain(self: &Arc<Self>, slot: &Arc<Slot>) {
        loop {
            let batch = {
                // With the group locked nothing is queued between the last look and the end.
                let mut group = slot.group.lock();
                let batch = slot.writes.lock().take();
                if batch.is_empty() {
                    self.forget_if_idle(slot, &mut group);
                    return;
                }
                batch
            };
            let outcome = self.put(slot, &batch).await;
            match &outcome {
                Ok(held) => *slot.held.lock() = *held,
                Err(GroupError::Superseded) => {
                    tracing::info!(group = %slot.name, "a group has another coordinator now");
                    self.let_go(slot);
                }
                Err(GroupError::Meta(error)) => {
                    tracing::warn!(group = %slot.name, %error, "a group's state could not be stored");
                    if error.is_maybe_committed() || matches!(error, MetaError::TimedOut(_)) {
                        self.doubt(slot);
                    }
                }
            }
            self.finish(slot, batch, &outcome.map(|_| ()));
        }
    }

    /// Makes `batch` durable, if the group is still this gateway's; returns what it is held by then.
    async fn put(&self, slot: &Slot, batch: &[Write]) -> Result<Option<Coordinator>, GroupError> {
        let (name, life, held) = (&*slot.name, self.life(), *slot.held.lock());
        let deletes = matches!(batch.last(), Some(Write::Delete(_)));
        self.meta()
            .transact(|tx| async move {
                if deletes
                    && tx.is_maybe_committed()
                    && groups::coordinator(&tx, DEFAULT_TENANT, name).await?.is_none()
                {
                    // An attempt whose answer was lost has deleted it.
                    return Ok(None);
                }
                let held = groups::hold(&tx, DEFAULT_TENANT, name, life, held).await?;
                for write in batch {
                    write.put(&tx, name, held)?;
                }
                Ok((!deletes).then_some(held))
            })
            .await
    }

    fn finish(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        batch: Vec<Write>,
        outcome: &Result<(), GroupError>,
    ) {
        for write in batch {
            match write {
                Write::Offsets(_, done) | Write::Forget(_, done) | Write::Delete(done) => {
                    // Who asked may be gone; what is written stands.
                    let _ = done.send(outcome.clone());
                }
                Write::Save(id, _) => self.saved(slot, id, outcome.is_ok()),
            }
        }
    }
}
