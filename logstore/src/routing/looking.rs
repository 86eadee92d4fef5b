//! The search for the route of a log: one at a time, by whichever append or doubt comes first.

use std::sync::Arc;
use std::time::Duration;

use interflow_meta::grpc::Backoff;
use interflow_meta::{LogId, NodeId};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::directory::RouteError;
use super::routes::{Client, Doubted};
use super::{Inner, closed};
use crate::Doubt;

/// The pause before a search that follows on others, with doubts about the same node.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// A node that is the sequencer by meta, and says so often in a row that it isn't, is like one that
/// is down.
const MAX_REFUSALS: u32 = 5;

/// Why a route is looked for that was known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cause {
    node: NodeId,
    doubt: Doubt,
    /// In a row.
    doubts: u32,
}

/// How long to wait before looking, after so many doubts in a row.
fn pause(doubts: u32) -> Duration {
    let Some(doublings) = doubts.checked_sub(2) else { return Duration::ZERO };
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doublings)).min(MAX_PAUSE)
}

impl Inner {
    /// A node may not be the log's.
    pub(super) fn doubt(self: &Arc<Self>, node: NodeId, log: LogId, doubt: Doubt) {
        match self.routes.doubt(log, node) {
            Doubted::Look(doubts) => {
                tracing::debug!(%log, %node, ?doubt, "a log's node is looked for");
                self.look(log, Some(Cause { node, doubt, doubts }));
            }
            // Observations may still be at the node.
            Doubted::Elsewhere => self.followers.moved(log),
            Doubted::Nothing => {}
        }
    }

    /// Finds the route of a log that is being looked for, in a task.
    pub(super) fn look(self: &Arc<Self>, log: LogId, because: Option<Cause>) {
        let inner = Arc::clone(self);
        self.tasks.spawn(async move {
            let reason = Mutex::new("the log's node isn't found in time".to_owned());
            let looking = async {
                tokio::select! {
                    found = inner.find(log, because, &reason) => found,
                    never = inner.give_up_late(log, &reason) => match never {},
                }
            };
            match inner.closing.run_until_cancelled(looking).await {
                Some(Ok(Some(client))) => {
                    if inner.routes.found(log, &client) {
                        inner.followers.moved(log);
                    }
                }
                Some(Ok(None)) => {}
                Some(Err(error)) => {
                    inner.routes.not_found(log, &error);
                    inner.followers.moved(log);
                }
                None => inner.routes.not_found(log, &closed()),
            }
        });
    }

    /// The log's client; `None` when nobody waits for it any more.
    async fn find(
        &self,
        log: LogId,
        because: Option<Cause>,
        reason: &Mutex<String>,
    ) -> Result<Option<Client>, RouteError> {
        if let Some(Cause { doubts, .. }) = because {
            tokio::time::sleep(pause(doubts)).await;
        }
        let backoff = Backoff::default();
        loop {
            self.fail_over(log, because).await;
            match self.directory.client(log).await {
                Ok(client) => return Ok(Some(client)),
                Err(RouteError::NoSuchLog) => return Err(RouteError::NoSuchLog),
                Err(RouteError::Unavailable(why)) => *reason.lock() = why,
            }
            if self.routes.give_up_looking(log) {
                return Ok(None);
            }
            backoff.failed();
            backoff.ready().await;
        }
    }

    /// Asks other replicas to go on with the log, if the doubt is that its node can't.
    async fn fail_over(&self, log: LogId, because: Option<Cause>) {
        let Some(Cause { node, doubt, doubts }) = because else { return };
        if doubt == Doubt::NotSequencer && doubts < MAX_REFUSALS {
            return;
        }
        // Closed never.
        let Ok(_permit) = self.failovers.acquire().await else { return };
        if let Err(error) = self.directory.fail_over(log, node).await {
            tracing::debug!(%log, %node, %error, "a log waits for its node");
        }
    }

    /// Gives up appends of a log that is being looked for when they are late.
    async fn give_up_late(&self, log: LogId, reason: &Mutex<String>) -> std::convert::Infallible {
        loop {
            let now = Instant::now();
            let why = reason.lock().clone();
            // One that comes later is late later than this.
            let next = self.routes.give_up(log, now, &why);
            tokio::time::sleep_until(next.unwrap_or(now + self.append_timeout)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_doubt_is_looked_into_at_once_and_many_once_a_second() {
        let pauses = [0, 1, 2, 3, 8, 9, u32::MAX].map(|doubts| pause(doubts).as_millis());
        assert_eq!(pauses, [0, 0, 10, 20, 640, 1_000, 1_000]);
    }
}
