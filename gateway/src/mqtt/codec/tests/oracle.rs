//! Valid packets against another implementation, `mqttbytes`: each reads what the other writes.
//! Left out is what it is known to get wrong: more than two subscription identifiers, DISCONNECT
//! without properties, CONNACK without properties, UNSUBACK's codes.

use bytes::{Bytes, BytesMut};
use mqttbytes::{v4, v5};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::super::client::{self, ServerPacket};
use super::super::*;
use super::round_trip::{Properties, name, packet_id, properties, qos, words};
use super::{client as from_server, server};

fn theirs(qos: QoS) -> mqttbytes::QoS {
    mqttbytes::qos(qos.bits()).unwrap()
}

fn read_v5(bytes: &BytesMut) -> v5::Packet {
    let mut bytes = bytes.clone();
    let packet = v5::read(&mut bytes, 1 << 20).unwrap();
    assert!(bytes.is_empty());
    packet
}

fn read_v4(bytes: &BytesMut) -> v4::Packet {
    let mut bytes = bytes.clone();
    let packet = v4::read(&mut bytes, 1 << 20).unwrap();
    assert!(bytes.is_empty());
    packet
}

fn their_properties(properties: &Properties, ids: &[u32]) -> v5::PublishProperties {
    v5::PublishProperties {
        payload_format_indicator: properties.format.map(u8::from),
        message_expiry_interval: properties.expiry,
        topic_alias: None,
        response_topic: properties.response_topic.clone(),
        correlation_data: properties.correlation.clone().map(Bytes::from),
        user_properties: properties.user.clone(),
        subscription_identifiers: ids.iter().map(|id| *id as usize).collect(),
        content_type: properties.content_type.clone(),
    }
}

