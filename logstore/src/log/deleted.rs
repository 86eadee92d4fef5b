//! Logs that don't exist any more: who waits for them is told, and their space is freed.

use std::sync::Arc;

use interflow_meta::{Epoch, LogId};

use super::metrics::sub;
use super::outbox::Event;
use super::retain;
use super::service::Inner;
use super::state::{Phase, Ready, SharedLog, segment};
use crate::AppendError;

impl Inner {
    /// The log doesn't exist any more; this node may have been a replica only, whom nobody tells.
    /// `epochs` are its segments on the disk.
    pub(super) fn drop_deleted(self: &Arc<Self>, id: LogId, epochs: &[Epoch]) {
        if let Some(log) = self.known(id) {
            self.remove(&log);
        }
        let left = epochs.iter().copied();
        let left: Vec<_> =
            left.filter(|epoch| self.store.segment(segment(id, *epoch)).is_some()).collect();
        retain::drop_all(self, id, &left);
        self.store.expect_life(id, None);
        let replicas = self.replicas.known(id);
        self.replicas.forget(&replicas);
        self.replicas.seals.forget(&replicas);
    }

    /// The log doesn't exist any more: its appenders and observers are told, its disk is freed.
    pub(super) fn remove(self: &Arc<Self>, log: &SharedLog) {
        let mut epochs = self.forget_found(log.id);
        let in_flight: Vec<_> = {
            let mut state = log.state.lock();
            let in_flight = match state.ready_mut() {
                Some(ready) => {
                    epochs.extend(ready.epochs());
                    ready.active_mut().map(|active| {
                        let journaling = active.replication.sequencer().journaling();
                        sub(&self.metrics.in_flight, journaling);
                        active.detach();
                        active.replication.abandon().collect()
                    })
                }
                None => None,
            };
            state.phase = Phase::Gone;
            state.tell(Event::Ended);
            in_flight.unwrap_or_default()
        };
        self.forget(log.id);
        for reply in in_flight {
            reply.send(Err(AppendError::NoSuchLog));
        }
        // Answers those that wait: the log is gone.
        log.resume(self);
        log.call_observers();
        epochs.sort_unstable();
        epochs.dedup();
        retain::drop_all(self, log.id, &epochs);
        self.store.expect_life(log.id, None);
    }
}

impl Ready {
    /// All segments of the log that may be on the disk.
    pub(super) fn epochs(&self) -> Vec<Epoch> {
        let mut epochs = self.superseded.clone();
        epochs.extend(self.chain.closed().map(|closed| closed.epoch));
        epochs.push(self.chain.open().epoch);
        epochs
    }
}
