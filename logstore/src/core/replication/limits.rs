//! How much a sequencer sends ahead and keeps for its peers.

/// Bounds of one segment's replication.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReplicationLimits {
    /// Bytes that a peer is sent before it has answered; one entry is always let through.
    pub(crate) window_bytes: u64,
    /// Bytes that are taken before they are committed; one batch is always taken.
    pub(crate) max_uncommitted_bytes: u64,
    /// A peer that lacks more bytes is slow.
    pub(crate) slow_bytes: u64,
    /// A peer that lacks the same committed entry for so long is slow. Milliseconds.
    pub(crate) slow_ms: u64,
    /// Committed entries that are kept for slow peers: bytes.
    pub(crate) max_kept_bytes: u64,
    /// Committed entries that are kept for slow peers.
    pub(crate) max_kept_entries: usize,
    /// A peer that was sent nothing for so long is told what is committed. Milliseconds.
    pub(crate) idle_ms: u64,
}

impl Default for ReplicationLimits {
    fn default() -> Self {
        Self {
            window_bytes: 8 << 20,
            max_uncommitted_bytes: 32 << 20,
            slow_bytes: 64 << 20,
            slow_ms: 10_000,
            max_kept_bytes: 128 << 20,
            max_kept_entries: 100_000,
            idle_ms: 5,
        }
    }
}
