//! K11: ListOffsets; with it OffsetForLeaderEpoch.

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::ListOffsetsPartitionResponse;
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, OffsetForLeaderEpochRequest};

use crate::batch::{Batch, Record};
use crate::client::*;

fn ask(kafka: &mut Kafka, topic: &str, timestamp: i64) -> ListOffsetsPartitionResponse {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let topic =
        ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    let request =
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
    kafka.call(&request, 7).topics[0].partitions[0].clone()
}

#[test]
fn k11_offsets_by_timestamp() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    assert_eq!(ask(&mut kafka, &topic, -2).offset, 0);
    assert_eq!(ask(&mut kafka, &topic, -1).offset, 0);
    assert_eq!(ask(&mut kafka, &topic, 0).offset, -1, "no record, no offset");
    let at = |timestamps: &[i64]| {
        Batch::of(
            timestamps.iter().map(|t| Record::new("k", "v").at(1_700_000_000_000 + t)).collect(),
        )
    };
    kafka.append(&topic, 0, &at(&[0, 10, 20]));
    kafka.append(&topic, 0, &at(&[30, 40, 35]).gzip());
    kafka.append(&topic, 0, &at(&[50]));
    for (after, offset) in
        [(-5, 0), (0, 0), (1, 1), (10, 1), (20, 2), (21, 3), (31, 4), (36, 4), (41, 6), (50, 6)]
    {
        let found = ask(&mut kafka, &topic, 1_700_000_000_000 + after);
        assert_eq!((found.error_code, found.offset), (0, offset), "at or after {after}");
        assert!(found.timestamp >= 1_700_000_000_000 + after);
    }
    assert_eq!(ask(&mut kafka, &topic, 1_700_000_000_051).offset, -1);
    assert_eq!(ask(&mut kafka, &topic, -2).offset, 0);
    assert_eq!(ask(&mut kafka, &topic, -1).offset, 7);
    let largest = ask(&mut kafka, &topic, -3);
    assert_eq!((largest.offset, largest.timestamp), (6, 1_700_000_000_050));
}

#[test]
fn k11_unknown_partitions_are_said_to_be_so() {
    let mut kafka = Kafka::connect();
    assert_eq!(ask(&mut kafka, &crate::broker::unique("k11"), -1).error_code, 3);
}

#[test]
fn k8_offset_for_leader_epoch() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    kafka.append(&topic, 0, &Batch::of(vec![Record::new("k", "v"), Record::new("k", "w")]));
    let epoch = kafka
        .fetch(&topic, 0, 0)
        .records
        .map(|data| i32::from_be_bytes(data[12..16].try_into().unwrap()));
    let mut ask = |epoch: i32| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(-1)
            .with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(topic_name(&topic))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![topic]);
        let partition = kafka.call(&request, 4).topics[0].partitions[0].clone();
        (partition.error_code, partition.end_offset)
    };
    assert_eq!(ask(epoch.unwrap()), (0, 2));
    assert_eq!(ask(epoch.unwrap() + 5), (0, -1), "an epoch that wasn't yet");
}
