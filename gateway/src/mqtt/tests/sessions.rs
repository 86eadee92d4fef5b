//! Sessions over connections: resumption, takeover, expiry, wills.

use super::super::MqttConfig;
use super::super::codec::{
    AckKind, Connect, Disconnect, PacketId, PublishProperties, QoS, Reason, Version, Will,
};
use super::super::testing::{Got, Rig};

fn with_will(id: &str, delay_s: u32, expiry_s: u32) -> Connect<'_> {
    let will = Will {
        topic: "will",
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_s,
        properties: PublishProperties::default(),
    };
    Connect {
        will: Some(will),
        clean_start: false,
        session_expiry_s: expiry_s,
        ..Connect::new(Version::V5, id)
    }
}

#[tokio::test]
async fn c10_a_session_gets_what_came_while_it_was_away() {
    let rig = Rig::new().await;
    let (mut client, present) = rig.resume("c").await;
    assert!(!present);
    client.subscribe("t/#", QoS::AtLeastOnce).await;
    client.disconnect().await;
    let mut publisher = rig.client("p").await;
    for n in 0..20 {
        publisher.publish(&format!("t/{}", n % 3), &n.to_string(), QoS::AtLeastOnce).await;
        publisher.publish("t/0", "zero", QoS::AtMostOnce).await;
        publisher.publish("other", "x", QoS::AtLeastOnce).await;
    }
    publisher.sync().await;
    let (mut client, present) = rig.resume("c").await;
    assert!(present);
    let mut got = Vec::new();
    for _ in 0..20 {
        got.push(client.payload().await.parse::<u32>().unwrap());
    }
    for topic in 0..3 {
        let of_topic: Vec<_> = got.iter().copied().filter(|n| n % 3 == topic).collect();
        assert!(of_topic.is_sorted() && of_topic.len() >= 6, "{got:?}");
    }
    publisher.publish("t/1", "live", QoS::AtLeastOnce).await;
    assert_eq!(client.payload().await, "live");
    assert_eq!(client.sync().await, []);
}

#[tokio::test]
async fn p18_what_was_not_acknowledged_comes_again_with_dup_and_the_same_id() {
    let rig = Rig::new().await;
    let (mut client, _) = rig.resume("c").await;
    client.subscribe("t", QoS::ExactlyOnce).await;
    let mut publisher = rig.client("p").await;
    for (payload, qos) in [
        ("1", QoS::AtLeastOnce),
        ("2", QoS::ExactlyOnce),
        ("3", QoS::AtLeastOnce),
        ("4", QoS::ExactlyOnce),
    ] {
        publisher.publish("t", payload, qos).await;
        publisher.next().await;
    }
    let mut first = Vec::new();
    for _ in 0..4 {
        let Got::Publish { id: Some(id), payload, dup: false, .. } = client.next().await else {
            panic!()
        };
        first.push((id, payload));
    }
    client.ack(AckKind::PubRec, first[3].0).await;
    assert_eq!(client.next().await, Got::Ack(AckKind::PubRel, first[3].0, Reason::Success));
    drop(client);
    let (mut client, present) = rig.resume("c").await;
    assert!(present);
    assert_eq!(client.next().await, Got::Ack(AckKind::PubRel, first[3].0, Reason::Success));
    let mut again = Vec::new();
    for _ in 0..3 {
        let Got::Publish { id: Some(id), payload, dup: true, .. } = client.next().await else {
            panic!()
        };
        again.push((id, payload));
    }
    again.sort_unstable();
    first.truncate(3);
    first.sort_unstable();
    assert_eq!(again, first);
}

