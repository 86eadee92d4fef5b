//! What MQTT counts. Plain counters: whoever exports them reads them.

use std::sync::atomic::{AtomicU64, Ordering};

use super::codec::QoS;

/// A number that goes up, or a level that goes up and down.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes `n` off.
    pub fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter a quality of service.
#[derive(Debug, Default)]
pub struct ByQoS([Counter; 3]);

impl ByQoS {
    /// The counter of `qos`.
    pub fn at(&self, qos: QoS) -> &Counter {
        let [zero, one, two] = &self.0;
        match qos {
            QoS::AtMostOnce => zero,
            QoS::AtLeastOnce => one,
            QoS::ExactlyOnce => two,
        }
    }

    /// All three together.
    pub fn sum(&self) -> u64 {
        self.0.iter().map(Counter::get).sum()
    }
}

/// Records a batch by powers of two: bucket `i` counts batches of at most `2^i` records.
#[derive(Debug, Default)]
pub struct BatchSizes {
    buckets: [Counter; 16],
    records: Counter,
}

impl BatchSizes {
    pub(crate) fn observe(&self, records: u32) {
        let bucket = records.max(1).next_power_of_two().trailing_zeros() as usize;
        if let Some(bucket) = self.buckets.get(bucket).or(self.buckets.last()) {
            bucket.inc();
        }
        self.records.add(u64::from(records));
    }

    /// Upper bounds and how many batches were at most so large and larger than the bound before.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        self.buckets.iter().enumerate().map(|(bits, count)| (1 << bits, count.get()))
    }

    /// Records of all batches.
    pub fn records(&self) -> u64 {
        self.records.get()
    }

    /// Batches.
    pub fn batches(&self) -> u64 {
        self.buckets.iter().map(Counter::get).sum()
    }
}

/// What MQTT counts.
#[derive(Debug, Default)]
pub struct MqttMetrics {
    /// Connections accepted, whether or not they came to a CONNECT.
    pub connections_total: Counter,
    /// Connections that are open now.
    pub connections: Counter,
    /// Clients that are connected now.
    pub clients: Counter,
    /// CONNECTs that were refused.
    pub connects_refused: Counter,
    /// Connections closed for a broken rule.
    pub protocol_errors: Counter,
    /// Bytes read from clients.
    pub bytes_received: Counter,
    /// Bytes written to clients.
    pub bytes_sent: Counter,
    /// PUBLISHes from clients.
    pub publishes_received: ByQoS,
    /// PUBLISHes to clients.
    pub publishes_delivered: ByQoS,
    /// PUBLISHes to clients that were dropped: a full queue, an expired message, or one over the
    /// client's maximum packet size.
    pub publishes_dropped: ByQoS,
    /// PUBLISHes from clients that were refused, answered or not.
    pub publishes_refused: Counter,
    /// QoS 1 and 2 PUBLISHes to clients that are not acknowledged yet.
    pub in_flight: Counter,
    /// Bytes of publishes that wait to be committed.
    pub append_bytes_waiting: Counter,
    /// Appends that failed.
    pub appends_failed: Counter,
    /// Sessions, connected or not.
    pub sessions: Counter,
    /// Subscriptions of all sessions.
    pub subscriptions: Counter,
    /// Retained messages set or cleared.
    pub retained_writes: Counter,
    /// Records of the log that are no MQTT messages: no key, or one that is no topic name.
    pub skipped_records: Counter,
    /// Reads of a log for sessions or groups that are not live.
    pub catch_up_reads: Counter,
    /// Records that these reads decoded.
    pub catch_up_records: Counter,
    /// Topics that were looked for among the filters of a session that is not live, or filters
    /// among topics.
    pub catch_up_matches: Counter,
    /// Wills published.
    pub wills: Counter,
    /// Records a batch of what is appended.
    pub batch_sizes: BatchSizes,
}
