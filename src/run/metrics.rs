//! Everything that is counted, in Prometheus' terms.

use std::fmt::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use interflow_gateway::kafka::{LATENCY_BOUNDS_US, Latency, Metrics as KafkaMetrics};
use interflow_gateway::mqtt::MqttMetrics;
use interflow_gateway::mqtt::codec::QoS;
use interflow_logstore::LogStore;
use kafka_protocol::messages::ApiKey;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

/// All counters of a process, read when they are asked for.
pub(super) struct Sources {
    /// Where there is a log store.
    pub(super) log: Option<LogStore>,
    /// Where there is a gateway.
    pub(super) gateway: Option<GatewaySources>,
}

/// The counters of a gateway.
pub(super) struct GatewaySources {
    pub(super) mqtt: Arc<MqttMetrics>,
    pub(super) kafka: Arc<KafkaMetrics>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sources")
    }
}

/// The registry of the process.
pub(super) fn registry(sources: Sources) -> Registry {
    let mut registry = Registry::with_prefix("interflow");
    registry.register_collector(Box::new(sources));
    registry
}

/// Writes single values, one call each.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        let metric = ConstCounter::new(value);
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        metric.encode(encoder)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let encoder = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode(encoder)
    }

    /// A counter for each value of `label`.
    fn family(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: &[(&str, u64)],
    ) -> Result<(), Error> {
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (value, count) in values {
            let labels = [(label, *value)];
            ConstCounter::new(*count).encode(encoder.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// Cumulative buckets from separate ones; a bound of `f64::MAX` is Prometheus' `+Inf`.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        sum: f64,
        buckets: &[(f64, u64)],
    ) -> Result<(), Error> {
        let count = buckets.iter().map(|(_, count)| count).sum();
        let mut encoder = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        encoder.encode_histogram::<[(&str, &str); 0]>(sum, count, buckets, None)
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut writer = Writer(encoder);
        if let Some(log) = &self.log {
            encode_log(log, &mut writer)?;
        }
        if let Some(gateway) = &self.gateway {
            encode_mqtt(&gateway.mqtt, &mut writer)?;
            encode_kafka(&gateway.kafka, &mut writer)?;
        }
        Ok(())
    }
}

fn encode_log(store: &LogStore, to: &mut Writer<'_>) -> Result<(), Error> {
    let log = store.metrics();
    let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    to.counter("log_appends", "Batches appended", get(&log.appends))?;
    to.counter("log_records", "Records appended", get(&log.records))?;
    to.counter("log_bytes", "Bytes appended", get(&log.bytes))?;
    to.counter("log_duplicates", "Appends that were retries", get(&log.duplicates))?;
    let withheld = get(&log.withheld);
    to.counter("log_withheld", "Answers withheld until a short segment is repaired", withheld)?;
    to.counter("log_refused", "Appends that were refused", get(&log.refused))?;
    to.gauge("log_in_flight", "Batches appended and not yet durable", get(&log.in_flight))?;
    to.gauge("log_durable_lag", "Journal entries not yet durable", store.durable_lag())?;
    to.counter("log_memory_reads", "Reads that needed no disk", get(&log.memory_reads))?;
    to.counter("log_disk_reads", "Reads that waited for the disk", get(&log.disk_reads))?;
    to.counter("log_read_bytes", "Bytes read", get(&log.read_bytes))?;
    to.counter("log_rolls", "Segments closed when full or old", get(&log.rolls))?;
    to.counter("log_crash_closes", "Segments closed after a restart", get(&log.crash_closes))?;
    to.counter("log_peer_reads", "Reads of what another log store has", get(&log.peer_reads))?;
    let copied = get(&log.copied_segments);
    to.counter("log_copied_segments", "Segments copied between log stores", copied)?;
    let dropped = get(&log.dropped_segments);
    to.counter("log_dropped_segments", "Segments dropped by retention and trims", dropped)?;
    let scrubs = get(&log.scrubs);
    to.counter("log_scrubs", "Looks at all closed segments for damage", scrubs)?;
    to.counter("log_scrubbed_bytes", "Bytes that were looked at", get(&log.scrubbed_bytes))?;
    let help = "Replicas of segments found to be damaged or unlike the others";
    to.counter("log_damaged_segments", help, get(&log.damaged_segments))?;
    let repaired = get(&log.repaired_segments);
    to.counter("log_repaired_segments", "Segments copied anew for that", repaired)?;
    to.gauge("log_logs", "Logs in memory", get(&log.logs))?;
    let lags = store.replica_lags();
    to.gauge("log_sequenced_logs", "Logs that this node gives out offsets of", lags.logs)?;
    let help = "Of those, logs with a segment on too few log stores, or a replica out of sync";
    to.gauge("log_under_replicated_logs", help, lags.under_replicated)?;
    to.gauge("log_max_replica_lag", "Records that the last of their replicas lacks", lags.max)
}

fn encode_mqtt(mqtt: &MqttMetrics, to: &mut Writer<'_>) -> Result<(), Error> {
    to.counter("mqtt_connections", "Connections accepted", mqtt.connections_total.get())?;
    to.gauge("mqtt_open_connections", "Connections open", mqtt.connections.get())?;
    to.gauge("mqtt_clients", "Clients connected", mqtt.clients.get())?;
    let refused = mqtt.connects_refused.get();
    to.counter("mqtt_connects_refused", "CONNECTs that were refused", refused)?;
    let errors = mqtt.protocol_errors.get();
    to.counter("mqtt_protocol_errors", "Connections closed for a broken rule", errors)?;
    to.counter("mqtt_received_bytes", "Bytes read", mqtt.bytes_received.get())?;
    to.counter("mqtt_sent_bytes", "Bytes written", mqtt.bytes_sent.get())?;
    let received = QOS.map(|(name, qos)| (name, mqtt.publishes_received.at(qos).get()));
    to.family("mqtt_publishes_received", "PUBLISHes from clients", "qos", &received)?;
    let delivered = QOS.map(|(name, qos)| (name, mqtt.publishes_delivered.at(qos).get()));
    to.family("mqtt_publishes_delivered", "PUBLISHes to clients", "qos", &delivered)?;
    let dropped = QOS.map(|(name, qos)| (name, mqtt.publishes_dropped.at(qos).get()));
    to.family("mqtt_publishes_dropped", "PUBLISHes dropped: slow, late, large", "qos", &dropped)?;
    let refused = mqtt.publishes_refused.get();
    to.counter("mqtt_publishes_refused", "PUBLISHes that were refused", refused)?;
    to.gauge("mqtt_in_flight", "Deliveries not acknowledged yet", mqtt.in_flight.get())?;
    let waiting = mqtt.append_bytes_waiting.get();
    to.gauge("mqtt_append_bytes_waiting", "Bytes that wait to be committed", waiting)?;
    to.counter("mqtt_appends_failed", "Appends that failed", mqtt.appends_failed.get())?;
    to.gauge("mqtt_sessions", "Sessions, connected or not", mqtt.sessions.get())?;
    to.gauge("mqtt_subscriptions", "Subscriptions", mqtt.subscriptions.get())?;
    let retained = mqtt.retained_writes.get();
    to.counter("mqtt_retained_writes", "Retained messages set or cleared", retained)?;
    let skipped = mqtt.skipped_records.get();
    to.counter("mqtt_skipped_records", "Records that are no MQTT messages", skipped)?;
    let catch_up = mqtt.catch_up_reads.get();
    to.counter("mqtt_catch_up_reads", "Reads for sessions behind the tail", catch_up)?;
    let decoded = mqtt.catch_up_records.get();
    let help = "Records decoded for sessions behind the tail";
    to.counter("mqtt_catch_up_records", help, decoded)?;
    to.counter("mqtt_wills", "Wills published", mqtt.wills.get())?;
    let sizes = &mqtt.batch_sizes;
    let buckets: Vec<_> = sizes.buckets().map(|(at, count)| (at as f64, count)).collect();
    let sum = sizes.records() as f64;
    to.histogram("mqtt_batch_records", "Records a batch appended", sum, &closed(buckets))
}

fn encode_kafka(kafka: &KafkaMetrics, to: &mut Writer<'_>) -> Result<(), Error> {
    let names: Vec<(String, u64)> = ApiKey::iter()
        .map(|api| (format!("{api:?}"), kafka.requests(api as i16)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let requests: Vec<_> = names.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    to.family("kafka_requests", "Requests", "api", &requests)?;
    let refused = kafka.refused_requests.get();
    to.counter("kafka_refused_requests", "Requests that closed a connection", refused)?;
    let failed = kafka.failed_authentications.get();
    to.counter("kafka_failed_authentications", "Failed authentications", failed)?;
    to.gauge("kafka_open_connections", "Connections open", kafka.connections.get())?;
    to.counter("kafka_received_bytes", "Bytes of requests", kafka.bytes_in.get())?;
    to.counter("kafka_sent_bytes", "Bytes of responses", kafka.bytes_out.get())?;
    latency(to, "kafka_produce_seconds", "Produce, arrival to answer", &kafka.produce)?;
    latency(to, "kafka_fetch_seconds", "Fetch, waiting included", &kafka.fetch)?;
    to.gauge("kafka_groups", "Consumer groups in memory", kafka.groups.get())?;
    to.gauge("kafka_group_bytes", "Memory of consumer groups", kafka.group_bytes.get())?;
    to.counter("kafka_rebalances", "Generations begun", kafka.rebalances.get())?;
    to.counter("kafka_offset_commits", "Offsets committed", kafka.offset_commits.get())
}

const QOS: [(&str, QoS); 3] =
    [("0", QoS::AtMostOnce), ("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce)];

/// The last bucket has no bound.
fn closed(mut buckets: Vec<(f64, u64)>) -> Vec<(f64, u64)> {
    if let Some((bound, _)) = buckets.last_mut() {
        *bound = f64::MAX;
    }
    buckets
}

fn latency(to: &mut Writer<'_>, name: &str, help: &str, latency: &Latency) -> Result<(), Error> {
    let bounds = LATENCY_BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::MAX]);
    let buckets: Vec<_> = bounds.zip(latency.buckets()).collect();
    to.histogram(name, help, latency.sum_us() as f64 / 1e6, &buckets)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use interflow_logstore::clock::SystemClock;
    use interflow_logstore::disk::RealDisk;
    use interflow_logstore::store::Options;
    use interflow_logstore::{Identity, LogConfig};
    use interflow_meta::{EmbeddedStore, Env, Meta, NodeId};
    use prometheus_client::encoding::text::encode;

    use super::*;

    /// Name and help of every metric, as a scrape shows them.
    async fn printed() -> BTreeSet<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::default();
        let meta = EmbeddedStore::in_memory(env.clone()).unwrap();
        let log = LogStore::open_journal(
            Arc::new(RealDisk::open(folder.path()).unwrap()),
            Options { extent_bytes: 1 << 20, ..Options::default() },
            Meta::new(Arc::new(meta), env, "test"),
            Identity { node: NodeId(1), incarnation: 1 },
            LogConfig::default(),
            Arc::new(SystemClock::new()),
        );
        let log = log.await.unwrap();
        let (mqtt, kafka) = (Arc::default(), Arc::default());
        let mut text = String::new();
        encode(
            &mut text,
            &registry(Sources {
                log: Some(log.clone()),
                gateway: Some(GatewaySources { mqtt, kafka }),
            }),
        )
        .unwrap();
        log.shutdown().await;
        let row = |line: &str| {
            let (name, help) = line.strip_prefix("# HELP ")?.split_once(' ')?;
            Some((name.to_owned(), help.trim_end_matches('.').to_owned()))
        };
        text.lines().filter_map(row).collect()
    }

    #[tokio::test]
    async fn the_readme_lists_every_metric_and_no_other() {
        let readme = include_str!("../../README.md");
        let row = |line: &str| {
            let (name, help) = line.strip_prefix("| `interflow_")?.split_once("` | ")?;
            Some((format!("interflow_{name}"), help.trim_end_matches(" |").to_owned()))
        };
        let listed: BTreeSet<_> = readme.lines().filter_map(row).collect();
        let printed = printed().await;
        assert!(printed.len() > 40, "{printed:?}");
        let missing: Vec<_> = printed.difference(&listed).collect();
        let stale: Vec<_> = listed.difference(&printed).collect();
        assert!(missing.is_empty() && stale.is_empty(), "missing {missing:?}, stale {stale:?}");
    }
}
