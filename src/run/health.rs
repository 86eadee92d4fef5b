//! How the process is, for the admin port.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use interflow_gateway::admin::Health;
use interflow_logstore::{Health as LogHealth, LogStore};
use interflow_meta::Store;

/// What can fail in the process.
pub(super) struct State {
    log: Option<LogStore>,
    meta: Arc<dyn Store>,
    is_ready: AtomicBool,
}

impl State {
    /// Not ready yet.
    pub(super) fn new(log: Option<LogStore>, meta: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { log, meta, is_ready: AtomicBool::new(false) })
    }

    pub(super) fn set_ready(&self, is_ready: bool) {
        self.is_ready.store(is_ready, Ordering::Relaxed);
    }
}

impl Health for State {
    fn failure(&self) -> Option<String> {
        if let Some(LogHealth::Failed(reason)) = self.log.as_ref().map(LogStore::health) {
            return Some(format!("the journal failed: {reason}"));
        }
        self.meta.failure().map(|reason| format!("the metadata store failed: {reason}"))
    }

    fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }
}
