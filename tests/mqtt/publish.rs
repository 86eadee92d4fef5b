//! P: PUBLISH in all its qualities of service, packet ids, flow control.

use std::time::Duration;

use crate::broker::unique;
use crate::client::{Client, Connect};
use crate::wire::*;

fn v5() -> Client {
    Connect::v5(&unique("p")).open()
}

fn subscribed(topic: &str, qos: u8) -> Client {
    let mut client = v5();
    assert_eq!(client.subscribe(&[(topic, qos)]), [qos]);
    client
}

/// Both versions' clients send these bytes after the CONNECT and are disconnected.
fn disconnected(data: impl Fn(u8) -> Vec<u8>, codes: &[u8]) {
    for connect in [Connect::v5(&unique("p")), Connect::v4(&unique("p"))] {
        let mut client = connect.open();
        client.send(&data(connect.version));
        client.expect_disconnect(codes);
    }
}

#[test]
fn p1_qos_3() {
    disconnected(
        |version| Publish { qos: 3, ..Publish::new("p1", "x", 1) }.bytes(version),
        &[0x81],
    );
}

#[test]
fn p2_dup_with_qos_0() {
    disconnected(|version| Publish::new("p2", "x", 0).dup().bytes(version), &[0x81, 0x82]);
}

#[test]
fn p3_packet_id_zero() {
    for qos in [1, 2] {
        disconnected(|version| Publish::new("p3", "x", qos).id(0).bytes(version), &[0x81, 0x82]);
    }
    let filter = |version| {
        let body = bytes().u16(0);
        let body = if version == 5 { body.props(&[]) } else { body };
        body.field("p3")
    };
    disconnected(|version| packet(SUBSCRIBE, filter(version).u8(0)), &[0x81, 0x82]);
    disconnected(|version| packet(UNSUBSCRIBE, filter(version)), &[0x81, 0x82]);
}

#[test]
fn p4_flags_of_subscribe_unsubscribe_pubrel() {
    let filter = |version| {
        let body = bytes().u16(1);
        let body = if version == 5 { body.props(&[]) } else { body };
        body.field("p4")
    };
    for flags in [0x0, 0x1, 0x3, 0x6, 0xA, 0xF] {
        disconnected(|version| packet(0x80 | flags, filter(version).u8(0)), &[0x81]);
        disconnected(|version| packet(0xA0 | flags, filter(version)), &[0x81]);
        disconnected(|_| packet(0x60 | flags, bytes().u16(1)), &[0x81]);
    }
}

#[test]
fn p5_reserved_flags_of_other_packets() {
    for flags in [0x1, 0x2, 0x8] {
        for kind in [PUBACK, PUBREC, PUBCOMP] {
            disconnected(|_| packet(kind | flags, bytes().u16(1)), &[0x81]);
        }
        disconnected(|_| packet(PINGREQ | flags, bytes()), &[0x81]);
        // In a CONNECT, before anything was accepted.
        let connect = Connect::v5(&unique("p5"));
        let mut client = Client::tcp(5);
        client.send(&packet(CONNECT | flags, connect.body_with_flags(2)));
        client.expect_refused(&[0x81]);
    }
}

#[test]
fn p6_remaining_length() {
    disconnected(|_| vec![PUBLISH, 0x80, 0x80, 0x80, 0x80, 0x01], &[0x81, 0x95]);
    // Two bytes where one is enough.
    disconnected(|_| vec![PINGREQ, 0x80, 0x00], &[0x81]);
    // The property length is a varint, too.
    let mut client = v5();
    client.send(&packet(PUBLISH, bytes().field("p6").raw(&[0x80, 0x00])));
    client.expect_disconnect(&[0x81]);
}

#[test]
fn p7_topic_names() {
    for topic in ["p7/+", "p7/#", "#", "+", "p7/a+b"] {
        for qos in [0, 1, 2] {
            disconnected(|version| Publish::new(topic, "x", qos).bytes(version), &[0x90, 0x81]);
        }
    }
    disconnected(|version| Publish::new("", "x", 0).bytes(version), &[0x90, 0x81, 0x82]);
}

