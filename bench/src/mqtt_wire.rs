//! As much of MQTT 3.1.1 as a load generator needs, written from the standard and not from our
//! gateway, so that both ends are not wrong together.

use anyhow::{Context, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A packet that a generator cares about.
#[derive(Debug, PartialEq, Eq)]
pub enum Packet {
    /// A message with its QoS, packet id (0 at QoS 0) and payload.
    Publish {
        /// 0, 1 or 2.
        qos: u8,
        /// The packet id, 0 at QoS 0.
        id: u16,
        /// The payload.
        payload: Bytes,
    },
    /// The acknowledgement of a QoS 1 publish.
    PubAck(u16),
    /// Anything else, by its type.
    Other(u8),
}

/// The reading side of a connection.
#[derive(Debug)]
pub struct Reader {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

/// Connects, says CONNECT with a clean session, and waits for CONNACK.
pub async fn connect(
    address: &str,
    client_id: &str,
    keep_alive_s: u16,
) -> anyhow::Result<(Reader, OwnedWriteHalf)> {
    let stream = TcpStream::connect(address).await.with_context(|| address.to_owned())?;
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    write.write_all(&connect_packet(client_id, keep_alive_s)?).await?;
    let mut reader = Reader { half: read, buffer: BytesMut::new() };
    match reader.next().await? {
        Some(Packet::Other(2)) => Ok((reader, write)),
        other => bail!("no CONNACK but {other:?}"),
    }
}

/// A CONNECT with a clean session.
pub fn connect_packet(client_id: &str, keep_alive_s: u16) -> anyhow::Result<BytesMut> {
    let mut body = BytesMut::new();
    body.put_slice(b"\0\x04MQTT\x04\x02");
    body.put_u16(keep_alive_s);
    body.put_u16(u16::try_from(client_id.len())?);
    body.put_slice(client_id.as_bytes());
    Ok(frame(0x10, &body))
}

/// Subscribes to one filter and waits for the SUBACK.
pub async fn subscribe(
    reader: &mut Reader,
    write: &mut OwnedWriteHalf,
    filter: &str,
    qos: u8,
) -> anyhow::Result<()> {
    let mut body = BytesMut::new();
    body.put_u16(1);
    body.put_u16(u16::try_from(filter.len())?);
    body.put_slice(filter.as_bytes());
    body.put_u8(qos);
    write.write_all(&frame(0x82, &body)).await?;
    loop {
        match reader.next().await? {
            Some(Packet::Other(9)) => return Ok(()),
            Some(_) => {}
            None => bail!("closed before SUBACK"),
        }
    }
}

/// Appends a PUBLISH to `out`; `id` is left out at QoS 0.
pub fn put_publish(out: &mut BytesMut, topic: &str, qos: u8, id: u16, payload: &[u8]) {
    let remaining = 2 + topic.len() + if qos > 0 { 2 } else { 0 } + payload.len();
    out.put_u8(0x30 | qos << 1);
    put_remaining(out, remaining);
    out.put_u16(topic.len() as u16);
    out.put_slice(topic.as_bytes());
    if qos > 0 {
        out.put_u16(id);
    }
    out.put_slice(payload);
}

/// Appends a PUBACK to `out`.
pub fn put_puback(out: &mut BytesMut, id: u16) {
    out.put_slice(&[0x40, 2]);
    out.put_u16(id);
}

fn put_remaining(out: &mut BytesMut, mut length: usize) {
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        if length == 0 {
            return out.put_u8(byte);
        }
        out.put_u8(byte | 0x80);
    }
}

fn frame(first: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(body.len() + 5);
    out.put_u8(first);
    put_remaining(&mut out, body.len());
    out.put_slice(body);
    out
}

impl Reader {
    /// The next packet; `None` at the end of the stream.
    pub async fn next(&mut self) -> anyhow::Result<Option<Packet>> {
        loop {
            if let Some(packet) = self.buffered()? {
                return Ok(Some(packet));
            }
            self.buffer.reserve(64 * 1024);
            if self.half.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next packet that was read already.
    pub fn buffered(&mut self) -> anyhow::Result<Option<Packet>> {
        let (mut length, mut used) = (0usize, 1);
        loop {
            let Some(byte) = self.buffer.get(used) else { return Ok(None) };
            length |= usize::from(byte & 0x7f) << (7 * (used - 1));
            used += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if used > 4 {
                bail!("remaining length too long");
            }
        }
        if self.buffer.len() < used + length {
            return Ok(None);
        }
        let mut packet = self.buffer.split_to(used + length).freeze();
        let first = packet.get_u8();
        packet.advance(used - 1);
        Ok(Some(match first >> 4 {
            3 => {
                let qos = first >> 1 & 3;
                let topic = usize::from(packet.try_get_u16()?);
                if packet.len() < topic + if qos > 0 { 2 } else { 0 } {
                    bail!("short PUBLISH");
                }
                packet.advance(topic);
                let id = if qos > 0 { packet.get_u16() } else { 0 };
                Packet::Publish { qos, id, payload: packet }
            }
            4 => Packet::PubAck(packet.try_get_u16()?),
            other => Packet::Other(other),
        }))
    }
}
