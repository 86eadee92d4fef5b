//! Records and messages are one.

use interflow_logstore::{LogClient, LogId, Read};

use super::super::codec::{PublishProperties, QoS, UserPropertiesBuf};
use super::super::testing::{Got, Rig, SHARDS};
use crate::records::{BatchBuilder, OpenBatch};

type Header<'a> = (&'a [u8], Option<&'a [u8]>);
/// Key, value and headers of a record.
type Parts<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, &'a [Header<'a>]);

#[tokio::test]
async fn b1_a_publish_is_a_record() {
    let rig = Rig::new().await;
    let mut client = rig.client("me").await;
    let mut user = UserPropertiesBuf::default();
    for (name, value) in [("a", "1"), ("mqtt.qos", "mine"), ("a", "2")] {
        user.push(name, value).unwrap();
    }
    let properties = PublishProperties {
        content_type: Some("text"),
        response_topic: Some("answer"),
        correlation_data: Some(b"\0"),
        message_expiry_s: Some(5),
        user: user.view(),
        ..Default::default()
    };
    client.publish_with("a/b", "payload", QoS::AtLeastOnce, true, properties).await;
    client.next().await;
    let log = rig.log_of("a/b");
    let read = Read { log, offset: 0, max_bytes: 1 << 20, stable_only: true, filter: None };
    let batch = &rig.log.read(read).await.unwrap().batches[0];
    let open = OpenBatch::open(&batch.bytes, 0).unwrap();
    let record = open.records().next().unwrap().unwrap();
    assert_eq!((record.key, record.value), (Some(&b"a/b"[..]), Some(&b"payload"[..])));
    assert_eq!(record.timestamp, 1_000_000);
    let headers: Vec<_> = record.headers.collect();
    let expected: [Header<'_>; 10] = [
        (b"mqtt.qos", Some(b"1")),
        (b"mqtt.retain", Some(b"1")),
        (b"mqtt.client-id", Some(b"me")),
        (b"mqtt.expiry", Some(b"1005000")),
        (b"mqtt.content-type", Some(b"text")),
        (b"mqtt.response-topic", Some(b"answer")),
        (b"mqtt.correlation-data", Some(b"\0")),
        (b"a", Some(b"1")),
        (b"mqtt.user.mqtt.qos", Some(b"mine")),
        (b"a", Some(b"2")),
    ];
    assert_eq!(headers, expected);
    let mut subscriber = rig.client("s").await;
    subscriber.subscribe("a/b", QoS::AtMostOnce).await;
    assert!(matches!(subscriber.next().await, Got::Publish { expiry_s: Some(5), .. }));
}

