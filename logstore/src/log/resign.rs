//! What a sequencer does when its segment is closed by others: it takes no more, waits to read
//! where the segment ended, and answers its appenders by that (I1, I2).

use std::sync::Arc;
use std::time::Duration;

use super::append::Effects;
use super::recovering;
use super::service::Inner;
use super::state::{SharedLog, Stage};
use crate::AppendError;
use crate::core::segment::Head;
use crate::store::{SegmentId, StoreError};

/// Meta is read again after so long, at first …
const FIRST_LOOK: Duration = Duration::from_millis(20);
/// … and at last.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Makes this node's sequencer of the segment, if there is one, a sealed replica's: it has stopped
/// and nothing of it is in flight when this returns.
///
/// # Errors
/// The journal failed.
pub(super) async fn resign(inner: &Arc<Inner>, id: SegmentId) -> Result<(), StoreError> {
    let Some(log) = inner.known(id.log) else { return Ok(()) };
    loop {
        let changed = log.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let mut effects = Effects::default();
        let is_over = {
            let mut state = log.state.lock();
            let Some(active) = state.active_mut().filter(|active| active.head.epoch == id.epoch)
            else {
                return Ok(());
            };
            let is_over = !active.replication.sequencer().is_journaling();
            match active.stage {
                // A close of its own is being written: nothing is in flight, and if another one
                // is quicker the log is read again.
                Stage::Closing => {}
                Stage::Open | Stage::Draining | Stage::Stopped => {
                    active.stop(inner, &mut effects);
                }
            }
            if is_over {
                let end = active.replication.sequencer().next();
                let last_snapshot = active.replication.last_snapshot();
                let base = active.head.base;
                inner.replicas.resign(id, base, end, last_snapshot, inner.rules);
            }
            is_over
        };
        effects.run(inner, &log);
        if is_over {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = changed => {}
            () = inner.progress.failed_for_good() => {
                return Err(StoreError::Failed("the journal failed".to_owned()));
            }
        }
    }
}

/// Closes a segment of this node's whose quorum is gone, with the replicas that answer, until it is
/// closed.
pub(super) async fn recover_own(inner: Arc<Inner>, log: SharedLog) {
    let found = {
        let mut state = log.state.lock();
        let factor = state.ready().map(|ready| ready.factor);
        factor.zip(state.active_mut().map(|active| active.head.epoch))
    };
    let Some((factor, epoch)) = found else { return };
    tracing::debug!(log = %log.id, "too few replicas answer: closing the segment with those that do");
    inner.mending.is_stuck();
    let mut pause = FIRST_LOOK;
    loop {
        match recovering::recover(&inner, &log, epoch, factor, None, None).await {
            Ok(_) => return,
            Err(error) => tracing::debug!(log = %log.id, %error, "not closed yet"),
        }
        tokio::select! {
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LAST_LOOK);
    }
}

/// Reads meta until the stopped segment of the log is closed there, answers who waited for it, and
/// has the log read again.
pub(super) async fn learn(inner: Arc<Inner>, log: SharedLog) {
    let mut pause = FIRST_LOOK;
    let (epoch, base, factor) = {
        let mut state = log.state.lock();
        let Some(ready) = state.ready_mut() else { return };
        let factor = ready.factor;
        let Some(active) = ready.active_mut() else { return };
        (active.head.epoch, active.head.base, factor)
    };
    loop {
        match inner.registry.head(log.id).await {
            Ok(Some(Head { epoch: now, .. })) if now > epoch => break,
            Ok(None) => return inner.remove(&log),
            // Whoever sealed it may be gone: anyone can close it. Nobody may have, where the journal failed.
            Ok(Some(_)) if pause == LAST_LOOK || inner.progress.failure().is_some() => {
                let closed = recovering::recover(&inner, &log, epoch, factor, None, None).await;
                match closed {
                    Ok(_) => continue,
                    Err(error) => {
                        tracing::debug!(log = %log.id, %error, "a sealed segment stays open");
                    }
                }
            }
            Ok(Some(_)) => {}
            Err(error) => tracing::debug!(log = %log.id, %error, "waiting for meta"),
        }
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LAST_LOOK);
    }
    let end = loop {
        match inner.registry.load(log.id).await {
            Ok(Some(record)) => {
                let mut closed = record.closed.iter();
                // A segment without offsets leaves no trace; nor does one that was trimmed.
                break match closed.find(|closed| closed.epoch == epoch) {
                    // What is on too few nodes isn't acknowledged; who comes again is told when that
                    // is repaired.
                    Some(closed) => (!closed.is_short).then_some(closed.end),
                    None => (record.trim <= base).then_some(base),
                };
            }
            Ok(None) => return inner.remove(&log),
            Err(error) => tracing::debug!(log = %log.id, %error, "waiting for meta"),
        }
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    };
    let mut effects = Effects::default();
    {
        let mut state = log.state.lock();
        let start = state.ready().map_or(0, |ready| ready.start());
        let is_it = state.active_mut().is_some_and(|active| active.head.epoch == epoch);
        if is_it {
            if let (Some(active), Some(end)) = (state.active_mut(), end) {
                active.replication.closed_at(end);
            }
            state.settle(&inner, start, &mut effects);
            if let Some(active) = state.active_mut() {
                let refusal = match end {
                    // It isn't in the log, and never will be.
                    Some(_) => AppendError::NotSequencer,
                    None => AppendError::Unknown,
                };
                for reply in active.replication.abandon() {
                    effects.refuse(reply, refusal.clone());
                }
            }
        }
        effects.calls = state.wants_calls();
    }
    effects.run(&inner, &log);
    inner.reload(&log);
}
