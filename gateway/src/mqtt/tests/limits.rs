//! What clients that don't play along, and logs that can't be read, cost.

use std::time::Duration;

use interflow_logstore::ReadError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::super::MqttConfig;
use super::super::codec::{
    AckKind, Connect, QoS, Reason, RetainHandling, SubscriptionOptions, Version,
};
use super::super::testing::{Client, Got, Rig};

/// On a paused clock: nothing more happens.
const QUIET: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn answers_that_a_client_does_not_read_are_bounded() {
    let config = MqttConfig {
        max_outbound_bytes: 4 << 10,
        max_packet_bytes: 4 << 10,
        ..MqttConfig::default()
    };
    let rig = Rig::with(config).await;
    let (mut reader, mut writer) = tokio::io::split(rig.stream(1 << 10));
    const PINGS: usize = 1 << 19;
    let mut sending = tokio::spawn(async move {
        let mut out = bytes::BytesMut::new();
        Connect::new(Version::V5, "c").encode(&mut out).unwrap();
        out.extend_from_slice(&[0xc0, 0].repeat(PINGS));
        writer.write_all(&out).await.unwrap();
        writer
    });
    assert!(timeout(QUIET, &mut sending).await.is_err(), "all was taken, and nothing read");
    // Once it reads, everything is answered.
    let mut head = [0; 2];
    reader.read_exact(&mut head).await.unwrap();
    let mut answers = vec![0; usize::from(head[1]) + 2 * PINGS];
    reader.read_exact(&mut answers).await.unwrap();
    assert!(answers[usize::from(head[1])..].chunks(2).all(|answer| answer == [0xd0, 0]));
    sending.await.unwrap();
}

/// A subscriber to `big` whose session stays, and `count` messages of 512 KiB for it.
async fn big(rig: &Rig, count: usize) -> Client {
    let (mut subscriber, _) = rig.resume("s").await;
    let options = SubscriptionOptions {
        qos: QoS::AtLeastOnce,
        retain_handling: RetainHandling::Never,
        ..Default::default()
    };
    subscriber.subscribe_only("big", options).await;
    subscriber.next().await;
    let mut publisher = rig.client("p").await;
    let payload = "x".repeat(512 << 10);
    for _ in 0..count {
        publisher.publish("big", &payload, QoS::AtLeastOnce).await;
        assert!(matches!(publisher.next().await, Got::Ack(..)));
    }
    subscriber
}

#[tokio::test(start_paused = true)]
async fn messages_that_a_client_does_not_acknowledge_are_bounded_in_bytes() {
    let rig = Rig::new().await;
    let mut subscriber = big(&rig, 40).await;
    let mut ids = Vec::new();
    while let Ok(got) = timeout(QUIET, subscriber.next()).await {
        let Got::Publish { id: Some(id), .. } = got else { panic!("{got:?}") };
        ids.push(id);
    }
    assert!((10..20).contains(&ids.len()), "{}", ids.len());
    // The rest comes as they are acknowledged.
    for n in 0..40 {
        if n >= ids.len() {
            let Got::Publish { id: Some(id), .. } = subscriber.next().await else { panic!() };
            ids.push(id);
        }
        subscriber.ack(AckKind::PubAck, ids[n]).await;
    }
}

#[tokio::test]
async fn e2_what_a_later_connection_is_too_small_for_is_not_sent_again() {
    let rig = Rig::new().await;
    let mut subscriber = big(&rig, 1).await;
    assert!(matches!(subscriber.next().await, Got::Publish { .. }));
    let mut publisher = rig.client("q").await;
    publisher.publish("big", "small", QoS::AtLeastOnce).await;
    publisher.next().await;
    assert!(matches!(subscriber.next().await, Got::Publish { .. }));
    drop(subscriber);
    let connect = Connect {
        clean_start: false,
        session_expiry_s: 1000,
        max_packet_bytes: Some(1024),
        ..Connect::new(Version::V5, "s")
    };
    let (mut subscriber, present) = rig.connect(&connect).await;
    assert!(present);
    assert_eq!(subscriber.payload().await, "small");
    assert_eq!(subscriber.sync().await, []);
    assert_eq!(rig.broker.metrics.in_flight.get(), 0);
}

