//! The rules of every other packet.

use bytes::BytesMut;

use super::super::client::ServerPacket;
use super::super::*;
use super::{client, id, raw, refused, server, text};

const V3: [Version; 2] = [Version::V31, Version::V311];

#[test]
fn p1_p2_publish_flags() {
    for version in [Version::V31, Version::V311, Version::V5] {
        assert_eq!(refused(version, &raw(0x36, b"\0\x01t\0\x01\0")), 0x81);
    }
    assert_eq!(refused(Version::V311, &raw(0x38, b"\0\x01t")), 0x81);
    assert_eq!(refused(Version::V5, &raw(0x38, b"\0\x01t\0")), 0x81);
}

#[test]
fn p3_packet_id_0() {
    for (first, body) in [
        (0x32, &b"\0\x01t\0\0\0"[..]),
        (0x40, b"\0\0"),
        (0x50, b"\0\0"),
        (0x62, b"\0\0"),
        (0x70, b"\0\0"),
        (0x82, b"\0\0\0\0\x01t\0"),
        (0xa2, b"\0\0\0\0\x01t"),
    ] {
        assert_eq!(refused(Version::V5, &raw(first, body)), 0x81, "{first:#x}");
    }
}

#[test]
fn p4_p5_e6_x7_reserved_flags() {
    for first in 0x40..=0xff_u8 {
        let kind = first >> 4;
        let legal = if matches!(kind, 6 | 8 | 10) { 2 } else { 0 };
        let rules = FrameRules::server(Version::V5, u32::MAX);
        let expected = match kind {
            9 | 11 | 13 => Some(Reason::ProtocolError),
            _ if first & 0x0f != legal => Some(Reason::MalformedPacket),
            _ => None,
        };
        let error = rules.header(&[first]).err().map(|error| error.reason);
        assert_eq!(error, expected, "{first:#x}: refused from the first byte alone");
    }
    let v31 = FrameRules::server(Version::V31, u32::MAX);
    assert!(v31.header(&[0x8a]).is_ok(), "3.1 repeats SUBSCRIBE with DUP");
}

#[test]
fn p6_remaining_length() {
    let rules = FrameRules::server(Version::V5, u32::MAX);
    assert_eq!(rules.split(&[0xc0]), Ok(None));
    assert_eq!(rules.split(&[0x30, 0x80]), Ok(None));
    for bad in [&[0xc0, 0x80, 0x00][..], &[0x30, 0x80, 0x80, 0x80, 0x80]] {
        assert_eq!(rules.split(bad).unwrap_err().reason, Reason::MalformedPacket);
    }
}

#[test]
fn p7_a2_topic_names() {
    for (topic, code) in [("a/+", 0x90), ("#", 0x90), ("a\0b", 0x81)] {
        let body = text(topic);
        assert_eq!(refused(Version::V311, &raw(0x30, &body)), code);
        assert_eq!(refused(Version::V5, &raw(0x30, &[&body[..], b"\0"].concat())), code);
    }
    assert_eq!(refused(Version::V311, &raw(0x30, b"\0\0")), 0x90);
    assert_eq!(refused(Version::V5, &raw(0x30, b"\0\0\0")), 0x82);
    let alias = raw(0x30, b"\0\0\x03\x23\0\x07x");
    let Packet::Publish(publish) = server(Version::V5, &alias).unwrap() else { panic!() };
    assert_eq!((publish.topic, publish.payload), ("", &b"x"[..]));
    assert_eq!(publish.topic_alias.unwrap().get(), 7);
}

#[test]
fn p8_p31_a1_c34_publish_properties() {
    for (properties, code) in [
        (&b"\x0b\x01"[..], 0x82),        // subscription identifier
        (b"\x0b\x00", 0x82),             // and a zero one
        (b"\x23\0\0", 0x94),             // alias 0
        (b"\x08\0\x03a/#", 0x82),        // response topic with wildcard
        (b"\x01\x02", 0x82),             // payload format 2
        (b"\x01\0\x01\0", 0x82),         // twice
        (b"\x23\0\x01\x23\0\x01", 0x82), // twice
        (b"\x11\0\0\0\x01", 0x81),       // CONNECT's
        (b"\x02\0\0\0", 0x81),           // overrun
        (b"\x00", 0x81),                 // unknown
        (b"\xa6\x01", 0x81),             // ids are one byte
    ] {
        let mut body = text("t");
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
        assert_eq!(refused(Version::V5, &raw(0x30, &body)), code, "{properties:x?}");
    }
    assert_eq!(refused(Version::V5, &raw(0x30, b"\0\x01t\x05")), 0x81, "e7: overrun");
}

