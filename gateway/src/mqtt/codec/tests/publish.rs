//! One PUBLISH for many receivers.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use smallvec::smallvec;

use super::super::client::ServerPacket;
use super::super::*;
use super::id;

fn from_server(version: Version, bytes: &[u8]) -> ServerPacket<'_> {
    let (frame, len) = FrameRules::client(version, u32::MAX).split(bytes).unwrap().unwrap();
    assert_eq!(len, bytes.len());
    ServerPacket::decode(version, frame).unwrap()
}

#[test]
fn one_encoding_is_patched_for_each_receiver() {
    let mut user = UserPropertiesBuf::default();
    user.push("a", "1").unwrap();
    user.push("a", "2").unwrap();
    let message = PublishOut {
        topic: "t/1",
        properties: PublishProperties {
            message_expiry_s: Some(7),
            user: user.view(),
            ..PublishProperties::default()
        },
    };
    for alias in [AliasForm::Name, AliasForm::Define, AliasForm::Alias] {
        let variant = Variant {
            version: Version::V5,
            qos: QoS::AtLeastOnce,
            retain: true,
            alias,
            subscription_ids: smallvec![5, 300],
        };
        let encoded = message.encode(&variant, Bytes::from_static(b"hello")).unwrap();
        for (packet_id, dup, topic_alias) in [(1, false, 9), (0xabcd, true, 0x1234)] {
            let mut out = BytesMut::new();
            encoded.write(Some(id(packet_id)), dup, NonZeroU16::new(topic_alias), &mut out);
            assert_eq!(out.len(), encoded.packet_bytes());
            let ServerPacket::Publish(publish) = from_server(Version::V5, &out) else { panic!() };
            assert_eq!(publish.packet_id, Some(id(packet_id)));
            assert_eq!((publish.dup, publish.retain), (dup, true));
            let has_alias = alias != AliasForm::Name;
            assert_eq!(publish.topic_alias.map(NonZeroU16::get), has_alias.then_some(topic_alias));
            assert_eq!(publish.topic, if alias == AliasForm::Alias { "" } else { "t/1" });
            assert_eq!(publish.subscription_ids.iter().collect::<Vec<_>>(), [5, 300]);
            assert_eq!(publish.properties, message.properties);
            assert_eq!(publish.payload, b"hello");
        }
    }
}
