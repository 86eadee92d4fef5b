//! Retention: segments that may go are taken out of the chain in meta, then off the disk.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use interflow_meta::logs::Policy;
use interflow_meta::{Epoch, LogId, Offset};

use super::metrics::add;
use super::registry::{HEADS, LogRecord, Registry, newest_ms};
use super::service::Inner;
use super::state::{Log, Ready, SharedLog, Writer, segment};
use crate::LogError;
use crate::core::retention::{RetentionPolicy, expected_life, removable};

/// What a look at a log found to do.
struct Plan {
    /// The log is to begin here.
    start: Option<Offset>,
    /// The open segment has had its time, or segments can go only when the next one was opened.
    is_to_roll: bool,
}

/// Other nodes' logs are asked for in one of so many passes, each time some of them: few were deleted.
const TURNS: u64 = 10;

/// Which logs of other nodes a pass looks at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Others {
    All,
    /// Those whose turn it is.
    Turn(u64),
}

impl Others {
    fn has(self, log: LogId) -> bool {
        match self {
            Self::All => true,
            Self::Turn(turn) => log.0 % TURNS == turn % TURNS,
        }
    }
}

/// Looks at all logs, one after the other, until the service stops: once at the start, which
/// loads what is on the disk and drops what meta doesn't know, then at each interval.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut others = Others::All;
    for turn in 0.. {
        pass(&inner, others).await;
        others = Others::Turn(turn);
        let interval = tokio::time::sleep(inner.config.retention_interval);
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = interval => {}
        }
    }
}

/// One look at all logs. What it does in meta gives way to others, until it had to for too long: the
/// disk doesn't wait. Reading a log doesn't, for appends may come to wait for that.
pub(super) async fn pass(inner: &Arc<Inner>, others: Others) {
    let mut registry = &inner.upkeep;
    let here = inner.logs_here();
    let ids = here.keys().copied().filter(|id| others.has(*id) || is_ready(inner, *id));
    let ids: Vec<_> = ids.collect();
    for page in ids.chunks(HEADS) {
        let mut lives = Vec::with_capacity(page.len());
        for id in own(inner, page, &here).await {
            if inner.stop.is_cancelled() {
                return;
            }
            // Deleted: its segments went with it. Not readable now: the next pass looks again.
            let Ok(log) = inner.ready(id).await else { continue };
            lives.extend(log.state.lock().ready().map(|ready| (id, Some(ready.life(inner)))));
            let mut done = retain(inner, &**registry, &log).await;
            if matches!(done, Err(LogError::Meta(_))) && Arc::ptr_eq(registry, &inner.upkeep) {
                registry = &inner.registry;
                done = retain(inner, &**registry, &log).await;
            }
            if let Err(error) = done {
                tracing::warn!(log = %id, %error, "retention failed; it is tried again");
            }
        }
        // Not of those that were deleted meanwhile.
        lives.retain(|(id, _)| inner.known(*id).is_some());
        inner.store.expect_lives(&lives);
    }
}

fn is_ready(inner: &Inner, id: LogId) -> bool {
    inner.known(id).is_some_and(|log| log.is_ready())
}

/// Those of `ids` whose sequencer this node is. What is here of logs that were deleted is dropped.
async fn own(inner: &Arc<Inner>, ids: &[LogId], here: &BTreeMap<LogId, Vec<Epoch>>) -> Vec<LogId> {
    let (mut own, others): (Vec<_>, Vec<_>) =
        ids.iter().copied().partition(|id| is_ready(inner, *id));
    if others.is_empty() {
        return own;
    }
    for (id, head) in others.iter().zip(inner.upkeep.heads(&others).await) {
        match head {
            Ok(Some(head)) if head.sequencer.node == inner.me().node => own.push(*id),
            // It is read from meta then, and how long it lives is known.
            Ok(Some(_)) if !inner.store.knows_life(*id) => inner.mending.look_later(*id),
            Ok(Some(_)) => {}
            Ok(None) => inner.drop_deleted(*id, here.get(id).map_or(&[], Vec::as_slice)),
            Err(error) => tracing::debug!(log = %id, %error, "a log can't be looked at now"),
        }
    }
    own
}

/// Drops what may go of one log.
async fn retain(
    inner: &Arc<Inner>,
    registry: &dyn Registry,
    log: &SharedLog,
) -> Result<(), LogError> {
    let Some(plan) = log.state.lock().ready().map(|ready| ready.plan_retention(inner)) else {
        return Ok(());
    };
    if let Some(start) = plan.start {
        trim(registry, log, start).await?;
    }
    drop_superseded(inner, log);
    if plan.is_to_roll {
        log.begin_roll(inner);
    }
    Ok(())
}

