//! ListOffsets, OffsetForLeaderEpoch and InitProducerId over a log in memory.

use std::io::Write;

use bytes::{Bytes, BytesMut};
use interflow_logstore::{Append, AppendKind, LogClient, LogId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use kafka_protocol::messages::{
    ApiKey, InitProducerIdRequest, ListOffsetsRequest, OffsetForLeaderEpochRequest, ProducerId,
    TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::DataPlane;
use super::fake::{FakeLogs, plane, topic};
use crate::kafka::frame::served_versions;
use crate::records::{BatchBuilder, BatchHeader, BuiltBatch};

fn topic_name(name: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(name))
}

/// A batch of records with these timestamps.
fn at_times(timestamps: &[i64]) -> BuiltBatch {
    let mut builder = BatchBuilder::new();
    for timestamp in timestamps {
        builder.append(None, Some(b"v"), std::iter::empty(), *timestamp).unwrap();
    }
    builder.finish().unwrap()
}

fn gzipped(batch: &BuiltBatch) -> Bytes {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&batch.bytes[BatchHeader::LEN..]).unwrap();
    let mut bytes = BytesMut::from(&batch.bytes[..BatchHeader::LEN]);
    bytes.extend_from_slice(&gzip.finish().unwrap());
    let length = (bytes.len() - BatchHeader::LENGTH_FROM) as i32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    bytes[22] = 1;
    bytes.freeze()
}

async fn append(logs: &FakeLogs, batch: &BuiltBatch, bytes: Bytes) {
    let append = Append {
        log: LogId(1),
        kind: AppendKind::Data,
        key: None,
        window: 5,
        count: batch.count,
        max_timestamp: batch.max_timestamp,
        digest: None,
        early: false,
        batch: bytes,
    };
    logs.append(append).await.unwrap();
}

/// (error, offset, timestamp, leader epoch) of partition 0 of `t`.
async fn list(
    plane: &DataPlane,
    timestamp: i64,
    current_leader_epoch: i32,
) -> (Option<ResponseError>, i64, i64, i32) {
    let partition = ListOffsetsPartition::default()
        .with_partition_index(0)
        .with_current_leader_epoch(current_leader_epoch)
        .with_timestamp(timestamp);
    let wanted =
        ListOffsetsTopic::default().with_name(topic_name("t")).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_topics(vec![wanted]);
    let versions = served_versions(ApiKey::ListOffsets).unwrap();
    for version in versions.clone() {
        let response = plane.list_offsets(version, request.clone()).await;
        response.encode(&mut BytesMut::new(), version).unwrap();
    }
    let response = plane.list_offsets(*versions.end(), request).await;
    let found = &response.topics[0].partitions[0];
    let error = ResponseError::try_from_code(found.error_code);
    (error, found.offset, found.timestamp, found.leader_epoch)
}

#[tokio::test]
async fn the_ends_of_a_log_are_listed() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    assert_eq!(list(&plane, -1, -1).await, (None, 0, -1, 0));
    assert_eq!(list(&plane, -2, -1).await, (None, 0, -1, 0));
    assert_eq!(list(&plane, -3, -1).await, (None, -1, -1, -1));
    for _ in 0..3 {
        let batch = at_times(&[5, 6]);
        append(&logs, &batch, batch.bytes.clone()).await;
    }
    logs.set_start(1, 2);
    assert_eq!(list(&plane, -1, -1).await, (None, 6, -1, 0));
    assert_eq!(list(&plane, -2, -1).await, (None, 2, -1, 0));
    assert_eq!(list(&plane, -4, -1).await, (None, 2, -1, 0));
    assert_eq!(list(&plane, -5, -1).await, (None, -1, -1, -1));
    assert_eq!(list(&plane, -7, -1).await.0, Some(ResponseError::UnsupportedVersion));
    assert_eq!(list(&plane, -1, 1).await.0, Some(ResponseError::UnknownLeaderEpoch));
    logs.set_leader_epoch(1, 3);
    assert_eq!(list(&plane, -1, 1).await, (None, 6, -1, 3));
    assert_eq!(list(&plane, -2, -1).await, (None, 2, -1, -1));
}

#[tokio::test]
async fn k11_what_a_version_does_not_know_is_not_answered() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    for (timestamp, since) in [(-1, 0), (-2, 0), (-3, 7), (-4, 8), (-5, 9), (-6, 99), (5, 0)] {
        for version in served_versions(ApiKey::ListOffsets).unwrap() {
            let partition = ListOffsetsPartition::default()
                .with_current_leader_epoch(-1)
                .with_timestamp(timestamp);
            let wanted = ListOffsetsTopic::default()
                .with_name(topic_name("t"))
                .with_partitions(vec![partition]);
            let request = ListOffsetsRequest::default().with_topics(vec![wanted]);
            let response = plane.list_offsets(version, request).await;
            let code = response.topics[0].partitions[0].error_code;
            let refused = ResponseError::UnsupportedVersion.code();
            let expected = if version < since { refused } else { 0 };
            assert_eq!(code, expected, "{timestamp} in version {version}");
        }
    }
}

