//! B1–B4: MQTT and Kafka are one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

use crate::batch::{Batch, Record};
use crate::broker::unique;
use crate::client::*;
use crate::mqtt::{Client, Connect, murmur2};
use crate::wire::{Prop, Publish, id, text as prop_text, user};

const STREAM: &str = "mqtt";

fn v5() -> Client {
    Connect::v5(&unique("b")).open()
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn partitions(kafka: &mut Kafka) -> i32 {
    let ask = MetadataRequestTopic::default().with_name(Some(topic_name(STREAM)));
    let answer = kafka.call(&MetadataRequest::default().with_topics(Some(vec![ask])), 12);
    assert_eq!(answer.topics[0].error_code, 0);
    answer.topics[0].partitions.len() as i32
}

fn shard(topic: &str, partitions: i32) -> i32 {
    (murmur2(topic.as_bytes()) & 0x7FFF_FFFF) as i32 % partitions
}

/// All records whose key is this MQTT topic, and the partition where they lie.
fn of_topic(kafka: &mut Kafka, topic: &str) -> Vec<Record> {
    let partition = shard(topic, partitions(kafka));
    let all = kafka.read(STREAM, partition, 0);
    all.into_iter().filter(|record| record.key.as_deref() == Some(topic.as_bytes())).collect()
}

#[test]
fn b1_a_publish_is_a_record() {
    let (mut kafka, topic) = (Kafka::connect(), unique("b1/ä"));
    let me = unique("b1");
    let mut client = Connect::v5(&me).open();
    let before = now_ms();
    let payload = [0, 255, 128, 10];
    client.publish(
        Publish::new(&topic, payload, 2)
            .prop(prop_text(id::CONTENT_TYPE, "text/x"))
            .prop(prop_text(id::RESPONSE_TOPIC, "b1/answer"))
            .prop(Prop::Data(id::CORRELATION, vec![0, 255]))
            .prop(Prop::Byte(id::PAYLOAD_FORMAT, 0))
            .prop(Prop::Long(id::MESSAGE_EXPIRY, 100))
            .prop(user("z", "1"))
            .prop(user("a", ""))
            .prop(user("z", "1"))
            .prop(user("mqtt.qos", "mine")),
    );
    let after = now_ms();
    let found = of_topic(&mut kafka, &topic);
    assert_eq!(found.len(), 1);
    let record = &found[0];
    assert_eq!(record.value.as_deref(), Some(&payload[..]));
    assert!((before..=after).contains(&record.timestamp));
    assert_eq!(record.header_text("mqtt.qos"), Some("2"));
    assert_eq!(record.header_text("mqtt.content-type"), Some("text/x"));
    assert_eq!(record.header_text("mqtt.response-topic"), Some("b1/answer"));
    assert_eq!(record.header_text("mqtt.client-id"), Some(me.as_str()));
    let correlation = record.headers.iter().find(|(name, _)| name == "mqtt.correlation-data");
    assert_eq!(correlation.unwrap().1.as_deref(), Some(&[0, 255][..]));
    let expiry: i64 = record.header_text("mqtt.expiry").unwrap().parse().unwrap();
    assert!((before + 100_000..=after + 100_000).contains(&expiry), "absolute milliseconds");
    let users: Vec<_> = record
        .headers
        .iter()
        .filter(|(name, _)| !name.starts_with("mqtt.") || name.starts_with("mqtt.user."))
        .map(|(name, value)| (name.as_str(), std::str::from_utf8(value.as_ref().unwrap()).unwrap()))
        .collect();
    assert_eq!(users, [("z", "1"), ("a", ""), ("z", "1"), ("mqtt.user.mqtt.qos", "mine")]);
}

#[test]
fn b1_every_quality_of_service_and_version() {
    let (mut kafka, topic) = (Kafka::connect(), unique("b1"));
    let mut four = Connect::v4(&unique("b1")).open();
    let mut watcher = v5();
    watcher.subscribe(&[(&topic, 0)]);
    for qos in [0, 1, 2] {
        four.publish(Publish::new(&topic, format!("{qos}"), qos));
        watcher.recv_message();
    }
    // QoS 0 is seen early: an acknowledged one behind it says that it lies in the log.
    four.publish(Publish::new(&topic, "", 1));
    let mut found: Vec<_> = of_topic(&mut kafka, &topic)
        .iter()
        .map(|record| (record.text().to_owned(), record.header_text("mqtt.qos").map(str::to_owned)))
        .collect();
    found.sort();
    let expected = ["", "0", "1", "2"]
        .map(|text| (text.to_owned(), Some(if text.is_empty() { "1" } else { text }.to_owned())));
    let qos_0_may_be_absent =
        |(text, qos): (String, Option<String>)| (text, qos.or(Some("0".into())));
    let found: Vec<_> = found.into_iter().map(qos_0_may_be_absent).collect();
    assert_eq!(found, expected);
}

#[test]
fn b2_a_record_is_a_publish() {
    let (mut kafka, topic) = (Kafka::connect(), unique("b2"));
    let mut client = v5();
    client.subscribe(&[(&topic, 2)]);
    let partition = shard(&topic, partitions(&mut kafka));
    let expiry = (now_ms() + 50_000).to_string();
    let record = Record::new(&topic, "from Kafka")
        .header("mqtt.qos", b"2")
        .header("mqtt.content-type", b"text/x")
        .header("mqtt.response-topic", b"b2/answer")
        .header("mqtt.correlation-data", &[0, 255])
        .header("mqtt.payload-format", b"1")
        .header("mqtt.expiry", expiry.as_bytes())
        .header("mqtt.user.mqtt.x", b"y")
        .header("z", b"1")
        .header("a", b"2")
        .header("z", b"1");
    kafka.append(STREAM, partition, &Batch::of(vec![record, Record::new(&topic, "plain")]));
    let message = client.recv_message();
    assert_eq!((message.text(), message.qos, message.retain), ("from Kafka", 2, false));
    let props = &message.props;
    assert_eq!(props.text(id::CONTENT_TYPE), Some("text/x"));
    assert_eq!(props.text(id::RESPONSE_TOPIC), Some("b2/answer"));
    assert_eq!(props.data(id::CORRELATION), Some(&[0, 255][..]));
    assert_eq!(props.number(id::PAYLOAD_FORMAT), Some(1));
    assert!((1..=50).contains(&props.number(id::MESSAGE_EXPIRY).unwrap()));
    assert_eq!(props.user(), [("mqtt.x", "y"), ("z", "1"), ("a", "2"), ("z", "1")]);
    let message = client.recv_message();
    assert_eq!((message.text(), message.qos), ("plain", 1), "without mqtt.qos at QoS 1");
}

#[test]
fn b2_what_is_no_publish_is_skipped() {
    let (mut kafka, topic) = (Kafka::connect(), unique("b2"));
    let mut client = v5();
    client.subscribe(&[("#", 1 | 0x20)]);
    let partition = shard(&topic, partitions(&mut kafka));
    let keyless = |key: Option<&[u8]>| Record {
        key: key.map(<[u8]>::to_vec),
        value: Some(b"never".to_vec()),
        ..Record::default()
    };
    let mut records: Vec<_> =
        [None, Some(&b""[..]), Some(b"b2/+"), Some(b"b2/#"), Some(b"\xFF\xFE"), Some(b"b2/\0")]
            .into_iter()
            .map(keyless)
            .collect();
    records.push(Record { key: Some(topic.clone().into()), value: None, ..Record::default() });
    // Headers that don't say what they should: taken as if they weren't there.
    records
        .push(Record::new(&topic, "odd").header("mqtt.qos", b"9").header("mqtt.expiry", b"soon"));
    kafka.append(STREAM, partition, &Batch::of(records));
    let mut got = Vec::new();
    while got.len() < 2 {
        let message = client.recv_message();
        assert_ne!(message.payload, b"never");
        if message.topic == topic {
            got.push(message);
        }
    }
    assert_eq!((got[0].text(), got[0].qos), ("", 1), "a null value is an empty payload");
    assert_eq!(got[1].text(), "odd");
}

#[test]
fn b2_compressed_records_are_delivered() {
    let (mut kafka, topic) = (Kafka::connect(), unique("b2"));
    let mut client = v5();
    client.subscribe(&[(&topic, 1)]);
    let partition = shard(&topic, partitions(&mut kafka));
    let records = (0..10).map(|n| Record::new(&topic, &n.to_string())).collect();
    kafka.append(STREAM, partition, &Batch::of(records).gzip());
    for n in 0..10 {
        assert_eq!(client.recv_message().text(), n.to_string());
    }
}

#[test]
fn b2_a_batch_that_lies_about_its_records_stops_nobody() {
    if crate::broker::is_reference() {
        return;
    }
    // A broker of its own: other tests read the whole stream, and expect it to be true.
    let broker = crate::broker::Broker::start(&[], &[]);
    let (mut kafka, topic) = (Kafka::connect_to(&broker), unique("b2"));
    let partition = shard(&topic, partitions(&mut kafka));
    let mut live = Connect::v5("b2").open_at(Client::tcp_to(&broker, 5));
    live.subscribe(&[(&topic, 1)]);
    let of = |values: &[&str]| {
        Batch::of(values.iter().map(|value| Record::new(&topic, value)).collect()).gzip()
    };
    for count in [2, 1_000_000] {
        let lie = Batch { count: Some(count), last_delta: Some(count - 1), ..of(&["0", "1", "2"]) };
        let before = kafka.append(STREAM, partition, &lie);
        let after = kafka.append(STREAM, partition, &of(&["after"]));
        assert!(after >= before + i64::from(count));
        let expected: &[&str] = if count == 2 { &["0", "1"] } else { &["0", "1", "2"] };
        for value in expected.iter().chain(&["after"]) {
            assert_eq!(live.recv_message().text(), *value);
        }
    }
}

/// What a new subscriber gets at once: the payload, or `None`.
fn retained(topic: &str) -> Option<Vec<u8>> {
    let mut client = v5();
    client.subscribe(&[(topic, 1)]);
    client.collect(topic).pop().map(|message| message.payload)
}

#[test]
fn b3_retained_messages_from_kafka() {
    let (mut kafka, topic) = (Kafka::connect(), unique("b3"));
    let partition = shard(&topic, partitions(&mut kafka));
    let mut live = v5();
    live.subscribe(&[(&topic, 1 | 0x08)]);
    let mut append = |record: Record| {
        kafka.append(STREAM, partition, &Batch::of(vec![record.header("mqtt.retain", b"1")]));
    };
    append(Record::new(&topic, "kept"));
    // When a subscriber has it, its retained entry may still be on its way: asked for until it is there.
    assert!(live.recv_message().retain);
    eventually(|| retained(&topic).as_deref() == Some(b"kept"));
    append(Record { value: None, ..Record::new(&topic, "") });
    live.recv_message();
    eventually(|| retained(&topic).is_none());
}

/// Asks again until it is so; fails after half a minute.
fn eventually(mut reached: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !reached() {
        assert!(started.elapsed() < Duration::from_secs(30), "it never came");
    }
}

#[test]
fn b3_a_retained_publish_is_acknowledged_when_both_are_durable() {
    let (mut kafka, topic) = (Kafka::connect(), unique("b3"));
    let mut client = v5();
    client.publish(Publish::new(&topic, "kept", 1).retain());
    assert_eq!(retained(&topic).as_deref(), Some(&b"kept"[..]), "at once, without waiting");
    let found = of_topic(&mut kafka, &topic);
    assert!(matches!(found[0].header_text("mqtt.retain"), Some("1" | "true")));
    client.publish(Publish::new(&topic, "", 1).retain());
    assert_eq!(retained(&topic), None);
}

#[test]
fn b3_retained_and_acknowledged_outlive_a_kill() {
    if crate::broker::is_reference() {
        return;
    }
    let broker = crate::broker::Broker::start(&[], &[]);
    let mut client = Connect::v5("b3").open_at(Client::tcp_to(&broker, 5));
    for n in 0..20 {
        client.publish(Publish::new(format!("b3/{n}"), format!("{n}"), 1).retain());
    }
    broker.signal("KILL");
    let broker = broker.restart(&[]);
    let mut client = Connect::v5("b3").open_at(Client::tcp_to(&broker, 5));
    client.subscribe(&[("b3/#", 1)]);
    let mut found: Vec<_> =
        (0..20).map(|_| client.recv_message().text().parse::<u32>().unwrap()).collect();
    found.sort();
    assert_eq!(found, (0..20).collect::<Vec<_>>());
}

#[test]
fn b4_order_from_mqtt_to_kafka_and_the_partition() {
    let mut kafka = Kafka::connect();
    let mut client = v5();
    let topics: Vec<_> = (0..10).map(|_| unique("b4")).collect();
    for n in 0..30 {
        for topic in &topics {
            client.publish(Publish::new(topic, format!("{n}"), 1 + n % 2));
        }
    }
    for topic in &topics {
        // `of_topic` looks where Kafka's default partitioner would put the key.
        let found: Vec<_> =
            of_topic(&mut kafka, topic).iter().map(|r| r.text().to_owned()).collect();
        assert_eq!(found, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}

#[test]
fn b4_any_partition_reaches_exact_and_wildcard_subscribers() {
    let (mut kafka, base) = (Kafka::connect(), unique("b4"));
    let topic = format!("{base}/x");
    let (mut exact, mut wild) = (v5(), v5());
    exact.subscribe(&[(&topic, 1)]);
    wild.subscribe(&[(&format!("{base}/#"), 1)]);
    let partitions = partitions(&mut kafka);
    for partition in 0..partitions {
        let records = (0..5).map(|n| Record::new(&topic, &format!("{partition} {n}"))).collect();
        kafka.append(STREAM, partition, &Batch::of(records));
    }
    for client in [&mut exact, &mut wild] {
        let got: Vec<_> =
            (0..5 * partitions).map(|_| client.recv_message().text().to_owned()).collect();
        for partition in 0..partitions {
            let prefix = format!("{partition} ");
            let of: Vec<_> = got.iter().filter_map(|text| text.strip_prefix(&prefix)).collect();
            assert_eq!(of, ["0", "1", "2", "3", "4"], "in order within partition {partition}");
        }
    }
}

#[test]
fn b6_kafka_topics_are_not_served_to_mqtt_yet() {
    let mut client = v5();
    assert_eq!(client.subscribe(&[("$kafka/orders/#", 1)]), [0x8F]);
}
