//! MQTT's frames and packets, as a server and as a client read them.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use interflow_gateway::mqtt::codec::client::{self, ServerPacket};
use interflow_gateway::mqtt::codec::{
    Ack, AckKind, AliasForm, Auth, ConnAck, Connect, Diagnostics, Disconnect, FrameRules, Packet,
    PacketId, PacketKind, PayloadFormat, Publish, PublishOut, PublishProperties, QoS, Reason,
    Receiver, RetainHandling, SubAck, Subscription, SubscriptionOptions, UnsubAck,
    UserPropertiesBuf, Variant, Version, Will, write_pingresp,
};

const MAX_PACKET: u32 = 64 << 10;

/// A connection of MQTT 3.1.
pub(crate) fn v31(bytes: &[u8]) {
    server(Version::V31, bytes);
}

/// A connection of MQTT 3.1.1.
pub(crate) fn v311(bytes: &[u8]) {
    server(Version::V311, bytes);
}

/// A connection of MQTT 5.
pub(crate) fn v5(bytes: &[u8]) {
    server(Version::V5, bytes);
}

/// Reads packets one after another, as a connection does.
fn server(version: Version, mut bytes: &[u8]) {
    let rules = FrameRules::server(version, MAX_PACKET);
    while let Ok(Some((frame, len))) = rules.split(bytes) {
        if frame.kind == PacketKind::Connect {
            if let Ok(connect) = Connect::decode(frame.body) {
                connect_again(&connect);
            }
        } else if let Ok(packet) = Packet::decode(version, frame) {
            read(version, packet);
        }
        bytes = bytes.get(len..).unwrap_or_default();
    }
}

/// What was taken can be written, and is read as the same.
fn connect_again(connect: &Connect<'_>) {
    let mut out = BytesMut::new();
    assert_eq!(connect.encode(&mut out), Ok(()), "a CONNECT that was read can't be written");
    let rules = FrameRules::server(Version::V5, u32::MAX);
    let again = rules.split(&out).ok().flatten().map(|(frame, _)| Connect::decode(frame.body));
    assert_eq!(again, Some(Ok(*connect)));
}

fn read(version: Version, packet: Packet<'_>) {
    match packet {
        Packet::Publish(publish) => publish_again(version, &publish),
        Packet::Subscribe(subscribe) => {
            assert!(subscribe.subscriptions.iter().count() > 0);
            subscribe.user.iter().for_each(drop);
        }
        Packet::Unsubscribe(unsubscribe) => {
            assert!(unsubscribe.filters.iter().count() > 0);
            unsubscribe.user.iter().for_each(drop);
        }
        Packet::Ack(ack) => ack.diagnostics.user.iter().for_each(drop),
        Packet::Disconnect(disconnect) => disconnect.diagnostics.user.iter().for_each(drop),
        Packet::Auth(auth) => auth.diagnostics.user.iter().for_each(drop),
        Packet::PingReq => {}
    }
}

fn publish_again(version: Version, publish: &Publish<'_>) {
    if publish.topic.is_empty() {
        return;
    }
    let variant = variant(version, publish.qos, publish.retain);
    let message = PublishOut { topic: publish.topic, properties: publish.properties };
    let mut out = BytesMut::new();
    let payload = Bytes::copy_from_slice(publish.payload);
    let written = client::encode_publish(&message, &variant, publish.packet_id, payload, &mut out);
    assert!(written.is_ok(), "a PUBLISH that was read can't be written");
    let rules = FrameRules::server(version, u32::MAX);
    let again = rules.split(&out).ok().flatten().map(|(frame, _)| Packet::decode(version, frame));
    let again = again.map(|packet| match packet {
        Ok(Packet::Publish(again)) => {
            Some((again.topic, again.payload, again.properties, again.packet_id))
        }
        _ => None,
    });
    let expected = (publish.topic, publish.payload, publish.properties, publish.packet_id);
    assert_eq!(again, Some(Some(expected)), "a PUBLISH is read otherwise than it was written");
}

/// A server's packets. The first byte chooses the version.
pub(crate) fn client(bytes: &[u8]) {
    let Some((first, mut bytes)) = bytes.split_first() else { return };
    let version = match first % 3 {
        0 => Version::V31,
        1 => Version::V311,
        _ => Version::V5,
    };
    let rules = FrameRules::client(version, MAX_PACKET);
    while let Ok(Some((frame, len))) = rules.split(bytes) {
        if let Ok(ServerPacket::Publish(publish)) = ServerPacket::decode(version, frame) {
            publish.subscription_ids.iter().for_each(drop);
            publish.properties.user.iter().for_each(drop);
        }
        bytes = bytes.get(len..).unwrap_or_default();
    }
}

fn variant(version: Version, qos: QoS, retain: bool) -> Variant {
    Variant { version, qos, retain, alias: AliasForm::Name, subscription_ids: Default::default() }
}

pub(crate) fn v31_seeds() -> Vec<Vec<u8>> {
    server_seeds(Version::V31)
}

pub(crate) fn v311_seeds() -> Vec<Vec<u8>> {
    server_seeds(Version::V311)
}

pub(crate) fn v5_seeds() -> Vec<Vec<u8>> {
    server_seeds(Version::V5)
}

/// Collects packets; those that can't be written are left out.
#[derive(Default)]
struct Seeds(Vec<Vec<u8>>);

impl Seeds {
    fn add<E>(&mut self, write: impl FnOnce(&mut BytesMut) -> Result<(), E>) {
        let mut out = BytesMut::new();
        if write(&mut out).is_ok() {
            self.0.push(out.to_vec());
        }
    }

