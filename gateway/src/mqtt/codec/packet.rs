//! Any packet that a client sends.

use bytes::BytesMut;

use super::{
    Ack, AckKind, Auth, DecodeError, Disconnect, Frame, PacketKind, Publish, Subscribe,
    Unsubscribe, Version,
};

/// A packet of an open connection, borrowed from the buffer that it was read into. CONNECT is
/// read by [`super::Connect::decode`]: here it is one too many.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// PUBLISH.
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(Ack<'a>),
    /// SUBSCRIBE.
    Subscribe(Subscribe<'a>),
    /// UNSUBSCRIBE.
    Unsubscribe(Unsubscribe<'a>),
    /// PINGREQ.
    PingReq,
    /// DISCONNECT.
    Disconnect(Disconnect<'a>),
    /// AUTH.
    Auth(Auth<'a>),
}

impl<'a> Packet<'a> {
    /// Reads the packet of a frame that came from a client after its CONNECT.
    ///
    /// # Errors
    /// Whatever rule it breaks. A second CONNECT is a protocol error [MQTT-3.1.0-2].
    pub fn decode(version: Version, frame: Frame<'a>) -> Result<Self, DecodeError> {
        let ack = |kind| Ack::decode(kind, version, frame.body).map(Packet::Ack);
        match frame.kind {
            PacketKind::Publish => Publish::decode(version, frame, false).map(Packet::Publish),
            PacketKind::PubAck => ack(AckKind::PubAck),
            PacketKind::PubRec => ack(AckKind::PubRec),
            PacketKind::PubRel => ack(AckKind::PubRel),
            PacketKind::PubComp => ack(AckKind::PubComp),
            PacketKind::Subscribe => Subscribe::decode(version, frame.body).map(Packet::Subscribe),
            PacketKind::Unsubscribe => {
                Unsubscribe::decode(version, frame.body).map(Packet::Unsubscribe)
            }
            PacketKind::PingReq if frame.body.is_empty() => Ok(Packet::PingReq),
            PacketKind::PingReq => Err(DecodeError::malformed("a PINGREQ with a body")),
            PacketKind::Disconnect => {
                Disconnect::decode(version, frame.body, false).map(Packet::Disconnect)
            }
            PacketKind::Auth => Auth::decode(frame.body).map(Packet::Auth),
            PacketKind::Connect => Err(DecodeError::protocol("a second CONNECT")),
            PacketKind::ConnAck
            | PacketKind::SubAck
            | PacketKind::UnsubAck
            | PacketKind::PingResp => {
                Err(DecodeError::protocol("a packet type that only the other side sends"))
            }
        }
    }
}

/// Appends a PINGRESP.
pub fn write_pingresp(out: &mut BytesMut) {
    out.extend_from_slice(&[PacketKind::PingResp.first_byte(), 0]);
}
