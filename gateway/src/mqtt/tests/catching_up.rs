//! Sessions that resume behind the same records: what is read, decoded and matched for them.

use std::time::Duration;

use interflow_logstore::LogId;
use tokio::time::timeout;

use super::super::MqttConfig;
use super::super::codec::client::encode_disconnect;
use super::super::codec::{
    AckKind, Connect, Disconnect, QoS, Reason, RetainHandling, SubscriptionOptions, Version,
};
use super::super::testing::{Client, Got, Rig, SHARDS};
use crate::records::BatchBuilder;

const RECORDS: u32 = 10_000;
const TOPICS: u32 = 5_000;
const FILTERS: u32 = 10;
const BATCH: u32 = 50;

/// Records of topics `t/0`, `t/1` and so on, over all shards.
async fn produce(rig: &Rig, records: u32) {
    let mut numbers = 0..records;
    for batch in 0.. {
        let mut builder = BatchBuilder::new();
        for number in numbers.by_ref().take(BATCH as usize) {
            let (key, value) = (format!("t/{}", number % TOPICS), number.to_string());
            builder
                .append(Some(key.as_bytes()), Some(value.as_bytes()), [].into_iter(), 0)
                .unwrap();
        }
        let Some(built) = builder.finish() else { break };
        // All records of a topic in one log.
        let log = LogId(batch % u64::from(TOPICS / BATCH) % SHARDS);
        rig.log.produce(log, built.count, built.bytes).await.unwrap();
    }
    for tail in rig.broker.feed.tails.iter() {
        tail.reached(tail.committed()).await;
    }
}

/// The topics that a session subscribes to.
fn topics(session: u32) -> impl Iterator<Item = u32> {
    (0..FILTERS).map(move |n| (session * FILTERS + n) % TOPICS)
}

/// Subscribes to the session's topics: by their names, or one of them by a wildcard.
async fn begin(rig: &Rig, session: u32, with_wildcard: bool) {
    let (mut client, _) = rig.resume(&format!("c{session}")).await;
    for (n, topic) in topics(session).enumerate() {
        let prefix = if with_wildcard && n == 0 { "+" } else { "t" };
        let options = SubscriptionOptions {
            qos: QoS::AtLeastOnce,
            retain_handling: RetainHandling::Never,
            ..Default::default()
        };
        client.subscribe_only(&format!("{prefix}/{topic}"), options).await;
        assert!(matches!(client.next().await, Got::SubAck(..)));
    }
    client.disconnect().await;
}

/// Everything that the session is owed, each once and a topic's in order.
async fn finish(rig: &Rig, client: &mut Client, session: u32) {
    let mut got = Vec::new();
    for _ in 0..FILTERS * RECORDS / TOPICS {
        got.push(client.payload().await.parse::<u32>().unwrap());
    }
    let known = rig.broker.registry.get(&format!("c{session}")).unwrap();
    while known.lock().needs_feed() {
        assert_eq!(client.sync().await, []);
    }
    for topic in topics(session) {
        let of_topic: Vec<_> = got.iter().copied().filter(|n| n % TOPICS == topic).collect();
        assert_eq!(of_topic, [topic, topic + TOPICS]);
    }
}

/// Reads, decoded records and match steps of so many sessions that resume together.
async fn costs(sessions: u32, with_wildcard: bool) -> [u64; 3] {
    let rig = Rig::with(MqttConfig { read_bytes: 32 << 10, ..MqttConfig::default() }).await;
    for session in 0..sessions {
        begin(&rig, session, with_wildcard).await;
    }
    produce(&rig, RECORDS).await;
    let mut clients = Vec::new();
    for session in 0..sessions {
        let (client, present) = rig.resume(&format!("c{session}")).await;
        assert!(present);
        clients.push(client);
    }
    for (session, client) in (0..).zip(&mut clients) {
        finish(&rig, client, session).await;
    }
    let metrics = &rig.broker.metrics;
    [&metrics.catch_up_reads, &metrics.catch_up_records, &metrics.catch_up_matches]
        .map(super::super::Counter::get)
}

#[tokio::test]
async fn many_sessions_that_resume_together_read_what_one_reads() {
    for (sessions, with_wildcard) in [(1000, false), (50, true)] {
        let [reads, records, steps] = costs(1, with_wildcard).await;
        let [all_reads, all_records, all_steps] = costs(sessions, with_wildcard).await;
        assert!(reads > 10 && records == u64::from(RECORDS), "{reads} {records}");
        assert!(all_reads <= 2 * reads, "{all_reads} reads, of one: {reads}");
        assert!(all_records <= 2 * records, "{all_records} records, of one: {records}");
        // A page costs each session a step a topic of its own, or of the page.
        let most = if with_wildcard { records } else { reads * u64::from(FILTERS) };
        assert!(steps <= most && all_steps <= u64::from(sessions) * most, "{steps} {all_steps}");
    }
}

