//! C: how a connection is opened, refused and kept alive.

use std::time::{Duration, Instant};

use crate::broker::{Broker, is_reference, unique};
use crate::client::{Client, Connect};
use crate::wire::*;

/// Sends these bytes as the first ones and expects a refusal.
fn refused(version: u8, data: &[u8], codes: &[u8]) {
    let mut client = Client::tcp(version);
    client.send(data);
    client.expect_refused(codes);
}

#[test]
fn c1_first_packet_not_connect() {
    for first in [packet(PINGREQ, bytes()), Publish::new("a", "x", 0).bytes(4)] {
        let mut client = Client::tcp(4);
        client.send(&first);
        assert_eq!(client.poll(), None, "no bytes are sent back");
    }
}

#[test]
fn c2_second_connect() {
    for connect in [Connect::v5(&unique("c2")), Connect::v4(&unique("c2"))] {
        let topic = unique("c2/will");
        let mut watcher = Connect::v5(&unique("c2w")).open();
        watcher.subscribe(&[(&topic, 1)]);
        let connect = connect.will(Publish::new(&topic, "gone", 1));
        let mut client = connect.open();
        client.send(&connect.bytes());
        client.expect_disconnect(&[0x82]);
        assert_eq!(watcher.recv_message().text(), "gone");
    }
}

#[test]
fn c3_protocol_name() {
    let id = unique("c3");
    for name in ["MQTX", "mqtt", "", "MQIsdp"] {
        let body = bytes().field(name).u8(4).u8(2).u16(60).field(&id);
        refused(5, &packet(CONNECT, body), &[0x84, 0x01, 0x81, 0x82]);
    }
}

#[test]
fn c4_protocol_levels_served() {
    for version in [3, 4, 5] {
        let mut connect = Connect::v4(&unique("c4"));
        connect.version = version;
        connect.open().ping_next();
    }
}

#[test]
fn c4_protocol_levels_refused() {
    for level in [0, 1, 2, 6, 7, 127] {
        let body = bytes().field("MQTT").u8(level).u8(2).u16(60).field(unique("c4"));
        let mut client = Client::tcp(5);
        client.send(&packet(CONNECT, body));
        let answer = client.recv();
        assert_eq!(answer.first, CONNACK);
        match answer.body[..] {
            [0, 0x84, ..] | [0, 0x01] => {}
            ref other => panic!("level {level}: {other:02x?}"),
        }
        client.expect_closed();
    }
}

#[test]
fn c5_reserved_connect_flag() {
    for connect in [Connect::v5(&unique("c5")), Connect::v4(&unique("c5"))] {
        refused(connect.version, &packet(CONNECT, connect.body_with_flags(0x03)), &[0x81]);
    }
}

#[test]
fn c6_will_flags_without_will() {
    for connect in [Connect::v5(&unique("c6")), Connect::v4(&unique("c6"))] {
        for flags in [0x02 | 0x08, 0x02 | 0x10, 0x02 | 0x18, 0x02 | 0x20] {
            refused(connect.version, &packet(CONNECT, connect.body_with_flags(flags)), &[0x81]);
        }
        let with_will = connect.clone().will(Publish::new("c6", "x", 0));
        refused(
            connect.version,
            &packet(CONNECT, with_will.body_with_flags(0x02 | 0x04 | 0x18)),
            &[0x81],
        );
    }
}

#[test]
fn c7_fields_and_flags_differ() {
    for connect in [Connect::v5(&unique("c7")), Connect::v4(&unique("c7"))] {
        let version = connect.version;
        // The user name flag without the field, the fields without flags, bytes left over.
        refused(version, &packet(CONNECT, connect.body_with_flags(0x82)), &[0x81]);
        let login = connect.clone().login("name", "secret");
        refused(version, &packet(CONNECT, login.body_with_flags(0x02)), &[0x81]);
        refused(version, &packet(CONNECT, login.body_with_flags(0x82)), &[0x81]);
        refused(version, &packet(CONNECT, connect.body_with_flags(0x02).u8(0)), &[0x81]);
    }
}