async fn produce(rig: &Rig, log: u64, records: &[Parts<'_>]) {
    let mut builder = BatchBuilder::new();
    for (key, value, headers) in records {
        builder.append(*key, *value, headers.iter().copied(), 0).unwrap();
    }
    let built = builder.finish().unwrap();
    rig.log.produce(LogId(log), built.count, built.bytes).await.unwrap();
}

#[tokio::test]
async fn b2_a_record_of_a_kafka_producer_is_a_message_whatever_its_partition() {
    let rig = Rig::new().await;
    let mut client = rig.client("c").await;
    client.subscribe("k/#", QoS::ExactlyOnce).await;
    for log in 0..SHARDS {
        let qos: Header<'_> = (b"mqtt.qos", Some(b"2"));
        produce(
            &rig,
            log,
            &[
                (None, Some(b"no key"), &[]),
                (Some(b"a/+"), Some(b"a wildcard"), &[]),
                (Some(b"\xff"), Some(b"no text"), &[]),
                (Some(b""), Some(b"empty"), &[]),
                (Some(b"k/1"), Some(b"default"), &[(b"\xff", None), (b"x", None)]),
                (Some(b"k/2"), None, &[qos]),
            ],
        )
        .await;
        let Got::Publish { qos: QoS::AtLeastOnce, payload, .. } = client.next().await else {
            panic!()
        };
        assert_eq!(&payload[..], b"default");
        let Got::Publish { qos: QoS::ExactlyOnce, payload, .. } = client.next().await else {
            panic!()
        };
        assert_eq!(&payload[..], b"");
    }
    assert_eq!(client.sync().await, []);
    assert_eq!(rig.broker.metrics.skipped_records.get(), 4 * SHARDS);
}

#[tokio::test]
async fn b2_a_batch_that_lies_about_its_records_is_skipped_from_the_lie_on() {
    let rig = Rig::new().await;
    let mut live = rig.client("live").await;
    live.subscribe("k", QoS::AtLeastOnce).await;
    let mut builder = BatchBuilder::new();
    for value in [b"0", b"1", b"2"] {
        builder.append(Some(b"k"), Some(value), std::iter::empty(), 0).unwrap();
    }
    let built = builder.finish().unwrap();
    for (count, sound) in [(2_u32, 2), (3, 3), (9, 3)] {
        let mut bytes = bytes::BytesMut::from(&built.bytes[..]);
        bytes[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        let skipped = rig.broker.metrics.skipped_records.get();
        rig.log.produce(LogId(0), count, bytes.freeze()).await.unwrap();
        produce(&rig, 0, &[(Some(b"k"), Some(b"after"), &[])]).await;
        for expected in ["0", "1", "2"].iter().take(sound) {
            assert_eq!(live.payload().await, *expected);
        }
        assert_eq!(live.payload().await, "after");
        let now = rig.broker.metrics.skipped_records.get();
        assert_eq!(now - skipped, u64::from(count != 3), "the lie is counted");
    }
    assert_eq!(live.sync().await, []);
}

#[tokio::test]
async fn b3_a_record_of_a_kafka_producer_sets_and_clears_the_retained_message() {
    let rig = Rig::new().await;
    let retain: Header<'_> = (b"mqtt.retain", Some(b"1"));
    for (value, expected) in [(Some(&b"kept"[..]), 1), (None, 0)] {
        produce(&rig, 1, &[(Some(b"k"), value, &[retain]), (Some(b"l"), value, &[])]).await;
        let mut client = rig.client("c").await;
        client.subscribe("#", QoS::AtMostOnce).await;
        for _ in 0..expected {
            let Got::Publish { topic, retain: true, .. } = client.next().await else { panic!() };
            assert_eq!(topic, "k");
        }
        assert_eq!(client.sync().await, []);
    }
}

#[tokio::test]
async fn b3_a_start_looks_at_what_no_broker_has_seen() {
    let rig = Rig::new().await;
    rig.broker.shutdown().await;
    let retain: Header<'_> = (b"mqtt.retain", Some(b"1"));
    produce(&rig, 0, &[(Some(b"k"), Some(b"meanwhile"), &[retain])]).await;
    let rig = rig.restart().await;
    let mut client = rig.client("c").await;
    client.subscribe("k", QoS::AtMostOnce).await;
    assert_eq!(client.payload().await, "meanwhile");
    assert_eq!(client.sync().await, []);
}

#[tokio::test]
async fn s18_no_leading_wildcard_finds_a_dollar_topic_of_a_kafka_producer() {
    let rig = Rig::new().await;
    let (mut away, _) = rig.resume("away").await;
    let filters = ["#", "+/x", "$share/g/#", "$share/h/+/x"];
    for filter in filters {
        away.subscribe(filter, QoS::AtLeastOnce).await;
    }
    away.disconnect().await;
    let mut here = rig.client("here").await;
    for filter in filters {
        here.subscribe(&filter.replace("/g/", "/i/").replace("/h/", "/j/"), QoS::AtLeastOnce).await;
    }
    let retain: Header<'_> = (b"mqtt.retain", Some(b"1"));
    produce(&rig, 1, &[(Some(b"$a/x"), Some(b"hidden"), &[retain])]).await;
    produce(&rig, 1, &[(Some(b"a/x"), Some(b"shown"), &[retain])]).await;
    let (mut away, _) = rig.resume("away").await;
    for client in [&mut here, &mut away] {
        for _ in 0..3 {
            assert_eq!(client.payload().await, "shown");
        }
        assert_eq!(client.sync().await, []);
    }
    // Retained ones neither; by its name it is found.
    let mut late = rig.client("late").await;
    for (filter, payload) in [("#", "shown"), ("+/x", "shown"), ("$a/+", "hidden")] {
        late.subscribe(filter, QoS::AtLeastOnce).await;
        assert_eq!(late.payload().await, payload);
        assert_eq!(late.sync().await, []);
    }
}
