//! PUBLISH, read without a copy.

use std::num::NonZeroU16;

use super::frame::packet_id;
use super::property::{Property, bit, each_property, read_properties};
use super::reader::Reader;
use super::writer::Sink;
use super::{
    DecodeError, EncodeError, Frame, PacketId, PayloadFormat, QoS, Reason, UserProperties, Version,
};
use crate::mqtt::topic;

/// The properties of a message that go with it unaltered [MQTT-3.3.2-4, -15, -16, -17, -18, -20].
/// Topic alias and subscription identifiers belong to a connection and are not among them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// What the payload is.
    pub payload_format: Option<PayloadFormat>,
    /// Seconds until the message expires.
    pub message_expiry_s: Option<u32>,
    /// What the payload holds.
    pub content_type: Option<&'a str>,
    /// Where to answer.
    pub response_topic: Option<&'a str>,
    /// What to answer with.
    pub correlation_data: Option<&'a [u8]>,
    /// Anything, in order.
    pub user: UserProperties<'a>,
}

impl<'a> PublishProperties<'a> {
    /// Those that may stand in PUBLISH and with a will.
    pub(crate) const IDS: u64 = bit::PayloadFormat
        | bit::MessageExpiry
        | bit::ContentType
        | bit::ResponseTopic
        | bit::CorrelationData
        | bit::User;

    /// Takes up `property`, if it is one of these. User properties are not: see `user`.
    pub(crate) fn take(&mut self, property: Property<'a>) -> Result<(), DecodeError> {
        match property {
            Property::PayloadFormat(byte) => {
                self.payload_format = Some(PayloadFormat::from_byte(byte));
            }
            Property::MessageExpiry(seconds) => self.message_expiry_s = Some(seconds),
            Property::ContentType(text) => self.content_type = Some(text),
            Property::ResponseTopic(text) => {
                if !topic::is_name(text) {
                    return Err(DecodeError::protocol("a response topic that is no topic name"));
                }
                self.response_topic = Some(text);
            }
            Property::CorrelationData(data) => self.correlation_data = Some(data),
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        let fixed = [
            self.payload_format.map(|format| Property::PayloadFormat(format as u8)),
            self.message_expiry_s.map(Property::MessageExpiry),
            self.content_type.map(Property::ContentType),
            self.response_topic.map(Property::ResponseTopic),
            self.correlation_data.map(Property::CorrelationData),
        ];
        fixed.into_iter().flatten().try_for_each(|property| property.write(sink))?;
        self.user.write(sink)
    }
}

/// The subscription identifiers that a server put on a PUBLISH.
#[derive(Clone, Copy, Debug, Default)]
pub struct SubscriptionIds<'a> {
    section: &'a [u8],
}

impl SubscriptionIds<'_> {
    /// All, in the order of the packet.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        each_property(self.section).filter_map(|property| match property {
            Property::SubscriptionId(id) => Some(id),
            _ => None,
        })
    }
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
pub struct Publish<'a> {
    /// It may have been sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// To be retained; or, from a server, retained.
    pub retain: bool,
    /// A topic name, checked. Empty only with an alias.
    pub topic: &'a str,
    /// Present from QoS 1.
    pub packet_id: Option<PacketId>,
    /// Stands for a topic on this connection.
    pub topic_alias: Option<NonZeroU16>,
    /// Only from servers.
    pub subscription_ids: SubscriptionIds<'a>,
    /// What goes with the message.
    pub properties: PublishProperties<'a>,
    /// The message.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    /// `from_server`: subscription identifiers are legal [MQTT-3.3.4-6].
    pub(crate) fn decode(
        version: Version,
        frame: Frame<'a>,
        from_server: bool,
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame.body);
        let qos =
            QoS::from_bits((frame.flags >> 1) & 0b11).ok_or(DecodeError::malformed("QoS 3"))?;
        let topic = reader.string()?;
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce | QoS::ExactlyOnce => Some(packet_id(&mut reader)?),
        };
        let mut publish = Publish {
            dup: frame.flags & 0b1000 != 0,
            qos,
            retain: frame.flags & 1 != 0,
            topic,
            packet_id,
            topic_alias: None,
            subscription_ids: SubscriptionIds::default(),
            properties: PublishProperties::default(),
            payload: &[],
        };
        if version.is_v5() {
            publish.read_properties(&mut reader, from_server)?;
        }
        if topic.is_empty() && publish.topic_alias.is_none() {
            return Err(if version.is_v5() {
                DecodeError::protocol("an empty topic without a topic alias")
            } else {
                DecodeError::new(Reason::TopicNameInvalid, "an empty topic")
            });
        }
        if !topic.is_empty() && !topic::is_name(topic) {
            return Err(DecodeError::new(
                Reason::TopicNameInvalid,
                "a topic name that holds a wildcard",
            ));
        }
        publish.payload = reader.rest();
        Ok(publish)
    }

    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        from_server: bool,
    ) -> Result<(), DecodeError> {
        const ALLOWED: u64 = PublishProperties::IDS | bit::TopicAlias | bit::SubscriptionId;
        let repeated = bit::User | bit::SubscriptionId;
        let (mut has_user, mut has_id) = (false, false);
        let section = read_properties(reader, ALLOWED, repeated, |property| {
            match property {
                Property::TopicAlias(alias) => self.topic_alias = NonZeroU16::new(alias),
                Property::SubscriptionId(_) if from_server => has_id = true,
                Property::SubscriptionId(_) => {
                    return Err(DecodeError::protocol("a subscription identifier from a client"));
                }
                Property::User(_) => has_user = true,
                other => self.properties.take(other)?,
            }
            Ok(())
        })?;
        if has_user {
            self.properties.user = UserProperties::new(section);
        }
        if has_id {
            self.subscription_ids = SubscriptionIds { section };
        }
        Ok(())
    }
}
