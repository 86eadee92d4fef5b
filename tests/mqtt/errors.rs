//! E: errors, reason strings, sizes, short forms.

use crate::broker::{is_reference, unique};
use crate::client::{Client, Connect};
use crate::wire::*;

fn v5() -> Client {
    Connect::v5(&unique("e")).open()
}

fn both() -> [Connect; 2] {
    [Connect::v5(&unique("e")), Connect::v4(&unique("e"))]
}

#[test]
fn e1_packets_beyond_the_servers_maximum() {
    for connect in both() {
        let mut client = connect.open();
        let maximum = client.connack.number(id::MAX_PACKET).unwrap_or(1 << 20);
        assert!(maximum >= 1 << 20);
        // Only the header: it is refused before the body is read.
        client.send(&bytes().u8(PUBLISH).varint(maximum + 1).0);
        client.expect_disconnect(&[0x95]);
    }
    // The largest one that is allowed goes through.
    let (topic, mut client) = (unique("e1"), v5());
    let maximum = client.connack.number(id::MAX_PACKET).unwrap_or(1 << 20) as usize;
    client.subscribe(&[(&topic, 1)]);
    let overhead = Publish::new(&topic, vec![b'x'; 70_000], 1).bytes(5).len() - 70_000;
    let mut payload = vec![b'x'; (1 << 20).min(maximum) - overhead - 16];
    payload.extend(b"the end");
    let code = client.publish(Publish::new(&topic, &payload, 1));
    assert_eq!(code, 0);
    assert!(client.recv_message().payload == payload);
}

#[test]
fn e2_answers_beyond_the_clients_maximum_end_the_connection() {
    let small = |bytes| Connect::v5(&unique("e2")).prop(Prop::Long(id::MAX_PACKET, bytes));
    // No CONNACK fits: without one there is no DISCONNECT either.
    let mut client = Client::tcp(5);
    client.send(&small(5).bytes());
    client.expect_closed();

    let names: Vec<String> = (0..60).map(|n| format!("e2/{n}")).collect();
    let mut client = small(60).open();
    let filters: Vec<(&str, u8)> = names.iter().map(|name| (name.as_str(), 0)).collect();
    let message = client.subscribe_bytes(7, &filters, &[]);
    client.send(&message);
    client.expect_disconnect(&[0x95]);

    let mut client = small(60).open();
    let mut body = bytes().u16(8).props(&[]);
    for name in &names {
        body = body.field(name);
    }
    client.send(&packet(UNSUBSCRIBE, body));
    client.expect_disconnect(&[0x95]);
}

#[test]
fn e2_packets_beyond_the_clients_maximum_are_dropped() {
    let topic = unique("e2");
    let me = unique("e2");
    let limits = [Prop::Long(id::MAX_PACKET, 500), Prop::Short(id::RECEIVE_MAX, 1)];
    let [size, quota] = limits;
    let mut client = Connect::v5(&me).expiry(60).prop(size).prop(quota).open();
    client.subscribe(&[(&topic, 2)]);
    let mut publisher = v5();
    // More of them than the quota: none keeps an id or a place.
    for qos in [0, 1, 2, 1, 2] {
        publisher.publish(Publish::new(&topic, vec![b'x'; 2000], qos));
    }
    publisher.publish(Publish::new(&topic, "small", 2));
    assert_eq!(client.recv_message().text(), "small");
    client.ping_next();
    client.cut();
    // They count as completed: a client that takes more doesn't get them later.
    let mut client = Connect::v5(&me).resume().open();
    client.expect_nothing(&topic);
}