#[test]
fn c8_password_without_user_name() {
    let mut connect = Connect::v5(&unique("c8"));
    connect.password = Some(b"secret".to_vec());
    if !is_reference() {
        connect.open().ping_next();
    }
    connect.version = 4;
    refused(4, &connect.bytes(), &[0x04, 0x05]);
}

#[test]
fn c20_server_assigns_client_ids() {
    let mut assigned = Vec::new();
    for connect in [Connect::v5(""), Connect::v5(""), Connect::v5("").resume()] {
        let client = connect.open();
        let id = client.connack.text(id::ASSIGNED_ID).expect("an assigned client id").to_owned();
        assert!(!id.is_empty() && !assigned.contains(&id));
        assert!(!client.session_present);
        assigned.push(id);
    }
    // The id names the session: another connection can take it over.
    let first = Connect::v5("").expiry(60).open();
    let id = first.connack.text(id::ASSIGNED_ID).unwrap().to_owned();
    assert!(Connect::v5(&id).resume().open().session_present);
}

#[test]
fn c21_empty_client_id_needs_clean_session() {
    let mut client = Client::tcp(4);
    client.send(&Connect::v4("").resume().bytes());
    client.expect_connack(0x02);
    Connect::v4("").open().ping_next();
}

#[test]
fn c22_no_assigned_id_for_a_client_that_has_one() {
    let client = Connect::v5(&unique("c22")).open();
    assert_eq!(client.connack.text(id::ASSIGNED_ID), None);
}

#[test]
fn c23_client_ids() {
    for id in ["0", "zZ9", "abcdefghijklmnopqrstuvw"] {
        Connect::v5(id).open().disconnect();
        Connect::v4(id).open().disconnect();
    }
    let long = format!("{}-{}", unique("c23"), "x".repeat(900));
    Connect::v5(&long).open().ping_next();
    // Beyond what the broker takes the refusal is a clean one.
    let huge = "y".repeat(65_535);
    for (connect, code) in [(Connect::v5(&huge), 0x85), (Connect::v4(&huge), 0x02)] {
        if !is_reference() {
            let mut client = Client::tcp(connect.version);
            client.send(&connect.bytes());
            client.expect_connack(code);
        }
    }
}

#[test]
fn c24_server_keep_alive() {
    // What the server enforces is the client's value, unless CONNACK names another.
    let client = Connect::v5(&unique("c24")).keep_alive(7).open();
    assert_eq!(client.connack.number(id::SERVER_KEEP_ALIVE), None);
    if is_reference() {
        return;
    }
    let broker = Broker::start(&[("INTERFLOW_MQTT__MAX_KEEP_ALIVE_S", "1")], &[]);
    for asked in [0, 1000] {
        let started = Instant::now();
        let connect = Connect::v5(&unique("c24")).keep_alive(asked);
        let mut client = connect.open_at(Client::tcp_to(&broker, 5));
        assert_eq!(client.connack.number(id::SERVER_KEEP_ALIVE), Some(1));
        client.expect_disconnect_or_close(0x8D);
        assert!(started.elapsed() >= Duration::from_millis(1400));
    }
}

#[test]
fn c25_keep_alive() {
    for connect in [Connect::v5(&unique("c25")), Connect::v4(&unique("c25"))] {
        let topic = unique("c25/will");
        let mut watcher = Connect::v5(&unique("c25w")).open();
        watcher.subscribe(&[(&topic, 1)]);
        let idle = Instant::now();
        let mut client = connect.keep_alive(1).will(Publish::new(&topic, "silent", 1)).open();
        client.expect_disconnect_or_close(0x8D);
        assert!(idle.elapsed() >= Duration::from_millis(1400), "closed after {:?}", idle.elapsed());
        assert_eq!(watcher.recv_message().text(), "silent");
    }
}

#[test]
fn c25_keep_alive_zero_is_never() {
    let mut forever = Connect::v5(&unique("c25")).keep_alive(0).open();
    // A neighbour with the shortest keep-alive is closed; this one isn't.
    Connect::v5(&unique("c25")).keep_alive(1).open().expect_disconnect_or_close(0x8D);
    forever.ping_next();
}