#[test]
fn p8_subscription_identifier_from_a_client() {
    let mut client = v5();
    client.send_publish(&Publish::new("p8", "x", 1).prop(Prop::Var(id::SUBSCRIPTION_ID, 1)));
    client.expect_disconnect(&[0x82, 0x81]);
}

#[test]
fn p9_accepted_publishes_have_a_success_code() {
    let mut client = v5();
    for qos in [1, 2] {
        let code = client.publish(Publish::new(unique("p9"), "nobody listens", qos));
        assert!(matches!(code, 0x00 | 0x10), "code {code:#04x}");
    }
}

#[test]
fn p12_same_id_after_puback_is_a_new_message() {
    let topic = unique("p12");
    let mut watcher = subscribed(&topic, 1);
    let mut client = v5();
    for (payload, dup) in [("1", false), ("2", false), ("3", true)] {
        let message = Publish::new(&topic, payload, 1).id(7);
        client.send_publish(&if dup { message.dup() } else { message });
        assert_eq!(client.recv_ack(PUBACK).id, 7);
    }
    assert_eq!(watcher.collect_texts(&topic), ["1", "2", "3"]);
}

#[test]
fn p13_qos_2_is_delivered_once() {
    for connect in [Connect::v5(&unique("p13")), Connect::v4(&unique("p13"))] {
        let topic = unique("p13");
        let mut watcher = subscribed(&topic, 2);
        let mut client = connect.open();
        let message = Publish::new(&topic, "once", 2).id(7);
        for again in [message.clone(), message.clone().dup(), message] {
            client.send_publish(&again);
            let ack = client.recv_ack(PUBREC);
            assert_eq!(ack.id, 7);
            assert!(ack.code() < 0x80);
        }
        client.send_ack(PUBREL, 7);
        assert_eq!(client.recv_ack(PUBCOMP).id, 7);
        // After the exchange the id stands for a new message.
        client.send_publish(&Publish::new(&topic, "twice", 2).id(7));
        client.recv_ack(PUBREC);
        client.send_ack(PUBREL, 7);
        client.recv_ack(PUBCOMP);
        assert_eq!(watcher.collect_texts(&topic), ["once", "twice"]);
    }
}

#[test]
fn p13_qos_2_is_delivered_once_over_a_reconnect() {
    for connect in [Connect::v5(&unique("p13")).expiry(60), Connect::v4(&unique("p13")).resume()] {
        let topic = unique("p13");
        let mut watcher = subscribed(&topic, 2);
        let mut client = connect.open();
        let message = Publish::new(&topic, "once", 2).id(7);
        client.send_publish(&message);
        client.recv_ack(PUBREC);
        client.cut();
        let mut client = connect.resume().open();
        assert!(client.session_present);
        client.send_publish(&message.dup());
        assert_eq!(client.recv_ack(PUBREC).id, 7);
        client.send_ack(PUBREL, 7);
        assert_eq!(client.recv_ack(PUBCOMP).code(), 0);
        assert_eq!(watcher.collect_texts(&topic), ["once"]);
    }
}

#[test]
fn p14_pubrel_of_an_unknown_id() {
    for (connect, code) in [(Connect::v5(&unique("p14")), 0x92), (Connect::v4(&unique("p14")), 0)] {
        let mut client = connect.open();
        client.send_ack(PUBREL, 77);
        let ack = client.recv_ack(PUBCOMP);
        assert_eq!((ack.id, ack.code()), (77, code));
    }
}

#[test]
fn p15_pubrec_with_an_error_ends_the_exchange() {
    let topic = unique("p15");
    let one = Prop::Short(id::RECEIVE_MAX, 1);
    let me = unique("p15");
    let mut client = Connect::v5(&me).expiry(60).prop(one).open();
    client.subscribe(&[(&topic, 2)]);
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "refused", 2));
    publisher.publish(Publish::new(&topic, "next", 2));
    let refused = client.recv_publish();
    client.send_ack_code(PUBREC, refused.id, 0x83);
    // The quota is free again, and nothing of the refused one comes back, now or later.
    let next = client.recv_publish();
    assert_eq!(next.text(), "next");
    client.cut();
    let mut client = Connect::v5(&me).resume().open();
    assert_eq!(client.collect_texts(&topic), ["next"]);
}

