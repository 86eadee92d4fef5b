//! K: MQTT in WebSocket frames, $SYS, latency.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::broker::{self, unique};
use crate::client::{Client, Connect, Stream};
use crate::wire::*;

const BINARY: u8 = 0x2;
const TEXT: u8 = 0x1;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const CLOSE: u8 = 0x8;

/// A WebSocket whose frames a test can see to.
struct WebSocket {
    tcp: TcpStream,
    input: Vec<u8>,
    /// Largest payload of a frame that is sent; 0: one frame a write.
    split: usize,
    pongs: u32,
}

impl WebSocket {
    fn shake_hands(protocols: &str, headers: &str) -> (WebSocket, String) {
        let address = broker::shared().address("ws");
        let mut tcp = TcpStream::connect(address).unwrap();
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let request = format!(
            "GET /mqtt HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             {protocols}{headers}\r\n"
        );
        tcp.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if tcp.read(&mut byte).unwrap() == 0 {
                break;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        (WebSocket { tcp, input: Vec::new(), split: 0, pongs: 0 }, head)
    }

    fn open() -> WebSocket {
        let (socket, head) = WebSocket::shake_hands("Sec-WebSocket-Protocol: mqtt\r\n", "");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "the key's answer: {head}");
        socket
    }

    fn frame(&mut self, opcode: u8, payload: &[u8]) -> std::io::Result<()> {
        let mask = [7, 77, 177, 7];
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            n @ 0..=125 => frame.push(0x80 | n as u8),
            n @ 126..=65_535 => {
                frame.push(0x80 | 126);
                frame.extend((n as u16).to_be_bytes());
            }
            n => {
                frame.push(0x80 | 127);
                frame.extend((n as u64).to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        self.tcp.write_all(&frame)
    }

    fn next_frame(&mut self) -> std::io::Result<Option<(u8, Vec<u8>)>> {
        let mut head = [0; 2];
        match self.tcp.read_exact(&mut head) {
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        assert_eq!(head[1] & 0x80, 0, "servers don't mask");
        let length = match head[1] {
            126 => {
                let mut n = [0; 2];
                self.tcp.read_exact(&mut n)?;
                u16::from_be_bytes(n).into()
            }
            127 => {
                let mut n = [0; 8];
                self.tcp.read_exact(&mut n)?;
                u64::from_be_bytes(n) as usize
            }
            n => n.into(),
        };
        let mut payload = vec![0; length];
        self.tcp.read_exact(&mut payload)?;
        Ok(Some((head[0] & 0x0F, payload)))
    }
}

impl Read for WebSocket {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.input.is_empty() {
            match self.next_frame()? {
                None | Some((CLOSE, _)) => return Ok(0),
                Some((BINARY | 0, payload)) => self.input = payload,
                Some((PONG, _)) => self.pongs += 1,
                Some((PING, _)) => {}
                Some((opcode, _)) => panic!("a frame of opcode {opcode}"),
            }
        }
        let n = out.len().min(self.input.len());
        out[..n].copy_from_slice(&self.input[..n]);
        self.input.drain(..n);
        Ok(n)
    }
}

impl Write for WebSocket {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let size = if self.split == 0 { data.len() } else { self.split };
        for part in data.chunks(size) {
            self.frame(BINARY, part)?;
        }
        Ok(data.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Stream for WebSocket {
    fn set_deadline(&mut self, at: Instant) {
        self.tcp.set_deadline(at);
    }
}

#[test]
fn k1_subprotocol_is_echoed() {
    for offer in ["mqtt", "mqttv3.1", "chat, mqtt"] {
        let protocols = format!("Sec-WebSocket-Protocol: {offer}\r\n");
        let (_, head) = WebSocket::shake_hands(&protocols, "");
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let answer = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("sec-websocket-protocol:").map(str::to_owned)
            })
            .expect("a subprotocol");
        assert_eq!(answer.trim(), offer.rsplit(", ").next().unwrap());
    }
}

#[test]
fn k1_both_versions_over_websocket() {
    for connect in [Connect::v5(&unique("k1")), Connect::v4(&unique("k1"))] {
        let topic = unique("k1");
        let client = Client::over(Box::new(WebSocket::open()), connect.version);
        let mut client = connect.open_at(client);
        client.subscribe(&[(&topic, 2)]);
        let mut publisher = Connect::v5(&unique("k1p")).open();
        publisher.publish(Publish::new(&topic, "to the socket", 2));
        assert_eq!(client.recv_message().text(), "to the socket");
        client.publish(Publish::new(&topic, "x".repeat(100_000), 1));
        assert_eq!(client.recv_message().payload.len(), 100_000);
        client.disconnect();
    }
}

#[test]
fn k1_packets_split_and_merged_over_frames() {
    let topic = unique("k1");
    // Each byte in a frame of its own.
    let mut socket = WebSocket::open();
    socket.split = 1;
    let client = Client::over(Box::new(socket), 5);
    let mut client = Connect::v5(&unique("k1")).open_at(client);
    client.subscribe(&[(&topic, 1)]);
    client.publish(Publish::new(&topic, "split", 1));
    assert_eq!(client.recv_message().text(), "split");
    // Several packets in one frame.
    let mut client = Client::over(Box::new(WebSocket::open()), 5);
    let connect = Connect::v5(&unique("k1")).bytes();
    let subscribe = client.subscribe_bytes(3, &[(&topic, 1)], &[]);
    let publish = Publish::new(&topic, "merged", 1).bytes(5);
    client.send(&[connect, subscribe, publish].concat());
    assert_eq!(client.recv().connack(5).1, 0);
    client.recv_ack(SUBACK);
    client.recv_ack(PUBACK);
    assert_eq!(client.recv_message().text(), "merged");
}

#[test]
fn k1_text_frames_close() {
    let mut socket = WebSocket::open();
    socket.frame(TEXT, &Connect::v5(&unique("k1")).bytes()).unwrap();
    let answer = socket.read(&mut [0; 100]);
    assert!(matches!(answer, Ok(0) | Err(_)), "a text frame was answered");
}

#[test]
fn k2_ping_frames_are_no_sign_of_life() {
    let mut socket = WebSocket::open();
    socket.write_all(&Connect::v5(&unique("k2")).keep_alive(1).bytes()).unwrap();
    let mut pinger = socket.tcp.try_clone().unwrap();
    // A masked, empty ping, over and over.
    let stop = std::thread::spawn(move || {
        let started = Instant::now();
        while pinger.write_all(&[0x89, 0x80, 0, 0, 0, 0]).is_ok() {
            assert!(started.elapsed() < Duration::from_secs(20), "it must be closed by now");
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let mut sink = [0; 1000];
    while !matches!(socket.read(&mut sink), Ok(0) | Err(_)) {}
    drop(socket);
    stop.join().unwrap();
}

#[test]
fn k2_ping_frames_are_answered() {
    let mut socket = WebSocket::open();
    socket.frame(PING, b"hello").unwrap();
    assert_eq!(socket.next_frame().unwrap(), Some((PONG, b"hello".to_vec())));
}

#[test]
fn k3_sys_topics_that_tools_read() {
    let mut client = Connect::v5(&unique("k3")).open();
    client.subscribe(&[
        ("$SYS/broker/version", 0),
        ("$SYS/broker/uptime", 0),
        ("$SYS/broker/clients/connected", 0),
    ]);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let message = client.recv_message();
        if !seen.contains(&message.topic) {
            assert!(!message.payload.is_empty());
            seen.push(message.topic);
        }
    }
}

#[test]
fn k4_no_delay() {
    // Small packets back and forth: with Nagle's algorithm and delayed acknowledgements each round
    // would take 40 ms, whatever the machine does besides.
    let mut client = Connect::v5(&unique("k4")).open();
    let mut fastest = Duration::MAX;
    for _ in 0..20 {
        let started = Instant::now();
        for id in [1, 2] {
            client.send_publish(&Publish::new("k4", "x", 2).id(id));
        }
        // Both first: PUBCOMP of the one may come before PUBREC of the other.
        let ids = [client.recv_ack(PUBREC).id, client.recv_ack(PUBREC).id];
        ids.into_iter().for_each(|id| client.send_ack(PUBREL, id));
        client.recv_ack(PUBCOMP);
        client.recv_ack(PUBCOMP);
        fastest = fastest.min(started.elapsed());
    }
    assert!(fastest < Duration::from_millis(30), "{fastest:?} for the fastest round");
}
