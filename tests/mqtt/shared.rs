//! H: shared subscriptions.

use crate::broker::{is_reference, unique};
use crate::client::{Client, Connect};
use crate::wire::*;

fn v5() -> Client {
    Connect::v5(&unique("h")).open()
}

fn member(group: &str, topic: &str, qos: u8) -> Client {
    let mut client = v5();
    assert_eq!(client.subscribe(&[(&format!("$share/{group}/{topic}"), qos)]), [qos]);
    client
}

#[test]
fn h1_ill_formed_shared_filters() {
    for filter in [
        "$share/",
        "$share//a",
        "$share/g",
        "$share/g/",
        "$share/+/a",
        "$share/g#/a",
        "$share/g/a#",
    ] {
        for connect in [Connect::v5(&unique("h1")), Connect::v4(&unique("h1"))] {
            let mut client = connect.open();
            client.send(&client.subscribe_bytes(5, &[(filter, 0)], &[]));
            client.expect_disconnect(&[0x8F, 0x81, 0x82]);
        }
    }
}

#[test]
fn h2_one_copy_a_group() {
    let topic = unique("h2");
    let mut members = [member("g", &topic, 1), member("g", &topic, 1), member("g", &topic, 1)];
    let mut other = member("other", &topic, 1);
    let mut publisher = v5();
    let expected: Vec<_> = (0..30).map(|n| n.to_string()).collect();
    for text in &expected {
        publisher.publish(Publish::new(&topic, text, 1));
    }
    assert_eq!(other.collect_texts(&topic), expected);
    let mut got: Vec<_> = members.iter_mut().flat_map(|m| m.collect_texts(&topic)).collect();
    got.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(got, expected);
}

#[test]
fn h2_groups_and_an_ordinary_subscription_of_one_client() {
    let topic = unique("h2");
    let mut client = v5();
    client.subscribe(&[
        (&topic, 1),
        (&format!("$share/a/{topic}"), 1),
        (&format!("$share/b/{topic}"), 1),
    ]);
    v5().publish(Publish::new(&topic, "x", 1));
    assert_eq!(client.collect_texts(&topic), ["x", "x", "x"], "each independently");
}

#[test]
fn h3_no_retained_messages() {
    let topic = unique("h3");
    v5().publish(Publish::new(&topic, "retained", 1).retain());
    member("g", &topic, 1).expect_nothing(&topic);
}

#[test]
fn h4_granted_qos_of_each_member() {
    let topic = unique("h4");
    let mut members = [member("g", &topic, 0), member("g", &topic, 1), member("g", &topic, 2)];
    let mut publisher = v5();
    for n in 0..30 {
        publisher.publish(Publish::new(&topic, format!("{n}"), 2));
    }
    let mut total = 0;
    for (granted, client) in members.iter_mut().enumerate() {
        for message in client.collect(&topic) {
            assert_eq!(usize::from(message.qos), granted);
            total += 1;
        }
    }
    assert_eq!(total, 30);
}

#[test]
fn h5_qos_2_in_flight_completes_to_its_member() {
    let topic = unique("h5");
    let filter = format!("$share/g/{topic}");
    let me = unique("h5");
    let mut first = Connect::v5(&me).expiry(60).open();
    first.subscribe(&[(&filter, 2)]);
    v5().publish(Publish::new(&topic, "mine", 2));
    let started = first.recv_publish();
    let mut second = member("g", &topic, 2);
    first.cut();
    second.expect_nothing(&topic);
    let mut first = Connect::v5(&me).resume().expiry(60).open();
    let again = first.recv_publish();
    assert_eq!((again.text(), again.id, again.dup), ("mine", started.id, true));
    first.complete(&again);
}

#[test]
fn h5_qos_2_in_flight_ends_with_the_session() {
    let topic = unique("h5");
    let filter = format!("$share/g/{topic}");
    let me = unique("h5");
    let mut first = Connect::v5(&me).expiry(60).open();
    first.subscribe(&[(&filter, 2)]);
    v5().publish(Publish::new(&topic, "lost", 2));
    let started = first.recv_publish();
    first.send_ack(PUBREC, started.id);
    first.recv_ack(PUBREL);
    let mut second = member("g", &topic, 2);
    first.cut();
    Connect::v5(&me).open().ping_next();
    second.expect_nothing(&topic);
}

#[test]
fn h6_qos_1_goes_on_when_the_session_ends() {
    let topic = unique("h6");
    let mut first = member("g", &topic, 1);
    v5().publish(Publish::new(&topic, "again", 1));
    first.recv_publish();
    let mut second = member("g", &topic, 1);
    // Not acknowledged, and the session (expiry 0) ends: the other member gets it.
    first.cut();
    if !is_reference() {
        assert_eq!(second.recv_message().text(), "again");
    }
    second.ping_next();
}

#[test]
fn h7_a_refusal_is_final() {
    let topic = unique("h7");
    let mut members = [member("g", &topic, 2), member("g", &topic, 2)];
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "refused", 1));
    publisher.publish(Publish::new(&topic, "refused", 2));
    publisher.publish(Publish::new(&topic, "refused", 1));
    publisher.publish(Publish::new(&topic, "refused", 2));
    // Both refuse whatever they got; then nobody may get anything.
    for client in &mut members {
        for _ in 0..2 {
            let message = client.recv_publish();
            let kind = if message.qos == 1 { PUBACK } else { PUBREC };
            client.send_ack_code(kind, message.id, 0x83);
        }
        client.ping_next();
    }
    for client in &mut members {
        client.expect_nothing(&topic);
    }
}

#[test]
fn h8_a_group_without_online_members_keeps_messages() {
    let topic = unique("h8");
    let me = unique("h8");
    let connect = Connect::v5(&me).expiry(60);
    let mut client = connect.open();
    client.subscribe(&[(&format!("$share/g/{topic}"), 1)]);
    client.disconnect();
    let mut publisher = v5();
    for text in ["1", "2", "3"] {
        publisher.publish(Publish::new(&topic, text, 1));
    }
    let mut client = connect.resume().open();
    assert_eq!(client.collect_texts(&topic), ["1", "2", "3"]);
}

#[test]
fn h9_unsubscribe_ends_only_that_membership() {
    let topic = unique("h9");
    let mut client = member("g", &topic, 1);
    client.subscribe(&[(&format!("$share/h/{topic}"), 1)]);
    assert_eq!(client.unsubscribe(&[&topic, &format!("$share/g/{topic}")]), [0x11, 0]);
    v5().publish(Publish::new(&topic, "x", 1));
    assert_eq!(client.collect_texts(&topic), ["x"], "the other group's");
    client.unsubscribe(&[&format!("$share/h/{topic}")]);
    // The group ended with its last member: who founds it again doesn't get what was missed.
    v5().publish(Publish::new(&topic, "missed", 1));
    member("h", &topic, 1).expect_nothing(&topic);
}

#[test]
fn h10_a_member_gets_its_share_in_order() {
    let topic = unique("h10");
    let mut members = [member("g", &topic, 1), member("g", &topic, 1)];
    let mut publisher = v5();
    for n in 0..40 {
        publisher.publish(Publish::new(&topic, format!("{n}"), 1));
    }
    for client in &mut members {
        let got: Vec<u32> =
            client.collect_texts(&topic).iter().map(|text| text.parse().unwrap()).collect();
        assert!(got.is_sorted(), "{got:?}");
    }
}

#[test]
fn h11_shared_subscriptions_are_available() {
    let client = v5();
    assert_ne!(client.connack.number(id::SHARED_AVAILABLE), Some(0));
    member("g", &unique("h11"), 2).ping_next();
}
