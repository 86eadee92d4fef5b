//! What was acknowledged is there.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Buf;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{
    BrokerId, FetchRequest, GroupId, MetadataRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::RecordBatchDecoder;

use crate::load::{Acknowledged, GROUP, PARTITIONS, RETAINED, TOPIC, name_of};
use crate::running::Addresses;
use crate::wire::{Kafka, Mqtt};

/// The partitions of the topic that MQTT publishes go to.
const MQTT_PARTITIONS: i32 = 8;

/// A record as it was read.
pub(crate) struct Found {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Compares what is there with `all`; an error says what is missing.
pub(crate) fn everything(addresses: &Addresses, all: &Acknowledged) -> Result<(), String> {
    let mut kafka = Kafka::connect(addresses.kafka).map_err(|error| error.to_string())?;
    published(&mut kafka, all)?;
    produced(&mut kafka, all)?;
    committed(&mut kafka, all)?;
    topics(&mut kafka, all)?;
    retained(addresses, all)
}

/// Every record of a partition, by offset.
pub(crate) fn read(
    kafka: &mut Kafka,
    topic: &str,
    partition: i32,
) -> Result<BTreeMap<i64, Found>, String> {
    let mut found = BTreeMap::new();
    let mut offset = 0;
    loop {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(offset)
            .with_partition_max_bytes(8 << 20);
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_bytes(8 << 20)
            .with_topics(vec![
                FetchTopic::default().with_topic(name_of(topic)).with_partitions(vec![wanted]),
            ]);
        let answer = kafka.call(11, &request).map_err(|error| error.to_string())?;
        let data = answer
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .next()
            .ok_or("no partition in the answer")?;
        if data.error_code != 0 {
            return Err(format!(
                "fetch {topic}-{partition} at {offset}: error {}, the log is {}..{}",
                data.error_code, data.log_start_offset, data.high_watermark
            ));
        }
        let mut records = data.records.unwrap_or_default();
        while records.has_remaining() {
            // An empty batch bridges offsets that have no records.
            let (base, last_delta) = (i64_at(&records, 0), i32_at(&records, 23));
            offset = base + i64::from(last_delta) + 1;
            let batch = RecordBatchDecoder::decode(&mut records)
                .map_err(|error| format!("{topic}-{partition} at {offset}: {error}"))?;
            for record in batch.records {
                let text = |bytes: Option<bytes::Bytes>| {
                    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
                };
                found.insert(
                    record.offset,
                    Found { key: text(record.key), value: text(record.value) },
                );
            }
        }
        if offset >= data.high_watermark {
            return Ok(found);
        }
    }
}

fn i64_at(batch: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(batch[at..at + 8].try_into().expect("eight bytes"))
}

fn i32_at(batch: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(batch[at..at + 4].try_into().expect("four bytes"))
}

fn published(kafka: &mut Kafka, all: &Acknowledged) -> Result<(), String> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for partition in 0..MQTT_PARTITIONS {
        for record in read(kafka, "mqtt", partition)?.into_values() {
            found.entry(record.key).or_default().push(record.value);
        }
    }
    for (topic, payloads) in &all.published {
        let there = found.get(topic).map(Vec::as_slice).unwrap_or_default();
        let unique: BTreeSet<&String> = there.iter().collect();
        if unique.len() != there.len() {
            return Err(format!("{topic} has a message twice: {there:?}"));
        }
        // What was acknowledged is there in its order; between, what was not may be.
        let mut rest = there.iter();
        for payload in payloads {
            if !rest.any(|found| found == payload) {
                return Err(format!("{topic}: {payload} was acknowledged, found {there:?}"));
            }
        }
    }
    Ok(())
}

fn produced(kafka: &mut Kafka, all: &Acknowledged) -> Result<(), String> {
    if all.produced.is_empty() {
        return Ok(());
    }
    for partition in 0..PARTITIONS {
        let found = read(kafka, TOPIC, partition)?;
        let unique: BTreeSet<&String> = found.values().map(|record| &record.value).collect();
        if unique.len() != found.len() {
            return Err(format!("{TOPIC}-{partition} has a record twice"));
        }
        for ((_, offset), value) in all.produced.iter().filter(|((p, _), _)| *p == partition) {
            match found.get(offset) {
                Some(record) if record.value == *value => {}
                Some(record) => {
                    let there = &record.value;
                    return Err(format!("{TOPIC}-{partition}@{offset}: {there}, not {value}"));
                }
                None => return Err(format!("{TOPIC}-{partition}@{offset}: {value} is lost")),
            }
        }
    }
    Ok(())
}

fn committed(kafka: &mut Kafka, all: &Acknowledged) -> Result<(), String> {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(name_of("mqtt"))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str(GROUP)))
        .with_topics(Some(vec![topic]));
    let answer = kafka.call(5, &request).map_err(|error| error.to_string())?;
    let offset = answer.topics.first().and_then(|topic| topic.partitions.first());
    let offset = offset.map_or(-1, |partition| partition.committed_offset);
    match all.committed {
        Some(least) if !(least..=all.commit_sent).contains(&offset) => {
            Err(format!("the group is at {offset}, {least} was committed"))
        }
        _ => Ok(()),
    }
}

fn topics(kafka: &mut Kafka, all: &Acknowledged) -> Result<(), String> {
    let request = MetadataRequest::default().with_topics(None);
    let answer = kafka.call(9, &request).map_err(|error| error.to_string())?;
    let there: BTreeSet<String> = answer
        .topics
        .iter()
        .filter_map(|topic| topic.name.as_ref().map(|name| name.to_string()))
        .collect();
    match all.topics.difference(&there).next() {
        Some(lost) => Err(format!("topic {lost} is lost")),
        None => Ok(()),
    }
}

fn retained(addresses: &Addresses, all: &Acknowledged) -> Result<(), String> {
    let Some(least) = all.retained else { return Ok(()) };
    let found = Mqtt::connect(addresses.mqtt, "check")
        .and_then(|mut client| client.retained("retained/#", RETAINED))
        .map_err(|error| format!("the retained message is lost: {error}"))?;
    let number: u64 = found
        .last()
        .and_then(|(_, payload)| payload.parse().ok())
        .ok_or("the retained message is no number")?;
    if (least..=all.retained_sent).contains(&number) {
        return Ok(());
    }
    Err(format!("the retained message is {number}, {least} was acknowledged"))
}
