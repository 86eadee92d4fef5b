//! The topics as this process knows them.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use uuid::Uuid;

use super::snapshot::{Snapshot, Topic};

/// The directory of topics. Look-ups never wait; what another process changed shows a moment
/// later, what was changed through this one at once.
#[derive(Debug)]
pub struct Topics {
    current: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
}

impl Topics {
    /// A directory of fixed topics, for tests of what reads it.
    pub fn fixed(topics: impl IntoIterator<Item = Topic>) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(Snapshot::new(topics)),
            version: watch::Sender::new(0),
        })
    }

    /// All topics at this moment.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// The topic of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.current.load().get(name).cloned()
    }

    /// The topic of that id.
    pub fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.current.load().by_id(id).cloned()
    }

    /// All topics, by name.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        self.current.load().all().to_vec()
    }

    /// Tells of each change: take a new [`snapshot`](Topics::snapshot) then.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }
}
