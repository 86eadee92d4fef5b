//! What the Kafka side counts. Plain counters: whoever exports them reads them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Keys of APIs are below this.
const APIS: usize = 96;

/// Upper bounds of the buckets of a [`Latency`], in microseconds; above the last is one more.
pub const LATENCY_BOUNDS_US: [u64; 12] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 500_000, 2_000_000, 10_000_000];

/// A number that only rises, or one that also falls.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` away.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long something took, in buckets.
#[derive(Debug, Default)]
pub struct Latency {
    buckets: [Counter; LATENCY_BOUNDS_US.len() + 1],
    sum_us: Counter,
}

impl Latency {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = LATENCY_BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add(1);
        }
        self.sum_us.add(us);
    }

    /// How many fell into each bucket (not cumulative).
    pub fn buckets(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(Counter::get)
    }

    /// All of them together, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }
}

/// What the Kafka side counts.
#[derive(Debug)]
pub struct Metrics {
    requests: [Counter; APIS],
    /// Requests that closed their connection: malformed, unserved, or before authentication.
    pub refused_requests: Counter,
    /// Failed authentications.
    pub failed_authentications: Counter,
    /// Connections now.
    pub connections: Counter,
    /// Bytes of requests.
    pub bytes_in: Counter,
    /// Bytes of responses.
    pub bytes_out: Counter,
    /// From a Produce request's arrival to its answer.
    pub produce: Latency,
    /// From the moment a Fetch was begun to its answer, waiting for records included.
    pub fetch: Latency,
    /// Groups in memory.
    pub groups: Counter,
    /// Memory of groups in memory, in bytes.
    pub group_bytes: Counter,
    /// Generations that were begun.
    pub rebalances: Counter,
    /// Offsets that were committed.
    pub offset_commits: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: std::array::from_fn(|_| Counter::default()),
            refused_requests: Counter::default(),
            failed_authentications: Counter::default(),
            connections: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            produce: Latency::default(),
            fetch: Latency::default(),
            groups: Counter::default(),
            group_bytes: Counter::default(),
            rebalances: Counter::default(),
            offset_commits: Counter::default(),
        }
    }
}

impl Metrics {
    pub(super) fn request(&self, api_key: i16) {
        if let Some(counter) = usize::try_from(api_key).ok().and_then(|at| self.requests.get(at)) {
            counter.add(1);
        }
    }

    /// Requests of that API so far.
    pub fn requests(&self, api_key: i16) -> u64 {
        usize::try_from(api_key).ok().and_then(|at| self.requests.get(at)).map_or(0, Counter::get)
    }
}
