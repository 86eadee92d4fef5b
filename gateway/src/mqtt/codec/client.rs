//! The other side: what a client sends besides CONNECT and acknowledgements, and what it reads.

use bytes::{Bytes, BytesMut};

pub use super::frame::FrameRules;
pub use super::subscribe::{encode_subscribe, encode_unsubscribe};
use super::{
    Ack, AckKind, Auth, ConnAck, DecodeError, Diagnostics, Disconnect, EncodeError, Frame,
    PacketId, PacketKind, Publish, PublishOut, Reason, Receiver, Variant, Version, suback,
};

/// A packet from a server.
#[derive(Clone, Debug)]
pub enum ServerPacket<'a> {
    /// CONNACK.
    ConnAck(ConnAck<'a>),
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(Ack<'a>),
    /// SUBACK.
    SubAck(Codes<'a>),
    /// UNSUBACK; without codes before MQTT 5.
    UnsubAck(Codes<'a>),
    /// PINGRESP.
    PingResp,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH.
    Auth(Auth<'a>),
}

/// What SUBACK and UNSUBACK say. A 3.1.1 failure is [`Reason::UnspecifiedError`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Codes<'a> {
    /// Of the request.
    pub packet_id: PacketId,
    /// One a filter.
    pub reasons: Vec<Reason>,
    /// More about them.
    pub diagnostics: Diagnostics<'a>,
}

impl<'a> ServerPacket<'a> {
    /// Reads the packet of a frame that came from a server.
    ///
    /// # Errors
    /// Whatever rule it breaks.
    pub fn decode(version: Version, frame: Frame<'a>) -> Result<Self, DecodeError> {
        let ack = |kind| Ack::decode(kind, version, frame.body).map(Self::Ack);
        let codes = || {
            let (packet_id, diagnostics, reasons) =
                suback::decode(frame.kind, version, frame.body)?;
            Ok(Codes { packet_id, reasons, diagnostics })
        };
        match frame.kind {
            PacketKind::ConnAck => ConnAck::decode(version, frame.body).map(Self::ConnAck),
            PacketKind::Publish => Publish::decode(version, frame, true).map(Self::Publish),
            PacketKind::PubAck => ack(AckKind::PubAck),
            PacketKind::PubRec => ack(AckKind::PubRec),
            PacketKind::PubRel => ack(AckKind::PubRel),
            PacketKind::PubComp => ack(AckKind::PubComp),
            PacketKind::SubAck => codes().map(Self::SubAck),
            PacketKind::UnsubAck => codes().map(Self::UnsubAck),
            PacketKind::PingResp if frame.body.is_empty() => Ok(Self::PingResp),
            PacketKind::Disconnect => {
                Disconnect::decode(version, frame.body, true).map(Self::Disconnect)
            }
            PacketKind::Auth => Auth::decode(frame.body).map(Self::Auth),
            _ => Err(DecodeError::protocol("a packet that a server doesn't send")),
        }
    }
}

/// Appends a client's DISCONNECT; before MQTT 5 the two-byte form.
///
/// # Errors
/// A field over 65,535 bytes.
pub fn encode_disconnect(
    version: Version,
    disconnect: &Disconnect<'_>,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    if version.is_v5() {
        return disconnect.encode(&Receiver::new(version), out);
    }
    out.extend_from_slice(&[PacketKind::Disconnect.first_byte(), 0]);
    Ok(())
}

/// Appends a PINGREQ.
pub fn write_pingreq(out: &mut BytesMut) {
    out.extend_from_slice(&[PacketKind::PingReq.first_byte(), 0]);
}

/// Appends a PUBLISH.
///
/// # Errors
/// A field over 65,535 bytes.
pub fn encode_publish(
    message: &PublishOut<'_>,
    variant: &Variant,
    packet_id: Option<PacketId>,
    payload: Bytes,
    out: &mut BytesMut,
) -> Result<(), EncodeError> {
    message.encode(variant, payload)?.write(packet_id, false, None, out);
    Ok(())
}
