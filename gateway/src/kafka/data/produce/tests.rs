//! K3 to K6 over a log in memory; the codec against kafka-protocol's.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use interflow_logstore::{AppendError, AppendKey};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse, TopicName};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::*;
use crate::kafka::data::DataPlane;
use crate::kafka::data::fake::{FakeLogs, NOW, batch, flat, id_of, plane, topic};
use crate::kafka::frame;
use crate::records::{BatchHeader, TimestampType};

fn name(name: &str) -> TopicName {
    TopicName(StrBytes::from(name.to_owned()))
}

fn partition(index: i32, records: impl Into<Option<Bytes>>) -> PartitionProduceData {
    PartitionProduceData::default().with_index(index).with_records(records.into())
}

fn request(
    version: i16,
    acks: i16,
    topics: &[(&str, Vec<PartitionProduceData>)],
) -> ProduceRequest {
    let topics = topics.iter().map(|(topic, partitions)| {
        let data = TopicProduceData::default().with_partition_data(partitions.clone());
        if version >= 13 { data.with_topic_id(id_of(topic)) } else { data.with_name(name(topic)) }
    });
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(5000)
        .with_topic_data(topics.collect())
}

fn start(plane: &DataPlane, version: i16, request: &ProduceRequest) -> Produce {
    let mut body = BytesMut::new();
    request.encode(&mut body, version).unwrap();
    plane.start_produce(version, &body.freeze()).unwrap()
}

async fn finish(version: i16, produce: Produce) -> ProduceResponse {
    match produce.finish().await {
        ProduceAnswer::Body(body) => {
            let mut bytes = flat(&body);
            let response = ProduceResponse::decode(&mut bytes, version).unwrap();
            assert!(bytes.is_empty(), "v{version} leaves bytes");
            response
        }
        other => panic!("{other:?}"),
    }
}

/// Produces records to partition 0 of topic `t`.
async fn produce(plane: &DataPlane, records: Bytes) -> PartitionProduceResponse {
    let request = request(9, -1, &[("t", vec![partition(0, records)])]);
    let mut response = finish(9, start(plane, 9, &request)).await;
    response.responses.remove(0).partition_responses.remove(0)
}

fn error(response: &PartitionProduceResponse) -> Option<ResponseError> {
    ResponseError::try_from_code(response.error_code)
}

/// The batch with its producer fields set.
fn with_producer(records: &Bytes, id: i64, epoch: i16, sequence: i32) -> Bytes {
    let mut bytes = BytesMut::from(&records[..]);
    bytes[43..51].copy_from_slice(&id.to_be_bytes());
    bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
    bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
    fixed(bytes)
}

fn fixed(mut bytes: BytesMut) -> Bytes {
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

#[tokio::test]
async fn every_version_is_read_and_answered() {
    for version in frame::served_versions(ApiKey::Produce).unwrap() {
        let logs = FakeLogs::new([1, 2, 3]);
        let plane = plane(&logs, [topic("t", &[1, 2], &[]), topic("u", &[3], &[])]);
        let first = batch(&["a", "b"]).bytes;
        let request = request(
            version,
            1,
            &[
                ("t", vec![partition(1, first.clone()), partition(7, first.clone())]),
                ("none", vec![partition(0, first.clone())]),
                ("u", vec![partition(0, None), partition(0, first.clone())]),
            ],
        );
        let response = finish(version, start(&plane, version, &request)).await;
        assert_eq!(response.responses.len(), 3);
        let unknown = if version >= 13 {
            ResponseError::UnknownTopicId
        } else {
            ResponseError::UnknownTopicOrPartition
        };
        let codes: Vec<Vec<_>> = response
            .responses
            .iter()
            .map(|topic| topic.partition_responses.iter().map(error).collect())
            .collect();
        let missing = Some(ResponseError::UnknownTopicOrPartition);
        assert_eq!(
            codes,
            [
                vec![None, missing],
                vec![Some(unknown)],
                vec![Some(ResponseError::InvalidRecord), None]
            ]
        );
        for (sent, got) in ["t", "none", "u"].into_iter().zip(&response.responses) {
            if version >= 13 {
                assert_eq!(got.topic_id, id_of(sent));
            } else {
                assert_eq!(got.name, name(sent));
            }
        }
        let indexes: Vec<_> =
            response.responses[0].partition_responses.iter().map(|p| p.index).collect();
        assert_eq!(indexes, [1, 7]);
        assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
        let appends = logs.appends();
        assert_eq!(appends.len(), 2);
        assert_eq!(appends[0].batch, first);
    }
}

#[tokio::test]
async fn k3_acks_0_is_silent_and_closes_on_an_error() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let good = request(9, 0, &[("t", vec![partition(0, batch(&["a"]).bytes)])]);
    let started = start(&plane, 9, &good);
    assert!(!started.is_answered());
    assert!(matches!(started.finish().await, ProduceAnswer::Silent));
    assert_eq!(logs.appends().len(), 1);
    logs.refuse(Some(AppendError::DiskFull));
    assert!(matches!(start(&plane, 9, &good).finish().await, ProduceAnswer::Close));
    let bad = request(9, 0, &[("t", vec![partition(0, Bytes::from_static(b"x"))])]);
    assert!(matches!(start(&plane, 9, &bad).finish().await, ProduceAnswer::Close));
}

