//! SUBSCRIBE and UNSUBSCRIBE: their filters are checked once, then read from the packet.

use bytes::BytesMut;

use super::frame::packet_id;
use super::property::{Property, bit, read_properties, write_properties};
use super::reader::Reader;
use super::writer::{Body, Sink, packet};
use super::{
    DecodeError, EncodeError, PacketId, PacketKind, QoS, Reason, Receiver, UserProperties, Version,
};
use crate::mqtt::topic::{SharedFilter, is_filter};

/// When retained messages are sent for a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RetainHandling {
    /// At each SUBSCRIBE.
    #[default]
    Always = 0,
    /// If the subscription is new.
    IfNew = 1,
    /// Never.
    Never = 2,
}

/// The options of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SubscriptionOptions {
    /// The highest QoS of deliveries.
    pub qos: QoS,
    /// Not what the client itself published.
    pub no_local: bool,
    /// Forward RETAIN as it was published.
    pub retain_as_published: bool,
    /// When to send retained messages.
    pub retain_handling: RetainHandling,
}

impl SubscriptionOptions {
    fn decode(version: Version, byte: u8) -> Result<Self, DecodeError> {
        let qos =
            QoS::from_bits(byte & 0b11).ok_or(DecodeError::malformed("a subscription of QoS 3"))?;
        if !version.is_v5() {
            return if byte & !0b11 == 0 {
                Ok(Self { qos, ..Self::default() })
            } else {
                Err(DecodeError::malformed("reserved bits of the requested QoS"))
            };
        }
        if byte & 0b1100_0000 != 0 {
            return Err(DecodeError::malformed("reserved bits of the subscription options"));
        }
        let retain_handling = match (byte >> 4) & 0b11 {
            0 => RetainHandling::Always,
            1 => RetainHandling::IfNew,
            2 => RetainHandling::Never,
            _ => return Err(DecodeError::protocol("retain handling 3")),
        };
        Ok(Self {
            qos,
            no_local: byte & 0b100 != 0,
            retain_as_published: byte & 0b1000 != 0,
            retain_handling,
        })
    }

    fn byte(self, version: Version) -> u8 {
        if !version.is_v5() {
            return self.qos.bits();
        }
        self.qos.bits()
            | u8::from(self.no_local) << 2
            | u8::from(self.retain_as_published) << 3
            | (self.retain_handling as u8) << 4
    }
}

/// One filter of a SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// A topic filter, checked; may be `$share/GROUP/FILTER`.
    pub filter: &'a str,
    /// How to deliver.
    pub options: SubscriptionOptions,
}

/// The filters of a SUBSCRIBE: at least one.
#[derive(Clone, Copy)]
pub struct Subscriptions<'a> {
    version: Version,
    bytes: &'a [u8],
}

impl<'a> Subscriptions<'a> {
    /// All, in the order of the packet.
    pub fn iter(&self) -> impl Iterator<Item = Subscription<'a>> + use<'a> {
        let version = self.version;
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || {
            if reader.is_empty() { None } else { subscription(version, &mut reader).ok() }
        })
    }
}

impl std::fmt::Debug for Subscriptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

fn subscription<'a>(
    version: Version,
    reader: &mut Reader<'a>,
) -> Result<Subscription<'a>, DecodeError> {
    let filter = filter(reader)?;
    let options = SubscriptionOptions::decode(version, reader.u8()?)?;
    if options.no_local && SharedFilter::parse(filter).is_some() {
        return Err(DecodeError::protocol("No Local on a shared subscription"));
    }
    Ok(Subscription { filter, options })
}

fn filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    let filter = reader.string()?;
    if is_filter(filter) {
        Ok(filter)
    } else {
        Err(DecodeError::new(Reason::TopicFilterInvalid, "an ill-formed topic filter"))
    }
}