#[test]
fn e3_reason_strings_never_pass_the_clients_maximum() {
    let filter = "e3".repeat(1500);
    let size = Prop::Long(id::MAX_PACKET, 30);
    let mut client = Connect::v5(&unique("e3")).prop(size).open();
    client.unsubscribe(&[&filter]);
    client.send_ack(PUBREL, 77);
    client.send_ack(PUBREC, 78);
    for kind in [PUBCOMP, PUBREL] {
        let answer = client.recv_kind(kind);
        assert!(answer.body.len() + 2 <= 30, "{answer:02x?}");
    }
    client.send(&client.subscribe_bytes(5, &[("e3/#/x", 0)], &[]));
    let answer = client.recv_kind(DISCONNECT);
    assert!(answer.body.len() + 2 <= 30, "{answer:02x?}");
}

#[test]
fn e4_request_problem_information_0() {
    let quiet = Prop::Byte(id::REQUEST_PROBLEM, 0);
    let mut client = Connect::v5(&unique("e4")).prop(quiet).open();
    let bare = |ack: Ack| {
        assert_eq!((ack.props.text(id::REASON), ack.props.user()), (None, vec![]));
    };
    client.send_ack(PUBREL, 77);
    bare(client.recv_ack(PUBCOMP));
    client.send_ack(PUBREC, 78);
    bare(client.recv_ack(PUBREL));
    client.send_publish(&Publish::new(unique("e4"), "x", 1));
    bare(client.recv_ack(PUBACK));
    client.send(&packet(UNSUBSCRIBE, bytes().u16(9).props(&[]).field("e4/none")));
    bare(client.recv_ack(UNSUBACK));
    client.send(&client.subscribe_bytes(10, &[("$share/g/e4", 0)], &[]));
    bare(client.recv_ack(SUBACK));
    // User properties of a PUBLISH are not meant by it.
    let topic = unique("e4");
    client.subscribe(&[(&topic, 1)]);
    v5().publish(Publish::new(&topic, "x", 1).prop(user("a", "b")));
    assert_eq!(client.recv_message().props.user(), [("a", "b")]);
}

#[test]
fn e5_3_1_1_gets_no_disconnect() {
    let mut client = Connect::v4(&unique("e5")).open();
    client.send(&Publish::new("e5/#", "x", 1).bytes(4));
    assert_eq!(client.poll(), None);
}

#[test]
fn e6_flags_of_disconnect() {
    for connect in both() {
        let mut client = connect.open();
        client.send(&packet(DISCONNECT | 1, bytes()));
        client.expect_disconnect(&[0x81]);
    }
}

#[test]
fn e6_nothing_after_disconnect() {
    for connect in both() {
        let topic = unique("e6");
        let mut watcher = v5();
        watcher.subscribe(&[(&topic, 1)]);
        let mut client = connect.open();
        let late = Publish::new(&topic, "late", 1).bytes(connect.version);
        client.send(&[packet(DISCONNECT, bytes()), late, packet(PINGREQ, bytes())].concat());
        assert_eq!(client.poll(), None, "nothing more is sent");
        watcher.expect_nothing(&topic);
    }
}

#[test]
fn e7_properties_that_do_not_belong() {
    // Unknown, not of this packet, longer than its packet.
    for props in [&[1, 0x00][..], &[2, 0x7F, 0], &[5, id::SESSION_EXPIRY, 0, 0, 0, 9], &[200, 1]] {
        let mut client = v5();
        client.send(&packet(PUBLISH, bytes().field("e7").raw(props)));
        client.expect_disconnect(&[0x81, 0x82]);
    }
    let mut client = v5();
    let alias = [Prop::Short(id::ALIAS, 1)];
    client.send(&packet(SUBSCRIBE, bytes().u16(1).props(&alias).field("e7").u8(0)));
    client.expect_disconnect(&[0x81, 0x82]);
    let mut client = Client::tcp(5);
    client.send(&Connect::v5(&unique("e7")).prop(text(id::RESPONSE_TOPIC, "e7")).bytes());
    client.expect_refused(&[0x81, 0x82]);
}

