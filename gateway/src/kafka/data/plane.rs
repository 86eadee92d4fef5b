//! What the data requests of all connections share.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use interflow_logstore::LogClient;

use super::fetch::{Feeds, Sessions};
use super::producer_id::ProducerIdSource;
use crate::topics::Topics;

/// The bounds of what data requests may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataLimits {
    /// Bytes of batches in one Fetch response, whatever its request says. (One batch comes even
    /// when it is larger.)
    pub fetch_max_bytes: usize,
    /// Fetch sessions (KIP-227).
    pub fetch_sessions: usize,
    /// Partitions in all fetch sessions together, about 300 bytes each.
    pub fetch_session_partitions: usize,
    /// The most that a compressed batch may come to when a look-up by time has to read it, bytes.
    pub decompressed_max_bytes: usize,
}

impl Default for DataLimits {
    /// Kafka's, where it has them.
    fn default() -> Self {
        Self {
            fetch_max_bytes: 55 * 1024 * 1024,
            fetch_sessions: 1000,
            fetch_session_partitions: 100_000,
            decompressed_max_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Milliseconds since 1970, from the machine or a test.
type WallClock = Box<dyn Fn() -> i64 + Send + Sync>;

/// Serves Produce, Fetch, ListOffsets, OffsetForLeaderEpoch and InitProducerId, for all connections.
pub struct DataPlane {
    log: Arc<dyn LogClient>,
    topics: Arc<Topics>,
    producer_ids: Arc<dyn ProducerIdSource>,
    feeds: Feeds,
    sessions: Sessions,
    limits: DataLimits,
    clock: WallClock,
}

impl std::fmt::Debug for DataPlane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DataPlane").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl DataPlane {
    /// Serves from `log` what `topics` lists.
    pub fn new(
        log: Arc<dyn LogClient>,
        topics: Arc<Topics>,
        producer_ids: Arc<dyn ProducerIdSource>,
        limits: DataLimits,
    ) -> Self {
        Self {
            feeds: Feeds::new(log.clone()),
            sessions: Sessions::new(limits.fetch_sessions, limits.fetch_session_partitions),
            log,
            topics,
            producer_ids,
            limits,
            clock: Box::new(wall_ms),
        }
    }

    /// The same with another clock for timestamps, in milliseconds since 1970.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.clock = Box::new(clock);
        self
    }

    pub(super) fn log(&self) -> &Arc<dyn LogClient> {
        &self.log
    }

    pub(super) fn topics(&self) -> &Topics {
        &self.topics
    }

    pub(super) fn producer_ids(&self) -> &dyn ProducerIdSource {
        &*self.producer_ids
    }

    pub(super) fn feeds(&self) -> &Feeds {
        &self.feeds
    }

    pub(super) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(super) fn limits(&self) -> &DataLimits {
        &self.limits
    }

    pub(super) fn now_ms(&self) -> i64 {
        (self.clock)()
    }
}

fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
