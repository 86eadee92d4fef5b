//! K5, K7 and K8 over a log in memory; the codec against kafka-protocol's.

mod sessions;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::time::Instant;

use super::request::Wanted;
use crate::kafka::data::fake::{FakeLogs, batch, flat, id_of, plane, plane_with, topic};
use crate::kafka::data::topic::TopicKey;
use crate::kafka::data::{DataLimits, DataPlane};
use crate::kafka::frame;
use crate::records::{BatchHeader, OpenBatch};
use crate::topics::Topics;
use interflow_logstore::{Append, AppendKind, LogClient, LogId, Read};

fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from(name.to_owned()))
}

/// A request for partitions of topics: (topic, [(partition, offset)]).
fn request(version: i16, topics: &[(&str, &[(i32, i64)])]) -> FetchRequest {
    let topics = topics.iter().map(|(topic, partitions)| {
        let partitions = partitions.iter().map(|(partition, offset)| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_partition_max_bytes(1 << 20)
        });
        let wanted = FetchTopic::default().with_partitions(partitions.collect());
        if version >= 13 {
            wanted.with_topic_id(id_of(topic))
        } else {
            wanted.with_topic(name(topic))
        }
    });
    FetchRequest::default().with_max_bytes(1 << 24).with_min_bytes(1).with_topics(topics.collect())
}

async fn fetch(plane: &DataPlane, version: i16, request: &FetchRequest) -> FetchResponse {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    let answer = plane.fetch(version, &body).await.unwrap();
    assert_eq!(answer.len(), flat(&answer).len());
    let mut bytes = flat(&answer);
    let response = FetchResponse::decode(&mut bytes, version).unwrap();
    assert!(bytes.is_empty(), "v{version} leaves bytes");
    response
}

fn partitions(response: &FetchResponse) -> Vec<(i32, &PartitionData)> {
    let of_topic = |topic| -> &Vec<PartitionData> {
        let topic: &kafka_protocol::messages::fetch_response::FetchableTopicResponse = topic;
        &topic.partitions
    };
    response.responses.iter().flat_map(of_topic).map(|p| (p.partition_index, p)).collect()
}

fn error(partition: &PartitionData) -> Option<ResponseError> {
    ResponseError::try_from_code(partition.error_code)
}

/// The batches of a partition's records.
fn batches(partition: &PartitionData) -> Vec<Bytes> {
    let mut rest = partition.records.clone().unwrap();
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let len = BatchHeader::parse(&rest).unwrap().batch_len().unwrap();
        batches.push(rest.split_to(len));
    }
    batches
}

