//! Connections over a pipe.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kafka::KafkaConfig;
use crate::kafka::testing::{Bench, config, frame_of, text};
use crate::records::BatchBuilder;

fn versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(text("test"))
        .with_client_software_version(text("1.0"))
}

fn metadata(topics: &[&str]) -> MetadataRequest {
    let topics = topics
        .iter()
        .map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(text(name)))));
    MetadataRequest::default()
        .with_topics(Some(topics.collect()))
        .with_allow_auto_topic_creation(true)
}

fn produce(topic: &str, acks: i16) -> ProduceRequest {
    let mut batch = BatchBuilder::new();
    batch.append(Some(b"k"), Some(b"v"), std::iter::empty(), 0).expect("room");
    let batch = batch.finish().expect("a batch").bytes;
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1_000).with_topic_data(vec![
        TopicProduceData::default()
            .with_name(TopicName(text(topic)))
            .with_partition_data(vec![PartitionProduceData::default().with_records(Some(batch))]),
    ])
}

fn fetch(topic: &str, offset: i64, wait_ms: i32) -> FetchRequest {
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![
            FetchTopic::default().with_topic(TopicName(text(topic))).with_partitions(vec![
                FetchPartition::default()
                    .with_fetch_offset(offset)
                    .with_partition_max_bytes(1 << 20)
                    .with_current_leader_epoch(-1),
            ]),
        ])
}

#[tokio::test]
async fn k1_bad_sizes_and_headers_close_the_connection() {
    let bench = Bench::new().await;
    let bad: [&[u8]; 6] = [
        &(-1i32).to_be_bytes(),
        &i32::MAX.to_be_bytes(),
        &(100 * 1024 * 1024 + 1i32).to_be_bytes(),
        // No header.
        &[0, 0, 0, 3, 0, 18, 0],
        // A client id longer than the frame.
        &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0x7f, 0xff],
        // An API that there isn't.
        &[0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
    ];
    for bytes in bad {
        let mut client = bench.connect();
        client.stream.write_all(bytes).await.expect("sent");
        assert!(client.closes().await, "{bytes:?}");
    }
    // A request that is no Produce and larger than any of them has reason to be.
    let mut client = bench.connect();
    client.stream.write_all(&(17 * 1024 * 1024i32).to_be_bytes()).await.expect("sent");
    client.stream.write_all(&[0, 3, 0, 0]).await.expect("sent");
    assert!(client.closes().await);
}

#[tokio::test]
async fn k1_an_unserved_version_closes_the_connection() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    let mut frame = Vec::from(&frame_of(1, 12, &metadata(&[]))[..]);
    frame[7] = 99;
    client.stream.write_all(&frame).await.expect("sent");
    assert!(client.closes().await);
    assert!(bench.server.metrics().refused_requests.get() > 0);
}

#[tokio::test]
async fn api_versions_lists_what_is_routed_and_nothing_else() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    for version in 0..=4 {
        let answer = client.ask(version, &versions()).await;
        assert_eq!(answer.error_code, 0);
        let keys: Vec<i16> = answer.api_keys.iter().map(|key| key.api_key).collect();
        let mut routed: Vec<i16> =
            crate::kafka::route::routes().iter().map(|route| route.api as i16).collect();
        routed.sort_unstable();
        assert_eq!(keys, routed);
        let produce = answer.api_keys.iter().find(|key| key.api_key == 0).expect("Produce");
        assert_eq!((produce.min_version, produce.max_version), (3, 13));
    }
    let nameless = client.ask(3, &ApiVersionsRequest::default()).await;
    assert_eq!(nameless.error_code, ResponseError::InvalidRequest.code());
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_in_the_oldest_form() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    // Version 77 with a body that nobody knows.
    let frame = [0, 0, 0, 13, 0, 18, 0, 77, 0, 0, 0, 9, 0, 1, b'c', 0, 0];
    client.stream.write_all(&frame).await.expect("sent");
    let (id, answer) = client.receive::<ApiVersionsRequest>(0).await;
    assert_eq!((id, answer.error_code), (9, ResponseError::UnsupportedVersion.code()));
    assert!(answer.api_keys.iter().any(|key| key.api_key == 18));
    // And the connection goes on.
    assert_eq!(client.ask(0, &versions()).await.error_code, 0);
}

