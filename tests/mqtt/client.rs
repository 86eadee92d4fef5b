//! A blocking MQTT client that does what a test tells it, right or wrong.
//!
//! Nothing here sleeps to see whether something arrives: [`Client::collect`] publishes a sentinel
//! that takes the same way as what must not come, and reads up to it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::broker;
use crate::wire::*;

/// How long an answer may take before the test fails. Generous: it decides nothing else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A CONNECT under construction.
#[derive(Clone)]
pub(crate) struct Connect {
    pub(crate) version: u8,
    pub(crate) id: Vec<u8>,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) props: Vec<Prop>,
    pub(crate) will: Option<Publish>,
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) password: Option<Vec<u8>>,
}

impl Connect {
    fn new(version: u8, id: &str) -> Connect {
        Connect {
            version,
            id: id.as_bytes().to_vec(),
            clean: true,
            keep_alive: 60,
            props: Vec::new(),
            will: None,
            user: None,
            password: None,
        }
    }
    /// MQTT 5.0, clean start.
    pub(crate) fn v5(id: &str) -> Connect {
        Connect::new(5, id)
    }
    /// MQTT 3.1.1, clean session.
    pub(crate) fn v4(id: &str) -> Connect {
        Connect::new(4, id)
    }
    /// Clean Start 0; in 3.1.1 CleanSession 0.
    pub(crate) fn resume(mut self) -> Connect {
        self.clean = false;
        self
    }
    pub(crate) fn clean(mut self) -> Connect {
        self.clean = true;
        self
    }
    pub(crate) fn keep_alive(mut self, seconds: u16) -> Connect {
        self.keep_alive = seconds;
        self
    }
    pub(crate) fn prop(mut self, prop: Prop) -> Connect {
        self.props.push(prop);
        self
    }
    pub(crate) fn expiry(self, seconds: u32) -> Connect {
        self.prop(Prop::Long(id::SESSION_EXPIRY, seconds))
    }
    pub(crate) fn will(mut self, will: Publish) -> Connect {
        self.will = Some(will);
        self
    }
    pub(crate) fn login(mut self, user: &str, password: &str) -> Connect {
        self.user = Some(user.as_bytes().to_vec());
        self.password = Some(password.as_bytes().to_vec());
        self
    }

    /// The connect flags that go with the fields.
    pub(crate) fn flags(&self) -> u8 {
        let will = self
            .will
            .as_ref()
            .map_or(0, |will| 0x04 | will.qos << 3 | if will.retain { 0x20 } else { 0 });
        let user = if self.user.is_some() { 0x80 } else { 0 };
        let password = if self.password.is_some() { 0x40 } else { 0 };
        will | user | password | if self.clean { 0x02 } else { 0 }
    }
    /// The body with other connect flags than those that fit.
    pub(crate) fn body_with_flags(&self, flags: u8) -> Bytes {
        let name = if self.version == 3 { "MQIsdp" } else { "MQTT" };
        let mut body = bytes().field(name).u8(self.version).u8(flags).u16(self.keep_alive);
        if self.version == 5 {
            body = body.props(&self.props);
        }
        body = body.field(&self.id);
        if let Some(will) = &self.will {
            if self.version == 5 {
                body = body.props(&will.props.0);
            }
            body = body.field(&will.topic).field(&will.payload);
        }
        for field in [&self.user, &self.password].into_iter().flatten() {
            body = body.field(field);
        }
        body
    }
    pub(crate) fn bytes(&self) -> Vec<u8> {
        packet(CONNECT, self.body_with_flags(self.flags()))
    }

    /// Connects to the shared broker; it must accept.
    pub(crate) fn open(&self) -> Client {
        self.open_at(Client::tcp(self.version))
    }
    /// The same on a connection that exists.
    pub(crate) fn open_at(&self, mut client: Client) -> Client {
        client.send(&self.bytes());
        let (flags, code, props) = client.recv().connack(self.version);
        assert_eq!(code, 0, "the CONNECT was refused");
        assert_eq!(flags & 0xFE, 0, "reserved CONNACK flags");
        client.session_present = flags & 1 == 1;
        client.connack = props;
        client
    }
}

/// Anything that carries bytes both ways with a deadline.
pub(crate) trait Stream: Read + Write + Send {
    fn set_deadline(&mut self, at: Instant);
}

impl Stream for TcpStream {
    fn set_deadline(&mut self, at: Instant) {
        let left = at.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.set_read_timeout(Some(left)).unwrap();
    }
}

