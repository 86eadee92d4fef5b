//! PUBACK, PUBREC, PUBREL and PUBCOMP: one form, four meanings.

use bytes::BytesMut;

use super::frame::packet_id;
use super::property::{bit, read_properties, with_fewer_diagnostics, write_properties};
use super::reader::Reader;
use super::writer::{Body, Sink, packet};
use super::{
    DecodeError, Diagnostics, EncodeError, PacketId, PacketKind, Reason, Receiver, UserProperties,
    Version,
};

/// Which of the four.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckKind {
    /// Ends a QoS 1 exchange.
    PubAck,
    /// A QoS 2 message was received.
    PubRec,
    /// A QoS 2 message is released.
    PubRel,
    /// Ends a QoS 2 exchange.
    PubComp,
}

impl AckKind {
    fn packet_kind(self) -> PacketKind {
        match self {
            AckKind::PubAck => PacketKind::PubAck,
            AckKind::PubRec => PacketKind::PubRec,
            AckKind::PubRel => PacketKind::PubRel,
            AckKind::PubComp => PacketKind::PubComp,
        }
    }

    fn may_say(self, reason: Reason) -> bool {
        use Reason::*;
        match self {
            AckKind::PubAck | AckKind::PubRec => matches!(
                reason,
                Success
                    | NoMatchingSubscribers
                    | UnspecifiedError
                    | ImplementationSpecificError
                    | NotAuthorized
                    | TopicNameInvalid
                    | PacketIdInUse
                    | QuotaExceeded
                    | PayloadFormatInvalid
            ),
            AckKind::PubRel | AckKind::PubComp => matches!(reason, Success | PacketIdNotFound),
        }
    }
}

/// An acknowledgement. Before MQTT 5 it carries its packet id only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which one.
    pub kind: AckKind,
    /// What it acknowledges.
    pub packet_id: PacketId,
    /// How it went.
    pub reason: Reason,
    /// More about that.
    pub diagnostics: Diagnostics<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement without diagnostics.
    pub fn new(kind: AckKind, packet_id: PacketId, reason: Reason) -> Self {
        Self { kind, packet_id, reason, diagnostics: Diagnostics::default() }
    }

    pub(crate) fn decode(
        kind: AckKind,
        version: Version,
        body: &'a [u8],
    ) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(body);
        let mut ack = Self::new(kind, packet_id(&mut reader)?, Reason::Success);
        // The short forms end after the packet id or after the reason code.
        if version.is_v5() && !reader.is_empty() {
            ack.reason = Reason::from_code(reader.u8()?)
                .filter(|reason| kind.may_say(*reason))
                .ok_or(DecodeError::protocol("a reason code that this packet cannot carry"))?;
            if !reader.is_empty() {
                let section =
                    read_properties(&mut reader, bit::ReasonString | bit::User, bit::User, |p| {
                        ack.diagnostics.take(p);
                        Ok(())
                    })?;
                ack.diagnostics.user = UserProperties::new(section);
            }
        }
        reader.end()?;
        Ok(ack)
    }

    /// Appends it to `out`, without diagnostics where `receiver` can't take them.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] for a receiver with a maximum packet size under 5 bytes.
    pub fn encode(&self, receiver: &Receiver, out: &mut BytesMut) -> Result<(), EncodeError> {
        let first = self.kind.packet_kind().first_byte();
        if !receiver.version.is_v5()
            || (self.reason == Reason::Success && self.diagnostics.is_empty())
        {
            let [high, low] = self.packet_id.get().to_be_bytes();
            if receiver.max_packet_bytes < 4 {
                return Err(EncodeError::TooLarge);
            }
            out.extend_from_slice(&[first, 2, high, low]);
            return Ok(());
        }
        with_fewer_diagnostics(self.diagnostics, receiver.wants_problem_info, |diagnostics| {
            packet(out, receiver, first, &AckBody { ack: self, diagnostics })
        })
    }
}

struct AckBody<'a> {
    ack: &'a Ack<'a>,
    diagnostics: Diagnostics<'a>,
}

impl Body for AckBody<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        sink.u16(self.ack.packet_id.get());
        let bare = self.diagnostics.is_empty();
        if self.ack.reason == Reason::Success && bare {
            return Ok(());
        }
        sink.u8(self.ack.reason.code());
        if bare { Ok(()) } else { write_properties(sink, &self.diagnostics) }
    }
}

impl Body for Diagnostics<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        Diagnostics::write(self, sink)
    }
}
