//! CONNECT's rules.

use super::super::*;
use super::text;

/// The body of a CONNECT: name, level, flags, properties (MQTT 5), payload.
fn body(name: &str, level: u8, flags: u8, properties: Option<&[u8]>, payload: &[&[u8]]) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend_from_slice(&[level, flags, 0, 60]);
    if let Some(properties) = properties {
        bytes.push(properties.len() as u8);
        bytes.extend_from_slice(properties);
    }
    bytes.extend(payload.concat());
    bytes
}

fn v5(flags: u8, properties: &[u8], payload: &[&[u8]]) -> Vec<u8> {
    body("MQTT", 5, flags, Some(properties), payload)
}

fn v311(flags: u8, payload: &[&[u8]]) -> Vec<u8> {
    body("MQTT", 4, flags, None, payload)
}

fn refused(body: &[u8]) -> (u8, Option<Version>) {
    let error = Connect::decode(body).expect_err("a rule is broken");
    (error.error.reason.code(), error.answer)
}

const CLIENT: &[u8] = b"\0\x01c";

#[test]
fn c3_c4_protocol_names_and_levels() {
    for (name, level, version) in
        [("MQIsdp", 3, Version::V31), ("MQTT", 4, Version::V311), ("MQTT", 5, Version::V5)]
    {
        let properties: Option<&[u8]> = version.is_v5().then_some(&[]);
        let bytes = body(name, level, 2, properties, &[CLIENT]);
        assert_eq!(Connect::decode(&bytes).unwrap().version, version);
    }
    let refused = |name, level| refused(&body(name, level, 2, None, &[CLIENT]));
    assert_eq!(refused("mqtt", 4), (0x84, None));
    assert_eq!(refused("HTTP", 5), (0x84, None));
    assert_eq!(refused("MQTT", 6), (0x84, Some(Version::V5)));
    assert_eq!(refused("MQTT", 3), (0x84, Some(Version::V311)));
    assert_eq!(refused("MQIsdp", 4), (0x84, Some(Version::V311)));
    assert_eq!(super::super::Connect::decode(b"\0\x09MQTT").unwrap_err().answer, None);
}

#[test]
fn c5_reserved_flag() {
    assert_eq!(refused(&v5(0b11, &[], &[CLIENT])), (0x81, Some(Version::V5)));
    assert_eq!(refused(&v311(0b11, &[CLIENT])), (0x81, None));
}

#[test]
fn c6_will_flags() {
    for flags in [0b0000_1000, 0b0001_0000, 0b0010_0000, 0b0001_1000, 0b0001_1100] {
        assert_eq!(refused(&v5(flags, &[], &[CLIENT, b"\0", &text("w"), &text("")])).0, 0x81);
        assert_eq!(refused(&v311(flags, &[CLIENT, &text("w"), &text("")])).0, 0x81);
    }
    let bytes = v5(0b0011_0100, &[], &[CLIENT, b"\0", &text("w"), &text("bye")]);
    let will = Connect::decode(&bytes).unwrap().will.unwrap();
    assert_eq!((will.topic, will.payload, will.retain), ("w", &b"bye"[..], true));
    assert_eq!(will.qos, QoS::ExactlyOnce);
}

#[test]
fn c7_fields_and_flags_agree() {
    for bytes in [
        v311(0x80, &[CLIENT]),
        v311(0x02, &[CLIENT, &text("user")]),
        v311(0xc0, &[CLIENT, &text("user")]),
        v311(0x04, &[CLIENT, &text("w")]),
        v5(0x02, &[], &[CLIENT, b"x"]),
        v5(0x02, &[0x11, 0, 0], &[CLIENT]),
    ] {
        assert_eq!(refused(&bytes).0, 0x81);
    }
    let bytes = v311(0xc0, &[CLIENT, &text(""), b"\0\x02\xff\0"]);
    let connect = Connect::decode(&bytes).unwrap();
    assert_eq!((connect.user_name, connect.password), (Some(""), Some(&b"\xff\0"[..])));
}