/// (offset, value) of all records.
fn values(partition: &PartitionData) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    for batch in batches(partition) {
        let open = OpenBatch::open(&batch, 1 << 20).unwrap();
        for record in open.records() {
            let record = record.unwrap();
            let offset = open.header().base_offset + i64::from(record.offset_delta);
            all.push((offset, String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
        }
    }
    all
}

async fn append(logs: &FakeLogs, log: u64, values: &[&str]) {
    let built = batch(values);
    let append = Append {
        log: LogId(log),
        kind: AppendKind::Data,
        key: None,
        window: 5,
        count: built.count,
        max_timestamp: built.max_timestamp,
        digest: None,
        early: false,
        batch: built.bytes,
    };
    logs.append(append).await.unwrap();
}

fn own<T: ToString>(records: &[(i64, T)]) -> Vec<(i64, String)> {
    records.iter().map(|(offset, value)| (*offset, value.to_string())).collect()
}

#[tokio::test]
async fn every_version_is_read_and_answered() {
    for version in frame::served_versions(ApiKey::Fetch).unwrap() {
        let logs = FakeLogs::new([1, 2, 3]);
        let plane = plane(&logs, [topic("t", &[1, 2], &[]), topic("u", &[3], &[])]);
        append(&logs, 1, &["a", "b"]).await;
        append(&logs, 3, &["c"]).await;
        append(&logs, 3, &["d"]).await;
        let wanted: &[(&str, &[(i32, i64)])] =
            &[("t", &[(0, 0), (1, 0), (9, 0)]), ("none", &[(0, 0)]), ("u", &[(0, 1)])];
        for isolation in [0, 1] {
            let request = request(version, wanted).with_isolation_level(isolation);
            let response = fetch(&plane, version, &request).await;
            let all = partitions(&response);
            assert_eq!(all.len(), 5);
            assert_eq!(values(all[0].1), own(&[(0, "a"), (1, "b")]));
            assert_eq!((all[0].1.high_watermark, all[0].1.last_stable_offset), (2, 2));
            assert_eq!(all[0].1.aborted_transactions.is_some(), isolation == 1);
            assert!(batches(all[1].1).is_empty());
            assert_eq!(error(all[2].1), Some(ResponseError::UnknownTopicOrPartition));
            let unknown = if version >= 13 {
                ResponseError::UnknownTopicId
            } else {
                ResponseError::UnknownTopicOrPartition
            };
            assert_eq!(error(all[3].1), Some(unknown));
            assert_eq!(values(all[4].1), own(&[(1, "d")]));
            for (sent, got) in ["t", "none", "u"].into_iter().zip(&response.responses) {
                if version >= 13 {
                    assert_eq!(got.topic_id, id_of(sent));
                } else {
                    assert_eq!(got.topic, name(sent));
                }
            }
        }
    }
}

/// Large reads begin before their turn, two at a time: the response is as if they didn't, and none is
/// made twice.
#[tokio::test(start_paused = true)]
async fn k8_large_reads_ahead_keep_to_the_limits() {
    const LOGS: u64 = 12;
    let logs = FakeLogs::new(1..=LOGS);
    let ids: Vec<u64> = (1..=LOGS).collect();
    let plane = plane(&logs, [topic("t", &ids, &[])]);
    let values: Vec<String> = (0..4).map(|n| n.to_string().repeat(200_000)).collect();
    for log in 1..=LOGS {
        for value in &values {
            append(&logs, log, &[value]).await;
        }
    }
    let both = Arc::new(tokio::sync::Barrier::new(2));
    *logs.together.lock() = Some((vec![LogId(3), LogId(4)], both));
    // Two batches of a partition fit, and seven partitions.
    for offset in [0, 1] {
        let from: Vec<(i32, i64)> = (0..LOGS as i32).map(|partition| (partition, offset)).collect();
        let mut wanted = request(12, &[("t", &from)]).with_max_bytes(7 * 401_000);
        for partition in &mut wanted.topics[0].partitions {
            partition.partition_max_bytes = 401_000;
        }
        let before = logs.reads.load(Ordering::Relaxed);
        let fetched = tokio::time::timeout(Duration::from_secs(1), fetch(&plane, 12, &wanted));
        let response = fetched.await.expect("two reads at a time");
        for (partition, data) in partitions(&response) {
            assert_eq!(error(data), None);
            let got: Vec<Bytes> = batches(data);
            assert_eq!(got.len(), if partition < 7 { 2 } else { 0 }, "partition {partition}");
            for (n, batch) in (offset..).zip(&got) {
                assert_eq!(BatchHeader::parse(batch).unwrap().base_offset, n);
            }
        }
        let reads = logs.reads.load(Ordering::Relaxed) - before;
        assert!(reads <= LOGS as usize, "{reads} reads");
    }
}

#[tokio::test]
async fn k5_batches_come_back_as_they_were_sent_but_for_offset_and_epoch() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    append(&logs, 1, &["x"]).await;
    append(&logs, 1, &["a", "", "c"]).await;
    let response = fetch(&plane, 12, &request(12, &[("t", &[(0, 2)])])).await;
    let got = batches(partitions(&response)[0].1);
    let sent = batch(&["a", "", "c"]).bytes;
    assert_eq!(got.len(), 1);
    assert_eq!(got[0][12 + 4..], sent[12 + 4..]);
    assert_eq!(BatchHeader::parse(&got[0]).unwrap().base_offset, 1);
}

