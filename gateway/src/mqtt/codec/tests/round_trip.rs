//! What is written is read again as it was.

use std::num::NonZeroU16;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::client::{self, ServerPacket};
use super::super::*;
use super::{client as from_server, server};

/// Text as peers may send it: no NUL.
pub(super) fn words() -> impl Strategy<Value = String> {
    "[a-zä€\u{feff}\u{1}/ ]{0,12}"
}

pub(super) fn name() -> impl Strategy<Value = String> {
    "[a-c/$]{1,9}"
}

pub(super) fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

pub(super) fn qos() -> impl Strategy<Value = QoS> {
    (0..3_u8).prop_map(|bits| QoS::from_bits(bits).unwrap())
}

pub(super) fn packet_id() -> impl Strategy<Value = PacketId> {
    (1..=u16::MAX).prop_map(super::id)
}

fn user(pairs: &[(String, String)]) -> UserPropertiesBuf {
    let mut user = UserPropertiesBuf::default();
    pairs.iter().for_each(|(name, value)| user.push(name, value).unwrap());
    user
}

/// The owned form of [`PublishProperties`].
#[derive(Clone, Debug)]
pub(super) struct Properties {
    pub(super) format: Option<bool>,
    pub(super) expiry: Option<u32>,
    pub(super) content_type: Option<String>,
    pub(super) response_topic: Option<String>,
    pub(super) correlation: Option<Vec<u8>>,
    pub(super) user: Vec<(String, String)>,
}

pub(super) fn properties() -> impl Strategy<Value = Properties> {
    (
        option::of(any::<bool>()),
        option::of(any::<u32>()),
        option::of(words()),
        option::of(name()),
        option::of(vec(any::<u8>(), 0..9)),
        vec((words(), words()), 0..4),
    )
        .prop_map(|(format, expiry, content_type, response_topic, correlation, user)| {
            Properties { format, expiry, content_type, response_topic, correlation, user }
        })
}

impl Properties {
    pub(super) fn user(&self) -> UserPropertiesBuf {
        user(&self.user)
    }

    pub(super) fn view<'a>(&'a self, user: &'a UserPropertiesBuf) -> PublishProperties<'a> {
        PublishProperties {
            payload_format: self
                .format
                .map(|text| if text { PayloadFormat::Utf8 } else { PayloadFormat::Bytes }),
            message_expiry_s: self.expiry,
            content_type: self.content_type.as_deref(),
            response_topic: self.response_topic.as_deref(),
            correlation_data: self.correlation.as_deref(),
            user: user.view(),
        }
    }
}

