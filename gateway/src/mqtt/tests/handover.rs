//! From the log to live and back: nothing lost, nothing twice, order kept.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::MqttConfig;
use super::super::codec::{AckKind, Connect, QoS, Reason, Version};
use super::super::testing::{Client, Got, Rig};

#[tokio::test]
async fn an_early_batch_is_delivered_once() {
    let rig = Rig::new().await;
    let mut before = rig.client("before").await;
    before.subscribe("t", QoS::AtMostOnce).await;
    let mut publisher = rig.client("p").await;
    rig.log.hold(true);
    publisher.publish("t", "1", QoS::AtMostOnce).await;
    assert_eq!(before.payload().await, "1"); // not committed yet
    let mut between = rig.client("between").await;
    between.subscribe("t", QoS::AtMostOnce).await;
    publisher.publish("t", "2", QoS::AtMostOnce).await;
    assert_eq!(before.payload().await, "2");
    rig.log.hold(false);
    publisher.publish("t", "3", QoS::AtMostOnce).await;
    assert_eq!(before.payload().await, "3");
    assert_eq!(before.sync().await, []);
    // Order: it gets 2 when that is committed, and nothing before.
    assert_eq!(between.payload().await, "2");
    assert_eq!(between.payload().await, "3");
    assert_eq!(between.sync().await, []);
}

#[tokio::test]
async fn a_slow_client_reads_the_log_and_drops_qos_0() {
    let config = MqttConfig { max_pending_bytes: 1000, read_bytes: 500, ..Default::default() };
    let rig = Rig::with(config).await;
    let connect = Connect { receive_maximum: 2, ..Connect::new(Version::V5, "slow") };
    let (mut slow, _) = rig.connect(&connect).await;
    slow.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = rig.client("p").await;
    for n in 0..100 {
        publisher.publish("t", &n.to_string(), QoS::AtLeastOnce).await;
        publisher.next().await;
    }
    for n in 0..100 {
        assert_eq!(slow.payload().await, n.to_string());
    }
    assert_eq!(slow.sync().await, []);
    assert!(rig.broker.metrics.catch_up_reads.get() > 0);
    publisher.publish("t", "live", QoS::AtLeastOnce).await;
    assert_eq!(slow.payload().await, "live");
}

#[tokio::test]
async fn p25_quota_0_lets_qos_0_and_answers_pass() {
    let rig = Rig::new().await;
    let connect = Connect { receive_maximum: 1, ..Connect::new(Version::V5, "c") };
    let (mut client, _) = rig.connect(&connect).await;
    client.subscribe("t", QoS::AtLeastOnce).await;
    let mut publisher = rig.client("p").await;
    for payload in ["1", "2"] {
        publisher.publish("t", payload, QoS::AtLeastOnce).await;
        publisher.next().await;
    }
    publisher.publish("t", "0", QoS::AtMostOnce).await;
    let Got::Publish { id: Some(id), .. } = client.next().await else { panic!() };
    assert_eq!(client.payload().await, "0");
    assert_eq!(client.sync().await, []);
    client.ack(AckKind::PubAck, id).await;
    assert_eq!(client.payload().await, "2");
}

#[derive(Clone, Debug)]
enum Step {
    Publish(u8, QoS),
    /// The subscriber's connection is lost, or comes back.
    Toggle,
    /// Another connection takes over.
    TakeOver,
    /// The subscriber takes what there is, and acknowledges it or not.
    Take {
        acknowledges: bool,
    },
    Hold(bool),
    CommitOne(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (
            0_u8..4,
            prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)],
        )
            .prop_map(|(topic, qos)| Step::Publish(topic, qos)),
        1 => Just(Step::Toggle),
        1 => Just(Step::TakeOver),
        3 => any::<bool>().prop_map(|acknowledges| Step::Take { acknowledges }),
        1 => any::<bool>().prop_map(Step::Hold),
        2 => (0_u8..3).prop_map(Step::CommitOne),
    ]
}

/// What the subscriber saw, by topic and QoS.
#[derive(Default)]
struct Seen {
    newest: [[Option<u32>; 3]; 4],
    /// On this connection.
    here: [[Option<u32>; 3]; 4],
    /// Acknowledged.
    taken: [BTreeSet<u32>; 4],
}

