//! PUBLISH to be sent: encoded once a variant, patched for each receiver.
//!
//! ```text
//!   first  length  topic  packet id  properties: alias, ids, rest   payload
//!   ^ DUP                 ^ patched              ^ patched          ^ shared, never copied here
//! ```

use std::num::NonZeroU16;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use super::property::{Property, write_properties};
use super::writer::{Body, Count, MAX_VARINT, Sink, varint_len};
use super::{EncodeError, PacketId, PublishProperties, QoS, Version};

const DUP: u8 = 0b1000;

/// How a PUBLISH names its topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AliasForm {
    /// By its name.
    #[default]
    Name,
    /// By its name, and gives it an alias.
    Define,
    /// By the alias alone.
    Alias,
}

/// What makes receivers need different bytes of one message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Variant {
    /// The receiver's protocol version.
    pub version: Version,
    /// The QoS of this delivery.
    pub qos: QoS,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// How it names its topic. Before MQTT 5 always by name.
    pub alias: AliasForm,
    /// The subscription identifiers of the subscriptions that matched.
    pub subscription_ids: SmallVec<[u32; 2]>,
}

/// A message to be sent.
#[derive(Clone, Copy, Debug)]
pub struct PublishOut<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// What goes with it; the expiry is what remains of it.
    pub properties: PublishProperties<'a>,
}

/// Inline for usual topics and properties: no allocation a message.
type Head = SmallVec<[u8; 96]>;

/// A PUBLISH without its packet id, DUP and alias: those are each receiver's.
#[derive(Clone, Debug)]
pub struct EncodedPublish {
    head: Head,
    payload: Bytes,
    packet_id_at: Option<u32>,
    alias_at: Option<u32>,
}

impl PublishOut<'_> {
    /// Encodes the head for `variant` and keeps `payload` as it is.
    ///
    /// # Errors
    /// A field that no packet can carry, or a packet over 256 MiB.
    pub fn encode(&self, variant: &Variant, payload: Bytes) -> Result<EncodedPublish, EncodeError> {
        let mut head = Head::new();
        let marks = self.write_head(variant, payload.len(), &mut head)?;
        Ok(EncodedPublish {
            head,
            payload,
            packet_id_at: marks.packet_id_at,
            alias_at: marks.alias_at,
        })
    }

    fn write_head(
        &self,
        variant: &Variant,
        payload_bytes: usize,
        head: &mut Head,
    ) -> Result<Marks, EncodeError> {
        let is_v5 = variant.version.is_v5();
        let alias = if is_v5 { variant.alias } else { AliasForm::Name };
        let topic = if alias == AliasForm::Alias { "" } else { self.topic };
        let has_id = variant.qos != QoS::AtMostOnce;
        let properties = OutProperties { message: self, variant, alias };

        let mut count = Count::default();
        count.field(topic.as_bytes())?;
        let topic_bytes = count.0;
        let properties_bytes = if is_v5 {
            let mut count = Count::default();
            write_properties(&mut count, &properties)?;
            count.0
        } else {
            0
        };
        let id_bytes = if has_id { 2 } else { 0 };
        let body_bytes = topic_bytes + id_bytes + properties_bytes + payload_bytes;
        let body = u32::try_from(body_bytes)
            .ok()
            .filter(|len| *len <= MAX_VARINT)
            .ok_or(EncodeError::TooLarge)?;

        head.reserve_exact(1 + varint_len(body) as usize + body_bytes - payload_bytes);
        head.u8(0x30 | variant.qos.bits() << 1 | u8::from(variant.retain));
        head.varint(body);
        head.field(topic.as_bytes())?;
        let mut marks = Marks { packet_id_at: None, alias_at: None };
        if has_id {
            marks.packet_id_at = u32::try_from(head.len()).ok();
            head.u16(0);
        }
        if is_v5 {
            let section_at = head.len();
            write_properties(head, &properties)?;
            if alias != AliasForm::Name {
                // The alias is the first property: its value follows the section's length and id.
                let len_bytes = head.len() - section_at - properties.bytes()?;
                marks.alias_at = u32::try_from(section_at + len_bytes + 1).ok();
            }
        }
        Ok(marks)
    }
}

struct Marks {
    packet_id_at: Option<u32>,
    alias_at: Option<u32>,
}

struct OutProperties<'a> {
    message: &'a PublishOut<'a>,
    variant: &'a Variant,
    alias: AliasForm,
}

impl OutProperties<'_> {
    fn bytes(&self) -> Result<usize, EncodeError> {
        let mut count = Count::default();
        self.write(&mut count)?;
        Ok(count.0)
    }
}

impl Body for OutProperties<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        if self.alias != AliasForm::Name {
            Property::TopicAlias(0).write(sink)?;
        }
        for id in &self.variant.subscription_ids {
            Property::SubscriptionId(*id).write(sink)?;
        }
        self.message.properties.write(sink)
    }
}

impl EncodedPublish {
    /// Bytes of the whole packet, to be held against the receiver's maximum.
    pub fn packet_bytes(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Bytes that [`Self::write_head`] appends.
    pub fn head_bytes(&self) -> usize {
        self.head.len()
    }

    /// What follows the head.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Appends the whole packet. `packet_id` counts from QoS 1, `alias` where the variant has one.
    pub fn write(
        &self,
        packet_id: Option<PacketId>,
        dup: bool,
        alias: Option<NonZeroU16>,
        out: &mut BytesMut,
    ) {
        out.reserve(self.packet_bytes());
        self.write_head(packet_id, dup, alias, out);
        out.put_slice(&self.payload);
    }

    /// Appends what precedes the payload, for a large payload that goes out uncopied.
    pub fn write_head(
        &self,
        packet_id: Option<PacketId>,
        dup: bool,
        alias: Option<NonZeroU16>,
        out: &mut BytesMut,
    ) {
        let start = out.len();
        out.put_slice(&self.head);
        let Some(head) = out.get_mut(start..) else { return };
        if let (true, Some(first)) = (dup, head.first_mut()) {
            *first |= DUP;
        }
        patch(head, self.packet_id_at, packet_id);
        patch(head, self.alias_at, alias);
    }
}

fn patch(head: &mut [u8], at: Option<u32>, value: Option<NonZeroU16>) {
    let (Some(at), Some(value)) = (at, value) else { return };
    if let Some(place) = head.get_mut(at as usize..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *place = value.get().to_be_bytes();
    }
}