#[tokio::test]
async fn p24_a_lower_receive_maximum_holds_for_a_resumed_session() {
    let rig = Rig::new().await;
    let (mut client, _) = rig.resume("c").await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = rig.client("p").await;
    for n in 0..5 {
        publisher.publish("t", &n.to_string(), QoS::AtLeastOnce).await;
        client.next().await;
    }
    drop(client);
    publisher.publish("t", "5", QoS::AtLeastOnce).await;
    publisher.sync().await;
    let connect = Connect {
        clean_start: false,
        session_expiry_s: 1000,
        receive_maximum: 2,
        ..Connect::new(Version::V5, "c")
    };
    let (mut client, _) = rig.connect(&connect).await;
    let out = client.sync().await;
    assert_eq!(out.len(), 2, "{out:?}");
    for got in out {
        let Got::Publish { id: Some(id), .. } = got else { panic!() };
        client.ack(AckKind::PubAck, id).await;
    }
    for n in 2..6 {
        assert_eq!(client.payload().await, n.to_string());
    }
}

#[tokio::test]
async fn c18_a_second_connection_takes_the_session_over() {
    let rig = Rig::new().await;
    let (mut first, _) = rig.resume("c").await;
    first.subscribe("t", QoS::AtLeastOnce).await;
    let (mut second, present) = rig.resume("c").await;
    assert!(present);
    assert_eq!(first.next().await, Got::Disconnect(Reason::SessionTakenOver));
    let mut publisher = rig.client("p").await;
    publisher.publish("t", "x", QoS::AtLeastOnce).await;
    assert_eq!(second.payload().await, "x");
    let (mut third, present) = rig.connect(&Connect::new(Version::V311, "c")).await;
    assert!(!present);
    assert_eq!(second.next().await, Got::Disconnect(Reason::SessionTakenOver));
    publisher.publish("t", "y", QoS::AtLeastOnce).await;
    publisher.sync().await;
    assert_eq!(third.sync().await, []);
    assert_eq!(rig.broker.metrics.sessions.get(), 2);
}

#[tokio::test]
async fn c16_a_session_changes_its_version() {
    let rig = Rig::new().await;
    let connect = Connect {
        clean_start: false,
        session_expiry_s: u32::MAX,
        ..Connect::new(Version::V311, "c")
    };
    let (mut client, _) = rig.connect(&connect).await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = rig.client("p").await;
    publisher.publish("t", "1", QoS::AtLeastOnce).await;
    assert!(matches!(client.next().await, Got::Publish { .. }));
    drop(client);
    publisher.publish("t", "2", QoS::AtLeastOnce).await;
    publisher.sync().await;
    let (mut client, present) = rig.resume("c").await;
    assert!(present);
    assert_eq!(client.payload().await, "1");
    assert_eq!(client.payload().await, "2");
}

#[tokio::test(start_paused = true)]
async fn c11_a_session_ends_when_its_time_is_over() {
    let rig = Rig::new().await;
    let (mut client, _) = rig.resume("c").await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    client.disconnect().await;
    tokio::time::sleep(std::time::Duration::from_secs(999)).await;
    assert_eq!(rig.broker.metrics.sessions.get(), 1);
    let (client, present) = rig.resume("c").await;
    assert!(present);
    client.disconnect().await;
    tokio::time::sleep(std::time::Duration::from_secs(1001)).await;
    assert_eq!(rig.broker.metrics.sessions.get(), 0);
    assert!(rig.broker.routes.read().is_empty());
    assert!(!rig.resume("c").await.1);
}

