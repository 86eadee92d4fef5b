//! An MQTT 5 client that tells what the server says, over a blocking socket.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wire::connect;

const CONNECT: u8 = 0x10;
const PUBLISH: u8 = 0x30;
const SUBSCRIBE: u8 = 0x82;

/// Quota exceeded: what a publisher is told whose message can't be kept.
pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;

/// A connected client.
pub(crate) struct Mqtt5 {
    stream: TcpStream,
    last_id: u16,
}

impl Mqtt5 {
    /// Connects to a session that lives on for an hour, a new one if `is_clean`.
    pub(crate) fn connect(address: SocketAddr, id: &str, is_clean: bool) -> Self {
        let mut body = b"\0\x04MQTT\x05".to_vec();
        body.push(u8::from(is_clean) << 1);
        // No keep-alive; a session expiry of 3600 s.
        body.extend_from_slice(&[0, 0, 5, 0x11, 0, 0, 0x0e, 0x10]);
        push(&mut body, id.as_bytes());
        let stream = connect(address).expect("a connection");
        let mut client = Self { stream, last_id: 0 };
        client.send(CONNECT, &body);
        let (kind, answer) = client.packet().expect("CONNACK");
        assert_eq!((kind, answer[1]), (0x20, 0), "CONNACK");
        client
    }

    /// Publishes and returns the reason code of PUBACK or PUBREC.
    pub(crate) fn publish(&mut self, topic: &str, payload: &str, qos: u8, retain: bool) -> u8 {
        self.last_id += 1;
        let mut body = Vec::new();
        push(&mut body, topic.as_bytes());
        body.extend_from_slice(&self.last_id.to_be_bytes());
        body.push(0);
        body.extend_from_slice(payload.as_bytes());
        self.send(PUBLISH | (qos << 1) | u8::from(retain), &body);
        loop {
            let (kind, answer) = self.packet().expect("an acknowledgement");
            if kind & 0xf0 == PUBLISH {
                continue;
            }
            assert_eq!(kind, if qos == 2 { 0x50 } else { 0x40 });
            assert_eq!(answer[..2], self.last_id.to_be_bytes());
            return answer.get(2).copied().unwrap_or(0);
        }
    }

    /// Subscribes at QoS 1.
    pub(crate) fn subscribe(&mut self, filter: &str) {
        let mut body = vec![0, 1, 0];
        push(&mut body, filter.as_bytes());
        body.push(1);
        self.send(SUBSCRIBE, &body);
        let (kind, answer) = self.packet().expect("SUBACK");
        assert_eq!((kind, answer.last()), (0x90, Some(&1)), "SUBACK");
    }

    /// The next message: topic and payload. It is acknowledged.
    pub(crate) fn message(&mut self) -> (String, String) {
        loop {
            let (kind, body) = self.packet().expect("a message");
            if kind & 0xf0 != PUBLISH {
                continue;
            }
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let (topic, mut rest) = body[2..].split_at(usize::from(body[1]));
            if kind & 0x06 != 0 {
                let (id, after) = rest.split_at(2);
                self.send(0x40, id);
                rest = after;
            }
            return (text(topic), text(&rest[1 + usize::from(rest[0])..]));
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) {
        let mut packet = vec![kind];
        let mut left = body.len();
        loop {
            let more = left >= 128;
            packet.push((left % 128) as u8 | (u8::from(more) << 7));
            left /= 128;
            if !more {
                break;
            }
        }
        packet.extend_from_slice(body);
        self.stream.write_all(&packet).expect("a server that reads");
    }

    /// The next packet: its first byte and what comes behind the length.
    fn packet(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        let kind = byte[0];
        let (mut len, mut shift) = (0, 0);
        loop {
            self.stream.read_exact(&mut byte)?;
            len |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

/// Appends bytes with their length before them.
fn push(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    body.extend_from_slice(bytes);
}