#[test]
fn p16_pubrec_of_an_unknown_id() {
    let mut client = v5();
    client.send_ack(PUBREC, 77);
    let ack = client.recv_ack(PUBREL);
    assert_eq!((ack.id, ack.code()), (77, 0x92));
}

#[test]
fn p17_after_pubrec_only_pubrel_is_sent_again() {
    for connect in [Connect::v5(&unique("p17")).expiry(60), Connect::v4(&unique("p17")).resume()] {
        let topic = unique("p17");
        let mut client = connect.open();
        client.subscribe(&[(&topic, 2)]);
        v5().publish(Publish::new(&topic, "half", 2));
        let half = client.recv_publish();
        client.send_ack(PUBREC, half.id);
        assert_eq!(client.recv_ack(PUBREL).id, half.id);
        client.cut();
        let mut client = connect.resume().open();
        let first = client.recv();
        assert_eq!(first.first, PUBREL, "{first:02x?}");
        assert_eq!(first.ack(client.version).id, half.id);
        client.send_ack(PUBCOMP, half.id);
        client.expect_nothing(&topic);
    }
}

#[test]
fn p18_resent_only_after_reconnect_with_id_and_dup_in_order() {
    for connect in [Connect::v5(&unique("p18")).expiry(60), Connect::v4(&unique("p18")).resume()] {
        let topic = unique("p18");
        let mut client = connect.open();
        client.subscribe(&[(&topic, 2)]);
        let mut publisher = v5();
        for n in 0..6 {
            publisher.publish(Publish::new(&topic, format!("{n}"), 1 + n % 2));
        }
        let first: Vec<_> = (0..6).map(|_| client.recv_publish()).collect();
        assert!(first.iter().all(|message| !message.dup));
        // Longer than a retransmission timer would be, on a connection that lives.
        std::thread::sleep(Duration::from_millis(1500));
        client.ping_next();
        client.cut();
        let mut client = connect.resume().open();
        for before in first {
            let again = client.recv_publish();
            assert_eq!(again, before.dup());
        }
        client.ping_next();
    }
}

#[test]
fn p19_no_timed_retransmission_in_3_1_1() {
    let topic = unique("p19");
    let mut client = Connect::v4(&unique("p19")).open();
    client.subscribe(&[(&topic, 1)]);
    v5().publish(Publish::new(&topic, "once", 1));
    let message = client.recv_publish();
    std::thread::sleep(Duration::from_millis(2000));
    client.ping_next();
    client.complete(&message);
}

#[test]
fn p20_dup_of_the_publisher_is_not_passed_on() {
    let topic = unique("p20");
    let mut watcher = subscribed(&topic, 2);
    let mut client = v5();
    for qos in [1, 2] {
        client.publish(Publish::new(&topic, "x", qos).dup());
        assert!(!watcher.recv_message().dup);
    }
}

#[test]
fn p21_acknowledgements_come_in_order() {
    let mut client = v5();
    let topics: Vec<_> = (0..8).map(|_| unique("p21")).collect();
    let ids = 1..=40;
    let mut input = Vec::new();
    for id in ids.clone() {
        let topic = &topics[usize::from(id) % topics.len()];
        input.extend(Publish::new(topic, "one", 1).id(id).bytes(5));
        input.extend(Publish::new(topic, "two", 2).id(100 + id).bytes(5));
    }
    client.send(&input);
    let (mut pubacks, mut pubrecs) = (Vec::new(), Vec::new());
    for _ in 0..80 {
        let packet = client.recv();
        match packet.first {
            PUBACK => pubacks.push(packet.ack(5).id),
            PUBREC => pubrecs.push(packet.ack(5).id),
            _ => panic!("{packet:02x?}"),
        }
    }
    assert_eq!(pubacks, ids.clone().collect::<Vec<_>>());
    assert_eq!(pubrecs, ids.map(|id| 100 + id).collect::<Vec<_>>());
}

#[test]
fn p21_pubrels_follow_pubrecs() {
    let topic = unique("p21");
    let mut client = subscribed(&topic, 2);
    let mut publisher = v5();
    for n in 0..10 {
        publisher.publish(Publish::new(&topic, format!("{n}"), 2));
    }
    let ids: Vec<_> = (0..10).map(|_| client.recv_publish().id).collect();
    for id in &ids {
        client.send_ack(PUBREC, *id);
    }
    let released: Vec<_> = ids.iter().map(|_| client.recv_ack(PUBREL).id).collect();
    assert_eq!(released, ids);
}