#[tokio::test]
async fn e2_what_the_client_has_received_is_completed_whatever_its_size() {
    let rig = Rig::new().await;
    let (mut subscriber, _) = rig.resume("s").await;
    subscriber.subscribe("t", QoS::ExactlyOnce).await;
    let mut publisher = rig.client("p").await;
    let large = "x".repeat(2048);
    let mut ids = Vec::new();
    for payload in [&large, &large, "small"] {
        publisher.publish("t", payload, QoS::ExactlyOnce).await;
        publisher.next().await;
        let Got::Publish { id: Some(id), .. } = subscriber.next().await else { panic!() };
        ids.push(id);
    }
    subscriber.ack(AckKind::PubRec, ids[0]).await;
    assert_eq!(subscriber.next().await, Got::Ack(AckKind::PubRel, ids[0], Reason::Success));
    drop(subscriber);
    let connect = Connect {
        clean_start: false,
        session_expiry_s: 1000,
        max_packet_bytes: Some(1024),
        // A packet that isn't sent takes nothing of it.
        receive_maximum: 2,
        ..Connect::new(Version::V5, "s")
    };
    let (mut subscriber, present) = rig.connect(&connect).await;
    assert!(present);
    assert_eq!(subscriber.next().await, Got::Ack(AckKind::PubRel, ids[0], Reason::Success));
    let Got::Publish { id: Some(id), dup: true, .. } = subscriber.next().await else { panic!() };
    assert_eq!(id, ids[2]);
    assert_eq!(subscriber.sync().await, []);
    assert_eq!(rig.broker.metrics.publishes_dropped.at(QoS::ExactlyOnce).get(), 1);
    assert_eq!(rig.broker.metrics.in_flight.get(), 2);
    // The client may still have answered what it took before.
    subscriber.ack(AckKind::PubRec, ids[1]).await;
    let unknown = Got::Ack(AckKind::PubRel, ids[1], Reason::PacketIdNotFound);
    assert_eq!(subscriber.next().await, unknown);
    subscriber.ack(AckKind::PubComp, ids[0]).await;
    subscriber.ack(AckKind::PubRec, id).await;
    assert_eq!(subscriber.next().await, Got::Ack(AckKind::PubRel, id, Reason::Success));
    subscriber.ack(AckKind::PubComp, id).await;
    assert_eq!(subscriber.sync().await, []);
    assert_eq!(rig.broker.metrics.in_flight.get(), 0);
}

#[tokio::test]
async fn sessions_are_bounded() {
    let rig = Rig::with(MqttConfig { max_sessions: 2, ..MqttConfig::default() }).await;
    let (a, _) = rig.resume("a").await;
    a.disconnect().await;
    let b = rig.client("b").await;
    let mut third = Client::new(rig.stream(1 << 16), Version::V5);
    third.send(|out| Connect::new(Version::V5, "c").encode(out).unwrap()).await;
    assert_eq!(third.next().await, Got::ConnAck(Reason::QuotaExceeded, false));
    // Whoever has one may come back, and who leaves makes room.
    assert!(rig.resume("a").await.1);
    b.disconnect().await;
    rig.client("c").await;
}

#[tokio::test]
async fn subscriptions_are_bounded_in_bytes() {
    let config = MqttConfig { max_subscription_bytes: 100 << 10, ..MqttConfig::default() };
    let rig = Rig::with(config).await;
    let (mut client, _) = rig.resume("c").await;
    let filter = |n: usize| format!("{n}{}", "/+".repeat(127));
    async fn ask(client: &mut Client, filter: &str) -> Reason {
        client.subscribe_only(filter, SubscriptionOptions::default()).await;
        let Got::SubAck(_, reasons) = client.next().await else { panic!() };
        reasons[0]
    }
    let mut granted = 0;
    while granted < 10 && ask(&mut client, &filter(granted)).await != Reason::QuotaExceeded {
        granted += 1;
    }
    assert_eq!(granted, 3);
    // One that is there may be changed, and one that goes makes room.
    assert_eq!(ask(&mut client, &filter(0)).await, Reason::Success);
    client.unsubscribe(&filter(0)).await;
    client.next().await;
    client.unsubscribe(&filter(0)).await;
    client.next().await;
    assert_eq!(ask(&mut client, &filter(5)).await, Reason::Success);
    assert_eq!(ask(&mut client, &filter(6)).await, Reason::QuotaExceeded);
    // A new session has room for all.
    client.disconnect().await;
    let mut client = rig.client("c").await;
    for n in 0..granted {
        assert_eq!(ask(&mut client, &filter(n)).await, Reason::Success);
    }
}

#[tokio::test]
async fn a_log_that_can_not_be_read_now_costs_a_session_no_message() {
    let rig = Rig::new().await;
    let (mut client, _) = rig.resume("c").await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    client.disconnect().await;
    let mut publisher = rig.client("p").await;
    publisher.publish("t", "kept", QoS::AtLeastOnce).await;
    publisher.next().await;
    publisher.sync().await;
    for tail in rig.broker.feed.tails.iter() {
        tail.reached(tail.committed()).await;
    }
    rig.log.fail_reads(Some(ReadError::Io("no".into())));
    let (mut client, present) = rig.resume("c").await;
    assert!(present);
    assert_eq!(client.next().await, Got::Disconnect(Reason::ImplementationSpecificError));
    rig.log.fail_reads(None);
    let (mut client, present) = rig.resume("c").await;
    assert!(present);
    assert_eq!(client.payload().await, "kept");
}

#[tokio::test]
async fn a_group_loses_only_what_is_damaged() {
    let rig = Rig::new().await;
    let (mut member, _) = rig.resume("m").await;
    member.subscribe("$share/g/t", QoS::AtLeastOnce).await;
    member.disconnect().await;
    let mut publisher = rig.client("p").await;
    for payload in ["damaged", "kept"] {
        publisher.publish("t", payload, QoS::AtLeastOnce).await;
        publisher.next().await;
    }
    for tail in rig.broker.feed.tails.iter() {
        tail.reached(tail.committed()).await;
    }
    rig.log.fail_reads(Some(ReadError::Damaged { from: 0, to: 1 }));
    let (mut member, _) = rig.resume("m").await;
    assert_eq!(member.payload().await, "kept");
}
