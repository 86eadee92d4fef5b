//! K7–K9: Fetch.

use std::time::{Duration, Instant};

use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FetchRequest, MetadataRequest};
use uuid::Uuid;

use crate::batch::{batch, records};
use crate::broker::{Broker, is_reference, unique};
use crate::client::*;

#[test]
fn k7_max_wait_and_min_bytes() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 2);
    // Nothing there: answered when the time is over.
    let started = Instant::now();
    let request = fetch_request(&[(&topic, 0, 0)]).with_max_wait_ms(300).with_min_bytes(1);
    let answer = kafka.call(&request, FETCH);
    assert!(only_partition(&answer).records.as_deref().unwrap_or_default().is_empty());
    assert!(started.elapsed() >= Duration::from_millis(290));
    // Enough there: at once. The bytes of all partitions count together.
    kafka.append(&topic, 0, &batch("k", &["x"]));
    kafka.append(&topic, 1, &batch("k", &["x"]));
    let both = batch("k", &["x"]).bytes().len() as i32 * 2;
    let request = fetch_request(&[(&topic, 0, 0), (&topic, 1, 0)])
        .with_max_wait_ms(3_600_000)
        .with_min_bytes(both);
    let answer = kafka.call(&request, FETCH);
    assert_eq!(answer.responses[0].partitions.len(), 2);
}

#[test]
fn k7_woken_by_the_append() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 2);
    let mut waiting = Kafka::connect();
    // It would wait for an hour: only the append can end it.
    let request = fetch_request(&[(&topic, 0, 0), (&topic, 1, 0)])
        .with_max_wait_ms(3_600_000)
        .with_min_bytes(1);
    let correlation = waiting.send(&request, FETCH);
    kafka.append(&topic, 1, &batch("k", &["woken"]));
    let answer = waiting.receive::<FetchRequest>(correlation, FETCH);
    let found: Vec<_> = answer.responses[0]
        .partitions
        .iter()
        .flat_map(|p| records(p.records.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(found[0].text(), "woken");
}

#[test]
fn k7_max_bytes_and_the_first_batch() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 2);
    let large = "x".repeat(10_000);
    for partition in [0, 1] {
        for _ in 0..3 {
            kafka.append(&topic, partition, &batch("k", &[&large]));
        }
    }
    let count = |data: &[u8]| records(data).len();
    let fetch = |kafka: &mut Kafka, max: i32, partition_max: i32| -> Vec<usize> {
        let mut request = fetch_request(&[(&topic, 0, 0), (&topic, 1, 0)]).with_max_bytes(max);
        for partition in &mut request.topics[0].partitions {
            partition.partition_max_bytes = partition_max;
        }
        let answer = kafka.call(&request, FETCH);
        let partitions = &answer.responses[0].partitions;
        partitions.iter().map(|p| count(p.records.as_deref().unwrap_or_default())).collect()
    };
    let sum = |counts: &[usize]| counts.iter().sum::<usize>();
    // The first batch comes even when it is larger than all limits.
    assert_eq!(sum(&fetch(&mut kafka, 1, 1)), 1);
    // No more than fits: two of 10,000 in 25,000.
    assert_eq!(sum(&fetch(&mut kafka, 25_000, 1 << 20)), 2);
    assert_eq!(fetch(&mut kafka, 1 << 20, 15_000), [1, 1]);
    assert_eq!(fetch(&mut kafka, 1 << 20, 1 << 20), [3, 3]);
}

#[test]
fn k7_a_fetch_in_the_middle_of_a_batch_returns_it_whole() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    kafka.append(&topic, 0, &batch("k", &["0", "1", "2"]));
    kafka.append(&topic, 0, &batch("k", &["3"]));
    let got = records(&kafka.fetch(&topic, 0, 1).records.unwrap());
    assert_eq!(got[0].offset, 0, "clients skip what they didn't ask for");
    assert_eq!(kafka.read(&topic, 0, 1).len(), 3);
}

#[test]
fn k8_out_of_range() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    kafka.append(&topic, 0, &batch("k", &["0", "1"]));
    let at_end = kafka.fetch(&topic, 0, 2);
    assert_eq!((at_end.error_code, at_end.high_watermark, at_end.log_start_offset), (0, 2, 0));
    for offset in [3, 1_000_000, -5] {
        let data = kafka.fetch(&topic, 0, offset);
        assert_eq!(data.error_code, 1, "OFFSET_OUT_OF_RANGE at {offset}");
        if offset > 0 {
            assert_eq!((data.high_watermark, data.log_start_offset), (2, 0));
        }
    }
}

#[test]
fn k8_topic_ids_and_leader_epochs() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    kafka.append(&topic, 0, &batch("k", &["x"]));
    let by_id = |id: Uuid| {
        let mut request = fetch_request(&[(&topic, 0, 0)]);
        request.topics[0].topic = Default::default();
        request.topics[0].topic_id = id;
        request
    };
    let ask = MetadataRequestTopic::default().with_name(Some(topic_name(&topic)));
    let metadata = kafka.call(&MetadataRequest::default().with_topics(Some(vec![ask])), 12);
    let found = &metadata.topics[0];
    let answer = kafka.call(&by_id(found.topic_id), 13);
    assert_eq!(records(only_partition(&answer).records.as_deref().unwrap()).len(), 1);
    let answer = kafka.call(&by_id(Uuid::from_u128(0x1234)), 13);
    assert_eq!(only_partition(&answer).error_code, 100, "UNKNOWN_TOPIC_ID");
    let epoch = found.partitions[0].leader_epoch;
    let with_epoch = |kafka: &mut Kafka, epoch| {
        let mut request = fetch_request(&[(&topic, 0, 0)]);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        only_partition(&kafka.call(&request, FETCH)).error_code
    };
    assert_eq!(with_epoch(&mut kafka, epoch), 0);
    assert_eq!(with_epoch(&mut kafka, epoch + 1), 75, "UNKNOWN_LEADER_EPOCH");
}