proptest! {
    #[test]
    fn publish(
        version in version(),
        topic in name(),
        payload in vec(any::<u8>(), 0..300),
        (qos, retain, dup, packet_id) in (qos(), any::<bool>(), any::<bool>(), packet_id()),
        properties in properties(),
        ids in vec(1..=268_435_455_u32, 0..3),
        alias in option::of(1..=u16::MAX),
    ) {
        let user = properties.user();
        let message = PublishOut { topic: &topic, properties: properties.view(&user) };
        let form = if alias.is_some() { AliasForm::Define } else { AliasForm::Name };
        let variant =
            Variant { version, qos, retain, alias: form, subscription_ids: ids.clone().into() };
        let encoded = message.encode(&variant, Bytes::from(payload.clone())).unwrap();
        let dup = dup && qos != QoS::AtMostOnce;
        let mut out = BytesMut::new();
        encoded.write(Some(packet_id), dup, alias.and_then(NonZeroU16::new), &mut out);
        let Ok(ServerPacket::Publish(publish)) = from_server(version, &out) else { panic!() };
        prop_assert_eq!((publish.qos, publish.retain, publish.dup), (qos, retain, dup));
        prop_assert_eq!((publish.topic, publish.payload), (topic.as_str(), &payload[..]));
        prop_assert_eq!(publish.packet_id, (qos != QoS::AtMostOnce).then_some(packet_id));
        if version.is_v5() {
            prop_assert_eq!(publish.properties, message.properties);
            prop_assert_eq!(publish.subscription_ids.iter().collect::<Vec<_>>(), ids);
            prop_assert_eq!(publish.topic_alias.map(NonZeroU16::get), alias);
        } else {
            prop_assert_eq!(publish.properties, PublishProperties::default());
        }
    }

    #[test]
    fn connect(
        version in version(),
        (client_id, user_name) in ("[a-z]{1,9}", option::of(words())),
        password in option::of(vec(any::<u8>(), 0..9)),
        (clean_start, keep_alive_s) in (any::<bool>(), any::<u16>()),
        numbers in (any::<u32>(), 1..=u16::MAX, option::of(1..=u32::MAX), any::<u16>()),
        wants in (any::<bool>(), any::<bool>()),
        auth in option::of((words(), option::of(vec(any::<u8>(), 0..9)))),
        will in option::of((name(), vec(any::<u8>(), 0..9), qos(), any::<bool>(), any::<u32>())),
        (properties, pairs) in (properties(), vec((words(), words()), 0..3)),
    ) {
        let (will_user, connect_user) = (properties.user(), user(&pairs));
        let is_v5 = version.is_v5();
        let mut connect = Connect::new(version, &client_id);
        connect.clean_start = clean_start;
        connect.keep_alive_s = keep_alive_s;
        connect.user_name = user_name.as_deref();
        connect.password = password.as_deref().filter(|_| is_v5 || user_name.is_some());
        connect.will = will.as_ref().map(|(topic, payload, qos, retain, delay_s)| Will {
            topic,
            payload,
            qos: *qos,
            retain: *retain,
            delay_s: if is_v5 { *delay_s } else { 0 },
            properties: if is_v5 { properties.view(&will_user) } else { Default::default() },
        });
        if is_v5 {
            connect.session_expiry_s = numbers.0;
            connect.receive_maximum = numbers.1;
            connect.max_packet_bytes = numbers.2;
            connect.topic_alias_maximum = numbers.3;
            connect.wants_response_info = wants.0;
            connect.wants_problem_info = wants.1;
            connect.auth_method = auth.as_ref().map(|(method, _)| method.as_str());
            connect.auth_data = auth.as_ref().and_then(|(_, data)| data.as_deref());
            connect.user = connect_user.view();
        } else {
            connect.session_expiry_s = if clean_start { 0 } else { u32::MAX };
        }
        let mut out = BytesMut::new();
        connect.encode(&mut out).unwrap();
        let (frame, len) =
            FrameRules::server(Version::V5, u32::MAX).split(&out).unwrap().unwrap();
        prop_assert_eq!((frame.kind, len), (PacketKind::Connect, out.len()));
        prop_assert_eq!(Connect::decode(frame.body).unwrap(), connect);
        for cut in 0..frame.body.len() {
            prop_assert!(Connect::decode(&frame.body[..cut]).is_err());
        }
    }

    #[test]
    fn subscribe_and_unsubscribe(
        version in version(),
        packet_id in packet_id(),
        subscription_id in option::of(1..=268_435_455_u32),
        filters in vec(("[a-c+]/[a-c]/(#|\\+)", qos(), any::<(bool, bool)>(), 0..3_u8), 1..5),
    ) {
        let subscriptions: Vec<_> = filters
            .iter()
            .map(|(filter, qos, (no_local, retain_as_published), handling)| {
                let mut options = SubscriptionOptions { qos: *qos, ..Default::default() };
                if version.is_v5() {
                    options.no_local = *no_local;
                    options.retain_as_published = *retain_as_published;
                    options.retain_handling = match handling {
                        0 => RetainHandling::Always,
                        1 => RetainHandling::IfNew,
                        _ => RetainHandling::Never,
                    };
                }
                Subscription { filter, options }
            })
            .collect();
        let mut out = BytesMut::new();
        client::encode_subscribe(version, packet_id, subscription_id, &subscriptions, &mut out)
            .unwrap();
        let Ok(Packet::Subscribe(read)) = server(version, &out) else { panic!() };
        prop_assert_eq!(read.packet_id, packet_id);
        prop_assert_eq!(read.subscription_id, subscription_id.filter(|_| version.is_v5()));
        prop_assert_eq!(read.subscriptions.iter().collect::<Vec<_>>(), subscriptions);

        let filters: Vec<_> = filters.iter().map(|(filter, ..)| filter.as_str()).collect();
        let mut out = BytesMut::new();
        client::encode_unsubscribe(version, packet_id, &filters, &mut out).unwrap();
        let Ok(Packet::Unsubscribe(read)) = server(version, &out) else { panic!() };
        prop_assert_eq!(read.packet_id, packet_id);
        prop_assert_eq!(read.filters.iter().collect::<Vec<_>>(), filters);
    }

    #[test]
    fn acknowledgements(
        packet_id in packet_id(),
        (text, pairs) in (option::of(words()), vec((words(), words()), 0..3)),
        code in any::<u8>(),
        session_expiry_s in option::of(any::<u32>()),
    ) {
        let user = user(&pairs);
        let diagnostics = Diagnostics { reason_string: text.as_deref(), user: user.view() };
        let reason = Reason::from_code(code).unwrap_or(Reason::Success);
        let receiver = Receiver::new(Version::V5);
        for kind in [AckKind::PubAck, AckKind::PubRec, AckKind::PubRel, AckKind::PubComp] {
            let ack = Ack { kind, packet_id, reason, diagnostics };
            let mut out = BytesMut::new();
            ack.encode(&receiver, &mut out).unwrap();
            // A code that isn't this packet's is refused, nothing else.
            if let Ok(Packet::Ack(read)) = server(Version::V5, &out) {
                prop_assert_eq!(read, ack);
            } else {
                prop_assert!(reason != Reason::Success);
            }
        }
        let mut out = BytesMut::new();
        let disconnect = Disconnect {
            session_expiry_s,
            diagnostics,
            ..Disconnect::new(Reason::DisconnectWithWill)
        };
        client::encode_disconnect(Version::V5, &disconnect, &mut out).unwrap();
        let Ok(Packet::Disconnect(read)) = server(Version::V5, &out) else { panic!() };
        prop_assert_eq!(read, disconnect);

        let reasons = [reason, Reason::GrantedQoS2];
        for encode in [
            |ack: SubAck<'_>, receiver: &Receiver, out: &mut BytesMut| ack.encode(receiver, out),
            |ack: SubAck<'_>, receiver: &Receiver, out: &mut BytesMut| {
                let SubAck { packet_id, reasons, diagnostics } = ack;
                UnsubAck { packet_id, reasons, diagnostics }.encode(receiver, out)
            },
        ] {
            let mut out = BytesMut::new();
            encode(SubAck { packet_id, reasons: &reasons, diagnostics }, &receiver, &mut out)
                .unwrap();
            let Ok(ServerPacket::SubAck(read) | ServerPacket::UnsubAck(read)) =
                from_server(Version::V5, &out) else { panic!() };
            prop_assert_eq!((read.packet_id, read.diagnostics), (packet_id, diagnostics));
            prop_assert_eq!(&read.reasons, &reasons);
        }
    }

    #[test]
    fn connack(
        reason in any::<u8>(),
        flags in any::<(bool, bool, bool, bool, bool)>(),
        numbers in (option::of(any::<u32>()), 1..=u16::MAX, option::of(1..=u32::MAX), any::<u16>()),
        server_keep_alive_s in option::of(any::<u16>()),
        texts in (option::of(words()), option::of(words()), option::of(words())),
        auth in option::of((words(), vec(any::<u8>(), 0..9))),
        (text, pairs) in (option::of(words()), vec((words(), words()), 0..3)),
    ) {
        let user = user(&pairs);
        let reason = Reason::from_code(reason).unwrap_or(Reason::Success);
        let connack = ConnAck {
            session_present: flags.0 && !reason.is_error(),
            reason,
            session_expiry_s: numbers.0,
            receive_maximum: numbers.1,
            maximum_qos: if flags.1 { QoS::ExactlyOnce } else { QoS::AtLeastOnce },
            retain_available: flags.1,
            max_packet_bytes: numbers.2,
            assigned_client_id: texts.0.as_deref(),
            topic_alias_maximum: numbers.3,
            wildcard_available: flags.2,
            subscription_ids_available: flags.3,
            shared_available: flags.4,
            server_keep_alive_s,
            response_info: texts.1.as_deref(),
            server_reference: texts.2.as_deref(),
            auth_method: auth.as_ref().map(|(method, _)| method.as_str()),
            auth_data: auth.as_ref().map(|(_, data)| &data[..]),
            diagnostics: Diagnostics { reason_string: text.as_deref(), user: user.view() },
        };
        let mut out = BytesMut::new();
        connack.encode(&Receiver::new(Version::V5), &mut out).unwrap();
        let Ok(ServerPacket::ConnAck(read)) = from_server(Version::V5, &out) else { panic!() };
        prop_assert_eq!(read, connack);
    }
}
