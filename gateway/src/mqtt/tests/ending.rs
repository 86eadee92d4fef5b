//! What stays of a session that ended: nothing.

use std::sync::Arc;

use super::super::codec::{AckKind, Connect, PublishProperties, QoS, Version, Will};
use super::super::testing::{Client, Got, Rig};

const PUBLISHES: usize = 40;

/// A session with something of everything: subscriptions of both kinds, messages in flight,
/// released and waiting, QoS 2 from the client, a will that waits.
async fn busy(rig: &Rig) -> Client {
    let will = Will {
        topic: "will",
        payload: b"x",
        qos: QoS::AtLeastOnce,
        retain: false,
        delay_s: 3600,
        properties: PublishProperties::default(),
    };
    let connect = Connect {
        will: Some(will),
        session_expiry_s: 7200,
        receive_maximum: 5,
        topic_alias_maximum: 10,
        ..Connect::new(Version::V5, "busy")
    };
    let (mut client, _) = rig.connect(&connect).await;
    for filter in ["t/#", "t/+", "exact", "$share/g/t/#", "$SYS/broker/version"] {
        client.subscribe(filter, QoS::ExactlyOnce).await;
    }
    assert!(matches!(client.next().await, Got::Publish { retain: true, .. })); // of $SYS
    let mut publisher = rig.client("p").await;
    for n in 0..PUBLISHES {
        let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][n % 2];
        publisher.publish(&format!("t/{n}"), "x", qos).await;
        publisher.next().await;
    }
    let mut released = false;
    for _ in 0..5 {
        let Got::Publish { qos, id: Some(id), .. } = client.next().await else { panic!() };
        if qos == QoS::ExactlyOnce && !released {
            released = true;
            client.ack(AckKind::PubRec, id).await;
        }
    }
    assert!(matches!(client.next().await, Got::Ack(AckKind::PubRel, ..)));
    client.publish("other", "x", QoS::ExactlyOnce).await;
    assert!(matches!(client.next().await, Got::Ack(AckKind::PubRec, ..)));
    publisher.disconnect().await;
    client
}

async fn nothing_stays(rig: &Rig, end: impl AsyncFnOnce(Client)) {
    let client = busy(rig).await;
    let session = Arc::downgrade(&rig.broker.registry.get("busy").unwrap());
    end(client).await;
    // Whatever task still held it is done when later publishes are answered.
    let mut client = rig.client("after").await;
    for _ in 0..20 {
        client.publish("after", "x", QoS::AtLeastOnce).await;
        client.next().await;
        client.sync().await;
    }
    client.disconnect().await;
    let broker = &rig.broker;
    assert!(session.upgrade().is_none(), "somebody holds the session");
    assert!(broker.routes.read().is_empty() && broker.groups.lock().is_empty());
    assert_eq!((broker.registry.len(), broker.timers.len()), (0, 0));
    let metrics = &broker.metrics;
    for level in [&metrics.sessions, &metrics.clients, &metrics.subscriptions, &metrics.in_flight] {
        assert_eq!(level.get(), 0, "{metrics:?}");
    }
}

#[tokio::test]
async fn nothing_stays_of_a_session_that_is_replaced() {
    let rig = Rig::new().await;
    nothing_stays(&rig, async |client| {
        drop(client);
        rig.client("busy").await.disconnect().await;
    })
    .await;
}

#[tokio::test]
async fn nothing_stays_of_a_session_that_is_replaced_while_it_is_connected() {
    let rig = Rig::new().await;
    nothing_stays(&rig, async |client| {
        let new = rig.client("busy").await;
        drop(client);
        new.disconnect().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn nothing_stays_of_a_session_that_expires() {
    let rig = Rig::new().await;
    nothing_stays(&rig, async |client| {
        drop(client);
        tokio::time::sleep(std::time::Duration::from_secs(7300)).await;
        assert_eq!(rig.broker.metrics.wills.get(), 1);
    })
    .await;
}
