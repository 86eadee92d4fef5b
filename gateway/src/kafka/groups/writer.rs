//! A group's writes, in order, many in a transaction.

use std::collections::VecDeque;
use std::sync::Arc;

use interflow_meta::groups::{self, CommittedOffset, GroupMetadata};
use interflow_meta::{DEFAULT_TENANT, MetaError};
use tokio::sync::oneshot;

use super::core::SaveId;
use super::registry::Groups;
use super::slot::Slot;

/// Bytes in one transaction, far below what meta takes.
const BATCH_BYTES: usize = 1024 * 1024;
/// What a row costs besides its text.
const ROW_BYTES: usize = 128;

/// Told when a write is durable, or why it isn't.
pub(super) type Done = oneshot::Sender<Result<(), MetaError>>;

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
            batch.extend(self.queue.pop_front());
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
            let (name, rows) = (&*slot.name, &batch);
            let outcome = self
                .meta()
                .transact(|tx| async move {
                    for write in rows {
                        match write {
                            Write::Offsets(rows, _) => {
                                groups::commit_offsets(&tx, DEFAULT_TENANT, name, rows)?;
                            }
                            Write::Forget(rows, _) => {
                                for (topic, partition) in rows {
                                    groups::delete_offset(
                                        &tx,
                                        DEFAULT_TENANT,
                                        name,
                                        topic,
                                        *partition,
                                    )?;
                                }
                            }
                            Write::Save(_, metadata) => {
                                groups::put_metadata(&tx, DEFAULT_TENANT, name, metadata)?;
                            }
                            Write::Delete(_) => groups::delete(&tx, DEFAULT_TENANT, name)?,
                        }
                    }
                    Ok::<_, MetaError>(())
                })
                .await;
            if let Err(error) = &outcome {
                tracing::warn!(group = name, %error, "a group's state could not be stored");
            }
            self.finish(slot, batch, &outcome);
        }
    }

    fn finish(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        batch: Vec<Write>,
        outcome: &Result<(), MetaError>,
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
