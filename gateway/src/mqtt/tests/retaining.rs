//! Retained messages.

use super::super::codec::{PublishProperties, QoS, RetainHandling, SubscriptionOptions};
use super::super::testing::{Got, Rig};

#[tokio::test]
async fn r1_a_retained_message_is_set_replaced_and_cleared() {
    let rig = Rig::new().await;
    let mut publisher = rig.client("p").await;
    for (payload, expected) in [("1", Some("1")), ("2", Some("2")), ("", None)] {
        // S15 and R4: no answer is awaited, and QoS 0 is retained all the same.
        let properties = PublishProperties::default();
        publisher.publish_with("r/t", payload, QoS::AtMostOnce, true, properties).await;
        publisher.sync().await;
        let mut subscriber = rig.client(payload).await;
        subscriber.subscribe("r/+", QoS::AtLeastOnce).await;
        let got = match expected {
            Some(_) => vec![subscriber.next().await],
            None => Vec::new(),
        };
        for got in &got {
            let Got::Publish { payload, retain: true, .. } = got else { panic!("{got:?}") };
            assert_eq!(Some(&payload[..]), expected.map(str::as_bytes));
        }
        assert_eq!(subscriber.sync().await, []);
    }
    assert_eq!(rig.broker.metrics.retained_writes.get(), 3);
}

#[tokio::test]
async fn s6_retain_handling() {
    let rig = Rig::new().await;
    let mut client = rig.client("c").await;
    client.publish_with("t", "x", QoS::AtLeastOnce, true, PublishProperties::default()).await;
    client.next().await;
    for (retain_handling, expected) in [
        (RetainHandling::Never, 0),
        (RetainHandling::IfNew, 0),
        (RetainHandling::Always, 1),
        (RetainHandling::Always, 1),
    ] {
        let options = SubscriptionOptions { retain_handling, ..Default::default() };
        client.subscribe_only("t", options).await;
        assert!(matches!(client.next().await, Got::SubAck(..)));
        let mut got = Vec::new();
        for _ in 0..expected {
            got.push(client.next().await);
        }
        got.extend(client.sync().await);
        assert_eq!(got.len(), expected, "{retain_handling:?}: {got:?}");
    }
}

#[tokio::test]
async fn r5_a_retained_message_expires_and_states_what_remains() {
    let rig = Rig::new().await;
    let mut publisher = rig.client("p").await;
    let properties = PublishProperties {
        message_expiry_s: Some(100),
        content_type: Some("text"),
        ..Default::default()
    };
    publisher.publish_with("t", "x", QoS::AtLeastOnce, true, properties).await;
    publisher.next().await;
    rig.advance_ms(30_000);
    let mut client = rig.client("c").await;
    client.subscribe("t", QoS::AtMostOnce).await;
    let Got::Publish { expiry_s: Some(70), .. } = client.next().await else { panic!() };
    rig.advance_ms(70_000);
    let mut client = rig.client("d").await;
    client.subscribe("t", QoS::AtMostOnce).await;
    assert_eq!(client.sync().await, []);
}

/// R6: while one publisher counts up, whoever subscribes sees the numbers rise: no retained
/// message is older than a live one that came before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_no_topic_goes_back() {
    let rig = std::sync::Arc::new(Rig::new().await);
    let publisher = tokio::spawn({
        let rig = rig.clone();
        async move {
            let mut publisher = rig.client("p").await;
            for n in 0..400 {
                let properties = PublishProperties::default();
                let qos = QoS::AtLeastOnce;
                publisher.publish_with("t", &n.to_string(), qos, true, properties).await;
                publisher.next().await;
            }
        }
    });
    let mut round = 0;
    while !publisher.is_finished() {
        round += 1;
        let mut client = rig.client(&format!("c{round}")).await;
        client.subscribe("+", QoS::AtLeastOnce).await;
        let mut last = None;
        for _ in 0..10 {
            if publisher.is_finished() {
                break;
            }
            for got in client.sync().await {
                let Got::Publish { payload, id, .. } = got else { panic!("{got:?}") };
                if let Some(id) = id {
                    client.ack(super::super::codec::AckKind::PubAck, id).await;
                }
                let n: u32 = std::str::from_utf8(&payload).unwrap().parse().unwrap();
                assert!(last.is_none_or(|last| last < n), "{n} after {last:?}");
                last = Some(n);
            }
        }
    }
    publisher.await.unwrap();
    assert!(round > 0);
}
