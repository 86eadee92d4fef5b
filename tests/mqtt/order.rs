//! O: order, and what is kept for whom.

use crate::broker::unique;
use crate::client::{Client, Connect};
use crate::wire::*;

fn v5() -> Client {
    Connect::v5(&unique("o")).open()
}

fn numbers(messages: &[String]) -> Vec<u32> {
    messages.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn o1_order_of_each_quality_of_service() {
    for qos in [0, 1, 2] {
        let topic = unique("o1");
        let mut watcher = v5();
        watcher.subscribe(&[(&topic, 2)]);
        let mut publisher = v5();
        // All at once, without waiting for acknowledgements in between.
        let many = publisher.connack.number(id::RECEIVE_MAX).unwrap_or(100).min(100);
        let message = |n: u32| Publish::new(&topic, format!("{n}"), qos).id(1 + n as u16).bytes(5);
        publisher.send(&(0..many).flat_map(message).collect::<Vec<_>>());
        for n in (0..many as u16).filter(|_| qos == 2) {
            assert_eq!(publisher.recv_ack(PUBREC).id, 1 + n);
            publisher.send_ack(PUBREL, 1 + n);
        }
        let got: Vec<_> = (0..many).map(|_| watcher.recv_message().text().to_owned()).collect();
        assert_eq!(numbers(&got), (0..many).collect::<Vec<_>>(), "QoS {qos}");
    }
}

/// A subscriber that reads a few messages at a time while they come in, and connects again after
/// each few: over a connection that is cut, or that the new one takes over.
fn order_over_connections(qos: u8, takes_over: bool) {
    let (me, topic) = (unique("o1"), unique("o1"));
    let connect = Connect::v5(&me).expiry(60);
    let mut client = connect.open();
    client.subscribe(&[(&topic, qos)]);
    let publishing = topic.clone();
    let publisher = std::thread::spawn(move || {
        let mut publisher = v5();
        for n in 0..300 {
            publisher.publish(Publish::new(&publishing, format!("{n}"), qos));
        }
    });
    let mut got: Vec<u32> = Vec::new();
    while got.last() != Some(&299) {
        for _ in 0..20 {
            let packet = client.recv();
            if packet.first == PUBREL {
                // The PUBCOMP of the connection before was lost with it.
                client.send_ack(PUBCOMP, packet.ack(5).id);
                continue;
            }
            let message = packet.publish(5);
            let n = message.text().parse().unwrap();
            // What was sent without an acknowledgement comes again, marked; nothing is skipped.
            if qos == 1 && message.dup && got.contains(&n) {
                client.complete(&message);
                continue;
            }
            assert_eq!(n, got.len() as u32, "QoS {qos}");
            got.push(n);
            client.complete(&message);
            if n == 299 {
                break;
            }
        }
        if takes_over {
            let next = connect.clone().resume().open();
            client.cut();
            client = next;
        } else {
            client.cut();
            client = connect.clone().resume().open();
        }
        assert!(client.session_present);
    }
    publisher.join().unwrap();
}

#[test]
fn o1_order_from_the_queue_to_live() {
    order_over_connections(1, false);
    order_over_connections(2, false);
}

#[test]
fn c18_no_message_is_lost_by_takeovers() {
    order_over_connections(1, true);
    order_over_connections(2, true);
}

#[test]
fn o2_kept_by_the_filters_of_the_time() {
    let (me, topic) = (unique("o2"), unique("o2"));
    let connect = Connect::v5(&me).expiry(60);
    let mut client = connect.open();
    client.subscribe(&[(&format!("{topic}/a"), 1)]);
    client.disconnect();
    let mut publisher = v5();
    for tail in ["a", "b"] {
        publisher.publish(Publish::new(format!("{topic}/{tail}"), format!("{tail}1"), 1));
        publisher.publish(Publish::new(format!("{topic}/{tail}"), format!("{tail}2"), 2));
    }
    let mut client = connect.resume().open();
    // A wider filter now doesn't reach back to what came before it.
    client.subscribe(&[(&format!("{topic}/#"), 1)]);
    let got = client.collect_texts(&format!("{topic}/a"));
    assert_eq!(got, ["a1", "a2"]);
    client.expect_nothing(&format!("{topic}/b"));
}

#[test]
fn o2_unsubscribing_does_not_drop_what_was_in_flight() {
    let (me, topic) = (unique("o2"), unique("o2"));
    let connect = Connect::v5(&me).expiry(60);
    let mut client = connect.open();
    client.subscribe(&[(&topic, 1)]);
    v5().publish(Publish::new(&topic, "in flight", 1));
    let message = client.recv_publish();
    client.unsubscribe(&[&topic]);
    client.cut();
    let mut client = connect.resume().open();
    assert_eq!(client.recv_message(), message.dup());
}

#[test]
fn o3_qos_0_for_offline_sessions() {
    // May be kept or not; either way nothing else goes missing.
    let (me, topic) = (unique("o3"), unique("o3"));
    let connect = Connect::v5(&me).expiry(60);
    let mut client = connect.open();
    client.subscribe(&[(&topic, 1)]);
    client.disconnect();
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "fast", 0));
    publisher.publish(Publish::new(&topic, "sure", 1));
    let mut client = connect.resume().open();
    let got = client.collect_texts(&topic);
    assert_eq!(got.iter().filter(|text| *text == "sure").count(), 1, "{got:?}");
    assert!(got.iter().filter(|text| *text == "fast").count() <= 1, "{got:?}");
}

#[test]
fn o4_the_topic_is_the_publishers() {
    let topic = unique("o4");
    let mut client = v5();
    client.subscribe(&[(&format!("$share/g/{topic}/+"), 1)]);
    v5().publish(Publish::new(format!("{topic}/x"), "x", 1));
    assert_eq!(client.recv_message().topic, format!("{topic}/x"));
}
