//! A message encoded for its receivers: once a variant, shared by all.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use super::message::Message;
use crate::mqtt::codec::client::{FrameRules, ServerPacket};
use crate::mqtt::codec::{
    AliasForm, EncodedPublish, PacketId, PublishOut, PublishProperties, QoS, Variant, Version,
};
use crate::mqtt::session::OutQueue;

/// An encoded PUBLISH that waits or is sent. Its payload is its own copy: it doesn't keep a whole
/// batch in memory.
#[derive(Debug)]
pub(crate) struct Outgoing {
    encoded: EncodedPublish,
    version: Version,
    qos: QoS,
    expiry: Option<Expiry>,
}

/// What a waiting PUBLISH takes beside its packet: itself and its places in a window and a queue.
const HELD_BYTES: usize = 192;

#[derive(Clone, Copy, Debug)]
struct Expiry {
    at_ms: i64,
    /// Where the seconds stand, counted from the head's end; `None` before MQTT 5.
    from_end: Option<usize>,
}

impl Expiry {
    /// Seconds that remain: a part of one counts as one.
    fn remaining_s(self, now_ms: i64) -> u32 {
        let left = self.at_ms.saturating_sub(now_ms).max(0);
        u32::try_from(left.saturating_add(999) / 1000).unwrap_or(u32::MAX)
    }
}

impl Outgoing {
    fn encode(message: &Message<'_>, variant: &Variant, payload: Bytes) -> Option<Self> {
        let expiry = message.expires_at_ms.map(|at_ms| Expiry {
            at_ms,
            from_end: (variant.version.is_v5() && message.properties.message_expiry_s.is_none())
                .then(|| after_expiry(&message.properties) + 4),
        });
        let mut properties = message.properties;
        if expiry.is_some() && properties.message_expiry_s.is_none() {
            properties.message_expiry_s = Some(0); // patched when it is sent
        }
        let out = PublishOut { topic: message.topic, properties };
        let encoded = out.encode(variant, payload).ok()?;
        Some(Self { encoded, version: variant.version, qos: variant.qos, expiry })
    }

    /// The same message for another version of the protocol; `None` if it is in that already.
    pub(crate) fn in_version(&self, version: Version) -> Option<Self> {
        if version.is_v5() == self.version.is_v5() {
            return None;
        }
        let mut packet = BytesMut::new();
        self.encoded.write(PacketId::new(1), false, None, &mut packet);
        let rules = FrameRules::client(self.version, u32::MAX);
        let (frame, _) = rules.split(&packet).ok()??;
        let ServerPacket::Publish(publish) = ServerPacket::decode(self.version, frame).ok()? else {
            return None;
        };
        let variant = Variant {
            version,
            qos: self.qos,
            retain: publish.retain,
            alias: AliasForm::Name,
            subscription_ids: publish.subscription_ids.iter().collect(),
        };
        let mut properties = publish.properties;
        properties.message_expiry_s = None;
        let out = PublishOut { topic: publish.topic, properties };
        let encoded = out.encode(&variant, self.encoded.payload().clone()).ok()?;
        // One that was sent doesn't expire any more.
        Some(Self { encoded, version, qos: self.qos, expiry: None })
    }

    pub(crate) fn qos(&self) -> QoS {
        self.qos
    }

    /// Bytes of the whole packet.
    pub(crate) fn bytes(&self) -> usize {
        self.encoded.packet_bytes()
    }

    /// Bytes of memory that it takes while it waits or is in flight, about.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes() + HELD_BYTES
    }

    pub(crate) fn is_expired(&self, now_ms: i64) -> bool {
        self.expiry.is_some_and(|expiry| now_ms >= expiry.at_ms)
    }

    /// Appends the packet to `out`, with what is this receiver's and this moment's.
    pub(crate) fn write(
        &self,
        id: Option<PacketId>,
        dup: bool,
        alias: Option<NonZeroU16>,
        now_ms: i64,
        out: &mut OutQueue,
    ) {
        out.write(|out| {
            self.encoded.write_head(id, dup, alias, out);
            self.patch_expiry(now_ms, out);
        });
        out.payload(self.encoded.payload());
    }

    fn patch_expiry(&self, now_ms: i64, out: &mut BytesMut) {
        let Some(Expiry { from_end: Some(from_end), .. }) = self.expiry else { return };
        let remaining = self.expiry.map_or(0, |expiry| expiry.remaining_s(now_ms));
        let place = out.len().checked_sub(from_end).and_then(|at| out.get_mut(at..));
        if let Some(place) = place.and_then(<[u8]>::first_chunk_mut::<4>) {
            *place = remaining.to_be_bytes();
        }
    }
}

/// Bytes of the properties that stand behind the expiry in a PUBLISH.
fn after_expiry(properties: &PublishProperties<'_>) -> usize {
    let field = |len: Option<usize>| len.map_or(0, |len| 3 + len);
    field(properties.content_type.map(str::len))
        + field(properties.response_topic.map(str::len))
        + field(properties.correlation_data.map(<[u8]>::len))
        + properties.user.iter().map(|(name, value)| 5 + name.len() + value.len()).sum::<usize>()
}

/// The variants of one message that were asked for so far.
pub(crate) struct Variants<'a> {
    message: &'a Message<'a>,
    payload: Option<Bytes>,
    now_ms: i64,
    known: SmallVec<[(Variant, Option<Arc<Outgoing>>); 4]>,
}

/// Past this many, variants are not looked for any more but encoded anew.
const MAX_KNOWN: usize = 16;

impl<'a> Variants<'a> {
    pub(crate) fn new(message: &'a Message<'a>, now_ms: i64) -> Self {
        Self { message, payload: None, now_ms, known: SmallVec::new() }
    }

    pub(crate) fn message(&self) -> &'a Message<'a> {
        self.message
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// The message encoded for `variant`; `None` if no packet can hold it.
    pub(crate) fn get(&mut self, variant: &Variant) -> Option<Arc<Outgoing>> {
        if let Some((_, outgoing)) = self.known.iter().find(|(known, _)| known == variant) {
            return outgoing.clone();
        }
        let message = self.message;
        let payload =
            self.payload.get_or_insert_with(|| Bytes::copy_from_slice(message.payload)).clone();
        let outgoing = Outgoing::encode(message, variant, payload).map(Arc::new);
        if self.known.len() < MAX_KNOWN {
            self.known.push((variant.clone(), outgoing.clone()));
        }
        outgoing
    }
}