fn session(id: i32, epoch: i32, parts: &[(&str, i32, i64)]) -> FetchRequest {
    fetch_request(parts).with_session_id(id).with_session_epoch(epoch)
}

#[test]
fn k9_sessions_full_incremental_and_forgotten() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 3);
    let all = [(topic.as_str(), 0, 0), (topic.as_str(), 1, 0), (topic.as_str(), 2, 0)];
    let full = kafka.call(&session(0, 0, &all), FETCH);
    assert_eq!(full.error_code, 0);
    assert_ne!(full.session_id, 0);
    assert_eq!(full.responses[0].partitions.len(), 3, "a full fetch names all partitions");
    // Nothing changed: an incremental answer names none.
    let id = full.session_id;
    let answer = kafka.call(&session(id, 1, &[]), FETCH);
    assert_eq!((answer.error_code, answer.responses.len()), (0, 0));
    // What changed is named, without being asked for.
    kafka.append(&topic, 1, &batch("k", &["news"]));
    let answer = kafka.call(&session(id, 2, &[]), FETCH);
    assert_eq!(answer.responses[0].partitions.len(), 1);
    assert_eq!(only_partition(&answer).partition_index, 1);
    assert_eq!(records(only_partition(&answer).records.as_deref().unwrap())[0].text(), "news");
    // A forgotten partition isn't named any more.
    let mut forget = session(id, 3, &[(&topic, 1, 1)]);
    forget.forgotten_topics_data =
        vec![ForgottenTopic::default().with_topic(topic_name(&topic)).with_partitions(vec![2])];
    assert_eq!(kafka.call(&forget, FETCH).error_code, 0);
    kafka.append(&topic, 2, &batch("k", &["unseen"]));
    kafka.append(&topic, 0, &batch("k", &["seen"]));
    let answer = kafka.call(&session(id, 4, &[]), FETCH);
    let named: Vec<_> = answer.responses[0].partitions.iter().map(|p| p.partition_index).collect();
    assert_eq!(named, [0]);
}

#[test]
fn k9_session_errors() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    let parts = [(topic.as_str(), 0, 0)];
    let id = kafka.call(&session(0, 0, &parts), FETCH).session_id;
    assert_eq!(
        kafka.call(&session(id, 7, &[]), FETCH).error_code,
        71,
        "INVALID_FETCH_SESSION_EPOCH"
    );
    assert_eq!(
        kafka.call(&session(id ^ 0x55, 1, &[]), FETCH).error_code,
        70,
        "FETCH_SESSION_ID_NOT_FOUND"
    );
    // Closed by its owner: epoch −1 with the id.
    let id = kafka.call(&session(0, 0, &parts), FETCH).session_id;
    assert_eq!(kafka.call(&session(id, -1, &[]), FETCH).error_code, 0);
    assert_eq!(kafka.call(&session(id, 1, &[]), FETCH).error_code, 70);
    // A session answers in the form in which it was begun: names here, ids from version 13 on.
    let id = kafka.call(&session(0, 0, &parts), FETCH).session_id;
    let answer = kafka.call(&session(id, 1, &[]), 13);
    assert_eq!(answer.error_code, 106, "FETCH_SESSION_TOPIC_ID_ERROR");
    assert_eq!(kafka.call(&session(id, 1, &[]), FETCH).error_code, 0, "it stands");
}

#[test]
fn k9_sessions_are_bounded() {
    if is_reference() {
        return;
    }
    // More than the cache holds: each fetch is served, with or without a session of its own.
    let slots = ("INTERFLOW_KAFKA__MAX_INCREMENTAL_FETCH_SESSION_CACHE_SLOTS", "10");
    let broker = Broker::start(&[slots], &[]);
    let mut kafka = Kafka::connect_to(&broker);
    let topic = new_topic(&mut kafka, 1);
    kafka.append(&topic, 0, &batch("k", &["x"]));
    let mut with_session = 0;
    for _ in 0..100 {
        let answer = kafka.call(&session(0, 0, &[(&topic, 0, 0)]), FETCH);
        assert_eq!(answer.error_code, 0);
        assert_eq!(only_partition(&answer).high_watermark, 1);
        with_session += usize::from(answer.session_id != 0);
    }
    assert_eq!(with_session, 10, "none of them has had its time: the others do without");
}

#[test]
fn k9_a_session_names_partitions_that_fail() {
    let mut kafka = Kafka::connect();
    let missing = unique("k9");
    let answer = kafka.call(&session(0, 0, &[(&missing, 0, 0)]), FETCH);
    assert_eq!(only_partition(&answer).error_code, 3);
}