#[tokio::test]
async fn k2_pipelined_requests_are_answered_in_order() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    client.ask(9, &metadata(&["t"])).await;
    bench.logs.hold();
    let mut sent = Vec::new();
    for at in 0..20 {
        sent.push(match at % 3 {
            0 => client.send(9, &produce("t", -1)).await,
            1 => client.send(3, &versions()).await,
            _ => client.send(9, &metadata(&["t"])).await,
        });
    }
    // The first Produce waits for its commit, and with it all answers behind it.
    while bench.logs.appends().is_empty() {
        tokio::task::yield_now().await;
    }
    bench.logs.release();
    for (at, sent) in sent.into_iter().enumerate() {
        let id = match at % 3 {
            0 => client.receive::<ProduceRequest>(9).await.0,
            1 => client.receive::<ApiVersionsRequest>(3).await.0,
            _ => client.receive::<MetadataRequest>(9).await.0,
        };
        assert_eq!(id, sent);
    }
}

#[tokio::test]
async fn k2_appends_of_pipelined_requests_are_in_flight_together_and_in_order() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    client.ask(9, &metadata(&["t"])).await;
    bench.logs.hold();
    for _ in 0..5 {
        client.send(9, &produce("t", -1)).await;
    }
    while bench.logs.appends().len() < 5 {
        tokio::task::yield_now().await;
    }
    bench.logs.release();
    for at in 0..5 {
        let (_, answer) = client.receive::<ProduceRequest>(9).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((partition.error_code, partition.base_offset), (0, at));
    }
}

#[tokio::test]
async fn k2_appends_behind_a_barrier_are_not_overtaken() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    client.ask(9, &metadata(&["t"])).await;
    bench.logs.hold();
    // What is read at once stands behind the barrier when it is cut.
    let mut frames = Vec::from(&frame_of(1, 9, &metadata(&["t"]))[..]);
    for id in 2..4 {
        frames.extend_from_slice(&frame_of(id, 9, &produce("t", -1)));
    }
    client.stream.write_all(&frames).await.expect("sent");
    while bench.logs.appends().is_empty() {
        tokio::task::yield_now().await;
    }
    // The first waits for its commit, and no barrier stands before this one.
    client.stream.write_all(&frame_of(4, 9, &produce("t", -1))).await.expect("sent");
    while bench.logs.appends().len() < 2 {
        tokio::task::yield_now().await;
    }
    bench.logs.release();
    assert_eq!(client.receive::<MetadataRequest>(9).await.0, 1);
    for at in 0..3 {
        let (id, answer) = client.receive::<ProduceRequest>(9).await;
        let partition = &answer.responses[0].partition_responses[0];
        assert_eq!((i64::from(id), partition.base_offset), (at + 2, at));
    }
}

#[tokio::test]
async fn k2_a_waiting_fetch_delays_no_other_connection_and_appends_go_on_behind_it() {
    let bench = Bench::new().await;
    let mut waiting = bench.connect();
    waiting.ask(9, &metadata(&["t"])).await;
    let fetched = waiting.send(11, &fetch("t", 0, 600_000)).await;
    let behind = waiting.send(9, &produce("t", -1)).await;
    let mut other = bench.connect();
    assert_eq!(other.ask(3, &versions()).await.error_code, 0);
    // The Produce behind the Fetch is what wakes it.
    let (id, answer) = waiting.receive::<FetchRequest>(11).await;
    assert_eq!(id, fetched);
    assert!(answer.responses[0].partitions[0].records.as_ref().is_some_and(|r| !r.is_empty()));
    assert_eq!(waiting.receive::<ProduceRequest>(9).await.0, behind);
}

