//! The Kafka topic that MQTT messages are records of.

use std::collections::BTreeMap;

use anyhow::Context;
use interflow_gateway::topics::{NewTopic, TopicError, Topics};

/// Its share of the disk, in percent.
const RETENTION_PERCENT: u64 = 10;

/// Makes sure that the topic is there: new ones have `partitions`, and keep at most a tenth of
/// the disk (`disk_bytes`) besides the time that every topic is kept.
pub(super) async fn ensure(
    topics: &Topics,
    name: &str,
    partitions: u32,
    disk_bytes: u64,
) -> anyhow::Result<()> {
    if topics.get(name).is_some() {
        return Ok(());
    }
    // Kafka's retention.bytes is a partition's.
    let bytes = disk_bytes / 100 * RETENTION_PERCENT / u64::from(partitions.max(1));
    let mut config = BTreeMap::new();
    config.insert("retention.bytes".to_owned(), bytes.max(1 << 20).to_string());
    let new = NewTopic { name: name.to_owned(), partitions, replication_factor: -1, config };
    match topics.create(new).await {
        Ok(_) | Err(TopicError::Exists(_)) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot create topic {name}")),
    }
}