/// One connection.
pub(crate) struct Client {
    io: Box<dyn Stream>,
    pub(crate) version: u8,
    input: Vec<u8>,
    /// Packets that came while another was waited for.
    pending: VecDeque<Packet>,
    next_id: u16,
    pub(crate) session_present: bool,
    pub(crate) connack: Props,
}

impl Client {
    /// A TCP connection to the shared broker, with nothing sent on it.
    pub(crate) fn tcp(version: u8) -> Client {
        Client::tcp_to(broker::shared(), version)
    }

    /// A TCP connection to a broker of the test's own.
    pub(crate) fn tcp_to(broker: &broker::Broker, version: u8) -> Client {
        let stream = TcpStream::connect(broker.address("mqtt")).expect("connects");
        stream.set_nodelay(true).unwrap();
        Client::over(Box::new(stream), version)
    }

    pub(crate) fn over(io: Box<dyn Stream>, version: u8) -> Client {
        Client {
            io,
            version,
            input: Vec::new(),
            pending: VecDeque::new(),
            next_id: 0,
            session_present: false,
            connack: Props::default(),
        }
    }

    pub(crate) fn send(&mut self, data: &[u8]) {
        self.io.write_all(data).expect("the connection takes bytes");
    }

    /// Sends bytes that the server may refuse by now.
    pub(crate) fn try_send(&mut self, data: &[u8]) -> std::io::Result<()> {
        self.io.write_all(data)
    }

    pub(crate) fn next_id(&mut self) -> u16 {
        // Far from the ids 1, 2, 3 that tests name themselves.
        self.next_id += 1;
        1000 + self.next_id
    }

    // Reading.

    /// The next packet, or `None` when the connection was closed.
    pub(crate) fn poll(&mut self) -> Option<Packet> {
        if let Some(packet) = self.pending.pop_front() {
            return Some(packet);
        }
        self.read_packet()
    }