/// On a paused clock: nothing more happens.
const QUIET: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn a_slow_session_falls_out_of_the_scan_and_loses_nothing() {
    let config = MqttConfig {
        read_bytes: 4 << 10,
        max_scan_bytes: 1,
        max_pending_bytes: 1 << 10,
        ..MqttConfig::default()
    };
    let rig = Rig::with(config).await;
    for id in ["slow", "fast"] {
        let (mut client, _) = rig.resume(id).await;
        client.subscribe("t/#", QoS::AtLeastOnce).await;
        client.disconnect().await;
    }
    const COUNT: u32 = 1_000;
    produce(&rig, COUNT).await;
    let connect = Connect {
        clean_start: false,
        session_expiry_s: 1000,
        receive_maximum: 2,
        ..Connect::new(Version::V5, "slow")
    };
    let (mut slow, _) = rig.connect(&connect).await;
    let mut held = Vec::new();
    while let Ok(got) = timeout(QUIET, slow.next()).await {
        held.push(got);
    }
    assert_eq!(held.len(), 2);
    let (mut fast, _) = rig.resume("fast").await;
    let mut got = Vec::new();
    for _ in 0..COUNT {
        got.push(fast.payload().await.parse::<u32>().unwrap());
    }
    let sorted = |mut numbers: Vec<u32>| {
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(sorted(got), Vec::from_iter(0..COUNT));
    assert_eq!(fast.sync().await, []);
    // One page of each log stays, for a while.
    let bytes = rig.broker.feed.scans.bytes();
    assert!(bytes > 0 && bytes <= 64 << 10, "{bytes}");

    let mut got = Vec::new();
    for packet in held {
        let Got::Publish { id: Some(id), payload, .. } = packet else { panic!("{packet:?}") };
        got.push(std::str::from_utf8(&payload).unwrap().parse::<u32>().unwrap());
        slow.ack(AckKind::PubAck, id).await;
    }
    for _ in 2..COUNT {
        got.push(slow.payload().await.parse::<u32>().unwrap());
    }
    assert_eq!(sorted(got), Vec::from_iter(0..COUNT));
    assert_eq!(slow.sync().await, []);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(rig.broker.feed.scans.bytes(), 0);
}

#[tokio::test]
async fn who_looks_for_few_topics_alone_reads_only_what_may_have_them() {
    let rig = Rig::with(MqttConfig { read_bytes: 1 << 10, ..MqttConfig::default() }).await;
    let (mut client, _) = rig.resume("c").await;
    client.subscribe("wanted", QoS::AtLeastOnce).await;
    client.disconnect().await;
    let mut publisher = rig.client("p").await;
    for n in 0..100 {
        let topic = if n == 50 { "wanted".into() } else { format!("other/{n}") };
        publisher.publish(&topic, "x", QoS::AtLeastOnce).await;
        publisher.next().await;
    }
    for tail in rig.broker.feed.tails.iter() {
        tail.reached(tail.committed()).await;
    }
    let (mut client, _) = rig.resume("c").await;
    assert_eq!(client.payload().await, "x");
    assert_eq!(client.sync().await, []);
    assert_eq!(rig.broker.metrics.catch_up_records.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_in_the_middle_of_a_read_holds_up_nobody() {
    let rig = Rig::new().await;
    for id in ["goes", "stays"] {
        let (mut client, _) = rig.resume(id).await;
        client.subscribe("t", QoS::AtLeastOnce).await;
        client.disconnect().await;
    }
    let mut publisher = rig.client("p").await;
    publisher.publish("t", "x", QoS::AtLeastOnce).await;
    publisher.next().await;
    for tail in rig.broker.feed.tails.iter() {
        tail.reached(tail.committed()).await;
    }
    rig.log.hold_reads(true);
    let (mut goes, _) = rig.resume("goes").await;
    assert_eq!(goes.sync().await, []);
    // It doesn't close its side, so its connection lingers.
    let leave = Disconnect::new(Reason::Success);
    goes.send(|out| encode_disconnect(Version::V5, &leave, out).unwrap()).await;
    rig.log.hold_reads(false);
    let (mut stays, _) = rig.resume("stays").await;
    let payload = timeout(Duration::from_secs(1), stays.payload()).await;
    assert_eq!(payload.as_deref(), Ok("x"));
    drop(goes);
}

#[tokio::test]
async fn a_filter_that_is_added_while_a_session_catches_up_is_matched_from_there_on() {
    let rig = Rig::with(MqttConfig { max_pending_bytes: 1 << 10, ..MqttConfig::default() }).await;
    let connect = Connect {
        clean_start: false,
        session_expiry_s: 1000,
        receive_maximum: 1,
        ..Connect::new(Version::V5, "c")
    };
    // Both in one log.
    let other = (0..).map(|n| format!("b{n}")).find(|it| rig.log_of(it) == rig.log_of("a"));
    let other = other.unwrap();
    let (mut client, _) = rig.connect(&connect).await;
    client.subscribe("a", QoS::AtLeastOnce).await;
    client.disconnect().await;
    let mut publisher = rig.client("p").await;
    for (topic, count) in [("a", 50), (&other, 1)] {
        for n in 0..count {
            publisher.publish(topic, &format!("{topic} {n}"), QoS::AtLeastOnce).await;
            publisher.next().await;
        }
    }
    let (mut client, _) = rig.connect(&connect).await;
    let Got::Publish { id: Some(id), .. } = client.next().await else { panic!() };
    client.subscribe(&other, QoS::AtLeastOnce).await;
    publisher.publish(&other, "new", QoS::AtLeastOnce).await;
    publisher.next().await;
    client.ack(AckKind::PubAck, id).await;
    for n in 1..50 {
        assert_eq!(client.payload().await, format!("a {n}"));
    }
    assert_eq!(client.payload().await, "new");
    assert_eq!(client.sync().await, []);
}