/// Makes `before` the log's start, in meta and then here.
pub(super) async fn trim(
    registry: &dyn Registry,
    log: &SharedLog,
    before: Offset,
) -> Result<(), LogError> {
    let trim = registry
        .trim(log.id, before)
        .await
        .map_err(|error| LogError::Meta(error.0))?
        .ok_or(LogError::NoSuchLog)?;
    log.raise_trim(trim);
    Ok(())
}

/// Takes off the disk what the chain doesn't have any more, if nothing else needs it.
pub(super) fn drop_superseded(inner: &Inner, log: &SharedLog) {
    let gone = {
        let mut state = log.state.lock();
        match state.ready_mut() {
            Some(ready) if ready.producers_are_in_the_open_segment(inner) => {
                std::mem::take(&mut ready.superseded)
            }
            _ => return,
        }
    };
    drop_all(inner, log.id, &gone);
}

impl Log {
    /// The log's start is `trim` now, at least.
    pub(super) fn raise_trim(&self, trim: Offset) {
        {
            let mut state = self.state.lock();
            let Some(ready) = state.ready_mut() else { return };
            if trim <= ready.trim {
                return;
            }
            ready.trim = trim;
            let gone = ready.chain.drop_below(trim);
            ready.superseded.extend(gone);
            state.tell_bounds();
        }
        self.call_observers();
    }
}

/// Takes segments off the disk.
pub(super) fn drop_all(inner: &Inner, log: LogId, epochs: &[Epoch]) {
    for epoch in epochs {
        inner.store.drop_segment(segment(log, *epoch));
    }
    add(&inner.metrics.dropped_segments, epochs.len() as u64);
}

fn policy(policy: &Policy) -> RetentionPolicy {
    RetentionPolicy { max_age_ms: policy.retention_ms, max_bytes: policy.retention_bytes }
}

/// How long segments of a log of which meta has this are likely to be kept.
pub(super) fn life(record: &LogRecord, now_ms: i64) -> Duration {
    expected_life(record.closed.iter(), 0, &policy(&record.policy), now_ms)
}

impl Ready {
    fn life(&self, inner: &Inner) -> Duration {
        let policy = policy(&self.policy);
        expected_life(self.chain.closed(), self.open_bytes(), &policy, inner.clock.wall_ms())
    }

    fn plan_retention(&self, inner: &Inner) -> Plan {
        let now_ms = inner.clock.wall_ms();
        let policy = policy(&self.policy);
        let start = removable(&self.chain, self.open_bytes(), self.trim, &policy, now_ms);
        // What a restart found as open gets no snapshot any more; the next one does.
        let waits_for_a_snapshot = !self.superseded.is_empty()
            && matches!(self.writer, Writer::Recovered(_))
            && !self.producers_are_in_the_open_segment(inner);
        Plan {
            start,
            is_to_roll: waits_for_a_snapshot || self.open_is_older_than(policy.max_age_ms, now_ms),
        }
    }

    /// Whether the open segment's newest record is older than the policy keeps.
    fn open_is_older_than(&self, max_age_ms: Option<u64>, now_ms: i64) -> bool {
        let Some(max_age_ms) = max_age_ms else { return false };
        let newest = match &self.writer {
            Writer::Active(active) if active.fill.offsets > 0 => {
                newest_ms(active.max_timestamp, active.last_append_ms)
            }
            Writer::Recovered(recovered) if recovered.end > self.chain.open().base => {
                newest_ms(recovered.max_timestamp, now_ms)
            }
            Writer::Active(_) | Writer::Recovered(_) => return false,
        };
        now_ms.saturating_sub(newest) > i64::try_from(max_age_ms).unwrap_or(i64::MAX)
    }

    /// Whether older segments can go without anything being forgotten of the producers.
    fn producers_are_in_the_open_segment(&self, inner: &Inner) -> bool {
        match &self.writer {
            Writer::Active(active) => match active.snapshot.position {
                Some(position) => {
                    inner.progress.durable_position().is_some_and(|durable| durable >= position)
                }
                None => {
                    active.replication.sequencer().producers().is_empty() || !active.snapshot.is_due
                }
            },
            // A segment with entries began with a snapshot, if there was anyone to put into it.
            Writer::Recovered(recovered) => recovered.end > self.chain.open().base,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_log_of_others_has_its_turn_once_in_a_round() {
        for log in (0..100).map(LogId) {
            for begin in [0, 7, u64::MAX - 20] {
                let turns = (begin..begin + TURNS).filter(|turn| Others::Turn(*turn).has(log));
                assert_eq!(turns.count(), 1);
            }
            assert!(Others::All.has(log));
        }
    }
}
