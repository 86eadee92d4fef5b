//! Producers that retry as a gateway's router would have them do, and readers that follow.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use interflow_meta::{LogId, NodeId};
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{sleep, timeout};

use super::super::super::{batch, read, text};
use super::world::World;
use crate::{Append, AppendError, AppendKey, LogClient, Offset, ReadError};

/// A client waits for an answer so long.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A recovery is waited for so long.
const RECOVERY: Duration = Duration::from_secs(6);

/// What one producer does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Producer {
    pub(super) id: u32,
    pub(super) log: LogId,
    pub(super) is_keyed: bool,
    pub(super) in_flight: u32,
    pub(super) batches: u32,
    pub(super) max_pause_ms: u64,
}

impl Producer {
    pub(super) fn value(&self, n: u32) -> String {
        format!("{}:{n}", self.id)
    }

    fn append(&self, n: u32, attempt: u32) -> (String, Append) {
        let count = 1 + n % 3;
        if !self.is_keyed {
            let value = format!("{}:{n}:{attempt}", self.id);
            return (value.clone(), batch(self.log, count, &value));
        }
        let sequence = (0..n).map(|n| 1 + n % 3).sum::<u32>();
        let key = AppendKey {
            producer_id: i64::from(self.id),
            producer_epoch: 0,
            sequence: i32::try_from(sequence).expect("few"),
        };
        let value = self.value(n);
        (value.clone(), Append { key: Some(key), ..batch(self.log, count, &value) })
    }

    /// Gets all its batches through.
    pub(super) async fn run(self, world: Arc<World>) {
        let mut rng = world.rng(u64::from(self.id));
        let (mut next, mut attempt) = (0, 0);
        let mut last = world.sequencer(self.log);
        while next < self.batches {
            sleep(Duration::from_millis(rng.random_range(0..=self.max_pause_ms))).await;
            attempt += 1;
            // What a gateway knows may be old.
            let target = match rng.random_range(0..10) {
                0 => last,
                _ => world.sequencer(self.log),
            };
            last = target;
            let burst = rng.random_range(1..=self.in_flight).min(self.batches - next);
            let Some((logs, _)) = world.reach(target) else {
                self.complain(&world, target, &mut rng).await;
                continue;
            };
            let tickets: Vec<_> = (next..next + burst)
                .map(|n| {
                    let (value, append) = self.append(n, attempt);
                    (n, value, logs.append(append))
                })
                .collect();
            drop(logs);
            let mut failure = None;
            for (n, value, ticket) in tickets {
                let patience = if failure.is_some() { PATIENCE / 3 } else { PATIENCE };
                let answer = timeout(patience, ticket).await;
                match answer {
                    Ok(Ok(appended)) => {
                        let at = appended.base_offset;
                        world.note(format_args!("ack {} {value} at {at} by {target}", self.log));
                        world.count("acks", 1);
                        world.oracle.acked(self.log, at, &value);
                        // A retry after silence may be answered where the first was not.
                        let is_overtaking = failure.as_ref().is_some_and(|error| {
                            !matches!(error, None | Some(AppendError::Unknown))
                        });
                        if self.is_keyed && is_overtaking {
                            let what = format!(
                                "{} {value} overtook what was refused: {failure:?}",
                                self.log
                            );
                            world.oracle.fail(what);
                        }
                        if failure.is_none() {
                            next = n + 1;
                        }
                    }
                    Ok(Err(AppendError::DuplicateSequence)) => {
                        world.note(format_args!("old {} {value}", self.log));
                        if failure.is_none() {
                            next = n + 1;
                        }
                    }
                    Ok(Err(error)) => {
                        world.note(format_args!("error {} {value} by {target}: {error}", self.log));
                        failure.get_or_insert(Some(error));
                    }
                    Err(_) => {
                        world.note(format_args!("silence {} {value} by {target}", self.log));
                        failure.get_or_insert(None);
                    }
                }
            }
            match failure {
                None => {}
                Some(None | Some(AppendError::JournalFailed | AppendError::Unknown)) => {
                    self.complain(&world, target, &mut rng).await;
                }
                Some(Some(_)) => sleep(Duration::from_millis(rng.random_range(10..=150))).await,
            }
        }
        world.note(format_args!("producer {} is done", self.id));
    }