#[test]
fn p30_properties_pass_unaltered() {
    let mut user = UserPropertiesBuf::default();
    for (name, value) in [("b", "1"), ("a", ""), ("b", "1"), ("", "\u{feff}")] {
        user.push(name, value).unwrap();
    }
    let properties = PublishProperties {
        payload_format: Some(PayloadFormat::Utf8),
        message_expiry_s: Some(0),
        content_type: Some(""),
        response_topic: Some("re/ply"),
        correlation_data: Some(b"\0\xff"),
        user: user.view(),
    };
    let mut out = BytesMut::new();
    let variant = Variant {
        version: Version::V5,
        qos: QoS::AtMostOnce,
        retain: false,
        alias: AliasForm::Name,
        subscription_ids: Default::default(),
    };
    let message = PublishOut { topic: "t", properties };
    client::encode_publish(&message, &variant, None, "x".into(), &mut out).unwrap();
    let Packet::Publish(publish) = server(Version::V5, &out).unwrap() else { panic!() };
    assert_eq!(publish.properties, properties);
    assert_eq!(publish.properties.user.iter().count(), 4);
}

#[test]
fn s1_no_filter() {
    assert_eq!(refused(Version::V5, &raw(0x82, b"\0\x01\0")), 0x82);
    assert_eq!(refused(Version::V5, &raw(0xa2, b"\0\x01\0")), 0x82);
    for version in V3 {
        assert_eq!(refused(version, &raw(0x82, b"\0\x01")), 0x82);
        assert_eq!(refused(version, &raw(0xa2, b"\0\x01")), 0x82);
    }
}

#[test]
fn s2_subscription_options() {
    for (options, code) in [(0x03, 0x81), (0x40, 0x81), (0x80, 0x81), (0x30, 0x82), (0x2e, 0)] {
        let body = [&b"\0\x01\0"[..], &text("t"), &[options]].concat();
        assert_eq!(refused(Version::V5, &raw(0x82, &body)), code, "{options:#x}");
    }
    for options in [0x03, 0x04, 0x10] {
        let body = [&b"\0\x01"[..], &text("t"), &[options]].concat();
        assert_eq!(refused(Version::V311, &raw(0x82, &body)), 0x81, "{options:#x}");
    }
}

#[test]
fn s3_h1_ill_formed_filters() {
    for filter in ["", "a/#/b", "a+", "a#", "$share/g", "$share//t", "$share/g+/t", "$share/g/a#"] {
        let subscribe = [&b"\0\x01\0"[..], &text("ok"), &[0], &text(filter), &[0]].concat();
        assert_eq!(refused(Version::V5, &raw(0x82, &subscribe)), 0x8f, "{filter}");
        let unsubscribe = [&b"\0\x01\0"[..], &text(filter)].concat();
        assert_eq!(refused(Version::V5, &raw(0xa2, &unsubscribe)), 0x8f, "{filter}");
    }
    let nul = [&b"\0\x01\0"[..], &text("a\0"), &[0]].concat();
    assert_eq!(refused(Version::V5, &raw(0x82, &nul)), 0x81);
}

#[test]
fn s9_no_local_on_a_shared_subscription() {
    let body = [&b"\0\x01\0"[..], &text("$share/g/t"), &[0x04]].concat();
    assert_eq!(refused(Version::V5, &raw(0x82, &body)), 0x82);
}

#[test]
fn s12_subscription_identifiers() {
    for (properties, code) in [
        (&b"\x04\x0b\x01\x0b\x02"[..], 0x82),
        (b"\x02\x0b\x00", 0x82),
        (b"\x06\x0b\xff\xff\xff\xff\x01", 0x81),
    ] {
        let body = [&b"\0\x01"[..], properties, &text("t"), &[0]].concat();
        assert_eq!(refused(Version::V5, &raw(0x82, &body)), code);
    }
    let body = [&b"\0\x01\x05\x0b\xff\xff\xff\x7f"[..], &text("t"), &[1]].concat();
    let bytes = raw(0x82, &body);
    let Packet::Subscribe(subscribe) = server(Version::V5, &bytes).unwrap() else { panic!() };
    assert_eq!(subscribe.subscription_id, Some(268_435_455));
}

