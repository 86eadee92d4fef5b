//! From the log to live and back: nothing lost, nothing twice, order kept.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::MqttConfig;
use super::super::codec::{AckKind, Connect, QoS, Version};
use super::super::testing::{Got, Rig};

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
    let config = MqttConfig { max_pending_bytes: 300, read_bytes: 500, ..Default::default() };
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
    /// The subscriber takes what there is, and acknowledges it or not.
    Take {
        acknowledges: bool,
    },
    Hold(bool),
    CommitOne(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..4, prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)])
            .prop_map(|(topic, qos)| Step::Publish(topic, qos)),
        1 => Just(Step::Toggle),
        3 => any::<bool>().prop_map(|acknowledges| Step::Take { acknowledges }),
        1 => any::<bool>().prop_map(Step::Hold),
        2 => (0_u8..3).prop_map(Step::CommitOne),
    ]
}

/// What the subscriber saw, by what was sent.
#[derive(Default)]
struct Seen {
    /// Acknowledged QoS 1, by topic.
    taken: [Vec<u32>; 4],
    at_most_once: [Vec<u32>; 4],
    /// On this connection.
    open: Vec<u32>,
}

impl Seen {
    fn packet(&mut self, got: &Got) -> Option<(u32, super::super::codec::PacketId)> {
        let Got::Publish { topic, payload, qos, id, dup, .. } = got else { panic!("{got:?}") };
        let topic = usize::from(topic.as_bytes()[2] - b'0');
        let n: u32 = std::str::from_utf8(payload).unwrap().parse().unwrap();
        if *qos == QoS::AtMostOnce {
            assert!(self.at_most_once[topic].iter().all(|seen| *seen < n), "{n} again or late");
            self.at_most_once[topic].push(n);
            return None;
        }
        assert!(!self.open.contains(&n), "{n} twice on one connection");
        assert!(*dup || !self.taken.iter().flatten().any(|taken| *taken == n), "{n} again");
        self.open.push(n);
        Some((n, id.unwrap()))
    }
}

async fn run(steps: Vec<Step>, receive_maximum: u16) {
    let config = MqttConfig { max_pending_bytes: 200, read_bytes: 300, ..Default::default() };
    let rig = Rig::with(config).await;
    let connect = Connect {
        clean_start: false,
        session_expiry_s: 1000,
        receive_maximum,
        ..Connect::new(Version::V5, "s")
    };
    let mut publisher = rig.client("p").await;
    let mut subscriber = Some(rig.connect(&connect).await.0);
    subscriber.as_mut().unwrap().subscribe("t/#", QoS::AtLeastOnce).await;
    let mut seen = Seen::default();
    let mut sent: [Vec<u32>; 4] = Default::default();
    let mut number = 0;
    for step in steps.into_iter().chain([Step::Hold(false)]) {
        match step {
            Step::Publish(topic, qos) => {
                publisher.publish(&format!("t/{topic}"), &number.to_string(), qos).await;
                publisher.sync().await;
                if qos == QoS::AtLeastOnce {
                    sent[usize::from(topic)].push(number);
                }
                number += 1;
            }
            Step::Toggle => {
                seen.open.clear();
                subscriber = match subscriber.take() {
                    Some(_) => None,
                    None => Some(rig.connect(&connect).await.0),
                };
            }
            Step::Take { acknowledges } => {
                let Some(subscriber) = &mut subscriber else { continue };
                for got in subscriber.sync().await {
                    let Some((n, id)) = seen.packet(&got) else { continue };
                    if acknowledges {
                        let Got::Publish { topic, .. } = got else { panic!() };
                        seen.taken[usize::from(topic.as_bytes()[2] - b'0')].push(n);
                        subscriber.ack(AckKind::PubAck, id).await;
                    }
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
    seen.open.clear();
    let mut subscriber = rig.connect(&connect).await.0;
    // Until it is quiet: each round takes what the quota allows.
    let mut quiet = 0;
    while quiet < 5 {
        let got = subscriber.sync().await;
        let is_quiet = got.is_empty() && !session.lock().needs_feed();
        quiet = if is_quiet { quiet + 1 } else { 0 };
        for got in got {
            let Some((n, id)) = seen.packet(&got) else { continue };
            let Got::Publish { topic, .. } = got else { panic!() };
            seen.taken[usize::from(topic.as_bytes()[2] - b'0')].push(n);
            subscriber.ack(AckKind::PubAck, id).await;
        }
    }
    for (topic, sent) in sent.iter().enumerate() {
        let mut taken = seen.taken[topic].clone();
        taken.dedup();
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(&taken, sent, "t/{topic}");
    }
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
