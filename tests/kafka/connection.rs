//! K1, K2, K24, K25, K26: connections.

use std::io::Write;
use std::time::{Duration, Instant};

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, FindCoordinatorRequest, MetadataRequest,
};

use crate::batch::batch;
use crate::broker::{Broker, is_reference, shared, unique};
use crate::client::*;

#[test]
fn k1_impossible_requests_close_the_connection() {
    // Too large, negative, shorter than a header, an API that there isn't, a client id past the end.
    for data in [
        &[0x7F, 0xFF, 0xFF, 0xFF, 0, 18][..],
        &[0x06, 0x40, 0x00, 0x01],
        &[0xFF, 0xFF, 0xFF, 0xFF],
        &[0x80, 0x00, 0x00, 0x00],
        &[0, 0, 0, 0],
        &[0, 0, 0, 3, 0, 18, 0],
        &[0, 0, 0, 10, 0x7F, 0x77, 0, 0, 0, 0, 0, 1, 0xFF, 0xFF],
        &[0, 0, 0, 10, 0, 3, 0, 9, 0, 0, 0, 1, 0x7F, 0xFF],
    ] {
        let mut kafka = Kafka::connect();
        kafka.stream.write_all(data).unwrap();
        kafka.expect_closed();
    }
}

#[test]
fn k1_counts_that_cannot_be_true_close_the_connection() {
    // A Metadata request (version 1) for two billion topics in a frame of a few bytes.
    let mut frame = vec![0, 3, 0, 1, 0, 0, 0, 1, 0xFF, 0xFF];
    frame.extend(0x7FFF_FFFFi32.to_be_bytes());
    let mut kafka = Kafka::connect();
    kafka.stream.write_all(&(frame.len() as i32).to_be_bytes()).unwrap();
    kafka.stream.write_all(&frame).unwrap();
    kafka.expect_closed();
    Kafka::connect().call(&ApiVersionsRequest::default(), 0);
}

#[test]
fn k1_unknown_version_of_api_versions() {
    let mut kafka = Kafka::connect();
    let request = [0, 0, 0, 11, 0, 18, 0, 99, 0, 0, 0, 7, 0xFF, 0xFF, 0];
    kafka.stream.write_all(&request).unwrap();
    // Answered in the form of version 0: the error and the list.
    let answer = kafka.receive::<ApiVersionsRequest>(7, 0);
    assert_eq!(answer.error_code, 35);
    assert!(answer.api_keys.iter().any(|api| api.api_key == 18));
}

#[test]
fn k2_answers_come_in_order() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    kafka.append(&topic, 0, &batch("k", &["v"]));
    // Dear and cheap ones mixed, all sent before the first answer is read; one of them waits.
    let mut input = Vec::new();
    let waiting = fetch_request(&[(&topic, 0, 1)]).with_max_wait_ms(500).with_min_bytes(1);
    let (first, bytes) = kafka.encode(&waiting, FETCH);
    input.extend(bytes);
    let mut expected = Vec::new();
    for _ in 0..20 {
        let (correlation, bytes) = kafka.encode(&ApiVersionsRequest::default(), 2);
        input.extend(bytes);
        let (other, bytes) = kafka.encode(&fetch_request(&[(&topic, 0, 0)]), FETCH);
        input.extend(bytes);
        expected.push((correlation, other));
    }
    kafka.stream.write_all(&input).unwrap();
    // `receive` checks the correlation ids.
    kafka.receive::<FetchRequest>(first, FETCH);
    for (versions, fetch) in expected {
        kafka.receive::<ApiVersionsRequest>(versions, 2);
        kafka.receive::<FetchRequest>(fetch, FETCH);
    }
}

