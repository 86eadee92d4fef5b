//! What the log service counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters and gauges, read by whoever exports them.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Batches appended.
    pub appends: AtomicU64,
    /// Records appended (offsets taken).
    pub records: AtomicU64,
    /// Payload bytes appended.
    pub bytes: AtomicU64,
    /// Appends that were a retry of a batch in the log.
    pub duplicates: AtomicU64,
    /// Answers that were withheld, for the segment was closed with less than a quorum, until that is
    /// repaired.
    pub withheld: AtomicU64,
    /// Appends that were refused.
    pub refused: AtomicU64,
    /// Batches appended and not yet durable.
    pub in_flight: AtomicU64,
    /// Reads that needed no disk.
    pub memory_reads: AtomicU64,
    /// Reads that waited for the disk.
    pub disk_reads: AtomicU64,
    /// Reads of segments that another node has.
    pub peer_reads: AtomicU64,
    /// Payload bytes read.
    pub read_bytes: AtomicU64,
    /// Segments closed while their sequencer lived.
    pub rolls: AtomicU64,
    /// Segments closed after a restart.
    pub crash_closes: AtomicU64,
    /// Segments dropped by retention and trims.
    pub dropped_segments: AtomicU64,
    /// Segments copied from or to other nodes.
    pub copied_segments: AtomicU64,
    /// Looks at all closed segments.
    pub scrubs: AtomicU64,
    /// Bytes of closed segments that were looked at.
    pub scrubbed_bytes: AtomicU64,
    /// Times that a replica of a segment was found to be damaged, or unlike the others.
    pub damaged_segments: AtomicU64,
    /// Segments that were copied anew for that.
    pub repaired_segments: AtomicU64,
    /// Logs in memory.
    pub logs: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

pub(super) fn sub(counter: &AtomicU64, n: u64) {
    counter.fetch_sub(n, Ordering::Relaxed);
}