#[test]
fn e8_packet_types_that_clients_do_not_send() {
    for connect in both() {
        let mut client = connect.open();
        client.send(&[0x00, 0x00]);
        client.expect_disconnect(&[0x81]);
        for data in [
            packet(CONNACK, bytes().u8(0).u8(0)),
            packet(SUBACK, bytes().u16(1).u8(0)),
            packet(UNSUBACK, bytes().u16(1)),
            packet(PINGRESP, bytes()),
        ] {
            let mut client = connect.open();
            client.send(&data);
            client.expect_disconnect(&[0x82, 0x81]);
        }
    }
    let mut client = Connect::v4(&unique("e8")).open();
    client.send(&packet(AUTH, bytes()));
    client.expect_disconnect(&[]);
    // Without an authentication method in its CONNECT a client sends no AUTH.
    let mut client = v5();
    client.send(&packet(AUTH, bytes()));
    client.expect_disconnect(&[0x82]);
}

#[test]
fn e9_disconnect_reasons_of_servers() {
    let topic = unique("e9");
    let mut watcher = v5();
    watcher.subscribe(&[(&topic, 1)]);
    for code in [0x8B, 0x8E, 0x01, 0x87] {
        let mut client = Connect::v5(&unique("e9")).will(Publish::new(&topic, "will", 1)).open();
        client.send(&packet(DISCONNECT, bytes().u8(code)));
        client.expect_disconnect_or_close_with(&[0x82, 0x81]);
        if !is_reference() {
            assert_eq!(watcher.recv_message().text(), "will", "code {code:#04x}");
        }
    }
}

#[test]
fn e10_malformed_before_connack() {
    let connect = Connect::v5(&unique("e10"));
    let whole = connect.bytes();
    // A varint that never ends, a body cut short, properties that overrun.
    let cut = packet(CONNECT, Bytes(whole[2..whole.len() - 3].to_vec()));
    let overrun = packet(CONNECT, bytes().field("MQTT").u8(5).u8(2).u16(60).u8(100).field("x"));
    for data in [vec![CONNECT, 0xFF, 0xFF, 0xFF, 0xFF], cut, overrun] {
        let mut client = Client::tcp(5);
        client.send(&data);
        // `expect_refused` takes a CONNACK or nothing, no DISCONNECT.
        client.expect_refused(&[0x81, 0x95]);
    }
}

#[test]
fn e11_short_forms() {
    let topic = unique("e11");
    let mut client = v5();
    client.subscribe(&[(&topic, 2)]);
    let mut publisher = v5();
    for body in 0..3 {
        // Two bytes; with a code; with a code and empty properties.
        let form = |kind: u8, id: u16| {
            let ack = bytes().u16(id);
            packet(
                kind,
                match body {
                    0 => ack,
                    1 => ack.u8(0),
                    _ => ack.u8(0).props(&[]),
                },
            )
        };
        publisher.publish(Publish::new(&topic, "one", 1));
        let message = client.recv_publish();
        client.send(&form(PUBACK, message.id));
        publisher.publish(Publish::new(&topic, "two", 2));
        let message = client.recv_publish();
        client.send(&form(PUBREC, message.id));
        assert_eq!(client.recv_ack(PUBREL).id, message.id);
        client.send(&form(PUBCOMP, message.id));
        client.send(&Publish::new("e11/mine", "x", 2).id(5).bytes(5));
        client.recv_ack(PUBREC);
        client.send(&form(PUBREL, 5));
        assert_eq!(client.recv_ack(PUBCOMP).code(), 0);
    }
    client.ping_next();
    let normal = [bytes(), bytes().u8(0), bytes().u8(0).props(&[])];
    for body in normal {
        let topic = unique("e11/will");
        let mut watcher = v5();
        watcher.subscribe(&[(&topic, 1)]);
        let mut client =
            Connect::v5(&unique("e11")).will(Publish::new(&topic, "not normal", 1)).open();
        client.send(&packet(DISCONNECT, body));
        assert_eq!(client.poll(), None);
        watcher.expect_nothing(&topic);
    }
}