#[test]
fn p22_packet_ids_in_use_are_not_reused() {
    let topic = unique("p22");
    let mut client = subscribed(&topic, 2);
    let mut publisher = v5();
    for n in 0..10 {
        publisher.publish(Publish::new(&topic, format!("{n}"), 1 + n % 2));
    }
    let held: Vec<_> = (0..10).map(|_| client.recv_publish()).collect();
    let mut ids: Vec<_> = held.iter().map(|message| message.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 10);
    // The client's own ids are another space: the same number may be in use on both sides.
    client.send_publish(&Publish::new(unique("p22"), "mine", 1).id(held[0].id));
    assert_eq!(client.recv_ack(PUBACK).id, held[0].id);
    for message in &held {
        client.complete(message);
    }
}

#[test]
fn p23_more_than_the_servers_receive_maximum() {
    let mut client = v5();
    let maximum = client.connack.number(id::RECEIVE_MAX).unwrap_or(65_535);
    // QoS 2 without PUBREL keeps the quota.
    let topic = unique("p23");
    let mut input = Vec::new();
    for id in 1..=maximum {
        input.extend(Publish::new(&topic, "", 2).id(id as u16).bytes(5));
    }
    client.send(&input);
    for _ in 0..maximum {
        client.recv_ack(PUBREC);
    }
    if maximum == 65_535 {
        return; // No id is left to exceed it with.
    }
    client.send_publish(&Publish::new(&topic, "", 2).id(maximum as u16 + 1));
    client.expect_disconnect(&[0x93]);
}

#[test]
fn p24_never_more_in_flight_than_the_client_takes() {
    let topic = unique("p24");
    let mut client = Connect::v5(&unique("p24")).prop(Prop::Short(id::RECEIVE_MAX, 3)).open();
    client.subscribe(&[(&topic, 2)]);
    let mut publisher = v5();
    for n in 0..12 {
        publisher.publish(Publish::new(&topic, format!("{n}"), 2));
    }
    let mut held: Vec<_> = (0..3).map(|_| client.recv_publish()).collect();
    client.ping_next();
    let mut got = 3;
    while let Some(message) = (!held.is_empty()).then(|| held.remove(0)) {
        client.send_ack(PUBREC, message.id);
        assert_eq!(client.recv_ack(PUBREL).id, message.id);
        // A successful PUBREC gives nothing back.
        client.ping_next();
        client.send_ack(PUBCOMP, message.id);
        if got < 12 {
            let next = client.recv_publish();
            assert_eq!(next.text(), got.to_string());
            held.push(next);
            got += 1;
        }
        client.ping_next();
    }
    assert_eq!(got, 12);
}

#[test]
fn p24_pubrec_with_an_error_gives_quota_back() {
    let topic = unique("p24");
    let mut client = Connect::v5(&unique("p24")).prop(Prop::Short(id::RECEIVE_MAX, 1)).open();
    client.subscribe(&[(&topic, 2)]);
    let mut publisher = v5();
    for n in 0..3 {
        publisher.publish(Publish::new(&topic, format!("{n}"), 2));
    }
    for n in 0..3 {
        let message = client.recv_publish();
        assert_eq!(message.text(), n.to_string());
        client.send_ack_code(PUBREC, message.id, 0x80);
    }
    client.ping_next();
}

#[test]
fn p24_a_resumed_session_honours_a_lower_maximum() {
    let (me, topic) = (unique("p24"), unique("p24"));
    let mut client = Connect::v5(&me).expiry(60).prop(Prop::Short(id::RECEIVE_MAX, 10)).open();
    client.subscribe(&[(&topic, 1)]);
    let mut publisher = v5();
    for n in 0..5 {
        publisher.publish(Publish::new(&topic, format!("{n}"), 1));
    }
    for _ in 0..5 {
        client.recv_publish();
    }
    client.cut();
    let mut client =
        Connect::v5(&me).resume().expiry(60).prop(Prop::Short(id::RECEIVE_MAX, 2)).open();
    let mut held = vec![client.recv_publish(), client.recv_publish()];
    client.ping_next();
    for n in 0..5 {
        let message = held.remove(0);
        assert_eq!((message.text(), message.dup), (n.to_string().as_str(), true));
        client.complete(&message);
        if n < 3 {
            held.push(client.recv_publish());
        }
        client.ping_next();
    }
}

