//! What is done for retained messages beside those who wait for them: in the background, so that a busy
//! metadata store can hold it up without holding up anybody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use interflow_logstore::LogId;
use interflow_meta::{DEFAULT_TENANT, Meta, MetaError, materialised, retained};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use super::FORGET_MS;
use crate::mqtt::clock::WallClock;

/// How often it is looked for what has expired. Until it is removed it is not served either.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Messages that one transaction of a sweep goes over.
const SWEEP_ROWS: usize = 100;

/// Saves how far logs were looked at, and removes what has expired.
pub(super) struct Upkeep {
    meta: Meta,
    clock: Arc<dyn WallClock>,
    positions: Mutex<Positions>,
    work: Notify,
}

/// How far logs were looked at.
#[derive(Default)]
struct Positions {
    unsaved: BTreeMap<LogId, u64>,
    /// Logs of which something that was seen could not be written: the next start must look there
    /// again, so they stay where they are.
    lost: BTreeSet<LogId>,
}

impl Upkeep {
    pub(super) fn new(meta: Meta, clock: Arc<dyn WallClock>) -> Self {
        Self { meta, clock, positions: Mutex::default(), work: Notify::new() }
    }

    /// Everything below these offsets is retained: to be saved.
    pub(super) fn advance(&self, positions: impl IntoIterator<Item = (LogId, u64)>) {
        let good = self.good(positions);
        if !good.is_empty() {
            self.positions.lock().unsaved.extend(good);
            self.work.notify_one();
        }
    }

    /// Something below these offsets could not be written.
    pub(super) fn lost(&self, positions: impl IntoIterator<Item = (LogId, u64)>) {
        let mut state = self.positions.lock();
        state.lost.extend(positions.into_iter().map(|(log, _)| log));
    }

    /// Those that may be saved.
    pub(super) fn good(
        &self,
        positions: impl IntoIterator<Item = (LogId, u64)>,
    ) -> Vec<(LogId, u64)> {
        let state = self.positions.lock();
        positions.into_iter().filter(|(log, _)| !state.lost.contains(log)).collect()
    }

    /// Goes on for ever.
    pub(super) async fn run(&self) {
        let mut sweep = tokio::time::interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        sweep.tick().await;
        loop {
            tokio::select! {
                () = self.work.notified() => self.save_all().await,
                _ = sweep.tick() => {
                    self.save_all().await;
                    self.sweep().await;
                }
            }
        }
    }

    /// Saves the positions that are to be saved; those that can't be are saved with the next.
    pub(super) async fn save_all(&self) {
        let unsaved: Vec<_> = self.positions.lock().unsaved.clone().into_iter().collect();
        if unsaved.is_empty() {
            return;
        }
        match save(&self.meta, &unsaved).await {
            Ok(()) => {
                let mut state = self.positions.lock();
                state.unsaved.retain(|log, position| !unsaved.contains(&(*log, *position)));
            }
            Err(error) => {
                tracing::warn!(%error, "the position of retained messages could not be written");
            }
        }
    }

    /// Removes what has expired.
    pub(super) async fn sweep(&self) {
        let now_ms = self.clock.now_ms();
        let forget_ms = now_ms.saturating_add(FORGET_MS);
        loop {
            let swept = self
                .meta
                .transact(|tx| async move {
                    retained::sweep(&tx, DEFAULT_TENANT, now_ms, forget_ms, SWEEP_ROWS).await
                })
                .await;
            match swept {
                Ok(SWEEP_ROWS) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "expired retained messages could not be removed");
                    return;
                }
            }
        }
    }
}

/// Saves how far logs were looked at; what is further already stays.
pub(super) async fn save(meta: &Meta, positions: &[(LogId, u64)]) -> Result<(), MetaError> {
    meta.transact(|tx| async move {
        for (log, position) in positions {
            materialised::advance(&tx, *log, *position).await?;
        }
        Ok(())
    })
    .await
}