#[tokio::test]
async fn k3_acks_1_and_all_wait_for_the_commit_and_others_are_refused() {
    for acks in [1, -1] {
        let logs = FakeLogs::new([1]);
        let plane = plane(&logs, [topic("t", &[1], &[])]);
        logs.hold();
        let request = request(9, acks, &[("t", vec![partition(0, batch(&["a"]).bytes)])]);
        let answer = finish(9, start(&plane, 9, &request));
        let mut answer = std::pin::pin!(answer);
        assert!(futures_util::poll!(answer.as_mut()).is_pending());
        logs.release();
        let response = answer.await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let request = request(9, 2, &[("t", vec![partition(0, batch(&["a"]).bytes)])]);
    let response = finish(9, start(&plane, 9, &request)).await;
    let answer = &response.responses[0].partition_responses[0];
    assert_eq!(error(answer), Some(ResponseError::InvalidRequiredAcks));
    assert!(logs.appends().is_empty());
}

#[tokio::test]
async fn k2_appends_are_started_in_the_order_of_requests() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    logs.hold();
    let values = ["a", "b", "c", "d"];
    let started: Vec<_> = values
        .iter()
        .map(|v| {
            let request = request(9, -1, &[("t", vec![partition(0, batch(&[v]).bytes)])]);
            start(&plane, 9, &request)
        })
        .collect();
    logs.release();
    for (n, produce) in started.into_iter().enumerate() {
        let response = finish(9, produce).await;
        assert_eq!(response.responses[0].partition_responses[0].base_offset, n as i64);
    }
    let sent: Vec<_> = values.iter().map(|v| batch(&[v]).bytes).collect();
    let kept: Vec<_> = logs.appends().into_iter().map(|append| append.batch).collect();
    assert_eq!(kept, sent);
}

#[tokio::test]
async fn k4_each_flaw_has_its_error_and_nothing_of_that_partition_is_kept() {
    let logs = FakeLogs::new([1, 2]);
    let small = topic("small", &[2], &[("max.message.bytes", "80")]);
    let plane = plane(&logs, [topic("t", &[1], &[]), small]);
    let good = batch(&["a", "b"]).bytes;
    let patched = |at: usize, field: &[u8]| {
        let mut bytes = BytesMut::from(&good[..]);
        bytes[at..at + field.len()].copy_from_slice(field);
        fixed(bytes)
    };
    let mut flipped = BytesMut::from(&good[..]);
    flipped[65] ^= 0x40;
    use ResponseError as E;
    let cases = [
        (flipped.freeze(), E::CorruptMessage),
        (good.slice(..good.len() - 1), E::CorruptMessage),
        (Bytes::new(), E::CorruptMessage),
        (patched(16, &[1]), E::UnsupportedForMessageFormat),
        (patched(16, &[0]), E::UnsupportedForMessageFormat),
        (patched(57, &3_i32.to_be_bytes()), E::InvalidRecord),
        (patched(22, &[7]), E::UnsupportedCompressionType),
        (patched(22, &[0x20]), E::InvalidRecord),
        (patched(35, &(NOW + 3_600_001).to_be_bytes()), E::InvalidTimestamp),
        ([&good[..], &good[..]].concat().into(), E::InvalidRecord),
    ];
    for (records, expected) in cases {
        let answer = produce(&plane, records).await;
        assert_eq!(error(&answer), Some(expected));
        assert_eq!((answer.base_offset, answer.log_append_time_ms), (-1, -1));
        assert!(answer.error_message.is_some());
    }
    assert!(logs.appends().is_empty());
    // The other partitions of a request are unaffected.
    let big = batch(&["0123456789abcdef"]).bytes;
    let request = request(
        9,
        -1,
        &[("small", vec![partition(0, big.clone())]), ("t", vec![partition(0, big.clone())])],
    );
    let response = finish(9, start(&plane, 9, &request)).await;
    let answers: Vec<_> =
        response.responses.iter().map(|topic| error(&topic.partition_responses[0])).collect();
    assert_eq!(answers, [Some(E::MessageTooLarge), None]);
    assert_eq!(logs.appends().len(), 1);
}

#[tokio::test]
async fn k4_zstd_needs_version_7() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let mut bytes = BytesMut::from(&batch(&["a"]).bytes[..]);
    bytes[22] = 4;
    let records = fixed(bytes);
    for (version, expected) in [(6, Some(ResponseError::UnsupportedCompressionType)), (7, None)] {
        let request = request(version, -1, &[("t", vec![partition(0, records.clone())])]);
        let response = finish(version, start(&plane, version, &request)).await;
        assert_eq!(error(&response.responses[0].partition_responses[0]), expected);
    }
}

