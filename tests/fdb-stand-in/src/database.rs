//! Databases: a cluster, the options of its transactions, and a bound of watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use interflow_meta::MAX_TRANSACTION_BYTES;
use parking_lot::Mutex;

use crate::cluster::Cluster;
use crate::error::{Code, TOO_MANY_WATCHES};

/// Options of a transaction; a database has the defaults.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) is_ryw_disabled: bool,
    pub(crate) is_batch: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retry_limit: Option<u32>,
    pub(crate) max_retry_delay: Duration,
    pub(crate) size_limit: usize,
}

/// A handle on a cluster.
pub(crate) struct Database {
    /// An error shows at the first use.
    pub(crate) cluster: Result<Arc<Cluster>, Code>,
    pub(crate) defaults: Mutex<Options>,
    pub(crate) max_watches: AtomicUsize,
    watches: AtomicUsize,
}

impl Database {
    pub(crate) fn new(cluster: Result<Arc<Cluster>, Code>) -> Self {
        let defaults = Options {
            is_ryw_disabled: false,
            is_batch: false,
            timeout: None,
            retry_limit: None,
            max_retry_delay: Duration::from_secs(1),
            size_limit: MAX_TRANSACTION_BYTES,
        };
        Self {
            cluster,
            defaults: Mutex::new(defaults),
            max_watches: AtomicUsize::new(10_000),
            watches: AtomicUsize::new(0),
        }
    }
}

/// A place below the bound of watches.
pub(crate) struct WatchPlace(Arc<Database>);

impl WatchPlace {
    pub(crate) fn take(database: &Arc<Database>) -> Result<Self, Code> {
        let place = Self(Arc::clone(database));
        let before = database.watches.fetch_add(1, Ordering::Relaxed);
        if before >= database.max_watches.load(Ordering::Relaxed) {
            return Err(TOO_MANY_WATCHES);
        }
        Ok(place)
    }
}

impl Drop for WatchPlace {
    fn drop(&mut self) {
        self.0.watches.fetch_sub(1, Ordering::Relaxed);
    }
}