#[tokio::test(start_paused = true)]
async fn w2_a_will_waits_for_its_delay_or_the_sessions_end() {
    let rig = Rig::new().await;
    let mut watcher = rig.client("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    drop(rig.connect(&with_will("now", 0, 100)).await);
    assert_eq!(watcher.payload().await, "gone");
    drop(rig.connect(&with_will("ends", 100, 0)).await);
    assert_eq!(watcher.payload().await, "gone");
    drop(rig.connect(&with_will("later", 50, 100)).await);
    tokio::time::sleep(std::time::Duration::from_secs(49)).await;
    assert_eq!(watcher.sync().await, []);
    assert_eq!(watcher.payload().await, "gone");
    // W3: a reconnection within the delay cancels it.
    drop(rig.connect(&with_will("back", 50, 100)).await);
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    let (back, present) = rig.connect(&with_will("back", 50, 100)).await;
    assert!(present);
    tokio::time::sleep(std::time::Duration::from_secs(200)).await;
    assert_eq!(watcher.sync().await, []);
    back.disconnect().await;
    tokio::time::sleep(std::time::Duration::from_secs(200)).await;
    assert_eq!(watcher.sync().await, []);
}

#[tokio::test]
async fn w1_disconnect_0x04_publishes_the_will() {
    let rig = Rig::new().await;
    let mut watcher = rig.client("w").await;
    watcher.subscribe("will", QoS::AtLeastOnce).await;
    let (mut client, _) = rig.connect(&with_will("c", 0, 0)).await;
    let packet = Disconnect::new(Reason::DisconnectWithWill);
    client
        .send(|out| {
            super::super::codec::client::encode_disconnect(Version::V5, &packet, out).unwrap()
        })
        .await;
    assert_eq!(watcher.payload().await, "gone");
}

#[tokio::test]
async fn p13_a_qos_2_id_is_taken_once_also_over_a_reconnection() {
    let rig = Rig::new().await;
    let mut watcher = rig.client("w").await;
    watcher.subscribe("t", QoS::AtMostOnce).await;
    let (mut client, _) = rig.resume("c").await;
    rig.log.hold(true);
    client.publish("t", "once", QoS::ExactlyOnce).await;
    client.sync().await;
    drop(client);
    let (mut client, _) = rig.resume("c").await;
    client.publish("t", "once", QoS::ExactlyOnce).await;
    assert_eq!(client.sync().await, []);
    rig.log.hold(false);
    let Got::Ack(AckKind::PubRec, id, Reason::Success) = client.next().await else { panic!() };
    client.ack(AckKind::PubRel, id).await;
    assert_eq!(client.next().await, Got::Ack(AckKind::PubComp, id, Reason::Success));
    client.ack(AckKind::PubRel, id).await;
    assert_eq!(client.next().await, Got::Ack(AckKind::PubComp, id, Reason::PacketIdNotFound));
    assert_eq!(watcher.payload().await, "once");
    assert_eq!(watcher.sync().await, []);
}

#[tokio::test]
async fn unsubscribing_ends_deliveries() {
    let rig = Rig::new().await;
    let mut client = rig.client("c").await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    client.unsubscribe("t").await;
    assert!(
        matches!(client.next().await, Got::UnsubAck(_, reasons) if reasons == [Reason::Success])
    );
    client.unsubscribe("t").await;
    assert!(matches!(
        client.next().await,
        Got::UnsubAck(_, reasons) if reasons == [Reason::NoSubscriptionExisted]
    ));
    client.publish("t", "x", QoS::AtLeastOnce).await;
    assert!(matches!(client.next().await, Got::Ack(..)));
    assert_eq!(client.sync().await, []);
    assert!(rig.broker.routes.read().is_empty());
}

#[tokio::test]
async fn p14_pubrel_before_pubrec_releases_nothing() {
    let rig = Rig::new().await;
    let mut watcher = rig.client("w").await;
    watcher.subscribe("t", QoS::AtMostOnce).await;
    let mut client = rig.client("c").await;
    rig.log.hold(true);
    client.publish("t", "once", QoS::ExactlyOnce).await;
    let id = PacketId::new(1).unwrap();
    for _ in 0..10 {
        client.ack(AckKind::PubRel, id).await;
        let unknown = Got::Ack(AckKind::PubComp, id, Reason::PacketIdNotFound);
        assert_eq!(client.next().await, unknown);
    }
    rig.log.hold(false);
    assert_eq!(client.next().await, Got::Ack(AckKind::PubRec, id, Reason::Success));
    client.ack(AckKind::PubRel, id).await;
    assert_eq!(client.next().await, Got::Ack(AckKind::PubComp, id, Reason::Success));
    // What comes after is answered, too.
    client.publish("t", "next", QoS::AtLeastOnce).await;
    assert!(matches!(client.next().await, Got::Ack(AckKind::PubAck, ..)));
    assert_eq!(watcher.payload().await, "once");
    assert_eq!(watcher.payload().await, "next");
}

#[tokio::test]
async fn p23_the_receive_maximum_counts_what_came_on_this_connection() {
    let rig = Rig::with(MqttConfig { receive_maximum: 3, ..MqttConfig::default() }).await;
    let (mut client, _) = rig.resume("c").await;
    for _ in 0..3 {
        client.publish("t", "x", QoS::ExactlyOnce).await;
        assert!(matches!(client.next().await, Got::Ack(AckKind::PubRec, ..)));
    }
    drop(client);
    // The client may have had three PUBRECs: it sends PUBRELs, and three more.
    let (mut client, _) = rig.resume("c").await;
    for id in 4..=6 {
        client.publish_as(id, "t", "x").await;
        assert!(matches!(client.next().await, Got::Ack(AckKind::PubRec, _, Reason::Success)));
    }
    for id in 1..=6 {
        let id = PacketId::new(id).unwrap();
        client.ack(AckKind::PubRel, id).await;
        assert_eq!(client.next().await, Got::Ack(AckKind::PubComp, id, Reason::Success));
    }
    for id in 7..=9 {
        client.publish_as(id, "t", "x").await;
        assert!(matches!(client.next().await, Got::Ack(AckKind::PubRec, _, Reason::Success)));
    }
    client.publish_as(10, "t", "x").await;
    assert_eq!(client.next().await, Got::Disconnect(Reason::ReceiveMaximumExceeded));
}

#[tokio::test]
async fn p23_one_publish_again_and_again_is_too_many_as_well() {
    let rig = Rig::with(MqttConfig { receive_maximum: 3, ..MqttConfig::default() }).await;
    let mut client = rig.client("c").await;
    rig.log.hold(true);
    for _ in 0..4 {
        client.publish_as(1, "t", "x").await;
    }
    assert_eq!(client.next().await, Got::Disconnect(Reason::ReceiveMaximumExceeded));
    rig.log.hold(false);
}

#[tokio::test]
async fn p29_what_was_sent_comes_again_although_its_time_is_over() {
    let rig = Rig::new().await;
    let (mut client, _) = rig.resume("c").await;
    client.subscribe("t", QoS::ExactlyOnce).await;
    let mut publisher = rig.client("p").await;
    let properties =
        || PublishProperties { message_expiry_s: Some(5), ..PublishProperties::default() };
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        publisher.publish_with("t", "sent", qos, false, properties()).await;
        publisher.next().await;
        assert!(matches!(client.next().await, Got::Publish { expiry_s: Some(5), .. }));
    }
    drop(client);
    publisher.publish_with("t", "late", QoS::AtLeastOnce, false, properties()).await;
    publisher.next().await;
    publisher.sync().await;
    rig.advance_ms(6_000);
    let (mut client, _) = rig.resume("c").await;
    for _ in 0..2 {
        let Got::Publish { payload, dup: true, expiry_s: Some(0), .. } = client.next().await else {
            panic!()
        };
        assert_eq!(&payload[..], b"sent");
    }
    let late = client.sync().await;
    assert_eq!(late, [], "it was not sent in time");
}

#[tokio::test]
async fn p28_an_expiry_of_0_reaches_only_those_who_are_there() {
    let rig = Rig::new().await;
    let (mut away, _) = rig.resume("away").await;
    away.subscribe("t", QoS::AtLeastOnce).await;
    away.disconnect().await;
    let mut here = rig.client("here").await;
    here.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = rig.client("p").await;
    let properties = PublishProperties { message_expiry_s: Some(0), ..Default::default() };
    publisher.publish_with("t", "now", QoS::AtLeastOnce, true, properties).await;
    publisher.next().await;
    assert!(matches!(here.next().await, Got::Publish { expiry_s: Some(0), .. }));
    rig.advance_ms(1_000);
    let (mut away, _) = rig.resume("away").await;
    assert_eq!(away.sync().await, []);
    let mut late = rig.client("late").await;
    late.subscribe("t", QoS::AtLeastOnce).await;
    assert_eq!(late.sync().await, []);
}