#[tokio::test]
async fn k5_log_append_time_is_the_brokers() {
    let logs = FakeLogs::new([1]);
    let options = [("message.timestamp.type", "LogAppendTime")];
    let plane = plane(&logs, [topic("t", &[1], &options)]);
    let records = batch(&["a", "b"]).bytes;
    let answer = produce(&plane, records.clone()).await;
    assert_eq!((answer.error_code, answer.log_append_time_ms), (0, NOW));
    let append = logs.appends().remove(0);
    let header = BatchHeader::parse(&append.batch).unwrap();
    assert_eq!(header.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!((header.max_timestamp, append.max_timestamp), (NOW, NOW));
    assert_eq!(append.batch[43..], records[43..]);
}

#[tokio::test]
async fn k6_the_append_key_is_that_of_the_batch() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let records = batch(&["a", "b", "c"]).bytes;
    let answer = produce(&plane, with_producer(&records, 77, 3, 41)).await;
    assert_eq!(answer.error_code, 0);
    let answer = produce(&plane, records.clone()).await;
    assert_eq!(answer.error_code, 0);
    let appends = logs.appends();
    let key = AppendKey { producer_id: 77, producer_epoch: 3, sequence: 41 };
    assert_eq!((appends[0].key, appends[0].window, appends[0].count), (Some(key), 5, 3));
    assert_eq!(appends[1].key, None);
    // A producer id without a sequence can't be idempotent.
    let answer = produce(&plane, with_producer(&records, 77, 3, -1)).await;
    assert_eq!(error(&answer), Some(ResponseError::InvalidRecord));
}

#[tokio::test]
async fn transactional_batches_are_refused() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    let mut bytes = BytesMut::from(&with_producer(&batch(&["a"]).bytes, 1, 0, 0)[..]);
    bytes[22] |= 0x10;
    let answer = produce(&plane, fixed(bytes)).await;
    assert_eq!(error(&answer), Some(ResponseError::InvalidTxnState));
    assert!(logs.appends().is_empty());
}

#[tokio::test]
async fn k25_errors_of_the_log_are_kafkas() {
    let logs = FakeLogs::new([1]);
    let plane = plane(&logs, [topic("t", &[1], &[])]);
    use ResponseError as E;
    let cases = [
        (AppendError::NoSuchLog, E::UnknownTopicOrPartition),
        (AppendError::OutOfOrderSequence { expected: 1, got: 2 }, E::OutOfOrderSequenceNumber),
        (AppendError::DuplicateSequence, E::DuplicateSequenceNumber),
        (AppendError::ProducerFenced { current: 2 }, E::InvalidProducerEpoch),
        (AppendError::TooLarge { max_bytes: 1 }, E::MessageTooLarge),
        (AppendError::DiskFull, E::KafkaStorageError),
        (AppendError::JournalFailed, E::KafkaStorageError),
        (AppendError::Stopped("test".into()), E::NotLeaderOrFollower),
        (AppendError::Unknown, E::RequestTimedOut),
        (AppendError::Busy, E::NotEnoughReplicas),
    ];
    for (inside, outside) in cases {
        logs.refuse(Some(inside.clone()));
        let answer = produce(&plane, batch(&["a"]).bytes).await;
        assert_eq!(error(&answer), Some(outside), "{inside:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_that_takes_too_long_is_answered_as_timed_out() {
    let logs = FakeLogs::new([1]);
    let plane = Arc::new(plane(&logs, [topic("t", &[1], &[])]));
    logs.hold();
    let answer = produce(&plane, batch(&["a"]).bytes).await;
    assert_eq!(error(&answer), Some(ResponseError::RequestTimedOut));
}

/// What a request says, written down.
struct Said(Vec<String>);

impl request::Visitor for Said {
    fn topic(&mut self, topic: request::Named<'_>, partitions: usize) {
        let topic = match topic {
            request::Named::Name(name) => name.to_owned(),
            request::Named::Id(id) => id.to_string(),
        };
        self.0.push(format!("{topic} {partitions}"));
    }

    fn partition(&mut self, index: i32, records: Option<Bytes>) {
        self.0.push(format!("{index} {records:?}"));
    }
}

#[test]
fn any_request_reads_as_kafka_protocol_reads_it() {
    let mut rng = frame::random::rng();
    for version in frame::served_versions(ApiKey::Produce).unwrap() {
        for _ in 0..200 {
            let body = frame::random::random_body(ApiKey::Produce, version, &mut rng);
            let theirs = ProduceRequest::decode(&mut body.clone(), version).unwrap();
            let ours = request::walk(version, &body, |preamble| {
                assert_eq!((preamble.acks, preamble.timeout_ms), (theirs.acks, theirs.timeout_ms));
                Said(Vec::new())
            });
            let mut expected = Vec::new();
            for topic in theirs.topic_data {
                let name =
                    if version >= 13 { topic.topic_id.to_string() } else { topic.name.to_string() };
                expected.push(format!("{name} {}", topic.partition_data.len()));
                let partitions = topic.partition_data.into_iter();
                expected.extend(partitions.map(|p| format!("{} {:?}", p.index, p.records)));
            }
            assert_eq!(ours.unwrap().0, expected);
            // Cut anywhere, it is refused and starts nothing.
            let cut = body.slice(..body.len() / 2);
            let plane = plane(&FakeLogs::new([]), []);
            assert!(plane.start_produce(version, &cut).is_err());
        }
    }
}
