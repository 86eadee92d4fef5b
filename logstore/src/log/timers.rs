//! The timers that sequencers ask for, one a log, kept by one task.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use interflow_meta::LogId;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::service::Inner;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: Mutex<BTreeSet<(u64, LogId)>>,
    changed: Notify,
}

impl Timers {
    /// The log is to be looked at at `at_ms`, on the monotonic clock.
    pub(super) fn arm(&self, at_ms: u64, log: LogId) {
        let is_first = {
            let mut due = self.due.lock();
            let first = due.first().map(|(first, _)| *first);
            due.insert((at_ms, log));
            first.is_none_or(|first| at_ms < first)
        };
        if is_first {
            self.changed.notify_one();
        }
    }

    fn take_due(&self, now_ms: u64) -> (Vec<LogId>, Option<u64>) {
        let mut due = self.due.lock();
        let mut logs = Vec::new();
        while let Some((at_ms, log)) = due.first().copied()
            && at_ms <= now_ms
        {
            due.pop_first();
            logs.push(log);
        }
        (logs, due.first().map(|(at_ms, _)| *at_ms))
    }
}

/// Calls logs when their time has come, until the service stops.
pub(super) async fn run(inner: Arc<Inner>) {
    loop {
        let now_ms = inner.clock.monotonic_ms();
        let (logs, next_ms) = inner.timers.take_due(now_ms);
        for id in logs {
            if let Some(log) = inner.known(id) {
                log.tick(&inner);
            }
        }
        let wait = async {
            match next_ms {
                Some(at_ms) => {
                    let now_ms = inner.clock.monotonic_ms();
                    let left = Duration::from_millis(at_ms.saturating_sub(now_ms).max(1));
                    tokio::time::sleep(left).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.timers.changed.notified() => {}
            () = wait => {}
        }
    }
}
