//! The fixed header: cuts a byte stream into packets, and refuses bad ones before their bodies
//! are buffered.

use std::num::NonZeroU16;

use super::{DecodeError, QoS, Reason, Version, reader};

/// Names a packet in flight; never 0 [MQTT-2.2.1-3].
pub type PacketId = NonZeroU16;

/// The type of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the specification's, §2.1.2")]
pub enum PacketKind {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketKind {
    fn from_bits(bits: u8) -> Option<Self> {
        use PacketKind::*;
        Some(match bits {
            1 => Connect,
            2 => ConnAck,
            3 => Publish,
            4 => PubAck,
            5 => PubRec,
            6 => PubRel,
            7 => PubComp,
            8 => Subscribe,
            9 => SubAck,
            10 => Unsubscribe,
            11 => UnsubAck,
            12 => PingReq,
            13 => PingResp,
            14 => Disconnect,
            15 => Auth,
            _ => return None,
        })
    }

    /// Only servers send it.
    fn is_from_server(self) -> bool {
        use PacketKind::*;
        matches!(self, ConnAck | SubAck | UnsubAck | PingResp)
    }

    /// Only clients send it. (DISCONNECT of a server is MQTT 5's.)
    fn is_from_client(self, version: Version) -> bool {
        use PacketKind::*;
        matches!(self, Connect | Subscribe | Unsubscribe | PingReq)
            || (self == Disconnect && !version.is_v5())
    }

    /// The first byte of a packet of this type other than PUBLISH.
    pub(crate) fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.reserved_flags()
    }

    /// The flags that a packet other than PUBLISH has [MQTT-2.1.3-1].
    fn reserved_flags(self) -> u8 {
        use PacketKind::*;
        if matches!(self, PubRel | Subscribe | Unsubscribe) { 0b0010 } else { 0 }
    }
}

/// Who reads the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Server,
    Client,
}

/// What a reader of frames accepts.
#[derive(Clone, Copy, Debug)]
pub struct FrameRules {
    version: Version,
    max_packet_bytes: u32,
    role: Role,
}

impl FrameRules {
    /// A server's: packets that only servers send are refused.
    ///
    /// `max_packet_bytes` counts the fixed header. Before CONNECT the version is not known: take
    /// MQTT 5's, and refuse a first packet that isn't CONNECT by [`FrameHeader::kind`].
    pub fn server(version: Version, max_packet_bytes: u32) -> Self {
        Self { version, max_packet_bytes, role: Role::Server }
    }

    /// A client's: packets that only clients send are refused.
    pub fn client(version: Version, max_packet_bytes: u32) -> Self {
        Self { version, max_packet_bytes, role: Role::Client }
    }

    /// The fixed header that `bytes` starts with; `None` if more bytes are needed.
    ///
    /// # Errors
    /// From the first byte: an illegal type or flags, a PUBLISH of QoS 3, DUP with QoS 0. From
    /// the length: a bad variable byte integer, a packet over the maximum (0x95).
    pub fn header(&self, bytes: &[u8]) -> Result<Option<FrameHeader>, DecodeError> {
        let Some((first, rest)) = bytes.split_first() else { return Ok(None) };
        let kind = self.kind(*first)?;
        let Some((body_bytes, len_bytes)) = reader::varint(rest)? else { return Ok(None) };
        let header =
            FrameHeader { kind, flags: first & 0x0f, header_bytes: 1 + len_bytes, body_bytes };
        if header.packet_bytes() > self.max_packet_bytes as usize {
            return Err(DecodeError::new(
                Reason::PacketTooLarge,
                "the packet is over the maximum packet size",
            ));
        }
        Ok(Some(header))
    }

    /// The packet that `bytes` starts with, and its length; `None` if more bytes are needed.
    ///
    /// # Errors
    /// As [`Self::header`].
    pub fn split<'a>(&self, bytes: &'a [u8]) -> Result<Option<(Frame<'a>, usize)>, DecodeError> {
        let Some(header) = self.header(bytes)? else { return Ok(None) };
        Ok(header.frame(bytes).map(|frame| (frame, header.packet_bytes())))
    }

    fn kind(&self, first: u8) -> Result<PacketKind, DecodeError> {
        let flags = first & 0x0f;
        let kind = PacketKind::from_bits(first >> 4)
            .ok_or(DecodeError::malformed("packet type 0 is reserved"))?;
        if kind == PacketKind::Auth && !self.version.is_v5() {
            return Err(DecodeError::malformed("packet type 15 is reserved before MQTT 5"));
        }
        let wrong_side = match self.role {
            Role::Server => kind.is_from_server(),
            Role::Client => kind.is_from_client(self.version),
        };
        if wrong_side {
            return Err(DecodeError::protocol("a packet type that only the other side sends"));
        }
        if kind == PacketKind::Publish {
            match QoS::from_bits((flags >> 1) & 0b11) {
                None => return Err(DecodeError::malformed("QoS 3")),
                Some(QoS::AtMostOnce) if flags & 0b1000 != 0 && self.version != Version::V31 => {
                    return Err(DecodeError::malformed("DUP with QoS 0"));
                }
                Some(_) => {}
            }
        } else {
            // 3.1 sends these at QoS 1, so again with DUP.
            let dup_is_legal = self.version == Version::V31 && kind.reserved_flags() != 0;
            let flags = if dup_is_legal { flags & 0b0111 } else { flags };
            if flags != kind.reserved_flags() {
                return Err(DecodeError::malformed("reserved flags of the fixed header"));
            }
        }
        Ok(kind)
    }
}

/// A fixed header that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The packet's type.
    pub kind: PacketKind,
    /// The low bits of the first byte.
    pub flags: u8,
    header_bytes: usize,
    body_bytes: u32,
}

impl FrameHeader {
    /// Bytes of the whole packet, the fixed header included.
    pub fn packet_bytes(&self) -> usize {
        self.header_bytes + self.body_bytes as usize
    }

    /// The packet, if `bytes` (which starts with this header) holds all of it.
    pub fn frame<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        let body = bytes.get(self.header_bytes..self.packet_bytes())?;
        Some(Frame { kind: self.kind, flags: self.flags, body })
    }
}

/// One whole packet, its body not yet read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The packet's type.
    pub kind: PacketKind,
    /// The low bits of the first byte, checked.
    pub flags: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
}

/// Reads a packet id [MQTT-2.2.1-3].
pub(crate) fn packet_id(reader: &mut reader::Reader<'_>) -> Result<PacketId, DecodeError> {
    PacketId::new(reader.u16()?).ok_or(DecodeError::malformed("packet id 0"))
}
