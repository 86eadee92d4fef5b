//! The journal's settings.

use std::time::Duration;

/// How a [`super::JournalStore`] works. Sizes are bytes.
#[derive(Clone, Debug)]
pub struct Options {
    /// The size of an extent; an entry is smaller than that. At most 1 GiB.
    pub extent_bytes: u32,
    /// Calls of `fdatasync` that may be in flight at once; each is a thread.
    pub sync_depth: usize,
    /// Entries in memory that are not durable yet; over it, appends are `Busy`.
    pub max_in_flight_bytes: u64,
    /// The unit in which memory for entries is allocated.
    pub chunk_bytes: usize,
    /// Durable entries kept in memory for reads.
    pub tail_cache_bytes: usize,
    /// Indexes of closed extents kept in memory.
    pub index_cache_bytes: usize,
    /// What the disk is asked to fetch ahead of a reader that goes on where it stopped, at a time;
    /// 0 fetches nothing ahead.
    pub read_ahead_bytes: usize,
    /// The same for all readers together: asked for and not read yet.
    pub max_read_ahead_bytes: usize,
    /// With less free than this, appends fail.
    pub min_free_bytes: u64,
    /// With less free than this share of the disk, in percent, appends fail.
    pub min_free_percent: u64,
    /// A closed extent with at most this share of live bytes, in percent, is rewritten.
    pub rewrite_live_percent: u64,
    /// An extent whose scans cost so many times what they would cost in order is rewritten once,
    /// if it lives; `u64::MAX` leaves all as they are.
    pub rewrite_scan_factor: u64,
    /// What is expected to be dropped within this time isn't rewritten for being interleaved.
    pub rewrite_min_life: Duration,
    /// Bytes a second that rewriting may write; it reads no faster. While appends wait for the
    /// disk, a quarter of it.
    pub rewrite_bytes_per_second: u64,
    /// Files of dead extents that are kept to be written over by new ones; 0 keeps none. They go
    /// when the disk is full.
    pub recycled_extents: usize,
    /// After this time without appends a last group states what is durable.
    pub idle_after: Duration,
    /// The source of the extents' salts; `None` takes the system's.
    pub seed: Option<u64>,
    /// Whether threads do the work; without them, tests move it along step by step.
    pub threads: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            extent_bytes: 256 << 20,
            sync_depth: 4,
            max_in_flight_bytes: 64 << 20,
            chunk_bytes: 4 << 20,
            tail_cache_bytes: 64 << 20,
            index_cache_bytes: 16 << 20,
            read_ahead_bytes: 1 << 20,
            max_read_ahead_bytes: 64 << 20,
            min_free_bytes: 1 << 30,
            min_free_percent: 5,
            rewrite_live_percent: 25,
            rewrite_scan_factor: 2,
            rewrite_min_life: Duration::from_secs(3600),
            rewrite_bytes_per_second: 32 << 20,
            recycled_extents: 2,
            idle_after: Duration::from_millis(50),
            seed: None,
            threads: true,
        }
    }
}