impl Seen {
    /// Takes a packet; if told so, with all answers that it wants.
    async fn take(&mut self, client: &mut Client, got: Got, acknowledges: bool) {
        let (topic, payload, qos, id, dup) = match got {
            Got::Publish { topic, payload, qos, id, dup, .. } => (topic, payload, qos, id, dup),
            Got::Ack(AckKind::PubRel, id, Reason::Success) => {
                if acknowledges {
                    client.ack(AckKind::PubComp, id).await;
                }
                return;
            }
            other => panic!("{other:?}"),
        };
        let topic = usize::from(topic.as_bytes()[2] - b'0');
        let n: u32 = std::str::from_utf8(&payload).unwrap().parse().unwrap();
        let at = usize::from(qos.bits());
        let (newest, here) = (&mut self.newest[topic][at], &mut self.here[topic][at]);
        assert!(*here < Some(n), "{n} again or late on one connection");
        *here = Some(n);
        assert!(dup || *newest < Some(n), "{n} again or late");
        *newest = (*newest).max(Some(n));
        let taken = &mut self.taken[topic];
        assert!(qos != QoS::ExactlyOnce || !taken.contains(&n), "{n} after its PUBREC");
        let Some(id) = id.filter(|_| acknowledges) else { return };
        taken.insert(n);
        let kind = if qos == QoS::ExactlyOnce { AckKind::PubRec } else { AckKind::PubAck };
        client.ack(kind, id).await;
    }
}

async fn run(steps: Vec<Step>, receive_maximum: u16) {
    let config = MqttConfig { max_pending_bytes: 900, read_bytes: 300, ..Default::default() };
    let rig = Rig::with(config).await;
    let connect = Connect {
        clean_start: false,
        session_expiry_s: 1000,
        receive_maximum,
        ..Connect::new(Version::V5, "s")
    };
    let mut publisher = rig.client("p").await;
    let mut subscriber = Some(rig.connect(&connect).await.0);
    subscriber.as_mut().unwrap().subscribe("t/#", QoS::ExactlyOnce).await;
    let mut seen = Seen::default();
    let mut sent: [BTreeSet<u32>; 4] = Default::default();
    let mut number = 0;
    for step in steps.into_iter().chain([Step::Hold(false)]) {
        match step {
            Step::Publish(topic, qos) => {
                publisher.publish(&format!("t/{topic}"), &number.to_string(), qos).await;
                publisher.sync().await;
                if qos != QoS::AtMostOnce {
                    sent[usize::from(topic)].insert(number);
                }
                number += 1;
            }
            Step::Toggle => {
                seen.here = Default::default();
                subscriber = match subscriber.take() {
                    Some(_) => None,
                    None => Some(rig.connect(&connect).await.0),
                };
            }
            Step::TakeOver => {
                seen.here = Default::default();
                let old = subscriber.take();
                subscriber = Some(rig.connect(&connect).await.0);
                drop(old);
            }
            Step::Take { acknowledges } => {
                let Some(subscriber) = &mut subscriber else { continue };
                for got in subscriber.sync().await {
                    seen.take(subscriber, got, acknowledges).await;
                }
            }
            Step::Hold(holds) => rig.log.hold(holds),
            Step::CommitOne(log) => {
                rig.log.commit_one(interflow_logstore::LogId(u64::from(log)));
            }
        }
    }
    // What was not acknowledged comes again on a new connection only.
    drop(subscriber);
    seen.here = Default::default();
    let mut subscriber = rig.connect(&connect).await.0;
    // Until it is quiet: each round takes what the quota allows.
    let session = rig.broker.registry.get("s").unwrap();
    let mut quiet = 0;
    while quiet < 5 {
        let got = subscriber.sync().await;
        let is_quiet = got.is_empty() && !session.lock().needs_feed();
        quiet = if is_quiet { quiet + 1 } else { 0 };
        for got in got {
            seen.take(&mut subscriber, got, true).await;
        }
    }
    assert_eq!(seen.taken, sent);
    assert_eq!(session.lock().in_flight(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..Default::default() })]
    #[test]
    fn o1_whatever_happens_each_message_arrives_in_order(
        steps in vec(step(), 0..120),
        receive_maximum in 1_u16..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, receive_maximum));
    }
}
