//! As much of both protocols as the load needs, over blocking sockets.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

/// A server that is cut off answers no more: a read ends after this.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection whose reads end.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// An MQTT 3.1.1 publisher.
pub(crate) struct Mqtt(TcpStream);

impl Mqtt {
    pub(crate) fn connect(address: SocketAddr, client_id: &str) -> io::Result<Self> {
        let mut stream = connect(address)?;
        let mut packet = vec![0x10, 12 + client_id.len() as u8, 0, 4];
        packet.extend_from_slice(b"MQTT\x04\x02\0\0\0");
        packet.push(client_id.len() as u8);
        packet.extend_from_slice(client_id.as_bytes());
        stream.write_all(&packet)?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        assert_eq!(answer, [0x20, 2, 0, 0], "CONNACK");
        Ok(Self(stream))
    }

    /// Sends a QoS 1 publish with a topic and payload of less than 60 bytes each.
    pub(crate) fn send(
        &mut self,
        topic: &str,
        payload: &str,
        id: u16,
        retain: bool,
    ) -> io::Result<()> {
        let length = 4 + topic.len() + payload.len();
        let mut packet = vec![0x32 | u8::from(retain), length as u8, 0, topic.len() as u8];
        packet.extend_from_slice(topic.as_bytes());
        packet.extend_from_slice(&id.to_be_bytes());
        packet.extend_from_slice(payload.as_bytes());
        self.0.write_all(&packet)
    }

    /// The id of the next PUBACK.
    pub(crate) fn acknowledged(&mut self) -> io::Result<u16> {
        let mut packet = [0; 4];
        self.0.read_exact(&mut packet)?;
        assert_eq!(packet[..2], [0x40, 2], "PUBACK");
        Ok(u16::from_be_bytes([packet[2], packet[3]]))
    }

    /// Subscribes and returns the retained messages up to the one of `last`.
    pub(crate) fn retained(
        &mut self,
        filter: &str,
        last: &str,
    ) -> io::Result<Vec<(String, String)>> {
        let mut packet = vec![0x82, 5 + filter.len() as u8, 0, 1, 0, filter.len() as u8];
        packet.extend_from_slice(filter.as_bytes());
        packet.push(0);
        self.0.write_all(&packet)?;
        let mut found = Vec::new();
        loop {
            let mut head = [0; 2];
            self.0.read_exact(&mut head)?;
            let mut body = vec![0; usize::from(head[1])];
            self.0.read_exact(&mut body)?;
            if head[0] >> 4 != 3 {
                continue;
            }
            let topic_end = 2 + usize::from(body[1]);
            let topic = String::from_utf8_lossy(&body[2..topic_end]).into_owned();
            let payload = String::from_utf8_lossy(&body[topic_end..]).into_owned();
            let is_last = topic == last;
            found.push((topic, payload));
            if is_last {
                return Ok(found);
            }
        }
    }
}

/// A Kafka client.
pub(crate) struct Kafka {
    stream: TcpStream,
    correlation: i32,
}

impl Kafka {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { stream: connect(address)?, correlation: 0 })
    }

    pub(crate) fn call<R: Request>(
        &mut self,
        version: i16,
        request: &R,
    ) -> io::Result<R::Response> {
        self.send(version, request)?;
        self.answer::<R>(version)
    }

    pub(crate) fn send<R: Request>(&mut self, version: i16, request: &R) -> io::Result<()> {
        assert!(ApiKey::try_from(R::KEY).is_ok());
        self.correlation += 1;
        let mut frame = BytesMut::new();
        let encoded = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("durability")))
            .encode(&mut frame, R::header_version(version))
            .and_then(|()| request.encode(&mut frame, version));
        encoded.expect("a request that can be encoded");
        self.stream.write_all(&(frame.len() as u32).to_be_bytes())?;
        self.stream.write_all(&frame)
    }

    pub(crate) fn answer<R: Request>(&mut self, version: i16) -> io::Result<R::Response> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let mut frame = vec![0; u32::from_be_bytes(size) as usize];
        self.stream.read_exact(&mut frame)?;
        let mut frame = Bytes::from(frame);
        ResponseHeader::decode(&mut frame, R::Response::header_version(version))
            .and_then(|_| R::Response::decode(&mut frame, version))
            .map_err(io::Error::other)
    }
}
