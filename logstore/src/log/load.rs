//! Bringing a log into memory.

use std::sync::Arc;

use super::append::Effects;
use super::open::{Opened, open_next};
use super::outbox::Event;
use super::registry::LogRecord;
use super::service::Inner;
use super::state::{Active, Phase, Ready, SharedLog, Writer, segment};
use super::{recover, recovering, retain};
use crate::AppendError;
use crate::core::chain::Chain;
use crate::core::closing::Finish;

/// Why a log couldn't be loaded.
enum LoadError {
    /// Meta has no such log (any more).
    Gone,
    /// Another node is its sequencer.
    Elsewhere,
    /// The reason; the next one who asks tries again.
    Failed(String),
}

/// Reads the log from meta and looks at what the disk has of it, then lets in who waited.
pub(super) async fn load(inner: Arc<Inner>, log: SharedLog) {
    match load_ready(&inner, &log).await {
        Ok(ready) => {
            let has_short = ready.chain.has_short();
            let mut effects = Effects::default();
            let outcome = {
                let mut state = log.state.lock();
                let outcome = state.go_to(Phase::Ready(Box::new(ready)));
                if outcome.is_ok() {
                    state.begin_segment(&inner, &log, &mut effects);
                }
                outcome
            };
            effects.run(&inner, &log);
            match outcome {
                Ok(_) => {
                    inner.forget_found(log.id);
                    if has_short {
                        inner.mending.heal_soon();
                    }
                    log.resume(&inner);
                }
                // Deleted since it was read from meta: now it is known what there is to drop.
                Err(Phase::Ready(ready)) => retain::drop_all(&inner, log.id, &ready.epochs()),
                Err(_) => {}
            }
        }
        Err(LoadError::Gone) => inner.remove(&log),
        Err(LoadError::Elsewhere) => {
            {
                let mut state = log.state.lock();
                let _ = state.go_to(Phase::Elsewhere);
                state.tell(Event::Moved);
            }
            log.call_observers();
            log.refuse_waiting(&inner, &AppendError::NotSequencer);
            log.changed.notify_waiters();
        }
        Err(LoadError::Failed(reason)) => {
            tracing::warn!(log = %log.id, reason, "could not load a log");
            let _ = log.state.lock().go_to(Phase::Unloaded(reason));
            log.refuse_waiting(&inner, &AppendError::Stopped("the log could not be loaded".into()));
            log.changed.notify_waiters();
        }
    }
}

async fn load_ready(inner: &Arc<Inner>, log: &SharedLog) -> Result<Ready, LoadError> {
    let id = log.id;
    let failed = |reason: String| LoadError::Failed(reason);
    loop {
        let record = inner.record(id).await.map_err(|error| failed(error.0))?;
        let Some(record) = record else { return Err(LoadError::Gone) };
        let open = record.open();
        let LogRecord { head, closed, trim, policy, factor } = record;
        // What is not on this disk may be on another node's: it isn't lost, and nothing may be
        // opened behind it here.
        if head.sequencer.node != inner.me().node {
            return Err(LoadError::Elsewhere);
        }
        let chain = Chain::new(closed, open).map_err(|error| failed(error.to_string()))?;
        let found = inner.found_epochs(id);
        let superseded: Vec<_> =
            found.into_iter().filter(|epoch| !chain.contains(*epoch)).collect();
        let is_fresh =
            head.sequencer == inner.me() && inner.store.segment(segment(id, open.epoch)).is_none();
        let is_alone = head.replicas.len() == 1;
        let durability = head.durability;
        let replicas = head.replicas.clone();
        let writer = if is_fresh && !(is_alone && inner.store.may_lack_segments()) {
            let limits = inner.producer_limits();
            let producers = recover::replicated_producers(inner, id, &chain, &superseded, &limits)
                .await
                .map_err(|error| failed(error.to_string()))?;
            Writer::Active(Box::new(Active::new(inner, id, head, producers)))
        } else if is_alone {
            let recovered = recover::examine(inner, id, &open, durability)
                .await
                .map_err(|error| failed(error.to_string()))?;
            Writer::Recovered(recovered)
        } else {
            // Another life was its sequencer. How far it came only its replicas know together.
            match recovering::recover(inner, log, open.epoch, factor, Some(head), None).await {
                Ok(Finish::Gone) => return Err(LoadError::Gone),
                Ok(Finish::Won(_) | Finish::Lost(_)) => continue,
                Err(error) => return Err(failed(error.to_string())),
            }
        };
        let mut ready =
            Ready { chain, trim, durability, policy, factor, replicas, superseded, writer };
        // Offsets that a reader may have seen are past the recovered end: nobody may be served
        // before the next base is past them.
        if let Writer::Recovered(recovered) = &ready.writer
            && recovered.is_lossy
        {
            let recovered = *recovered;
            match open_next(inner, id, &ready, &recovered).await {
                Ok(Opened::Segment(opened)) => ready.opened(inner, id, *opened).map_err(failed)?,
                Ok(Opened::Lost) => continue,
                Ok(Opened::NoSuchLog) => return Err(LoadError::Gone),
                Err(error) => return Err(LoadError::Failed(error)),
            }
        }
        return Ok(ready);
    }
}