#[test]
fn k2_a_waiting_fetch_delays_no_other_connection() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    let mut waiting = Kafka::connect();
    let request = fetch_request(&[(&topic, 0, 0)]).with_max_wait_ms(60_000).with_min_bytes(1);
    let correlation = waiting.send(&request, FETCH);
    // Far more than fits in the time if each waited.
    for _ in 0..100 {
        kafka.call(&ApiVersionsRequest::default(), 2);
    }
    kafka.append(&topic, 0, &batch("k", &["woken"]));
    let answer = waiting.receive::<FetchRequest>(correlation, FETCH);
    assert!(only_partition(&answer).records.is_some());
}

#[test]
fn k24_advertised_addresses_can_be_connected_to() {
    let mut kafka = Kafka::connect();
    let answer = kafka.call(&MetadataRequest::default().with_topics(Some(vec![])), 12);
    assert!(!answer.brokers.is_empty());
    for broker in &answer.brokers {
        if !is_reference() {
            assert_eq!(&*broker.host, "localhost");
            assert_eq!(broker.port, i32::from(shared().address("kafka").port()));
        }
        std::net::TcpStream::connect((broker.host.as_str(), broker.port as u16)).unwrap();
    }
    let key = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(unique("k24"))]);
    let answer = kafka.call(&key, 4);
    let coordinator = &answer.coordinators[0];
    assert_eq!(coordinator.error_code, 0);
    std::net::TcpStream::connect((coordinator.host.as_str(), coordinator.port as u16)).unwrap();
}

#[test]
fn k24_each_listener_advertises_its_own_port() {
    if is_reference() {
        return;
    }
    let broker = Broker::start(&[], &["--advertise", "broker.example"]);
    let mut kafka = Kafka::connect_to(&broker);
    let answer = kafka.call(&MetadataRequest::default().with_topics(Some(vec![])), 12);
    assert_eq!(&*answer.brokers[0].host, "broker.example");
    assert_eq!(answer.brokers[0].port, i32::from(broker.address("kafka").port()));
}

#[test]
fn k25_errors_are_those_that_clients_act_on() {
    let mut kafka = Kafka::connect();
    let topic = new_topic(&mut kafka, 1);
    // What isn't there is said so: a client refreshes its metadata and tries again.
    assert_eq!(kafka.produce(&topic, 7, &batch("k", &["v"])).error_code, 3);
    assert_eq!(kafka.fetch(&topic, 7, 0).error_code, 3);
    let unknown = unique("k25");
    let ask = MetadataRequestTopic::default().with_name(Some(topic_name(&unknown)));
    let ask = MetadataRequest::default()
        .with_topics(Some(vec![ask]))
        .with_allow_auto_topic_creation(false);
    assert_eq!(kafka.call(&ask, 12).topics[0].error_code, 3);
    assert_eq!(kafka.fetch(&unknown, 0, 0).error_code, 3);
}

#[test]
fn k26_idle_connections_are_closed() {
    if is_reference() {
        return;
    }
    let idle = ("INTERFLOW_KAFKA__CONNECTIONS_MAX_IDLE_MS", "1000");
    let broker = Broker::start(&[idle], &[]);
    let mut kafka = Kafka::connect_to(&broker);
    kafka.call(&ApiVersionsRequest::default(), 2);
    let started = Instant::now();
    kafka.expect_closed();
    assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
}

#[test]
fn k26_connections_of_an_address_are_bounded() {
    if is_reference() {
        return;
    }
    let limit = ("INTERFLOW_NET__MAX_CONNECTIONS_PER_ADDRESS", "3");
    let broker = Broker::start(&[limit], &[]);
    let mut kept: Vec<_> = (0..3).map(|_| Kafka::connect_to(&broker)).collect();
    for kafka in &mut kept {
        kafka.call(&ApiVersionsRequest::default(), 2);
    }
    let mut one_more = Kafka::connect_to(&broker);
    let (_, request) = one_more.encode(&ApiVersionsRequest::default(), 2);
    let _ = one_more.stream.write_all(&request);
    one_more.expect_closed();
    kept[0].call(&ApiVersionsRequest::default(), 2);
}