proptest! {
    #[test]
    fn publish_v5(
        (topic, payload) in (name(), vec(any::<u8>(), 1..200)),
        (qos, retain, packet_id) in (qos(), any::<bool>(), packet_id()),
        (properties, ids) in (properties(), vec(1..=268_435_455_u32, 0..2)),
    ) {
        let mut expected = v5::Publish::new(topic.clone(), theirs(qos), payload.clone());
        expected.retain = retain;
        expected.pkid = if qos == QoS::AtMostOnce { 0 } else { packet_id.get() };
        expected.properties = Some(their_properties(&properties, &ids));
        let mut bytes = BytesMut::new();
        expected.write(&mut bytes).unwrap();
        let Ok(ServerPacket::Publish(read)) = from_server(Version::V5, &bytes) else { panic!() };
        let user = properties.user();
        prop_assert_eq!((read.topic, read.payload), (topic.as_str(), &payload[..]));
        prop_assert_eq!((read.qos, read.retain), (qos, retain));
        prop_assert_eq!(read.packet_id.map_or(0, |id| id.get()), expected.pkid);
        prop_assert_eq!(read.properties, properties.view(&user));
        prop_assert_eq!(read.subscription_ids.iter().collect::<Vec<_>>(), ids.clone());

        let variant = Variant {
            version: Version::V5,
            qos,
            retain,
            alias: AliasForm::Name,
            subscription_ids: ids.into(),
        };
        let message = PublishOut { topic: &topic, properties: properties.view(&user) };
        let mut bytes = BytesMut::new();
        client::encode_publish(&message, &variant, Some(packet_id), payload.into(), &mut bytes)
            .unwrap();
        let v5::Packet::Publish(mut read) = read_v5(&bytes) else { panic!() };
        if expected.properties == Some(their_properties(&Properties {
            format: None, expiry: None, content_type: None, response_topic: None,
            correlation: None, user: vec![],
        }, &[])) {
            // They read an empty section as none.
            read.properties = expected.properties.clone();
        }
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn publish_v4(
        (topic, payload) in (name(), vec(any::<u8>(), 1..200)),
        (qos, retain, packet_id) in (qos(), any::<bool>(), packet_id()),
    ) {
        let mut expected = v4::Publish::new(topic.clone(), theirs(qos), payload.clone());
        expected.retain = retain;
        expected.pkid = if qos == QoS::AtMostOnce { 0 } else { packet_id.get() };
        let mut their_bytes = BytesMut::new();
        expected.write(&mut their_bytes).unwrap();
        let variant = Variant {
            version: Version::V311,
            qos,
            retain,
            alias: AliasForm::Name,
            subscription_ids: Default::default(),
        };
        let message = PublishOut { topic: &topic, properties: Default::default() };
        let mut bytes = BytesMut::new();
        client::encode_publish(&message, &variant, Some(packet_id), payload.into(), &mut bytes)
            .unwrap();
        prop_assert_eq!(&bytes, &their_bytes);
        prop_assert!(read_v4(&bytes) == v4::Packet::Publish(expected));
    }

    #[test]
    fn connect_v5(
        (client_id, clean, keep_alive) in ("[a-z]{1,9}", any::<bool>(), any::<u16>()),
        login in option::of(("[a-z]{1,5}", "[a-z]{1,5}")),
        numbers in (1..=u32::MAX, 1..u16::MAX, 1..=u32::MAX, 1..=u16::MAX),
        will in option::of((name(), vec(any::<u8>(), 1..9), qos(), any::<bool>(), 1..=u32::MAX)),
        properties in properties(),
        (method, data) in (words(), vec(any::<u8>(), 0..9)),
    ) {
        let user = properties.user();
        let mut connect = Connect::new(Version::V5, &client_id);
        connect.clean_start = clean;
        connect.keep_alive_s = keep_alive;
        connect.user_name = login.as_ref().map(|(user, _)| user.as_str());
        connect.password = login.as_ref().map(|(_, password)| password.as_bytes());
        connect.session_expiry_s = numbers.0;
        connect.receive_maximum = numbers.1;
        connect.max_packet_bytes = Some(numbers.2);
        connect.topic_alias_maximum = numbers.3;
        connect.wants_response_info = true;
        connect.wants_problem_info = false;
        connect.auth_method = Some(&method);
        connect.auth_data = Some(&data);
        connect.user = user.view();
        connect.will = will.as_ref().map(|(topic, payload, qos, retain, delay_s)| Will {
            topic,
            payload,
            qos: *qos,
            retain: *retain,
            delay_s: *delay_s,
            properties: properties.view(&user),
        });

        let mut expected = v5::Connect::new(client_id.clone());
        expected.protocol = mqttbytes::Protocol::V5;
        expected.clean_session = clean;
        expected.keep_alive = keep_alive;
        expected.login = login.clone().map(|(user, password)| v5::Login::new(user, password));
        expected.last_will = will.clone().map(|(topic, payload, qos, retain, delay)| {
            let mut will = v5::LastWill::new(topic, payload, theirs(qos), retain);
            will.properties = Some(v5::WillProperties {
                delay_interval: Some(delay),
                payload_format_indicator: properties.format.map(u8::from),
                message_expiry_interval: properties.expiry,
                content_type: properties.content_type.clone(),
                response_topic: properties.response_topic.clone(),
                correlation_data: properties.correlation.clone().map(Bytes::from),
                user_properties: properties.user.clone(),
            });
            will
        });
        expected.properties = Some(v5::ConnectProperties {
            session_expiry_interval: Some(numbers.0),
            receive_maximum: Some(numbers.1),
            max_packet_size: Some(numbers.2),
            topic_alias_max: Some(numbers.3),
            request_response_info: Some(1),
            request_problem_info: Some(0),
            user_properties: properties.user.clone(),
            authentication_method: Some(method.clone()),
            authentication_data: Some(data.clone().into()),
        });
        let mut bytes = BytesMut::new();
        connect.encode(&mut bytes).unwrap();
        prop_assert!(read_v5(&bytes) == v5::Packet::Connect(expected.clone()));
        let mut bytes = BytesMut::new();
        expected.write(&mut bytes).unwrap();
        let (frame, _) = FrameRules::server(Version::V5, u32::MAX).split(&bytes).unwrap().unwrap();
        prop_assert_eq!(Connect::decode(frame.body).unwrap(), connect);
    }

    #[test]
    fn connect_v4(
        (client_id, clean, keep_alive) in ("[a-z]{1,9}", any::<bool>(), any::<u16>()),
        login in option::of(("[a-z]{1,5}", "[a-z]{1,5}")),
        will in option::of((name(), vec(any::<u8>(), 1..9), qos(), any::<bool>())),
    ) {
        let mut connect = Connect::new(Version::V311, &client_id);
        connect.clean_start = clean;
        connect.session_expiry_s = if clean { 0 } else { u32::MAX };
        connect.keep_alive_s = keep_alive;
        connect.user_name = login.as_ref().map(|(user, _)| user.as_str());
        connect.password = login.as_ref().map(|(_, password)| password.as_bytes());
        connect.will = will.as_ref().map(|(topic, payload, qos, retain)| Will {
            topic,
            payload,
            qos: *qos,
            retain: *retain,
            delay_s: 0,
            properties: Default::default(),
        });
        let mut expected = v4::Connect::new(client_id.clone());
        expected.clean_session = clean;
        expected.keep_alive = keep_alive;
        expected.login = login.clone().map(|(user, password)| v4::Login::new(user, password));
        expected.last_will = will
            .clone()
            .map(|(topic, payload, qos, retain)| {
                v4::LastWill::new(topic, payload, theirs(qos), retain)
            });
        let mut their_bytes = BytesMut::new();
        expected.write(&mut their_bytes).unwrap();
        let mut bytes = BytesMut::new();
        connect.encode(&mut bytes).unwrap();
        prop_assert_eq!(&bytes, &their_bytes);
        let (frame, _) = FrameRules::server(Version::V5, u32::MAX).split(&bytes).unwrap().unwrap();
        prop_assert_eq!(Connect::decode(frame.body).unwrap(), connect);
        prop_assert!(read_v4(&bytes) == v4::Packet::Connect(expected));
    }

    #[test]
    fn subscribe(
        packet_id in packet_id(),
        filters in vec((name(), qos(), any::<bool>(), any::<bool>()), 1..5),
        id in option::of(1..=268_435_455_u32),
    ) {
        let subscriptions: Vec<_> = filters
            .iter()
            .map(|(filter, qos, no_local, retain_as_published)| Subscription {
                filter,
                options: SubscriptionOptions {
                    qos: *qos,
                    no_local: *no_local,
                    retain_as_published: *retain_as_published,
                    retain_handling: RetainHandling::IfNew,
                },
            })
            .collect();
        let mut expected = v5::Subscribe::empty_subscribe();
        expected.pkid = packet_id.get();
        for (filter, qos, no_local, retain_as_published) in &filters {
            let mut filter = v5::SubscribeFilter::new(filter.clone(), theirs(*qos));
            filter.set_nolocal(*no_local);
            filter.set_preserve_retain(*retain_as_published);
            filter.set_retain_forward_rule(v5::RetainForwardRule::OnNewSubscribe);
            expected.filters.push(filter);
        }
        expected.properties = id.map(|id| v5::SubscribeProperties {
            id: Some(id as usize),
            user_properties: vec![],
        });
        let mut bytes = BytesMut::new();
        client::encode_subscribe(Version::V5, packet_id, id, &subscriptions, &mut bytes).unwrap();
        prop_assert!(read_v5(&bytes) == v5::Packet::Subscribe(expected.clone()));
        let mut their_bytes = BytesMut::new();
        expected.write(&mut their_bytes).unwrap();
        prop_assert_eq!(&bytes, &their_bytes);

        let mut expected = v4::Subscribe::empty_subscribe();
        expected.pkid = packet_id.get();
        for (filter, qos, ..) in &filters {
            expected.add(filter.clone(), theirs(*qos));
        }
        let mut their_bytes = BytesMut::new();
        expected.write(&mut their_bytes).unwrap();
        let mut bytes = BytesMut::new();
        client::encode_subscribe(Version::V311, packet_id, None, &subscriptions, &mut bytes)
            .unwrap();
        prop_assert_eq!(&bytes, &their_bytes);
        let Ok(Packet::Subscribe(read)) = server(Version::V311, &their_bytes) else { panic!() };
        prop_assert_eq!(read.subscriptions.iter().count(), filters.len());
    }

    #[test]
    fn acknowledgements(packet_id in packet_id(), fails in any::<bool>(), text in "[a-z]{1,9}") {
        let reason = if fails { Reason::QuotaExceeded } else { Reason::Success };
        let diagnostics = Diagnostics::reason(&text);
        let mut expected = v5::PubAck::new(packet_id.get());
        expected.reason =
            if fails { v5::PubAckReason::QuotaExceeded } else { v5::PubAckReason::Success };
        expected.properties = Some(v5::PubAckProperties {
            reason_string: Some(text.clone()),
            user_properties: vec![],
        });
        let mut their_bytes = BytesMut::new();
        expected.write(&mut their_bytes).unwrap();
        let ack = Ack { diagnostics, ..Ack::new(AckKind::PubAck, packet_id, reason) };
        let mut bytes = BytesMut::new();
        ack.encode(&Receiver::new(Version::V5), &mut bytes).unwrap();
        prop_assert_eq!(&bytes, &their_bytes);
        let Ok(Packet::Ack(read)) = server(Version::V5, &bytes) else { panic!() };
        prop_assert_eq!(read, ack);

        let suback = SubAck {
            packet_id,
            reasons: &[Reason::GrantedQoS2, Reason::NotAuthorized],
            diagnostics,
        };
        let mut bytes = BytesMut::new();
        suback.encode(&Receiver::new(Version::V5), &mut bytes).unwrap();
        let mut expected = v5::SubAck::new(packet_id.get(), vec![
            v5::SubscribeReasonCode::QoS2,
            v5::SubscribeReasonCode::NotAuthorized,
        ]);
        expected.properties = Some(v5::SubAckProperties {
            reason_string: Some(text.clone()),
            user_properties: vec![],
        });
        prop_assert!(read_v5(&bytes) == v5::Packet::SubAck(expected));
    }
}