#[test]
fn e1_too_large_is_refused_from_the_header() {
    let rules = FrameRules::server(Version::V5, 100);
    assert_eq!(rules.split(&[0x30, 98]), Ok(None));
    for header in [&[0x30, 99][..], &[0x30, 0xff, 0xff, 0xff, 0x7f]] {
        assert_eq!(rules.split(header).unwrap_err().reason, Reason::PacketTooLarge);
    }
}

#[test]
fn e3_diagnostics_are_dropped_to_fit() {
    let mut user = UserPropertiesBuf::default();
    user.push("name", "value").unwrap();
    let mut ack = Ack::new(AckKind::PubAck, id(1), Reason::QuotaExceeded);
    ack.diagnostics = Diagnostics { reason_string: Some("disk full"), user: user.view() };
    let mut receiver = Receiver::new(Version::V5);
    let encode = |ack: &Ack<'_>, receiver: &Receiver| {
        let mut out = BytesMut::new();
        ack.encode(receiver, &mut out).map(|()| out)
    };
    for (max, len) in [(32, 32), (31, 18), (18, 18), (17, 5), (5, 5)] {
        receiver.max_packet_bytes = max;
        assert_eq!(encode(&ack, &receiver).unwrap().len(), len, "{max}");
    }
    receiver.max_packet_bytes = 4;
    assert_eq!(encode(&ack, &receiver), Err(EncodeError::TooLarge));
    let long = "x".repeat(65_536);
    receiver.max_packet_bytes = u32::MAX;
    ack.diagnostics = Diagnostics::reason(&long);
    assert_eq!(encode(&ack, &receiver).unwrap().len(), 5);
}

#[test]
fn e4_problem_information_only_where_it_is_wanted() {
    let receiver = Receiver { wants_problem_info: false, ..Receiver::new(Version::V5) };
    let diagnostics = Diagnostics::reason("why");
    let (packet_id, reasons) = (id(1), &[Reason::NotAuthorized][..]);
    let mut out = BytesMut::new();
    let ack = Ack { diagnostics, ..Ack::new(AckKind::PubRec, packet_id, Reason::NotAuthorized) };
    ack.encode(&receiver, &mut out).unwrap();
    assert_eq!(&out.split()[..], b"\x50\x03\0\x01\x87");
    SubAck { packet_id, reasons, diagnostics }.encode(&receiver, &mut out).unwrap();
    assert_eq!(&out.split()[..], b"\x90\x04\0\x01\0\x87");
    UnsubAck { packet_id, reasons, diagnostics }.encode(&receiver, &mut out).unwrap();
    assert_eq!(&out.split()[..], b"\xb0\x04\0\x01\0\x87");
    let auth = Auth { reason: Reason::Success, method: Some("M"), data: None, diagnostics };
    auth.encode(&receiver, &mut out).unwrap();
    assert_eq!(&out.split()[..], b"\xf0\x06\0\x04\x15\0\x01M");
    Disconnect { diagnostics, ..Disconnect::new(Reason::ServerBusy) }
        .encode(&receiver, &mut out)
        .unwrap();
    assert_eq!(&out.split()[..], b"\xe0\x08\x89\x06\x1f\0\x03why");
    ConnAck { diagnostics, ..ConnAck::new(Reason::ServerBusy) }
        .encode(&receiver, &mut out)
        .unwrap();
    assert_eq!(&out.split()[..], b"\x20\x09\0\x89\x06\x1f\0\x03why");
}

#[test]
fn e5_no_disconnect_before_mqtt_5() {
    for version in V3 {
        let mut out = BytesMut::new();
        Disconnect::new(Reason::ServerShuttingDown)
            .encode(&Receiver::new(version), &mut out)
            .unwrap();
        assert!(out.is_empty());
    }
}

#[test]
fn e8_c2_types_that_a_client_may_not_send() {
    assert_eq!(refused(Version::V5, &[0x00, 0]), 0x81);
    for first in [0x20, 0x90, 0xb0, 0xd0] {
        assert_eq!(refused(Version::V5, &[first, 0]), 0x82);
    }
    for version in V3 {
        assert_eq!(refused(version, &[0xf0, 0]), 0x81);
    }
    assert_eq!(refused(Version::V5, &raw(0x10, b"\0\x04MQTT")), 0x82, "c2: a second CONNECT");
    assert_eq!(refused(Version::V5, &raw(0xc0, b"x")), 0x81, "a PINGREQ with a body");
}

