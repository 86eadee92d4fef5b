//! Whether a log is still this node's when somebody asks for it.
//!
//! A sequencer that stood still, or was cut off, may not have heard that others have gone on without
//! it: it has nothing to send that would be refused. What it would say then is old, and a reader that
//! was further on would be told that the log ends before that. So who asks makes it look into meta, if
//! its replicas haven't followed it for a while. Without meta it says what it knows.

use std::sync::Arc;
use std::time::Duration;

use interflow_meta::LogId;

use super::service::Inner;
use super::state::{Active, Log, SharedLog, Stage};
use crate::LogError;

/// What its replicas or meta have confirmed holds for so long: others don't go on with a log before
/// it has been silent for as long.
const CONFIRMED_MS: u64 = 3_000;
/// Meta is waited for no longer, and nor is the end of a segment that others have closed.
const PATIENCE: Duration = Duration::from_millis(500);

enum Standing {
    Current,
    /// Nobody has confirmed it lately.
    Old,
    /// Others close its segment.
    Stopped,
}

impl Active {
    /// Replicas follow it, or meta names it.
    pub(super) fn confirm(&mut self, inner: &Inner) {
        self.confirmed_ms = inner.clock.monotonic_ms();
    }
}

impl Log {
    fn standing(&self, inner: &Inner) -> Standing {
        match self.state.lock().active_mut() {
            Some(active) if active.stage == Stage::Stopped => Standing::Stopped,
            // With no other replica there is nobody who could go on.
            Some(active) if !active.links.is_empty() => {
                let now_ms = inner.clock.monotonic_ms();
                match now_ms.saturating_sub(active.confirmed_ms) > CONFIRMED_MS {
                    true => Standing::Old,
                    false => Standing::Current,
                }
            }
            _ => Standing::Current,
        }
    }
}

impl Inner {
    /// The log, loaded, of which this node is the sequencer.
    ///
    /// # Errors
    /// It is another's, there is none, or meta can't be read that would have to be.
    pub(super) async fn current(self: &Arc<Self>, id: LogId) -> Result<SharedLog, LogError> {
        let log = self.ready(id).await?;
        match log.standing(self) {
            Standing::Current => return Ok(log),
            Standing::Stopped => {}
            Standing::Old => match tokio::time::timeout(PATIENCE, self.head(id)).await {
                Ok(Ok(Some(head))) => log.hear_of_head(self, head.epoch),
                Ok(Ok(None)) => {
                    self.remove(&log);
                    return Err(LogError::NoSuchLog);
                }
                Ok(Err(_)) | Err(_) => {}
            },
        }
        // It is asked again after as long: one that stays as it is would ask for each read.
        if let Some(active) = log.state.lock().active_mut()
            && active.stage != Stage::Stopped
        {
            active.confirm(self);
        }
        let _ = tokio::time::timeout(PATIENCE, self.settled(&log)).await;
        self.ready(id).await
    }

    /// Waits until a segment that others close is closed, and the log read again.
    async fn settled(&self, log: &SharedLog) {
        loop {
            let changed = log.changed.notified();
            if !matches!(log.standing(self), Standing::Stopped) {
                return;
            }
            changed.await;
        }
    }
}