#[tokio::test]
async fn k3_acks_0_has_no_answer_and_an_error_closes() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    client.ask(9, &metadata(&["t"])).await;
    client.send(9, &produce("t", 0)).await;
    assert_eq!(client.ask(3, &versions()).await.error_code, 0);
    assert_eq!(bench.logs.appends().len(), 1);
    client.send(9, &produce("missing", 0)).await;
    assert!(client.closes().await);
}

#[tokio::test]
async fn requests_may_arrive_byte_by_byte() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    for byte in frame_of(1, 3, &versions()) {
        client.stream.write_all(&[byte]).await.expect("sent");
        tokio::task::yield_now().await;
    }
    assert_eq!(client.receive::<ApiVersionsRequest>(3).await.0, 1);
}

#[tokio::test]
async fn requests_wait_for_memory_and_none_is_lost() {
    let small = KafkaConfig { queued_max_request_bytes: 1, ..config() };
    let bench = Bench::with(small, false).await;
    let mut clients: Vec<_> = (0..10).map(|_| bench.connect()).collect();
    for client in &mut clients {
        client.send(3, &versions()).await;
        client.send(3, &versions()).await;
    }
    for client in &mut clients {
        client.receive::<ApiVersionsRequest>(3).await;
        client.receive::<ApiVersionsRequest>(3).await;
    }
}