#[test]
fn e9_disconnect_reasons() {
    for code in 0..=u8::MAX {
        let legal = matches!(code, 0 | 4 | 0x80..=0x83 | 0x90 | 0x93..=0x99);
        assert_eq!(refused(Version::V5, &raw(0xe0, &[code])), if legal { 0 } else { 0x82 });
    }
    assert_eq!(refused(Version::V5, &raw(0xe0, b"\0\x04\x1c\0\x01s")), 0x82, "server reference");
    assert_eq!(refused(Version::V311, &raw(0xe0, b"\0")), 0x81);
}

#[test]
fn e11_short_forms() {
    for (first, kind) in [
        (0x40, AckKind::PubAck),
        (0x50, AckKind::PubRec),
        (0x62, AckKind::PubRel),
        (0x70, AckKind::PubComp),
    ] {
        for (body, reason) in [
            (&b"\0\x01"[..], Reason::Success),
            (b"\0\x01\0", Reason::Success),
            (b"\0\x01\0\0", Reason::Success),
        ] {
            let bytes = raw(first, body);
            let Packet::Ack(ack) = server(Version::V5, &bytes).unwrap() else { panic!() };
            assert_eq!(ack, Ack::new(kind, id(1), reason));
        }
        assert_eq!(refused(Version::V5, &raw(first, b"\0\x01\0\0x")), 0x81);
        assert_eq!(refused(Version::V5, &raw(first, b"\0\x01\x8f")), 0x82);
        assert_eq!(refused(Version::V311, &raw(first, b"\0\x01\0")), 0x81);
    }
    for body in [&b""[..], b"\0", b"\0\0"] {
        assert_eq!(refused(Version::V5, &raw(0xe0, body)), 0, "DISCONNECT {body:x?}");
    }
    assert_eq!(refused(Version::V5, &raw(0xf0, b"")), 0, "AUTH");
    for code in 0..=u8::MAX {
        let bytes = raw(0xf0, &[&[code][..], b"\x04\x15\0\x01M"].concat());
        let legal = matches!(code, 0 | 0x18 | 0x19);
        assert_eq!(refused(Version::V5, &bytes), if legal { 0 } else { 0x82 }, "x7");
    }
}

#[test]
fn c29_c30_connack() {
    let connack = ConnAck { session_present: true, ..ConnAck::new(Reason::NotAuthorized) };
    let encode = |connack: &ConnAck<'_>, version| {
        let mut out = BytesMut::new();
        connack.encode(&Receiver::new(version), &mut out).unwrap();
        out
    };
    assert_eq!(
        &encode(&connack, Version::V5)[..],
        b"\x20\x03\0\x87\0",
        "c10: no session with error"
    );
    assert_eq!(&encode(&connack, Version::V311)[..], b"\x20\x02\0\x05");
    let connack = ConnAck { session_present: true, ..ConnAck::new(Reason::Success) };
    assert_eq!(&encode(&connack, Version::V5)[..], b"\x20\x03\x01\0\0");
    assert_eq!(&encode(&connack, Version::V311)[..], b"\x20\x02\x01\0");
    assert_eq!(&encode(&connack, Version::V31)[..], b"\x20\x02\0\0");
}

#[test]
fn s4_s13_suback_and_unsuback() {
    let reasons = &[Reason::GrantedQoS1, Reason::NotAuthorized][..];
    let (packet_id, diagnostics) = (id(7), Diagnostics::default());
    let suback = SubAck { packet_id, reasons, diagnostics };
    let unsuback = UnsubAck { packet_id, reasons, diagnostics };
    let mut out = BytesMut::new();
    for (version, bytes) in [
        (Version::V311, &b"\x90\x04\0\x07\x01\x80"[..]),
        (Version::V5, b"\x90\x05\0\x07\0\x01\x87"),
    ] {
        suback.encode(&Receiver::new(version), &mut out).unwrap();
        assert_eq!(&out.split()[..], bytes);
        assert!(matches!(client(version, bytes), Ok(ServerPacket::SubAck(_))));
    }
    unsuback.encode(&Receiver::new(Version::V311), &mut out).unwrap();
    assert_eq!(&out.split()[..], b"\xb0\x02\0\x07", "3.1.1: no codes");
}