#[test]
fn p25_without_quota_the_rest_flows() {
    let (topic, fast) = (unique("p25"), unique("p25q0"));
    let mut client = Connect::v5(&unique("p25")).prop(Prop::Short(id::RECEIVE_MAX, 1)).open();
    client.subscribe(&[(&topic, 1), (&fast, 0)]);
    let mut publisher = v5();
    publisher.publish(Publish::new(&topic, "held", 1));
    publisher.publish(Publish::new(&topic, "waits", 1));
    let held = client.recv_publish();
    publisher.publish(Publish::new(&fast, "qos 0", 0));
    assert_eq!(client.recv_publish().text(), "qos 0");
    assert_eq!(client.publish(Publish::new(unique("p25"), "mine", 1)) & 0x80, 0);
    assert_eq!(client.subscribe(&[(&unique("p25"), 1)]), [1]);
    client.ping_next();
    client.complete(&held);
    assert_eq!(client.recv_message().text(), "waits");
}

#[test]
fn p26_receive_maximum_is_not_carried_over() {
    let (me, topic) = (unique("p26"), unique("p26"));
    let mut client = Connect::v5(&me).expiry(60).prop(Prop::Short(id::RECEIVE_MAX, 1)).open();
    client.subscribe(&[(&topic, 1)]);
    client.disconnect();
    let mut publisher = v5();
    for n in 0..15 {
        publisher.publish(Publish::new(&topic, format!("{n}"), 1));
    }
    let mut client = Connect::v5(&me).resume().open();
    let held: Vec<_> = (0..15).map(|_| client.recv_publish()).collect();
    assert_eq!(held.len(), 15);
}

#[test]
fn p27_delivered_qos_is_the_smaller_one() {
    let mut publisher = v5();
    for granted in [0, 1, 2] {
        let topic = unique("p27");
        let mut client = subscribed(&topic, granted);
        for qos in [0, 1, 2] {
            publisher.publish(Publish::new(&topic, format!("{qos}"), qos));
            let message = client.recv_message();
            assert_eq!((message.text(), message.qos), (qos.to_string().as_str(), qos.min(granted)));
        }
    }
}

#[test]
fn p27_overlapping_filters_get_the_larger_qos() {
    for connect in [Connect::v5(&unique("p27")), Connect::v4(&unique("p27"))] {
        let topic = unique("p27");
        let mut client = connect.open();
        client.subscribe(&[
            (&format!("{topic}/+"), 0),
            (&format!("{topic}/#"), 2),
            (&format!("{topic}/a"), 1),
        ]);
        let topic = format!("{topic}/a");
        v5().publish(Publish::new(&topic, "x", 2));
        let messages = client.collect(&topic);
        assert_eq!(messages.iter().map(|message| message.qos).max(), Some(2));
        // One copy for all, or one a filter; never more.
        assert!(matches!(messages.len(), 1 | 3), "{messages:?}");
    }
}

#[test]
fn p28_expiry_counts_down_and_ends() {
    let (me, topic) = (unique("p28"), unique("p28"));
    let mut client = Connect::v5(&me).expiry(60).open();
    client.subscribe(&[(&topic, 1)]);
    let mut publisher = v5();
    let expiry = |seconds| Prop::Long(id::MESSAGE_EXPIRY, seconds);
    publisher.publish(Publish::new(&topic, "live", 1).prop(expiry(50)));
    let live = client.recv_message();
    let left = live.props.number(id::MESSAGE_EXPIRY).unwrap();
    assert!((1..=50).contains(&left));
    client.disconnect();
    publisher.publish(Publish::new(&topic, "short", 1).prop(expiry(1)));
    publisher.publish(Publish::new(&topic, "long", 1).prop(expiry(50)));
    publisher.publish(Publish::new(&topic, "forever", 1));
    std::thread::sleep(Duration::from_millis(2500));
    let mut client = Connect::v5(&me).resume().open();
    let messages = client.collect(&topic);
    let texts: Vec<_> = messages.iter().map(Publish::text).collect();
    assert_eq!(texts, ["long", "forever"]);
    let left = messages[0].props.number(id::MESSAGE_EXPIRY).unwrap();
    assert!((1..=48).contains(&left), "{left} s left of 50 after 2.5 s");
    assert_eq!(messages[1].props.number(id::MESSAGE_EXPIRY), None);
}