#[tokio::test(start_paused = true)]
async fn k26_an_idle_connection_is_closed_and_a_used_one_is_not() {
    let bench =
        Bench::with(KafkaConfig { connections_max_idle_ms: 10_000, ..config() }, false).await;
    let mut client = bench.connect();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        client.ask(3, &versions()).await;
    }
    let used_at = tokio::time::Instant::now();
    assert!(client.closes().await);
    assert_eq!(used_at.elapsed().as_secs(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_stops_arriving_is_given_up() {
    let bench = Bench::with(KafkaConfig { request_stall_ms: 5_000, ..config() }, false).await;
    let mut client = bench.connect();
    client.stream.write_all(&[0, 0, 1, 0, 0]).await.expect("sent");
    let sent_at = tokio::time::Instant::now();
    assert!(client.closes().await);
    assert_eq!(sent_at.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_trickles_doesnt_keep_memory_from_others() {
    // Memory for one large request, and a client that is never silent long enough to be stalled.
    let config =
        KafkaConfig { request_stall_ms: 5_000, queued_max_request_bytes: 1 << 20, ..config() };
    let bench = Bench::with(config, false).await;
    let mut slow = bench.connect();
    let mut head = vec![0; 48 << 10];
    head[..4].copy_from_slice(&(1i32 << 20).to_be_bytes());
    slow.stream.write_all(&head).await.expect("sent");
    let sent_at = tokio::time::Instant::now();
    let trickling = tokio::spawn(async move {
        for _ in 0..100 {
            if slow.stream.write_all(&[0]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        sent_at.elapsed().as_secs()
    });
    let given_up = trickling.await.expect("ends");
    assert!((21..=23).contains(&given_up), "5 s, and 16 s for 1 MiB: {given_up}");
    let mut other = bench.connect();
    other.ask(9, &metadata(&["t"])).await;
}

#[tokio::test(start_paused = true)]
async fn a_waiting_fetch_is_not_idle() {
    let bench =
        Bench::with(KafkaConfig { connections_max_idle_ms: 1_000, ..config() }, false).await;
    let mut client = bench.connect();
    client.ask(9, &metadata(&["t"])).await;
    let answer = client.ask(11, &fetch("t", 0, 20_000)).await;
    assert_eq!(answer.error_code, 0);
}

#[tokio::test]
async fn shutdown_answers_what_was_begun_and_drops_what_waits() {
    let bench = Bench::new().await;
    let mut producer = bench.connect();
    producer.ask(9, &metadata(&["t"])).await;
    let mut fetcher = bench.connect();
    fetcher.send(11, &fetch("t", 0, 600_000)).await;
    bench.logs.hold();
    producer.send(9, &produce("t", -1)).await;
    while bench.logs.appends().is_empty() {
        tokio::task::yield_now().await;
    }
    bench.shutdown.cancel();
    assert!(fetcher.closes().await);
    bench.logs.release();
    let (_, answer) = producer.receive::<ProduceRequest>(9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
    assert!(producer.closes().await);
}

#[tokio::test]
async fn nothing_but_the_handshake_is_served_before_authentication() {
    let bench = Bench::with(config(), true).await;
    let mut client = bench.connect();
    client.ask(3, &versions()).await;
    client.send(9, &metadata(&[])).await;
    assert!(client.closes().await);
    let mut client = bench.connect();
    client.send(9, &produce("t", -1)).await;
    assert!(client.closes().await);
    assert!(bench.logs.appends().is_empty());
}

#[tokio::test]
async fn strangers_send_no_large_requests() {
    let bench = Bench::with(config(), true).await;
    let mut client = bench.connect();
    client.stream.write_all(&[0, 9, 0, 0, 0, 0]).await.expect("sent");
    assert!(client.closes().await);
}

fn handshake(mechanism: &'static str) -> SaslHandshakeRequest {
    SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism))
}

fn token(token: &'static [u8]) -> SaslAuthenticateRequest {
    SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(token))
}

#[tokio::test]
async fn sasl_plain_lets_users_in() {
    let bench = Bench::with(config(), true).await;
    let mut client = bench.connect();
    let answer = client.ask(1, &handshake("PLAIN")).await;
    assert_eq!((answer.error_code, &*answer.mechanisms), (0, &[text("PLAIN")][..]));
    assert_eq!(client.ask(2, &token(b"\0u\0p")).await.error_code, 0);
    assert_eq!(client.ask(9, &metadata(&["t"])).await.topics.len(), 1);

    let mut client = bench.connect();
    client.ask(1, &handshake("PLAIN")).await;
    let answer = client.ask(2, &token(b"\0u\0wrong")).await;
    assert_eq!(answer.error_code, ResponseError::SaslAuthenticationFailed.code());
    assert!(client.closes().await);
    assert_eq!(bench.server.metrics().failed_authentications.get(), 1);

    let mut client = bench.connect();
    let answer = client.ask(1, &handshake("GSSAPI")).await;
    assert_eq!(answer.error_code, ResponseError::UnsupportedSaslMechanism.code());
}

#[tokio::test]
async fn sasl_tokens_may_come_as_bare_frames() {
    let bench = Bench::with(config(), true).await;
    for (password, is_let_in) in [(b'p', true), (b'x', false)] {
        let mut client = bench.connect();
        // All at once: what a frame is depends on the handshake before it.
        let mut bytes = Vec::from(&frame_of(1, 0, &handshake("PLAIN"))[..]);
        bytes.extend_from_slice(&[0, 0, 0, 4, 0, b'u', 0, password]);
        bytes.extend_from_slice(&frame_of(2, 9, &metadata(&[])));
        client.stream.write_all(&bytes).await.expect("sent");
        client.receive::<SaslHandshakeRequest>(0).await;
        if is_let_in {
            assert_eq!(client.stream.read_i32().await.expect("an empty frame"), 0);
            assert_eq!(client.receive::<MetadataRequest>(9).await.0, 2);
        } else {
            assert!(client.closes().await);
        }
    }
}

#[tokio::test]
async fn without_users_credentials_are_ignored() {
    let bench = Bench::new().await;
    let mut client = bench.connect();
    client.ask(1, &handshake("PLAIN")).await;
    assert_eq!(client.ask(2, &token(b"\0who\0ever")).await.error_code, 0);
}
