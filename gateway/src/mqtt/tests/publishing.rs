//! Publishes, their answers, and live deliveries.

use interflow_logstore::AppendError;

use super::super::codec::{AckKind, Connect, QoS, Reason, Version};
use super::super::testing::{Got, Rig};

#[tokio::test]
async fn every_qos_arrives_and_is_answered() {
    let rig = Rig::new().await;
    let mut subscriber = rig.client("s").await;
    subscriber.subscribe("a/+", QoS::ExactlyOnce).await;
    let mut publisher = rig.client("p").await;
    publisher.publish("a/0", "zero", QoS::AtMostOnce).await;
    assert_eq!(subscriber.payload().await, "zero");
    publisher.publish("a/1", "one", QoS::AtLeastOnce).await;
    assert!(matches!(publisher.next().await, Got::Ack(AckKind::PubAck, _, Reason::Success)));
    assert_eq!(subscriber.payload().await, "one");
    publisher.publish("a/2", "two", QoS::ExactlyOnce).await;
    let Got::Ack(AckKind::PubRec, id, Reason::Success) = publisher.next().await else { panic!() };
    publisher.ack(AckKind::PubRel, id).await;
    assert_eq!(publisher.next().await, Got::Ack(AckKind::PubComp, id, Reason::Success));
    let Got::Publish { id: Some(id), qos: QoS::ExactlyOnce, .. } = subscriber.next().await else {
        panic!()
    };
    subscriber.ack(AckKind::PubRec, id).await;
    assert_eq!(subscriber.next().await, Got::Ack(AckKind::PubRel, id, Reason::Success));
    subscriber.ack(AckKind::PubComp, id).await;
    assert_eq!(subscriber.sync().await, []);
    assert_eq!(rig.broker.metrics.in_flight.get(), 0);
    rig.broker.shutdown().await;
    assert_eq!(subscriber.next().await, Got::Disconnect(Reason::ServerShuttingDown));
}

#[tokio::test]
async fn p11_no_acknowledgement_before_the_commit() {
    let rig = Rig::new().await;
    let mut publisher = rig.client("p").await;
    rig.log.hold(true);
    publisher.publish("t", "1", QoS::AtLeastOnce).await;
    publisher.publish("t", "2", QoS::ExactlyOnce).await;
    assert_eq!(publisher.sync().await, []);
    rig.log.hold(false);
    assert!(matches!(publisher.next().await, Got::Ack(AckKind::PubAck, ..)));
    assert!(matches!(publisher.next().await, Got::Ack(AckKind::PubRec, ..)));
}

#[tokio::test]
async fn publishes_that_meet_an_append_in_flight_share_the_next_batch() {
    let rig = Rig::new().await;
    let mut one = rig.client("1").await;
    let mut two = rig.client("2").await;
    rig.log.hold(true);
    one.publish("t", "first", QoS::AtLeastOnce).await;
    one.sync().await;
    for client in [&mut one, &mut two] {
        client.publish("t", "x", QoS::AtLeastOnce).await;
        client.publish("t", "y", QoS::ExactlyOnce).await;
        client.sync().await;
    }
    let log = rig.log_of("t");
    assert_eq!(rig.log.waiting(log), [1]);
    assert!(rig.log.commit_one(log));
    assert!(matches!(one.next().await, Got::Ack(AckKind::PubAck, ..)));
    assert_eq!(rig.log.waiting(log), [4]);
}

#[tokio::test]
async fn a_refused_append_is_told_and_the_next_one_works() {
    let rig = Rig::new().await;
    let mut publisher = rig.client("p").await;
    let (mut old, _) = rig.connect(&Connect::new(Version::V311, "old")).await;
    rig.log.hold(true);
    publisher.publish("t", "1", QoS::AtLeastOnce).await;
    publisher.sync().await;
    rig.log.refuse(&AppendError::DiskFull);
    assert!(matches!(publisher.next().await, Got::Ack(AckKind::PubAck, _, Reason::QuotaExceeded)));
    old.publish("t", "2", QoS::AtLeastOnce).await;
    old.sync().await;
    rig.log.refuse(&AppendError::DiskFull);
    assert_eq!(old.next().await, Got::End);
    rig.log.hold(false);
    publisher.publish("t", "3", QoS::AtLeastOnce).await;
    assert!(matches!(publisher.next().await, Got::Ack(AckKind::PubAck, _, Reason::Success)));
}