    /// All of them, and all of them in a row.
    fn finish(mut self) -> Vec<Vec<u8>> {
        self.0.push(self.0.concat());
        self.0
    }
}

fn user_properties() -> UserPropertiesBuf {
    let mut user = UserPropertiesBuf::default();
    // Short names and values always fit.
    let _ = user.push("name", "value");
    let _ = user.push("name", "");
    user
}

fn properties(user: &UserPropertiesBuf) -> PublishProperties<'_> {
    PublishProperties {
        payload_format: Some(PayloadFormat::Utf8),
        message_expiry_s: Some(60),
        content_type: Some("text/plain"),
        response_topic: Some("re/ply"),
        correlation_data: Some(b"\x00\x01"),
        user: user.view(),
    }
}

fn server_seeds(version: Version) -> Vec<Vec<u8>> {
    let user = user_properties();
    let packet_id = PacketId::MIN;
    let diagnostics = Diagnostics { reason_string: Some("why"), user: user.view() };
    let receiver = Receiver::new(version);
    let mut seeds = Seeds::default();
    seeds.add(|out| {
        let will = Will {
            topic: "will",
            payload: b"gone",
            qos: QoS::AtLeastOnce,
            retain: true,
            delay_s: 5,
            properties: properties(&user),
        };
        Connect {
            keep_alive_s: 60,
            will: Some(will),
            user_name: Some("user"),
            password: Some(b"password"),
            session_expiry_s: 3600,
            receive_maximum: 20,
            max_packet_bytes: Some(1 << 20),
            topic_alias_maximum: 10,
            auth_method: Some("SCRAM"),
            auth_data: Some(b"n,,"),
            user: user.view(),
            ..Connect::new(version, "client")
        }
        .encode(out)
    });
    seeds.add(|out| Connect::new(version, "c").encode(out));
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let message = PublishOut { topic: "sensors/1/temp", properties: properties(&user) };
        seeds.add(|out| {
            let payload = Bytes::from_static(b"21.5");
            client::encode_publish(
                &message,
                &variant(version, qos, true),
                Some(packet_id),
                payload,
                out,
            )
        });
    }
    let message = PublishOut { topic: "a", properties: PublishProperties::default() };
    let alias = Variant { alias: AliasForm::Alias, ..variant(version, QoS::AtMostOnce, false) };
    seeds.add(|out| {
        let encoded = message.encode(&alias, Bytes::from_static(b"x"))?;
        encoded.write(None, false, NonZeroU16::new(3), out);
        Ok::<_, interflow_gateway::mqtt::codec::EncodeError>(())
    });
    for kind in [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp] {
        seeds.add(|out| Ack::new(kind, packet_id, Reason::Success).encode(&receiver, out));
        seeds.add(|out| {
            Ack { kind, packet_id, reason: Reason::Success, diagnostics }.encode(&receiver, out)
        });
    }
    let options = SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: false,
        retain_as_published: true,
        retain_handling: RetainHandling::IfNew,
    };
    let filters = ["a/+/#", "$share/group/a/b", "$SYS/#"];
    seeds.add(|out| {
        let subscriptions = filters.map(|filter| Subscription { filter, options });
        client::encode_subscribe(version, packet_id, Some(300), &subscriptions, out)
    });
    seeds.add(|out| client::encode_unsubscribe(version, packet_id, &filters, out));
    seeds.add(|out| {
        client::write_pingreq(out);
        Ok::<_, ()>(())
    });
    seeds.add(|out| {
        let disconnect = Disconnect {
            session_expiry_s: Some(0),
            diagnostics,
            ..Disconnect::new(Reason::DisconnectWithWill)
        };
        client::encode_disconnect(version, &disconnect, out)
    });
    if version.is_v5() {
        seeds.add(|out| {
            let (reason, method) = (Reason::ContinueAuthentication, Some("SCRAM"));
            Auth { reason, method, data: Some(b"r="), diagnostics }.encode(&receiver, out)
        });
    }
    seeds.finish()
}

pub(crate) fn client_seeds() -> Vec<Vec<u8>> {
    let user = user_properties();
    let diagnostics = Diagnostics { reason_string: Some("why"), user: user.view() };
    let packet_id = PacketId::MIN;
    let reasons = &[Reason::GrantedQoS1, Reason::NotAuthorized][..];
    let mut all = Vec::new();
    for (first, version) in [(0, Version::V31), (1, Version::V311), (2, Version::V5)] {
        let receiver = Receiver::new(version);
        let mut seeds = Seeds::default();
        seeds.add(|out| {
            ConnAck {
                session_expiry_s: Some(60),
                assigned_client_id: Some("id"),
                server_keep_alive_s: Some(30),
                diagnostics,
                ..ConnAck::new(Reason::Success)
            }
            .encode(&receiver, out)
        });
        seeds.add(|out| SubAck { packet_id, reasons, diagnostics }.encode(&receiver, out));
        seeds.add(|out| UnsubAck { packet_id, reasons, diagnostics }.encode(&receiver, out));
        seeds.add(|out| {
            Disconnect { diagnostics, ..Disconnect::new(Reason::ServerBusy) }.encode(&receiver, out)
        });
        seeds.add(|out| {
            let message = PublishOut { topic: "t", properties: properties(&user) };
            let mut variant = variant(version, QoS::AtLeastOnce, false);
            variant.subscription_ids.extend([1, 300]);
            client::encode_publish(
                &message,
                &variant,
                Some(packet_id),
                Bytes::from_static(b"x"),
                out,
            )
        });
        seeds.add(|out| {
            write_pingresp(out);
            Ok::<_, ()>(())
        });
        all.extend(seeds.finish().into_iter().map(|packets| [&[first][..], &packets].concat()));
    }
    all
}
