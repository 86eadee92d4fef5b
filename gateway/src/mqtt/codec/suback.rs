//! SUBACK and UNSUBACK: one code a filter, in the order of the request.

use bytes::BytesMut;

use super::frame::packet_id;
use super::property::{bit, read_properties, with_fewer_diagnostics, write_properties};
use super::reader::Reader;
use super::writer::{Body, Sink, packet};
use super::{
    DecodeError, Diagnostics, EncodeError, PacketId, PacketKind, Reason, Receiver, UserProperties,
    Version,
};

/// The answer to SUBSCRIBE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Granted QoS or error, one a filter [MQTT-3.8.4-6].
    pub reasons: &'a [Reason],
    /// More about them.
    pub diagnostics: Diagnostics<'a>,
}

/// The answer to UNSUBSCRIBE. Before MQTT 5 it carries no codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// One a filter [MQTT-3.11.3-1].
    pub reasons: &'a [Reason],
    /// More about them.
    pub diagnostics: Diagnostics<'a>,
}

impl SubAck<'_> {
    /// Appends it to `out`, without diagnostics where `receiver` can't take them.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] for a receiver that takes nothing so large.
    pub fn encode(&self, receiver: &Receiver, out: &mut BytesMut) -> Result<(), EncodeError> {
        encode(PacketKind::SubAck, *self, receiver, out)
    }
}

impl UnsubAck<'_> {
    /// Appends it to `out`, without diagnostics where `receiver` can't take them.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] for a receiver that takes nothing so large.
    pub fn encode(&self, receiver: &Receiver, out: &mut BytesMut) -> Result<(), EncodeError> {
        let Self { packet_id, reasons, diagnostics } = *self;
        let codes = SubAck { packet_id, reasons, diagnostics };
        encode(PacketKind::UnsubAck, codes, receiver, out)
    }
}

fn encode(
    kind: PacketKind,
    codes: SubAck<'_>,
    receiver: &Receiver,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    with_fewer_diagnostics(codes.diagnostics, receiver.wants_problem_info, |diagnostics| {
        let body = Codes { kind, version: receiver.version, codes, diagnostics };
        packet(out, receiver, kind.first_byte(), &body)
    })
}

struct Codes<'a> {
    kind: PacketKind,
    version: Version,
    codes: SubAck<'a>,
    diagnostics: Diagnostics<'a>,
}

impl Body for Codes<'_> {
    fn write(&self, sink: &mut impl Sink) -> Result<(), EncodeError> {
        sink.u16(self.codes.packet_id.get());
        if self.version.is_v5() {
            write_properties(sink, &self.diagnostics)?;
            self.codes.reasons.iter().for_each(|reason| sink.u8(reason.code()));
        } else if self.kind == PacketKind::SubAck {
            self.codes.reasons.iter().for_each(|reason| sink.u8(reason.suback_v3()));
        }
        Ok(())
    }
}

/// A SUBACK or UNSUBACK as a client reads it: packet id, and the codes to be read one by one.
pub(crate) fn decode(
    kind: PacketKind,
    version: Version,
    body: &[u8],
) -> Result<(PacketId, Diagnostics<'_>, Vec<Reason>), DecodeError> {
    let mut reader = Reader::new(body);
    let packet_id = packet_id(&mut reader)?;
    let mut diagnostics = Diagnostics::default();
    if version.is_v5() {
        let allowed = bit::ReasonString | bit::User;
        let section = read_properties(&mut reader, allowed, bit::User, |property| {
            diagnostics.take(property);
            Ok(())
        })?;
        diagnostics.user = UserProperties::new(section);
    } else if kind == PacketKind::UnsubAck {
        reader.end()?;
    }
    let reasons = reader
        .rest()
        .iter()
        .map(|code| Reason::from_code(*code).ok_or(DecodeError::protocol("an unknown reason code")))
        .collect::<Result<_, _>>()?;
    Ok((packet_id, diagnostics, reasons))
}
