//! Latencies in microseconds.

use hdrhistogram::Histogram;

/// A histogram of microseconds from 1 µs to a minute, to three digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// An empty histogram.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 60_000_000, 3)?))
    }

    /// Counts one latency; what is over a minute counts as a minute.
    pub fn record_us(&mut self, microseconds: u64) {
        self.0.saturating_record(microseconds.max(1));
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) -> anyhow::Result<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// The `percentile` (0 to 100) in milliseconds.
    pub fn ms(&self, percentile: f64) -> f64 {
        self.0.value_at_percentile(percentile) as f64 / 1_000.0
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }
}
