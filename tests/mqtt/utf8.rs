//! U: strings.

use crate::broker::unique;
use crate::client::{Client, Connect};
use crate::wire::*;

/// Ill-formed: a lone continuation, a cut sequence, overlong forms, surrogates, beyond U+10FFFF, NUL.
const ILL_FORMED: [&[u8]; 9] = [
    b"a\x80",
    b"a\xC3",
    b"\xC0\xAF",
    b"\xE0\x80\xAF",
    b"\xED\xA0\x80",
    b"\xED\xBF\xBF",
    b"\xF4\x90\x80\x80",
    b"\xFF",
    b"a\0b",
];

#[test]
fn u1_ill_formed_strings_in_connect() {
    for bad in ILL_FORMED {
        for version in [4, 5] {
            let mut id = Connect::v5("");
            id.version = version;
            let mut name = id.clone();
            id.id = bad.to_vec();
            name.id = unique("u1").into_bytes();
            name.user = Some(bad.to_vec());
            for connect in [id, name] {
                let mut client = Client::tcp(version);
                client.send(&connect.bytes());
                client.expect_refused(&[0x81, 0x85, 0x02, 0x04]);
            }
        }
        let mut client = Client::tcp(5);
        let body = bytes().field("MQTT").u8(5).u8(2).u16(60);
        let props = bytes().u8(id::USER).field(bad).field("x").0;
        let body = body.varint(props.len() as u32).raw(&props).field(unique("u1"));
        client.send(&packet(CONNECT, body));
        client.expect_refused(&[0x81]);
    }
}

#[test]
fn u1_ill_formed_strings_in_topics_filters_properties() {
    for bad in ILL_FORMED {
        for connect in [Connect::v5(&unique("u1")), Connect::v4(&unique("u1"))] {
            let props = |body: Bytes| if connect.version == 5 { body.props(&[]) } else { body };
            let mut client = connect.open();
            client.send(&packet(PUBLISH, props(bytes().field(bad)).raw(b"x")));
            client.expect_disconnect(&[0x81, 0x90]);
            let mut client = connect.open();
            client.send(&packet(SUBSCRIBE, props(bytes().u16(1)).field(bad).u8(0)));
            client.expect_disconnect(&[0x81, 0x8F]);
            let mut client = connect.open();
            client.send(&packet(UNSUBSCRIBE, props(bytes().u16(1)).field(bad)));
            client.expect_disconnect(&[0x81, 0x8F]);
        }
        for (id, field) in [(id::CONTENT_TYPE, bad), (id::RESPONSE_TOPIC, bad)] {
            let props = bytes().u8(id).field(field).0;
            let body = bytes().field("u1").varint(props.len() as u32).raw(&props).raw(b"x");
            let mut client = Connect::v5(&unique("u1")).open();
            client.send(&packet(PUBLISH, body));
            client.expect_disconnect(&[0x81, 0x82, 0x90]);
        }
    }
}

#[test]
fn u2_control_characters_and_non_characters() {
    // Accepted or closed, by policy; where accepted, they come back as they were.
    for part in ["\u{1}", "\u{1f}", "\u{7f}", "\u{9f}", "\u{fffe}", "\u{fdd0}", "\u{feff}"] {
        let topic = format!("{}/{part}", unique("u2"));
        let mut client = Connect::v5(&unique("u2")).open();
        client.send(&client.subscribe_bytes(3, &[(&topic, 1)], &[]));
        match client.poll() {
            Some(answer) if answer.first == SUBACK => {
                client.publish(Publish::new(&topic, "x", 1));
                assert_eq!(client.recv_message().topic, topic);
            }
            Some(answer) => assert!(answer.kind() == DISCONNECT && part != "\u{feff}"),
            None => assert_ne!(part, "\u{feff}"),
        }
    }
}

#[test]
fn u3_passwords_and_payloads_are_binary() {
    let topic = unique("u3");
    let mut connect = Connect::v5(&unique("u3")).login("somebody", "");
    connect.password = Some(vec![0, 0xFF, 0xC0, 0xED, 0xA0, 0x80]);
    let mut client = connect.open();
    client.subscribe(&[(&topic, 1)]);
    let payload: Vec<u8> = (0..=255).collect();
    client.publish(Publish::new(&topic, &payload, 1));
    assert_eq!(client.recv_message().payload, payload);
    client.publish(Publish::new(&topic, [], 1));
    assert_eq!(client.recv_message().payload, []);
}

#[test]
fn u4_topic_limits() {
    // 128 levels and 4,096 bytes are promised.
    let deep = format!("{}{}", unique("u4"), "/x".repeat(127));
    let mut client = Connect::v5(&unique("u4")).open();
    assert_eq!(client.subscribe(&[(&deep, 1)]), [1]);
    client.publish(Publish::new(&deep, "deep", 1));
    assert_eq!(client.recv_message().topic, deep);
    // Beyond a limit the answer is a rule's, and the next client is served.
    for topic in ["/".repeat(1000), "x".repeat(65_535)] {
        let mut client = Connect::v5(&unique("u4")).open();
        client.send_publish(&Publish::new(&topic, "x", 1));
        let answer = client.recv();
        match answer.kind() {
            PUBACK => assert!(matches!(answer.ack(5).code(), 0 | 0x10 | 0x90 | 0x97)),
            DISCONNECT => assert!(matches!(answer.reason().0, 0x90 | 0x97 | 0x95 | 0x81)),
            _ => panic!("{answer:02x?}"),
        }
        let mut client = Connect::v5(&unique("u4")).open();
        client.send(&client.subscribe_bytes(3, &[(&topic, 1)], &[]));
        let answer = client.recv();
        match answer.kind() {
            SUBACK => assert!(matches!(answer.ack(5).codes[..], [1 | 0x80 | 0x8F | 0x97])),
            DISCONNECT => assert!(matches!(answer.reason().0, 0x8F | 0x97 | 0x95 | 0x81)),
            _ => panic!("{answer:02x?}"),
        }
    }
}
