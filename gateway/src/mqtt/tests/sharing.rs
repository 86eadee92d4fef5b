//! Shared subscriptions.

use std::collections::BTreeSet;

use super::super::MqttConfig;
use super::super::codec::{AckKind, Connect, QoS, Version};
use super::super::testing::{Got, Rig};

const FILTER: &str = "$share/g/t/#";

#[tokio::test]
async fn h2_each_message_goes_to_one_member() {
    let rig = Rig::new().await;
    let (mut a, mut b) = (rig.client("a").await, rig.client("b").await);
    a.subscribe(FILTER, QoS::AtLeastOnce).await;
    b.subscribe(FILTER, QoS::AtLeastOnce).await;
    let mut publisher = rig.client("p").await;
    for n in 0..20 {
        publisher.publish("t/x", &n.to_string(), QoS::AtLeastOnce).await;
        publisher.next().await;
    }
    let (mut of_a, mut of_b) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        of_a.push(a.payload().await.parse::<u32>().unwrap());
        of_b.push(b.payload().await.parse::<u32>().unwrap());
    }
    assert!(of_a.is_sorted() && of_b.is_sorted());
    let all: BTreeSet<u32> = of_a.into_iter().chain(of_b).collect();
    assert_eq!(all, (0..20).collect());
    assert_eq!((a.sync().await, b.sync().await), (vec![], vec![]));
}

#[tokio::test]
async fn h8_a_group_without_members_online_keeps_what_comes() {
    let rig = Rig::new().await;
    let (mut a, _) = rig.resume("a").await;
    a.subscribe(FILTER, QoS::AtLeastOnce).await;
    a.disconnect().await;
    let mut publisher = rig.client("p").await;
    for n in 0..10 {
        publisher.publish("t", &n.to_string(), QoS::AtLeastOnce).await;
        publisher.next().await;
    }
    let (mut a, _) = rig.resume("a").await;
    for n in 0..10 {
        assert_eq!(a.payload().await, n.to_string());
    }
    publisher.publish("t", "live", QoS::AtLeastOnce).await;
    assert_eq!(a.payload().await, "live");
}

#[tokio::test]
async fn h6_what_a_member_leaves_unacknowledged_goes_to_another_when_its_session_ends() {
    let rig = Rig::new().await;
    let mut a = rig.client("a").await;
    a.subscribe(FILTER, QoS::AtLeastOnce).await;
    let mut publisher = rig.client("p").await;
    for n in 0..3 {
        publisher.publish("t", &n.to_string(), QoS::AtLeastOnce).await;
        publisher.next().await;
        assert!(matches!(a.next().await, Got::Publish { .. }));
    }
    let mut b = rig.client("b").await;
    b.subscribe(FILTER, QoS::AtLeastOnce).await;
    drop(a);
    for n in 0..3 {
        assert_eq!(b.payload().await, n.to_string());
    }
}

#[tokio::test]
async fn h5_a_qos_2_delivery_stays_with_its_member() {
    let rig = Rig::new().await;
    let (mut a, _) = rig.resume("a").await;
    a.subscribe(FILTER, QoS::ExactlyOnce).await;
    let mut publisher = rig.client("p").await;
    publisher.publish("t", "2", QoS::ExactlyOnce).await;
    let Got::Publish { id: Some(id), .. } = a.next().await else { panic!() };
    let mut b = rig.client("b").await;
    b.subscribe(FILTER, QoS::ExactlyOnce).await;
    drop(a);
    assert_eq!(b.sync().await, []);
    let (mut a, present) = rig.resume("a").await;
    assert!(present);
    assert!(
        matches!(a.next().await, Got::Publish { id: Some(again), dup: true, .. } if again == id)
    );
    // Its session ends: nobody gets it.
    let (a, _) = rig.connect(&Connect::new(Version::V5, "a")).await;
    a.disconnect().await;
    assert_eq!(b.sync().await, []);
    b.ack(AckKind::PubRec, id).await;
}

#[tokio::test]
async fn h9_the_last_member_ends_the_group() {
    let rig = Rig::new().await;
    let mut a = rig.client("a").await;
    a.subscribe(FILTER, QoS::AtLeastOnce).await;
    a.subscribe("$share/h/t/#", QoS::AtMostOnce).await;
    a.unsubscribe(FILTER).await;
    assert!(matches!(a.next().await, Got::UnsubAck(..)));
    a.publish("t", "x", QoS::AtMostOnce).await;
    assert_eq!(a.payload().await, "x");
    assert_eq!(a.sync().await, []);
    a.unsubscribe("$share/h/t/#").await;
    assert!(matches!(a.next().await, Got::UnsubAck(..)));
    assert!(rig.broker.groups.lock().is_empty());
    assert!(rig.broker.routes.read().is_empty());
}

#[tokio::test]
async fn e2_what_is_too_large_for_one_member_goes_to_another() {
    let rig = Rig::new().await;
    let small = Connect { max_packet_bytes: Some(100), ..Connect::new(Version::V5, "small") };
    let (mut small, _) = rig.connect(&small).await;
    small.subscribe(FILTER, QoS::AtLeastOnce).await;
    let mut large = rig.client("large").await;
    large.subscribe(FILTER, QoS::AtLeastOnce).await;
    let mut publisher = rig.client("p").await;
    let payload = "x".repeat(200);
    for _ in 0..4 {
        publisher.publish("t", &payload, QoS::AtLeastOnce).await;
        publisher.next().await;
        assert_eq!(large.payload().await, payload);
    }
    assert_eq!(rig.broker.metrics.publishes_dropped.sum(), 0);
    // Without anybody here who can hold it, it doesn't hold up the others.
    large.disconnect().await;
    let (mut away, _) = rig.resume("away").await;
    away.subscribe(FILTER, QoS::AtLeastOnce).await;
    away.disconnect().await;
    for payload in [&payload, "short"] {
        publisher.publish("t", payload, QoS::AtLeastOnce).await;
        publisher.next().await;
    }
    assert_eq!(small.payload().await, "short");
    assert_eq!(rig.broker.metrics.publishes_dropped.sum(), 1);
    assert_eq!(small.sync().await, []);
    assert_eq!(rig.broker.metrics.in_flight.get(), 0);
}

#[tokio::test]
async fn h6_what_is_taken_back_comes_first_and_does_not_pile_up() {
    let config = MqttConfig { max_pending_bytes: 2_000, ..MqttConfig::default() };
    let rig = Rig::with(config).await;
    let connect = Connect {
        clean_start: false,
        session_expiry_s: 1000,
        receive_maximum: 1,
        ..Connect::new(Version::V5, "a")
    };
    let (mut a, _) = rig.connect(&connect).await;
    a.subscribe(FILTER, QoS::AtLeastOnce).await;
    let mut publisher = rig.client("p").await;
    const COUNT: usize = 200;
    for n in 0..COUNT {
        publisher.publish("t", &n.to_string(), QoS::AtLeastOnce).await;
        publisher.next().await;
    }
    let taken_back = || rig.broker.groups.lock()[FILTER].taken_back();
    for _ in 0..20 {
        assert!(matches!(a.next().await, Got::Publish { .. }));
        assert_eq!(a.sync().await, []);
        drop(a);
        a = rig.connect(&connect).await.0;
        assert!(taken_back() < 20, "{}", taken_back());
    }
    for n in 0..COUNT {
        assert_eq!(a.payload().await, n.to_string());
    }
    assert_eq!(a.sync().await, []);
    assert_eq!(taken_back(), 0);
}