    fn read_packet(&mut self) -> Option<Packet> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(packet) = self.split() {
                return Some(packet);
            }
            self.io.set_deadline(deadline);
            let mut chunk = [0; 65536];
            match self.io.read(&mut chunk) {
                Ok(0) => return None,
                Ok(n) => self.input.extend(&chunk[..n]),
                Err(e)
                    if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) =>
                {
                    return None;
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("nothing came within {PATIENCE:?}: {e}"),
            }
        }
    }

    fn split(&mut self) -> Option<Packet> {
        let first = *self.input.first()?;
        let mut length = 0usize;
        for at in 0..4 {
            let byte = *self.input.get(1 + at)?;
            length |= usize::from(byte & 0x7F) << (7 * at);
            if byte & 0x80 == 0 {
                let start = 2 + at;
                let body = self.input.get(start..start + length)?.to_vec();
                self.input.drain(..start + length);
                return Some(Packet { first, body });
            }
        }
        panic!("the server sent a remaining length of more than four bytes")
    }

    /// The next packet; the connection must not have been closed.
    pub(crate) fn recv(&mut self) -> Packet {
        self.poll().expect("the server closed the connection")
    }

    /// The next packet of this kind; PUBLISHes that come first are kept for later.
    pub(crate) fn recv_kind(&mut self, kind: u8) -> Packet {
        if let Some(at) = self.pending.iter().position(|packet| packet.kind() == kind) {
            return self.pending.remove(at).unwrap();
        }
        loop {
            let packet = self.read_packet().expect("the server closed the connection");
            if packet.kind() == kind {
                return packet;
            }
            assert_eq!(packet.kind(), PUBLISH, "waiting for {kind:#04x}, got {packet:02x?}");
            self.pending.push_back(packet);
        }
    }

    /// The next acknowledgement of this kind.
    pub(crate) fn recv_ack(&mut self, kind: u8) -> Ack {
        let version = self.version;
        self.recv_kind(kind).ack(version)
    }

    /// The next PUBLISH, without answering it.
    pub(crate) fn recv_publish(&mut self) -> Publish {
        let version = self.version;
        self.recv_kind(PUBLISH).publish(version)
    }

    /// The next PUBLISH, acknowledged to the end of its QoS.
    pub(crate) fn recv_message(&mut self) -> Publish {
        let message = self.recv_publish();
        self.complete(&message);
        message
    }

    /// Acknowledges a PUBLISH to the end of its QoS.
    pub(crate) fn complete(&mut self, message: &Publish) {
        match message.qos {
            1 => self.send_ack(PUBACK, message.id),
            2 => {
                self.send_ack(PUBREC, message.id);
                let released = self.recv_ack(PUBREL);
                assert_eq!((released.id, released.code()), (message.id, 0));
                self.send_ack(PUBCOMP, message.id);
            }
            _ => {}
        }
    }

    pub(crate) fn send_ack(&mut self, kind: u8, id: u16) {
        self.send(&packet(kind, bytes().u16(id)));
    }

    pub(crate) fn send_ack_code(&mut self, kind: u8, id: u16, code: u8) {
        self.send(&packet(kind, bytes().u16(id).u8(code)));
    }

    // What clients do.

    /// A PINGREQ and its answer: the server has read all that was sent before.
    pub(crate) fn ping(&mut self) {
        self.send(&packet(PINGREQ, bytes()));
        assert!(self.recv_kind(PINGRESP).body.is_empty());
    }

    /// A PINGREQ whose answer is the very next packet.
    pub(crate) fn ping_next(&mut self) {
        self.send(&packet(PINGREQ, bytes()));
        let next = self.recv();
        assert_eq!(next.kind(), PINGRESP, "something came before the PINGRESP: {next:02x?}");
    }

    /// A SUBSCRIBE of filters with their option bytes; returns the SUBACK's codes.
    pub(crate) fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        self.subscribe_with(filters, &[])
    }

    pub(crate) fn subscribe_with(&mut self, filters: &[(&str, u8)], props: &[Prop]) -> Vec<u8> {
        let id = self.next_id();
        let message = self.subscribe_bytes(id, filters, props);
        self.send(&message);
        let ack = self.recv_ack(SUBACK);
        assert_eq!(ack.id, id);
        ack.codes
    }

    pub(crate) fn subscribe_bytes(
        &self,
        id: u16,
        filters: &[(&str, u8)],
        props: &[Prop],
    ) -> Vec<u8> {
        let mut body = bytes().u16(id);
        if self.version == 5 {
            body = body.props(props);
        }
        for (filter, options) in filters {
            body = body.field(filter).u8(*options);
        }
        packet(SUBSCRIBE, body)
    }

    pub(crate) fn unsubscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let id = self.next_id();
        let mut body = bytes().u16(id);
        if self.version == 5 {
            body = body.props(&[]);
        }
        for filter in filters {
            body = body.field(filter);
        }
        self.send(&packet(UNSUBSCRIBE, body));
        let ack = self.recv_ack(UNSUBACK);
        assert_eq!(ack.id, id);
        ack.codes
    }

    /// Sends a PUBLISH as it is, without waiting for its answer.
    pub(crate) fn send_publish(&mut self, message: &Publish) {
        self.send(&message.bytes(self.version));
    }

    /// Publishes to the end of the QoS; returns the reason code of the PUBACK or PUBREC.
    pub(crate) fn publish(&mut self, message: Publish) -> u8 {
        let id = self.next_id();
        let message = if message.qos > 0 { message.id(id) } else { message };
        self.send_publish(&message);
        match message.qos {
            1 => {
                let ack = self.recv_ack(PUBACK);
                assert_eq!(ack.id, id);
                ack.code()
            }
            2 => {
                let ack = self.recv_ack(PUBREC);
                assert_eq!(ack.id, id);
                if ack.code() < 0x80 {
                    self.send_ack(PUBREL, id);
                    let done = self.recv_ack(PUBCOMP);
                    assert_eq!((done.id, done.code()), (id, 0));
                }
                ack.code()
            }
            _ => {
                self.ping();
                0
            }
        }
    }

    /// Says goodbye (reason 0) and waits for the close.
    pub(crate) fn disconnect(mut self) {
        self.send(&packet(DISCONNECT, bytes()));
        self.drain();
    }

    /// A v5 DISCONNECT with this reason, and the close.
    pub(crate) fn disconnect_with(mut self, code: u8, props: &[Prop]) {
        self.send(&packet(DISCONNECT, bytes().u8(code).props(props)));
        self.drain();
    }

    fn drain(&mut self) {
        while self.poll().is_some() {}
    }

    /// Cuts the connection without a DISCONNECT.
    pub(crate) fn cut(self) {
        drop(self);
    }

    // How connections end.

    /// The connection ends, with a DISCONNECT of one of these reasons before (v5) or plainly (3.1.1).
    pub(crate) fn expect_disconnect(&mut self, codes: &[u8]) {
        if self.version == 5 {
            let code = self.recv_kind(DISCONNECT).reason().0;
            assert!(codes.contains(&code), "DISCONNECT {code:#04x}, expected {codes:02x?}");
        }
        self.expect_closed();
    }

    /// The connection ends, where the server may say why (v5) or not.
    pub(crate) fn expect_disconnect_or_close(&mut self, code: u8) {
        self.expect_disconnect_or_close_with(&[code]);
    }

    pub(crate) fn expect_disconnect_or_close_with(&mut self, codes: &[u8]) {
        while let Some(packet) = self.poll() {
            if packet.kind() == DISCONNECT {
                let code = packet.reason().0;
                assert!(self.version == 5 && codes.contains(&code), "DISCONNECT {code:#04x}");
                break;
            }
            assert_eq!(packet.kind(), PUBLISH, "expected the close, got {packet:02x?}");
        }
        self.expect_closed();
    }

    /// The connection ends; PUBLISHes may come before.
    pub(crate) fn expect_closed(&mut self) {
        while let Some(packet) = self.poll() {
            assert_eq!(packet.kind(), PUBLISH, "expected the close, got {packet:02x?}");
        }
    }

    /// The connection ends before it was accepted: a CONNACK with one of these codes, or nothing.
    pub(crate) fn expect_refused(&mut self, codes: &[u8]) {
        if let Some(packet) = self.poll() {
            assert_eq!(packet.first, CONNACK, "before CONNACK only that: {packet:02x?}");
            assert_eq!(packet.body.first(), Some(&0), "no session is present in a refusal");
            let code = packet.body[1];
            assert!(codes.contains(&code), "CONNACK {code:#04x}, expected {codes:02x?}");
            self.expect_closed();
        }
    }

    /// The CONNECT is answered by a CONNACK with this code, then the connection ends.
    pub(crate) fn expect_connack(&mut self, code: u8) {
        let packet = self.recv();
        assert_eq!(packet.first, CONNACK, "{packet:02x?}");
        assert_eq!(packet.body[..2], [0, code]);
        self.expect_closed();
    }

    // What arrives, and what doesn't.

    /// All messages that come up to a sentinel published after everything that was acknowledged so far
    /// on `topic`'s shard, each acknowledged. The sentinel comes by an ordinary and by a shared
    /// subscription, so that it overtakes neither kind. Needs a quota for it.
    pub(crate) fn collect(&mut self, topic: &str) -> Vec<Publish> {
        let (plain, shared) = (shard_mate(topic), shard_mate(topic));
        let group = format!("$share/sentinel/{shared}");
        assert_eq!(self.subscribe(&[(&plain, 1), (&group, 1)]), [1, 1]);
        let mut publisher = Connect::v5(&broker::unique("sentinel")).open();
        for sentinel in [&plain, &shared] {
            assert!(publisher.publish(Publish::new(sentinel, "sentinel", 1)) < 0x80);
        }
        let mut messages = Vec::new();
        let mut sentinels = 0;
        while sentinels < 2 {
            let message = self.recv_message();
            if message.topic == plain || message.topic == shared {
                sentinels += 1;
            } else {
                messages.push(message);
            }
        }
        self.unsubscribe(&[&plain, &group]);
        messages
    }

    /// The payloads of [`Client::collect`], as text.
    pub(crate) fn collect_texts(&mut self, topic: &str) -> Vec<String> {
        self.collect(topic).iter().map(|message| message.text().to_owned()).collect()
    }

    /// Nothing more comes for `topic`.
    pub(crate) fn expect_nothing(&mut self, topic: &str) {
        let messages = self.collect(topic);
        assert!(messages.is_empty(), "unexpected: {messages:?}");
    }
}

/// A fresh topic that is placed on the same shard as `topic`, whether there are 1, 2, 4, … or 64 of them.
fn shard_mate(topic: &str) -> String {
    let shard = |topic: &str| (murmur2(topic.as_bytes()) & 0x7FFF_FFFF) % 64;
    let wanted = shard(topic);
    let prefix = broker::unique("sentinel");
    (0u32..).map(|n| format!("{prefix}/{n}")).find(|mate| shard(mate) == wanted).unwrap()
}

/// The hash of Kafka's default partitioner.
pub(crate) fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5BD1_E995;
    let mut hash = 0x9747_B28C ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().unwrap()).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = chunks.remainder();
    for (at, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * at);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[test]
fn murmur2_is_that_of_kafka() {
    // From Kafka's own UtilsTest.
    for (text, hash) in
        [("21", -973932308i32), ("foobar", -790332482), ("a-little-bit-long-string", -985981536)]
    {
        assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
    }
}
