//! Whole packets through decoders and encoders. Tests are named by the statements that they show.

mod connect;
mod oracle;
mod packets;
mod publish;
mod robust;
mod round_trip;

use super::*;

fn id(id: u16) -> PacketId {
    PacketId::new(id).unwrap()
}

/// A packet with this first byte and body.
fn raw(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut len = body.len();
    while len > 0x7f {
        bytes.push((len & 0x7f) as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
    bytes.extend_from_slice(body);
    bytes
}

/// A string field.
fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u16).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

/// Reads the one packet in `bytes` as a server does.
fn server(version: Version, bytes: &[u8]) -> Result<Packet<'_>, DecodeError> {
    let (frame, len) = FrameRules::server(version, u32::MAX).split(bytes)?.expect("a whole packet");
    assert_eq!(len, bytes.len());
    Packet::decode(version, frame)
}

/// The reason code that the packet is refused with; 0 if it is taken.
fn refused(version: Version, bytes: &[u8]) -> u8 {
    server(version, bytes).map_or_else(|error| error.reason.code(), |_| 0)
}

/// Reads the one packet in `bytes` as a client does.
fn client(version: Version, bytes: &[u8]) -> Result<client::ServerPacket<'_>, DecodeError> {
    let (frame, len) = FrameRules::client(version, u32::MAX).split(bytes)?.expect("a whole packet");
    assert_eq!(len, bytes.len());
    client::ServerPacket::decode(version, frame)
}