/// A wish to subscribe.
#[derive(Clone, Copy, Debug)]
pub struct Subscribe<'a> {
    /// What SUBACK answers.
    pub packet_id: PacketId,
    /// Comes back on each delivery: 1 to 268,435,455.
    pub subscription_id: Option<u32>,
    /// User properties.
    pub user: UserProperties<'a>,
    /// What to.
    pub subscriptions: Subscriptions<'a>,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = packet_id(&mut reader)?;
        let mut subscription_id = None;
        let mut user = UserProperties::default();
        if version.is_v5() {
            let allowed = bit::SubscriptionId | bit::User;
            let section = read_properties(&mut reader, allowed, bit::User, |property| {
                if let Property::SubscriptionId(id) = property {
                    subscription_id = Some(id);
                }
                Ok(())
            })?;
            user = UserProperties::new(section);
        }
        let subscriptions = Subscriptions { version, bytes: reader.rest() };
        if reader.is_empty() {
            return Err(DecodeError::protocol("a SUBSCRIBE without a filter"));
        }
        while !reader.is_empty() {
            subscription(version, &mut reader)?;
        }
        Ok(Self { packet_id, subscription_id, user, subscriptions })
    }
}

/// A wish to unsubscribe.
#[derive(Clone, Copy, Debug)]
pub struct Unsubscribe<'a> {
    /// What UNSUBACK answers.
    pub packet_id: PacketId,
    /// User properties.
    pub user: UserProperties<'a>,
    /// What from.
    pub filters: UnsubscribeFilters<'a>,
}

/// The filters of an UNSUBSCRIBE: at least one.
#[derive(Clone, Copy)]
pub struct UnsubscribeFilters<'a> {
    bytes: &'a [u8],
}

impl<'a> UnsubscribeFilters<'a> {
    /// All, in the order of the packet.
    pub fn iter(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        std::iter::from_fn(move || reader.string().ok())
    }
}

impl std::fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(version: Version, body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let packet_id = packet_id(&mut reader)?;
        let mut user = UserProperties::default();
        if version.is_v5() {
            let section = read_properties(&mut reader, bit::User, bit::User, |_| Ok(()))?;
            user = UserProperties::new(section);
        }
        let filters = UnsubscribeFilters { bytes: reader.rest() };
        if reader.is_empty() {
            return Err(DecodeError::protocol("an UNSUBSCRIBE without a filter"));
        }
        while !reader.is_empty() {
            filter(&mut reader)?;
        }
        Ok(Self { packet_id, user, filters })
    }
}

/// Appends a SUBSCRIBE, as a client sends it.
///
/// # Errors
/// A filter over 65,535 bytes.
pub fn encode_subscribe(
    version: Version,
    packet_id: PacketId,
    subscription_id: Option<u32>,
    subscriptions: &[Subscription<'_>],
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let body = SubscribeBody { version, packet_id, subscription_id, subscriptions };
    packet(out, &Receiver::new(version), PacketKind::Subscribe.first_byte(), &body)
}

struct SubscribeBody<'a> {
    version: Version,
    packet_id: PacketId,
    subscription_id: Option<u32>,
    subscriptions: &'a [Subscription<'a>],
}

impl Body for SubscribeBody<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        sink.u16(self.packet_id.get());
        if self.version.is_v5() {
            write_properties(sink, &SubscriptionId(self.subscription_id))?;
        }
        for subscription in self.subscriptions {
            sink.field(subscription.filter.as_bytes())?;
            sink.u8(subscription.options.byte(self.version));
        }
        Ok(())
    }
}

struct SubscriptionId(Option<u32>);

impl Body for SubscriptionId {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        self.0.map_or(Ok(()), |id| Property::SubscriptionId(id).write(sink))
    }
}

/// Appends an UNSUBSCRIBE, as a client sends it.
///
/// # Errors
/// A filter over 65,535 bytes.
pub fn encode_unsubscribe(
    version: Version,
    packet_id: PacketId,
    filters: &[&str],
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    let body = UnsubscribeBody { version, packet_id, filters };
    packet(out, &Receiver::new(version), PacketKind::Unsubscribe.first_byte(), &body)
}

struct UnsubscribeBody<'a> {
    version: Version,
    packet_id: PacketId,
    filters: &'a [&'a str],
}

impl Body for UnsubscribeBody<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        sink.u16(self.packet_id.get());
        if self.version.is_v5() {
            sink.varint(0);
        }
        self.filters.iter().try_for_each(|filter| sink.field(filter.as_bytes()))
    }
}
