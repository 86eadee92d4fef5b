//! Bringing a log into memory.

use std::sync::Arc;

use interflow_meta::LogId;

use super::open::{Opened, open_next};
use super::registry::LogRecord;
use super::service::Inner;
use super::state::{Active, Phase, Ready, SharedLog, Writer};
use super::{recover, retain};
use crate::AppendError;
use crate::core::chain::Chain;

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
    match load_ready(&inner, log.id).await {
        Ok(ready) => {
            let outcome = log.state.lock().go_to(Phase::Ready(Box::new(ready)));
            match outcome {
                Ok(_) => {
                    inner.forget_found(log.id);
                    log.resume(&inner);
                }
                // Deleted since it was read from meta: now it is known what there is to drop.
                Err(Phase::Ready(ready)) => retain::drop_all(&inner, log.id, &ready.epochs()),
                Err(_) => {}
            }
        }
        Err(LoadError::Gone) => inner.remove(&log),
        Err(LoadError::Elsewhere) => {
            let _ = log.state.lock().go_to(Phase::Elsewhere);
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

async fn load_ready(inner: &Arc<Inner>, log: LogId) -> Result<Ready, LoadError> {
    let failed = |reason: String| LoadError::Failed(reason);
    loop {
        let record = inner.registry.load(log).await.map_err(|error| failed(error.0))?;
        let Some(record) = record else { return Err(LoadError::Gone) };
        let LogRecord { open, sequencer, closed, trim, durability, policy } = record;
        // What is not on this disk may be on another node's: it isn't lost, and nothing may be
        // opened behind it here.
        if sequencer.0 != inner.me().0 {
            return Err(LoadError::Elsewhere);
        }
        let chain = Chain::new(closed, open).map_err(|error| failed(error.to_string()))?;
        let found = inner.found_epochs(log);
        let superseded: Vec<_> =
            found.into_iter().filter(|epoch| !chain.contains(*epoch)).collect();
        let is_new = sequencer == inner.me()
            && open.base == 0
            && chain.closed().len() == 0
            && inner.store.segment(super::state::segment(log, open.epoch)).is_none();
        let writer = if is_new {
            Writer::Active(Box::new(Active::new(inner, &open, durability, Default::default())))
        } else {
            let recovered = recover::examine(inner, log, &open, durability)
                .await
                .map_err(|error| failed(error.to_string()))?;
            Writer::Recovered(recovered)
        };
        let mut ready = Ready { chain, trim, durability, policy, superseded, writer };
        // Offsets that a reader may have seen are past the recovered end: nobody may be served
        // before the next base is past them.
        if let Writer::Recovered(recovered) = &ready.writer
            && recovered.is_lossy
        {
            let recovered = *recovered;
            match open_next(inner, log, &ready, &recovered).await {
                Ok(Opened::Segment(opened)) => ready.opened(inner, log, *opened).map_err(failed)?,
                Ok(Opened::Lost) => continue,
                Ok(Opened::NoSuchLog) => return Err(LoadError::Gone),
                Err(error) => return Err(LoadError::Failed(error)),
            }
        }
        return Ok(ready);
    }
}
