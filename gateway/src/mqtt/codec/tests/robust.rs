//! No bytes panic, and what is taken is read to its end.

use proptest::prelude::*;

use super::super::client::ServerPacket;
use super::super::*;
use super::raw;

/// Goes through all that is read lazily.
fn read(packet: Packet<'_>) -> usize {
    match packet {
        Packet::Publish(publish) => publish.properties.user.iter().count(),
        Packet::Subscribe(subscribe) => {
            let filters = subscribe.subscriptions.iter().count();
            assert!(filters > 0);
            filters + subscribe.user.iter().count()
        }
        Packet::Unsubscribe(unsubscribe) => unsubscribe.filters.iter().count(),
        _ => 0,
    }
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

/// Bytes that come past the first checks more often than random ones.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let common = prop_oneof![3 => Just(0_u8), 2 => 1..4_u8, 1 => Just(0x26), 1 => any::<u8>()];
    proptest::collection::vec(common, 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn any_bytes(version in version(), bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        for rules in [FrameRules::server(version, 64), FrameRules::client(version, 64)] {
            if let Ok(Some((frame, len))) = rules.split(&bytes) {
                prop_assert!(len <= bytes.len() && frame.body.len() < len);
                let _ = Packet::decode(version, frame).map(read);
                let _ = ServerPacket::decode(version, frame);
            }
        }
        let _ = Connect::decode(&bytes);
    }

    #[test]
    fn any_body(version in version(), first in 0x10..=0xff_u8, body in body()) {
        let bytes = raw(first, &body);
        for rules in [FrameRules::server(version, 64), FrameRules::client(version, 64)] {
            if let Ok(frame) = rules.split(&bytes) {
                let (frame, len) = frame.unwrap();
                prop_assert_eq!(len, bytes.len());
                let _ = Packet::decode(version, frame).map(read);
                let _ = ServerPacket::decode(version, frame);
            }
        }
    }

    /// However the bytes are cut, the same frame comes out, and not one byte too early.
    #[test]
    fn frames_wait_for_their_last_byte(body in body()) {
        let bytes = raw(0x30, &body);
        let rules = FrameRules::server(Version::V5, 64);
        for cut in 0..bytes.len() {
            prop_assert_eq!(rules.split(&bytes[..cut]), Ok(None));
        }
        prop_assert!(rules.split(&bytes).unwrap().is_some());
    }
}