#[test]
fn p29_what_was_sent_does_not_expire() {
    let (me, topic) = (unique("p29"), unique("p29"));
    let mut client = Connect::v5(&me).expiry(60).open();
    client.subscribe(&[(&topic, 2)]);
    let expiry = Prop::Long(id::MESSAGE_EXPIRY, 1);
    v5().publish(Publish::new(&topic, "sent", 2).prop(expiry));
    let message = client.recv_publish();
    std::thread::sleep(Duration::from_millis(2100));
    // The exchange of a message that was sent in time goes on.
    client.send_ack(PUBREC, message.id);
    let released = client.recv_ack(PUBREL);
    assert_eq!((released.id, released.code()), (message.id, 0));
    client.send_ack(PUBCOMP, message.id);
    client.ping_next();
}

#[test]
fn p30_properties_pass_unaltered() {
    let topic = unique("p30");
    let mut client = subscribed(&topic, 1);
    let props = [
        Prop::Byte(id::PAYLOAD_FORMAT, 1),
        text(id::CONTENT_TYPE, "text/plain; charset=utf-8"),
        text(id::RESPONSE_TOPIC, "p30/answer"),
        Prop::Data(id::CORRELATION, vec![0, 1, 254, 255]),
        user("z", "1"),
        user("", ""),
        user("a", "ä€😀"),
        user("z", "1"),
        user("mqtt.qos", "mine"),
    ];
    let mut publisher = v5();
    let message = props.iter().cloned().fold(Publish::new(&topic, "x", 1), Publish::prop);
    publisher.publish(message.prop(Prop::Short(id::ALIAS, 1)));
    let got = client.recv_message();
    assert_eq!(got.props.text(id::CONTENT_TYPE), Some("text/plain; charset=utf-8"));
    assert_eq!(got.props.text(id::RESPONSE_TOPIC), Some("p30/answer"));
    assert_eq!(got.props.data(id::CORRELATION), Some(&[0, 1, 254, 255][..]));
    assert_eq!(got.props.number(id::PAYLOAD_FORMAT), Some(1));
    assert_eq!(
        got.props.user(),
        [("z", "1"), ("", ""), ("a", "ä€😀"), ("z", "1"), ("mqtt.qos", "mine")]
    );
    assert_eq!(got.props.0.len(), props.len(), "nothing is added: {:?}", got.props);
}

#[test]
fn p31_response_topic_with_wildcards() {
    for response in ["p31/#", "+/p31"] {
        let mut client = v5();
        client.send_publish(&Publish::new("p31", "x", 1).prop(text(id::RESPONSE_TOPIC, response)));
        client.expect_disconnect(&[0x82, 0x81, 0x90]);
    }
}

#[test]
fn p32_payload_format_that_does_not_hold() {
    let topic = unique("p32");
    let mut client = v5();
    let message = Publish::new(&topic, [0xFF, 0xFE], 1).prop(Prop::Byte(id::PAYLOAD_FORMAT, 1));
    let code = client.publish(message);
    assert!(matches!(code, 0 | 0x10 | 0x99), "code {code:#04x}");
    client.ping_next();
}

#[test]
fn p33_versions_mix() {
    let topic = unique("p33");
    let mut four = Connect::v4(&unique("p33")).open();
    let mut five = v5();
    four.subscribe(&[(&topic, 1)]);
    five.subscribe(&[(&topic, 1)]);
    five.publish(Publish::new(&topic, "from five", 1).prop(user("a", "b")));
    four.publish(Publish::new(&topic, "from four", 1));
    assert_eq!(four.collect_texts(&topic), ["from five", "from four"]);
    let messages = five.collect(&topic);
    assert_eq!(messages[0].props.user(), [("a", "b")]);
    assert_eq!((messages[1].text(), &messages[1].props), ("from four", &Props::default()));
}
