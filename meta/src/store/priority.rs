//! A store that tells requests from background work, for tests of what gives way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;

use super::{Snapshot, Store};
use crate::error::MetaError;

/// Another store, whose transactions are counted by their priority; those in the background are
/// held up as told, as a busy cluster does.
#[derive(Clone, Debug)]
pub struct PriorityStore {
    inner: Arc<dyn Store>,
    is_background: bool,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU64,
    background: AtomicU64,
    is_held_up: AtomicBool,
}

impl PriorityStore {
    /// Holds up nothing before it is told to.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, is_background: false, shared: Arc::default() }
    }

    /// Transactions since the last call: those of requests, and those in the background.
    pub fn take_counts(&self) -> (u64, u64) {
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        (take(&self.shared.requests), take(&self.shared.background))
    }

    /// From now on transactions in the background are refused, or taken again.
    pub fn hold_up(&self, is_held_up: bool) {
        self.shared.is_held_up.store(is_held_up, Ordering::Relaxed);
    }
}

#[async_trait]
impl Store for PriorityStore {
    async fn snapshot(&self) -> Result<Arc<dyn Snapshot>, MetaError> {
        let count =
            if self.is_background { &self.shared.background } else { &self.shared.requests };
        count.fetch_add(1, Ordering::Relaxed);
        if self.is_background && self.shared.is_held_up.load(Ordering::Relaxed) {
            return Err(MetaError::Unavailable("background work is held up".to_owned()));
        }
        self.inner.snapshot().await
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    fn background(&self) -> Option<Arc<dyn Store>> {
        Some(Arc::new(Self { is_background: true, ..self.clone() }))
    }

    fn failure(&self) -> Option<String> {
        self.inner.failure()
    }
}
