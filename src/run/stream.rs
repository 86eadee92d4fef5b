//! The Kafka topic that MQTT messages are records of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use interflow_gateway::topics::{NewTopic, Topic, TopicError, Topics};

/// Its share of the disk, in percent.
const RETENTION_PERCENT: u64 = 10;

/// How soon a topic that another process created shows here.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes sure that the topic is there, and returns it: a new one has `partitions`, and keeps at
/// most a tenth of the disk (`disk_bytes`, if it is known) besides the time that every topic is
/// kept.
pub(super) async fn ensure(
    topics: &Topics,
    name: &str,
    partitions: u32,
    disk_bytes: Option<u64>,
) -> anyhow::Result<Arc<Topic>> {
    if let Some(topic) = topics.get(name) {
        return Ok(topic);
    }
    let mut config = BTreeMap::new();
    if let Some(disk_bytes) = disk_bytes {
        // Kafka's retention.bytes is a partition's.
        let bytes = disk_bytes / 100 * RETENTION_PERCENT / u64::from(partitions.max(1));
        config.insert("retention.bytes".to_owned(), bytes.max(1 << 20).to_string());
    }
    let new = NewTopic { name: name.to_owned(), partitions, replication_factor: -1, config };
    match topics.create(new).await {
        Ok(topic) => Ok(topic),
        // Another gateway was faster.
        Err(TopicError::Exists(_)) => {
            let mut changes = topics.changes();
            let shown = changes.wait_for(|_| topics.get(name).is_some());
            // Whether it ended or not: what counts is whether the topic is there.
            let _ = tokio::time::timeout(PATIENCE, shown).await;
            topics.get(name).with_context(|| format!("the topic {name} was deleted"))
        }
        Err(error) => Err(error).with_context(|| format!("cannot create topic {name}")),
    }
}