#[test]
fn c26_what_the_server_sends_is_no_sign_of_life() {
    let topic = unique("c26");
    let mut client = Connect::v5(&unique("c26")).keep_alive(1).open();
    client.subscribe(&[(&topic, 0)]);
    let mut publisher = Connect::v5(&unique("c26p")).open();
    let started = Instant::now();
    let closed = std::thread::spawn(move || {
        client.expect_disconnect_or_close(0x8D);
    });
    while !closed.is_finished() {
        assert!(started.elapsed() < Duration::from_secs(20), "it must be closed by now");
        publisher.publish(Publish::new(&topic, "x", 0));
        std::thread::sleep(Duration::from_millis(100));
    }
    closed.join().unwrap();
}

#[test]
fn c26_partial_packets_are_no_sign_of_life() {
    let mut client = Connect::v5(&unique("c26")).keep_alive(1).open();
    let message = Publish::new("c26", vec![0; 1000], 0).bytes(5);
    let started = Instant::now();
    for byte in message.chunks(1) {
        assert!(started.elapsed() < Duration::from_secs(20), "it must be closed by now");
        if client.try_send(byte).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("a client that never finished a packet was served");
}

#[test]
fn c27_pingreq_is_answered_when_the_quota_is_zero() {
    let topic = unique("c27");
    let mut client = Connect::v5(&unique("c27")).prop(Prop::Short(id::RECEIVE_MAX, 1)).open();
    client.subscribe(&[(&topic, 1)]);
    let mut publisher = Connect::v5(&unique("c27p")).open();
    publisher.publish(Publish::new(&topic, "1", 1));
    publisher.publish(Publish::new(&topic, "2", 1));
    let first = client.recv_publish();
    client.ping_next();
    client.complete(&first);
    assert_eq!(client.recv_message().text(), "2");
}

#[test]
fn c28_packets_behind_the_connect() {
    for connect in [Connect::v5(&unique("c28")), Connect::v4(&unique("c28"))] {
        let topic = unique("c28");
        let version = connect.version;
        let mut client = Client::tcp(version);
        let subscribe = client.subscribe_bytes(7, &[(&topic, 1)], &[]);
        let publish = Publish::new(&topic, "early", 1).id(8).bytes(version);
        client.send(&[connect.bytes(), subscribe, publish].concat());
        assert_eq!(client.recv().connack(version).1, 0);
        assert_eq!(client.recv_ack(SUBACK).id, 7);
        assert_eq!(client.recv_ack(PUBACK).id, 8);
        assert_eq!(client.recv_message().text(), "early");
    }
}

#[test]
fn c28_packets_behind_a_refused_connect_are_ignored() {
    let topic = unique("c28");
    let mut watcher = Connect::v5(&unique("c28w")).open();
    watcher.subscribe(&[(&topic, 1)]);
    let mut client = Client::tcp(4);
    let publish = Publish::new(&topic, "must not count", 1).bytes(4);
    client.send(&[Connect::v4("").resume().bytes(), publish].concat());
    client.expect_refused(&[0x02]);
    watcher.expect_nothing(&topic);
}

#[test]
fn c29_one_connack_before_anything_else() {
    let (me, topic) = (unique("c29"), unique("c29"));
    let connect = Connect::v5(&me).expiry(60);
    let mut client = connect.open();
    client.subscribe(&[(&topic, 1)]);
    client.cut();
    let mut publisher = Connect::v5(&unique("c29p")).open();
    publisher.publish(Publish::new(&topic, "queued", 1));
    // `open` fails unless CONNACK is the first packet; `recv_message` would fail on a second one.
    let mut client = connect.resume().open();
    assert_eq!(client.recv_message().text(), "queued");
    client.ping_next();
}

#[test]
fn c30_connack_flags_and_codes() {
    for connect in [Connect::v5(&unique("c30")), Connect::v4(&unique("c30"))] {
        // `open` checks that the reserved bits are 0.
        connect.open().ping_next();
    }
}

#[test]
fn c31_what_is_advertised_is_served() {
    let topic = unique("c31");
    let mut client = Connect::v5(&unique("c31")).will(Publish::new(&topic, "w", 2).retain()).open();
    for property in [
        id::RETAIN_AVAILABLE,
        id::WILDCARD_AVAILABLE,
        id::SUBSCRIPTION_ID_AVAILABLE,
        id::SHARED_AVAILABLE,
    ] {
        assert_ne!(client.connack.number(property), Some(0), "{property:#04x} is served");
    }
    // Maximum QoS is 0, 1 or absent; 2 is not a legal value.
    assert_eq!(client.connack.number(id::MAX_QOS), None);
    let subscribed =
        client.subscribe_with(&[(&format!("{topic}/#"), 2)], &[Prop::Var(id::SUBSCRIPTION_ID, 5)]);
    assert_eq!(subscribed, [2]);
    assert_eq!(client.subscribe(&[(&format!("$share/g/{topic}/s"), 2)]), [2]);
    assert!(client.publish(Publish::new(format!("{topic}/a"), "x", 2).retain()) < 0x80);
    let message = client.recv_message();
    assert_eq!((message.qos, message.props.number(id::SUBSCRIPTION_ID)), (2, Some(5)));
    client.disconnect();
}

#[test]
fn c33_duplicate_connect_property() {
    for prop in [
        Prop::Long(id::SESSION_EXPIRY, 1),
        Prop::Short(id::RECEIVE_MAX, 10),
        Prop::Long(id::MAX_PACKET, 1000),
        Prop::Short(id::ALIAS_MAX, 5),
        Prop::Byte(id::REQUEST_RESPONSE, 1),
        Prop::Byte(id::REQUEST_PROBLEM, 1),
    ] {
        let connect = Connect::v5(&unique("c33")).prop(prop.clone()).prop(prop);
        refused(5, &connect.bytes(), &[0x82]);
    }
    let user = user("same", "twice");
    Connect::v5(&unique("c33")).prop(user.clone()).prop(user).open().ping_next();
}

#[test]
fn c34_properties_out_of_range() {
    for prop in [
        Prop::Short(id::RECEIVE_MAX, 0),
        Prop::Long(id::MAX_PACKET, 0),
        Prop::Byte(id::REQUEST_RESPONSE, 2),
        Prop::Byte(id::REQUEST_PROBLEM, 2),
    ] {
        refused(5, &Connect::v5(&unique("c34")).prop(prop).bytes(), &[0x82]);
    }
    let mut client = Connect::v5(&unique("c34")).open();
    let zero = Prop::Var(id::SUBSCRIPTION_ID, 0);
    client.send(&client.subscribe_bytes(9, &[("c34", 0)], &[zero]));
    client.expect_disconnect(&[0x82]);
    let mut client = Connect::v5(&unique("c34")).open();
    client.send_publish(&Publish::new("c34", "x", 0).prop(Prop::Short(id::ALIAS, 0)));
    client.expect_disconnect(&[0x94]);
}

#[test]
fn c35_response_information_only_on_request() {
    let client = Connect::v5(&unique("c35")).prop(Prop::Byte(id::REQUEST_RESPONSE, 0)).open();
    assert_eq!(client.connack.text(id::RESPONSE_INFO), None);
    let client = Connect::v5(&unique("c35")).open();
    assert_eq!(client.connack.text(id::RESPONSE_INFO), None);
    Connect::v5(&unique("c35")).prop(Prop::Byte(id::REQUEST_RESPONSE, 1)).open().ping_next();
}

#[test]
fn c32_half_open_connections_are_closed() {
    // Nothing at all, and a CONNECT that never ends: closed without a byte sent back.
    let own = (!is_reference())
        .then(|| Broker::start(&[("INTERFLOW_MQTT__CONNECT_TIMEOUT_MS", "1000")], &[]));
    for part in [&[][..], &Connect::v5(&unique("c32")).bytes()[..9]] {
        let started = Instant::now();
        let mut client = own.as_ref().map_or_else(|| Client::tcp(5), |own| Client::tcp_to(own, 5));
        client.send(part);
        assert_eq!(client.poll(), None);
        assert!(started.elapsed() >= Duration::from_millis(900));
    }
}