    /// The sequencer doesn't answer: another replica is asked to close its segment.
    async fn complain(&self, world: &Arc<World>, about: NodeId, rng: &mut StdRng) {
        let head = world.chains.record(self.log).head;
        if head.sequencer.node == about && head.replicas.len() > 1 {
            let others: Vec<_> = head.replicas.iter().filter(|node| **node != about).collect();
            let by = *others[rng.random_range(0..others.len())];
            if let Some((logs, _)) = world.reach(by) {
                let recovered = timeout(RECOVERY, logs.recover(self.log, head.epoch)).await;
                let (log, epoch) = (self.log, head.epoch);
                world.note(format_args!("recover {log} {epoch} at {by}: {recovered:?}"));
            }
        }
        sleep(Duration::from_millis(rng.random_range(10..=200))).await;
    }
}

/// Reads a log from its start, and follows it wherever it goes.
pub(super) async fn follow(world: Arc<World>, log: LogId, actor: u64) {
    let mut rng = world.rng(actor);
    let mut offset = 0;
    while !world.is_over.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(rng.random_range(20..=400))).await;
        let node = match rng.random_range(0..4) {
            0 => {
                let live = world.live();
                let Some(last) = live.len().checked_sub(1) else { continue };
                live[rng.random_range(0..=last)]
            }
            _ => world.sequencer(log),
        };
        let _ = timeout(PATIENCE, read_once(&world, log, node, &mut offset)).await;
    }
}

async fn read_once(world: &Arc<World>, log: LogId, node: NodeId, offset: &mut Offset) -> bool {
    let Some((logs, life)) = world.reach(node) else { return false };
    let outcome = logs.read(read(log, *offset)).await;
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => {
            // All that was there may be lost, of a log that isn't durable.
            if let ReadError::OutOfRange { start, .. } = error {
                *offset = start.max(*offset);
            }
            // A sequencer that was cut off may know less.
            if !matches!(error, ReadError::NotSequencer | ReadError::OutOfRange { .. }) {
                world.note(format_args!("read {log} {offset} at {node}: {error}"));
            }
            return false;
        }
    };
    world.oracle.bounds(log, node, life, outcome.bounds.committed);
    for batch in &outcome.batches {
        world.oracle.read(log, batch.base_offset, &text(&batch.bytes));
        if batch.base_offset + u64::from(batch.count) > outcome.bounds.committed {
            world.oracle.fail(format!("I1: {log} read past what is committed"));
        }
    }
    let is_end = outcome.next_offset == *offset && *offset == outcome.bounds.committed;
    *offset = outcome.next_offset.max(*offset);
    is_end
}

/// All of a log, once nothing fails any more. `None`: it can't be read.
pub(super) async fn read_all(world: &Arc<World>, log: LogId) -> Option<Vec<(Offset, u32, String)>> {
    for _ in 0..100 {
        sleep(Duration::from_millis(200)).await;
        let Some((logs, _)) = world.reach(world.sequencer(log)) else { continue };
        let mut all = Vec::new();
        let Ok(Ok(bounds)) = timeout(PATIENCE, logs.bounds(log)).await else { continue };
        let mut offset = bounds.start;
        loop {
            let outcome = match timeout(PATIENCE, logs.read(read(log, offset))).await {
                Ok(Ok(outcome)) => outcome,
                error => {
                    world.note(format_args!("read all {log} at {offset}: {error:?}"));
                    break;
                }
            };
            for batch in &outcome.batches {
                let value = text(&batch.bytes);
                world.oracle.read(log, batch.base_offset, &value);
                all.push((batch.base_offset, batch.count, value));
            }
            if outcome.batches.is_empty() && offset == outcome.next_offset {
                return Some(all);
            }
            offset = outcome.next_offset;
        }
    }
    None
}