#[tokio::test]
async fn large_batches_are_lent_and_small_ones_share_a_piece() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let long = "x".repeat(5000);
    for value in ["a", "b", long.as_str(), "c"] {
        append(&logs, 1, &[value]).await;
    }
    let mut body = BytesMut::new();
    request(12, &[("t", &[(0, 0)])]).encode(&mut body, 12).unwrap();
    let answer = plane.fetch(12, &body).await.unwrap();
    let chunks = answer.chunks();
    assert_eq!(chunks.len(), 3);
    let read = Read { log: LogId(1), offset: 2, max_bytes: 1, stable_only: false, filter: None };
    let stored = logs.read(read).await.unwrap().batches.remove(0);
    assert_eq!(chunks[1].as_ptr(), stored.bytes.as_ptr());
    let response = FetchResponse::decode(&mut flat(&answer), 12).unwrap();
    let expected = own(&[(0, "a"), (1, "b"), (2, &long), (3, "c")]);
    assert_eq!(values(partitions(&response)[0].1), expected);
}

#[tokio::test(start_paused = true)]
async fn k7_an_empty_fetch_waits_max_wait_and_reads_nothing() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let begin = Instant::now();
    let wanted = request(12, &[("t", &[(0, 0)])]).with_max_wait_ms(500);
    let response = fetch(&plane, 12, &wanted).await;
    assert_eq!(begin.elapsed().as_millis(), 500);
    assert!(batches(partitions(&response)[0].1).is_empty());
    assert_eq!(logs.reads.load(Ordering::Relaxed), 0);
    let begin = Instant::now();
    fetch(&plane, 12, &request(12, &[("t", &[(0, 0)])])).await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn k7_a_fetch_is_woken_by_the_append() {
    let logs = FakeLogs::new([1, 2]);
    let plane = Arc::new(plane(&logs, [topic("t", &[1, 2], &[])]));
    let wanted = request(12, &[("t", &[(0, 0), (1, 0)])]).with_max_wait_ms(60_000);
    let begin = Instant::now();
    let fetching = fetch(&plane, 12, &wanted);
    let mut fetching = std::pin::pin!(fetching);
    assert!(futures_util::poll!(fetching.as_mut()).is_pending());
    append(&logs, 2, &["a"]).await;
    let response = fetching.await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(values(partitions(&response)[1].1), own(&[(0, "a")]));
    assert_eq!(logs.reads.load(Ordering::Relaxed), 1);
    assert_eq!((logs.observers(1), logs.observers(2)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn k7_min_bytes_counts_all_partitions() {
    let logs = FakeLogs::new([1, 2]);
    let plane = plane(&logs, [topic("t", &[1, 2], &[])]);
    let size = batch(&["a"]).bytes.len() as i32;
    let wanted =
        request(12, &[("t", &[(0, 0), (1, 0)])]).with_max_wait_ms(60_000).with_min_bytes(3 * size);
    let begin = Instant::now();
    let fetching = fetch(&plane, 12, &wanted);
    let mut fetching = std::pin::pin!(fetching);
    for log in [1, 2] {
        append(&logs, log, &["a"]).await;
        assert!(futures_util::poll!(fetching.as_mut()).is_pending());
    }
    append(&logs, 1, &["b"]).await;
    let response = fetching.await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    let all = partitions(&response);
    assert_eq!(values(all[0].1), own(&[(0, "a"), (1, "b")]));
    assert_eq!(values(all[1].1), own(&[(0, "a")]));
    // Too little still comes when the time is up.
    let wanted = wanted.clone().with_min_bytes(100 * size).with_max_wait_ms(100);
    let response = fetch(&plane, 12, &wanted).await;
    assert_eq!(begin.elapsed().as_millis(), 100);
    assert_eq!(values(partitions(&response)[0].1).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn k7_what_comes_while_a_fetch_waits_is_added_up_to_its_limits() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let size = batch(&["a"]).bytes.len() as i32;
    for _ in 0..3 {
        append(&logs, 1, &["a"]).await;
    }
    // Most of the limit is there, and not enough.
    let mut wanted =
        request(12, &[("t", &[(0, 0)])]).with_max_wait_ms(60_000).with_min_bytes(4 * size);
    wanted.topics[0].partitions[0].partition_max_bytes = 5 * size;
    let begin = Instant::now();
    let fetching = fetch(&plane, 12, &wanted);
    let mut fetching = std::pin::pin!(fetching);
    assert!(futures_util::poll!(fetching.as_mut()).is_pending());
    append(&logs, 1, &["b"]).await;
    let response = fetching.await;
    assert_eq!(begin.elapsed(), Duration::ZERO);
    assert_eq!(values(partitions(&response)[0].1).len(), 4);
}

#[tokio::test]
async fn k7_limits_hold_but_the_first_batch_always_comes() {
    let logs = FakeLogs::new([1, 2]);
    let plane = plane(&logs, [topic("t", &[1, 2], &[])]);
    for log in [1, 2] {
        for _ in 0..5 {
            append(&logs, log, &["0123456789"]).await;
        }
    }
    let size = batch(&["0123456789"]).bytes.len() as i32;
    let both = request(12, &[("t", &[(0, 0), (1, 0)])]);
    let counts = |response: &FetchResponse| -> Vec<usize> {
        partitions(response).iter().map(|(_, p)| batches(p).len()).collect()
    };
    let response = fetch(&plane, 12, &both.clone().with_max_bytes(1)).await;
    assert_eq!(counts(&response), [1, 0]);
    let response = fetch(&plane, 12, &both.clone().with_max_bytes(3 * size)).await;
    assert_eq!(counts(&response), [3, 0]);
    let response = fetch(&plane, 12, &both.clone().with_max_bytes(7 * size + 3)).await;
    assert_eq!(counts(&response), [5, 2]);
    let mut small = both.clone();
    for partition in &mut small.topics[0].partitions {
        partition.partition_max_bytes = 2 * size;
    }
    assert_eq!(counts(&fetch(&plane, 12, &small).await), [2, 2]);
    for partition in &mut small.topics[0].partitions {
        partition.partition_max_bytes = 1;
    }
    assert_eq!(counts(&fetch(&plane, 12, &small).await), [1, 0]);
    let limits = DataLimits { fetch_max_bytes: 2 * size as usize, ..DataLimits::default() };
    let plane = plane_with(&logs, [topic("t", &[1, 2], &[])], limits);
    assert_eq!(counts(&fetch(&plane, 12, &both).await), [2, 0]);
}

#[tokio::test(start_paused = true)]
async fn k8_offsets_out_of_range_and_leader_epochs() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    for value in ["a", "b", "c"] {
        append(&logs, 1, &[value]).await;
    }
    logs.set_start(1, 1);
    for offset in [0, 4, -5] {
        let wanted = request(12, &[("t", &[(0, offset)])]).with_max_wait_ms(60_000);
        let begin = Instant::now();
        let response = fetch(&plane, 12, &wanted).await;
        let partition = partitions(&response)[0].1.clone();
        assert_eq!(error(&partition), Some(ResponseError::OffsetOutOfRange));
        assert_eq!((partition.log_start_offset, partition.high_watermark), (1, 3));
        assert_eq!(begin.elapsed(), Duration::ZERO);
    }
    logs.set_leader_epoch(1, 5);
    let at_epoch = |epoch| {
        let mut wanted = request(12, &[("t", &[(0, 1)])]);
        wanted.topics[0].partitions[0].current_leader_epoch = epoch;
        wanted
    };
    for (epoch, expected) in [(6, Some(ResponseError::UnknownLeaderEpoch)), (5, None), (4, None)] {
        let response = fetch(&plane, 12, &at_epoch(epoch)).await;
        assert_eq!(error(partitions(&response)[0].1), expected, "epoch {epoch}");
    }
}

#[tokio::test(start_paused = true)]
async fn k8_an_offset_that_the_client_heard_of_first_is_in_range() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    fetch(&plane, 12, &request(12, &[("t", &[(0, 0)])])).await;
    logs.mute(true);
    append(&logs, 1, &["a"]).await;
    let wanted = request(12, &[("t", &[(0, 1)])]).with_max_wait_ms(60_000);
    let fetching = fetch(&plane, 12, &wanted);
    let mut fetching = std::pin::pin!(fetching);
    assert!(futures_util::poll!(fetching.as_mut()).is_pending());
    logs.mute(false);
    append(&logs, 1, &["b"]).await;
    assert_eq!(values(partitions(&fetching.await)[0].1), own(&[(1, "b")]));
}

#[tokio::test(start_paused = true)]
async fn a_deleted_log_ends_the_wait() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let wanted = request(13, &[("t", &[(0, 0)])]).with_max_wait_ms(60_000);
    let begin = Instant::now();
    let fetching = fetch(&plane, 13, &wanted);
    let mut fetching = std::pin::pin!(fetching);
    assert!(futures_util::poll!(fetching.as_mut()).is_pending());
    logs.delete(1);
    let response = fetching.await;
    assert_eq!(error(partitions(&response)[0].1), Some(ResponseError::UnknownTopicId));
    assert_eq!(begin.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_gap_without_records_moves_the_reader_on() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    append(&logs, 1, &["a"]).await;
    logs.jump(1, 10);
    let response = fetch(&plane, 12, &request(12, &[("t", &[(0, 1)])])).await;
    let got = batches(partitions(&response)[0].1);
    let header = BatchHeader::parse(&got[0]).unwrap();
    assert_eq!((header.base_offset, header.last_offset_delta, header.count), (1, 9, 0));
    assert_eq!(header.crc, crc32c::crc32c(&got[0][BatchHeader::CRC_FROM..]));
    assert!(values(partitions(&response)[0].1).is_empty());
}

#[test]
fn any_request_reads_as_kafka_protocol_reads_it() {
    let mut rng = frame::random::rng();
    let topics = Topics::fixed([]);
    let key = |version, topic: &TopicName, id: uuid::Uuid| {
        if version >= 13 { TopicKey::Id(id) } else { TopicKey::Name(topic.as_str().into()) }
    };
    let size = |value| usize::try_from(value).unwrap_or(0);
    for version in frame::served_versions(ApiKey::Fetch).unwrap() {
        for _ in 0..200 {
            let body = frame::random::random_body(ApiKey::Fetch, version, &mut rng);
            let theirs = FetchRequest::decode(&mut body.clone(), version).unwrap();
            let ours = super::request::read(version, &body, &topics).unwrap();
            assert_eq!(ours.max_wait.as_millis(), size(theirs.max_wait_ms) as u128);
            assert_eq!(ours.min_bytes, size(theirs.min_bytes));
            assert_eq!(ours.max_bytes, size(theirs.max_bytes));
            assert_eq!(ours.read_committed, theirs.isolation_level == 1);
            assert_eq!(ours.session_id, theirs.session_id);
            assert_eq!(ours.session_epoch, theirs.session_epoch);
            let wanted = theirs.topics.iter().flat_map(|topic| {
                let key = key(version, &topic.topic, topic.topic_id);
                topic.partitions.iter().map(move |p| {
                    let max_bytes = size(p.partition_max_bytes);
                    (key.clone(), p.partition, p.current_leader_epoch, p.fetch_offset, max_bytes)
                })
            });
            let read = ours.wanted.into_iter().map(|wanted| {
                let Wanted { topic, partition, leader_epoch, offset, max_bytes } = wanted;
                (topic, partition, leader_epoch, offset, max_bytes)
            });
            assert_eq!(read.collect::<Vec<_>>(), wanted.collect::<Vec<_>>());
            let forgotten = theirs.forgotten_topics_data.iter().flat_map(|topic| {
                let key = key(version, &topic.topic, topic.topic_id);
                topic.partitions.iter().map(move |partition| (key.clone(), *partition))
            });
            assert_eq!(ours.forgotten, forgotten.collect::<Vec<_>>());
        }
    }
}