#[tokio::test]
async fn k11_a_time_finds_the_first_record_at_or_after_it_in_a_compressed_batch_too() {
    for compress in [false, true] {
        let logs = FakeLogs::new([1]);
        let plane = plane(&logs, [topic("t", &[1], &[])]);
        for times in [[10, 30, 20], [40, 60, 50], [45, 70, 65]] {
            let batch = at_times(&times);
            let bytes = if compress { gzipped(&batch) } else { batch.bytes.clone() };
            append(&logs, &batch, bytes).await;
        }
        for (timestamp, offset, found) in
            [(0, 0, 10), (10, 0, 10), (11, 1, 30), (31, 3, 40), (41, 4, 60), (61, 7, 70)]
        {
            assert_eq!(list(&plane, timestamp, -1).await, (None, offset, found, 0));
        }
        assert_eq!(list(&plane, 71, -1).await, (None, -1, -1, -1));
        assert_eq!(list(&plane, -3, -1).await, (None, 7, 70, 0));
        // Records before the log's start don't count.
        logs.set_start(1, 1);
        assert_eq!(list(&plane, 0, -1).await, (None, 1, 30, 0));
    }
}

#[tokio::test]
async fn a_batch_that_does_not_open_counts_as_a_whole() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let batch = at_times(&[10, 20]);
    let mut bytes = BytesMut::from(&batch.bytes[..]);
    bytes[22] = 4; // says Zstandard, but isn't
    append(&logs, &batch, bytes.freeze()).await;
    assert_eq!(list(&plane, 15, -1).await, (None, 0, 20, 0));
}

#[tokio::test]
async fn unknown_topics_and_partitions_are_told() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let partition = |index| ListOffsetsPartition::default().with_partition_index(index);
    let wanted = |name, index| {
        ListOffsetsTopic::default()
            .with_name(topic_name(name))
            .with_partitions(vec![partition(index)])
    };
    let request = ListOffsetsRequest::default().with_topics(vec![wanted("t", 1), wanted("u", 0)]);
    let response = plane.list_offsets(9, request).await;
    for topic in response.topics {
        let expected = ResponseError::UnknownTopicOrPartition.code();
        assert_eq!(topic.partitions[0].error_code, expected);
    }
}

#[tokio::test]
async fn leader_epochs_end_where_the_log_says() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let batch = at_times(&[1, 2]);
    append(&logs, &batch, batch.bytes.clone()).await;
    logs.set_leader_epoch(1, 4);
    let ask = |partition, current, epoch| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(current)
            .with_leader_epoch(epoch);
        let wanted = OffsetForLeaderTopic::default()
            .with_topic(topic_name("t"))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![wanted]);
        let answer = plane.offset_for_leader_epoch(request);
        async {
            let response = answer.await;
            let found = response.topics[0].partitions[0].clone();
            let error = ResponseError::try_from_code(found.error_code);
            (error, found.leader_epoch, found.end_offset)
        }
    };
    assert_eq!(ask(0, -1, 4).await, (None, 4, 2));
    assert_eq!(ask(0, 4, 5).await, (None, -1, -1), "an epoch to come");
    assert_eq!(ask(0, 4, 3).await, (None, -1, -1), "an epoch before the log");
    assert_eq!(ask(0, 5, 4).await.0, Some(ResponseError::UnknownLeaderEpoch));
    assert_eq!(ask(1, -1, 0).await.0, Some(ResponseError::UnknownTopicOrPartition));
}

fn idempotent() -> InitProducerIdRequest {
    InitProducerIdRequest::default().with_transactional_id(None)
}

#[tokio::test]
async fn producer_ids_are_new_each_time_and_transactions_are_refused_for_good() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let first = plane.init_producer_id(idempotent()).await;
    assert_eq!((first.error_code, first.producer_epoch), (0, 0));
    // KIP-360: a producer that goes on after an error asks with its old id.
    let again = idempotent().with_producer_id(first.producer_id).with_producer_epoch(3);
    let second = plane.init_producer_id(again).await;
    assert_eq!((second.error_code, second.producer_epoch), (0, 0));
    assert_ne!(second.producer_id, first.producer_id);
    let transactional = InitProducerIdRequest::default()
        .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("x"))));
    let refused = plane.init_producer_id(transactional).await;
    let error = ResponseError::try_from_code(refused.error_code).unwrap();
    assert!(!error.is_retriable(), "K14a");
    assert_eq!(refused.producer_id, ProducerId(-1));
    for version in served_versions(ApiKey::InitProducerId).unwrap() {
        first.encode(&mut BytesMut::new(), version).unwrap();
        refused.encode(&mut BytesMut::new(), version).unwrap();
    }
}
