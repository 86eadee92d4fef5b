//! What of the log service can be set.

use std::time::Duration;

/// Limits and intervals of the log service; what a single log wants is its policy in meta.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// The largest batch that a log takes, in bytes.
    pub max_batch_bytes: usize,
    /// Bytes of one log that may be in the journal and not yet durable; beyond it appends wait.
    pub max_in_flight_bytes: usize,
    /// Bytes of one log that may wait for its loading, its roll or the journal; beyond it appends
    /// are refused as [`Busy`](crate::AppendError::Busy).
    pub max_waiting_bytes: usize,
    /// The same for all logs together.
    pub max_all_waiting_bytes: usize,
    /// A snapshot of the producer table is written at least every so many payload bytes …
    pub snapshot_bytes: u64,
    /// … and every so many batches.
    pub snapshot_batches: u32,
    /// A segment is rolled before it holds more offsets.
    pub max_segment_offsets: u64,
    /// A producer that appended nothing for so long is forgotten.
    pub producer_expiry: Duration,
    /// Producers that a log remembers.
    pub max_producers: usize,
    /// Bytes of committed entries that are kept for peers that lack them, of all logs together;
    /// beyond it those peers are left to the repair of the closed segments.
    pub max_kept_bytes: u64,
    /// How often retention is looked at.
    pub retention_interval: Duration,
    /// How often closed segments are looked at for damage …
    pub scrub_interval: Duration,
    /// … and how many of their bytes a second. 0: only when that is asked for.
    pub scrub_bytes_per_second: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            max_batch_bytes: 8 << 20,
            max_in_flight_bytes: 64 << 20,
            max_waiting_bytes: 16 << 20,
            max_all_waiting_bytes: 128 << 20,
            snapshot_bytes: 64 << 20,
            snapshot_batches: 10_000,
            max_segment_offsets: 1 << 31,
            producer_expiry: Duration::from_secs(86_400),
            max_producers: 10_000,
            max_kept_bytes: 256 << 20,
            retention_interval: Duration::from_secs(30),
            scrub_interval: Duration::from_secs(86_400),
            scrub_bytes_per_second: 4 << 20,
        }
    }
}