#[test]
fn c8_password_without_user_name() {
    assert_eq!(refused(&v311(0x40, &[CLIENT, &text("p")])).0, 0x81);
    assert!(Connect::decode(&v5(0x40, &[], &[CLIENT, &text("p")])).is_ok());
}

#[test]
fn c11_c15_session_expiry() {
    let expiry = |bytes: &[u8]| Connect::decode(bytes).unwrap().session_expiry_s;
    assert_eq!(expiry(&v5(2, &[], &[CLIENT])), 0);
    assert_eq!(expiry(&v5(0, &[], &[CLIENT])), 0);
    assert_eq!(expiry(&v5(2, &[0x11, 0, 0, 1, 0], &[CLIENT])), 256);
    assert_eq!(expiry(&v311(2, &[CLIENT])), 0);
    assert_eq!(expiry(&v311(0, &[CLIENT])), u32::MAX);
}

#[test]
fn c20_c21_empty_client_ids() {
    let empty: &[u8] = b"\0\0";
    assert!(Connect::decode(&v5(0, &[], &[empty])).is_ok());
    assert!(Connect::decode(&v5(2, &[], &[empty])).is_ok());
    assert!(Connect::decode(&v311(2, &[empty])).is_ok());
    assert_eq!(refused(&v311(0, &[empty])), (0x85, Some(Version::V311)));
    assert_eq!(Reason::ClientIdNotValid.connack_v3(), 2);
    let v31 = body("MQIsdp", 3, 2, None, &[empty]);
    assert_eq!(refused(&v31), (0x85, Some(Version::V31)));
}

#[test]
fn c33_c34_x1_properties() {
    for (properties, code) in [
        (&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1][..], 0x82), // twice
        (&[0x21, 0, 0], 0x82),                             // receive maximum 0
        (&[0x27, 0, 0, 0, 0], 0x82),                       // maximum packet size 0
        (&[0x19, 2], 0x82),
        (&[0x17, 2], 0x82),
        (&[0x16, 0, 0], 0x82),       // data without method
        (&[0x01, 0], 0x81),          // not CONNECT's
        (&[0x7f, 0], 0x81),          // unknown
        (&[0x26, 0, 1, b'a'], 0x81), // half a pair
        (&[0x15, 0, 1, 0xff], 0x81), // no UTF-8
        (&[0x22, 0], 0x81),          // overrun
    ] {
        assert_eq!(refused(&v5(2, properties, &[CLIENT])), (code, Some(Version::V5)));
    }
    let twice = [0x26, 0, 1, b'a', 0, 1, b'1', 0x26, 0, 1, b'a', 0, 1, b'2'];
    let bytes = v5(2, &twice, &[CLIENT]);
    let user: Vec<_> = Connect::decode(&bytes).unwrap().user.iter().collect();
    assert_eq!(user, [("a", "1"), ("a", "2")]);
}

#[test]
fn w7_will_topic() {
    for (topic, code) in [("a/#", 0x90), ("+", 0x90), ("", 0x90), ("a\0", 0x81)] {
        let bytes = v5(0b110, &[], &[CLIENT, b"\0", &text(topic), &text("")]);
        assert_eq!(refused(&bytes).0, code, "{topic:?}");
    }
    let bytes = v5(0b110, &[], &[CLIENT, b"\0", b"\0\x01\xff", &text("")]);
    assert_eq!(refused(&bytes).0, 0x81);
}

#[test]
fn u1_client_id_and_user_name() {
    for bad in [&b"\0\x01\0"[..], b"\0\x01\xff", b"\0\x03\xed\xa0\x80", b"\0\x02\xc1\x81"] {
        assert_eq!(refused(&v5(2, &[], &[bad])).0, 0x81);
        assert_eq!(refused(&v311(2, &[bad])).0, 0x81);
        assert_eq!(refused(&v311(0x82, &[CLIENT, bad])).0, 0x81);
    }
    let bytes = v5(2, &[], &[&text("\u{1}\u{7f}\u{fffe}\u{feff}")]);
    assert!(Connect::decode(&bytes).is_ok(), "u2: control characters are accepted");
}
