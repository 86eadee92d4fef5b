//! What a log store reads from its disk to deliver logs that are in no cache.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka_load::config;

/// Logs that are read at a time.
const AT_ONCE: usize = 16;
/// How long records are waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scanned {
    /// Logs, from beginning to end.
    pub logs: usize,
    /// Bytes of the values of their records.
    pub bytes: u64,
    /// How long it took.
    pub seconds: f64,
}

/// Reads `partitions` of a topic, each of which holds `records`.
pub fn scan(
    bootstrap: &str,
    topic: &str,
    partitions: &[usize],
    records: usize,
) -> anyhow::Result<Scanned> {
    let consumer: BaseConsumer =
        config(bootstrap).set("group.id", "bench").set("enable.auto.commit", "false").create()?;
    let begun = Instant::now();
    let mut scanned = Scanned { logs: partitions.len(), ..Scanned::default() };
    for some in partitions.chunks(AT_ONCE) {
        let mut list = TopicPartitionList::new();
        for partition in some {
            list.add_partition_offset(topic, i32::try_from(*partition)?, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let (mut seen, chunk_begun) = (0, Instant::now());
        while seen < records * some.len() {
            match consumer.poll(Duration::from_millis(100)) {
                Some(message) => {
                    scanned.bytes += message?.payload_len() as u64;
                    seen += 1;
                }
                None if chunk_begun.elapsed() > PATIENCE => {
                    bail!("{seen} records of {} logs; {records} in each", some.len())
                }
                None => {}
            }
        }
        ensure!(seen == records * some.len(), "{seen} records of {} logs", some.len());
    }
    scanned.seconds = begun.elapsed().as_secs_f64();
    Ok(scanned)
}
