//! A broker over the fake log, and clients that speak to it byte by byte.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use interflow_logstore::LogId;
use interflow_meta::{EmbeddedStore, Env, Meta};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::log::FakeLog;
use crate::auth::{Authenticator, Principal, Refused};
use crate::mqtt::codec::client::{
    FrameRules, ServerPacket, encode_disconnect, encode_publish, encode_subscribe,
    encode_unsubscribe, write_pingreq,
};
use crate::mqtt::codec::{
    Ack, AckKind, AliasForm, Connect, Disconnect, PacketId, PublishOut, PublishProperties, QoS,
    Reason, Receiver, Subscription, SubscriptionOptions, Variant, Version,
};
use crate::mqtt::{Broker, BrokerDeps, MqttConfig, MqttMetrics, WallClock};
use crate::net::{Peer, Stream, Transport};

/// A clock that the test sets.
#[derive(Default)]
struct TestClock(AtomicI64);

impl WallClock for TestClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

struct NoUsers;

#[async_trait]
impl Authenticator for NoUsers {
    fn is_required(&self) -> bool {
        false
    }

    async fn verify(
        &self,
        _: Option<&str>,
        _: Option<&[u8]>,
        _: &Peer,
    ) -> Result<Principal, Refused> {
        Ok(Principal::anonymous())
    }
}

/// A broker under test.
pub(crate) struct Rig {
    pub(crate) broker: Arc<Broker>,
    pub(crate) log: Arc<FakeLog>,
    meta: Meta,
    clock: Arc<TestClock>,
}

pub(crate) const SHARDS: u64 = 3;

impl Rig {
    pub(crate) async fn new() -> Self {
        Self::with(MqttConfig::default()).await
    }

    pub(crate) async fn with(config: MqttConfig) -> Self {
        let store = EmbeddedStore::in_memory(Env::default()).unwrap();
        let meta = Meta::new(Arc::new(store), Env::default(), "test");
        let clock = Arc::new(TestClock(AtomicI64::new(1_000_000)));
        Self::start(Arc::default(), meta, clock, config).await
    }

    /// Another broker in the place of this one, which was shut down.
    pub(crate) async fn restart(self) -> Self {
        Self::start(self.log, self.meta, self.clock, MqttConfig::default()).await
    }

    async fn start(
        log: Arc<FakeLog>,
        meta: Meta,
        clock: Arc<TestClock>,
        config: MqttConfig,
    ) -> Self {
        let broker = Broker::start(BrokerDeps {
            log: log.clone(),
            meta: meta.clone(),
            stream: (0..SHARDS).map(LogId).collect(),
            clock: clock.clone(),
            auth: Arc::new(NoUsers),
            config,
            metrics: Arc::new(MqttMetrics::default()),
        })
        .await
        .unwrap();
        Self { broker, log, meta, clock }
    }

    pub(crate) fn advance_ms(&self, ms: i64) {
        self.clock.0.fetch_add(ms, Ordering::Relaxed);
    }

    /// The log of a topic.
    pub(crate) fn log_of(&self, topic: &str) -> LogId {
        self.broker.shard_of(topic).tail.log
    }

    /// A stream to the broker that takes `buffer` bytes before it blocks.
    pub(crate) fn stream(&self, buffer: usize) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(buffer);
        let peer = Peer {
            address: "127.0.0.1:1".parse().unwrap(),
            listener: "test".into(),
            transport: Transport::Tcp,
        };
        tokio::spawn(self.broker.clone().serve(Stream::Pipe(theirs), peer));
        ours
    }

    /// A client that is connected.
    pub(crate) async fn connect(&self, connect: &Connect<'_>) -> (Client, bool) {
        let mut client = Client::new(self.stream(1 << 16), connect.version);
        client.send(|out| connect.encode(out).unwrap()).await;
        match client.next().await {
            Got::ConnAck(Reason::Success, present) => (client, present),
            other => panic!("{other:?} instead of CONNACK"),
        }
    }

    /// A client of MQTT 5 with a clean session.
    pub(crate) async fn client(&self, id: &str) -> Client {
        self.connect(&Connect::new(Version::V5, id)).await.0
    }

    /// A client whose session stays.
    pub(crate) async fn resume(&self, id: &str) -> (Client, bool) {
        let connect =
            Connect { clean_start: false, session_expiry_s: 1000, ..Connect::new(Version::V5, id) };
        self.connect(&connect).await
    }
}

/// A packet from the broker, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    ConnAck(Reason, bool),
    Publish {
        topic: String,
        payload: Bytes,
        qos: QoS,
        retain: bool,
        dup: bool,
        id: Option<PacketId>,
        expiry_s: Option<u32>,
        ids: Vec<u32>,
    },
    Ack(AckKind, PacketId, Reason),
    SubAck(PacketId, Vec<Reason>),
    UnsubAck(PacketId, Vec<Reason>),
    PingResp,
    Disconnect(Reason),
    /// The connection ended.
    End,
}

/// One side of a connection.
pub(crate) struct Client {
    stream: DuplexStream,
    input: BytesMut,
    version: Version,
    next_id: u16,
}

impl Client {
    pub(crate) fn new(stream: DuplexStream, version: Version) -> Self {
        Self { stream, input: BytesMut::new(), version, next_id: 0 }
    }

    pub(crate) async fn send(&mut self, write: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        write(&mut out);
        self.stream.write_all(&out).await.unwrap();
    }

    pub(crate) fn id(&mut self) -> PacketId {
        self.next_id += 1;
        PacketId::new(self.next_id).unwrap()
    }

    /// The next packet.
    pub(crate) async fn next(&mut self) -> Got {
        let rules = FrameRules::client(self.version, u32::MAX);
        loop {
            if let Some((frame, len)) = rules.split(&self.input).unwrap() {
                let packet = ServerPacket::decode(self.version, frame).unwrap();
                let got = owned(&packet);
                self.input.advance(len);
                return got;
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return Got::End;
            }
        }
    }

    pub(crate) async fn publish(&mut self, topic: &str, payload: &str, qos: QoS) {
        self.publish_with(topic, payload, qos, false, PublishProperties::default()).await;
    }

    pub(crate) async fn publish_with(
        &mut self,
        topic: &str,
        payload: &str,
        qos: QoS,
        retain: bool,
        properties: PublishProperties<'_>,
    ) {
        let id = (qos != QoS::AtMostOnce).then(|| self.id());
        let version = self.version;
        let variant = Variant {
            version,
            qos,
            retain,
            alias: AliasForm::Name,
            subscription_ids: Default::default(),
        };
        let payload = Bytes::copy_from_slice(payload.as_bytes());
        let message = PublishOut { topic, properties };
        self.send(|out| encode_publish(&message, &variant, id, payload, out).unwrap()).await;
    }

    /// Publishes with QoS 2 under a packet id of the test's.
    pub(crate) async fn publish_as(&mut self, id: u16, topic: &str, payload: &str) {
        let next_id = std::mem::replace(&mut self.next_id, id - 1);
        self.publish(topic, payload, QoS::ExactlyOnce).await;
        self.next_id = next_id;
    }

    pub(crate) async fn subscribe_only(&mut self, filter: &str, options: SubscriptionOptions) {
        let (id, version) = (self.id(), self.version);
        let subscription = Subscription { filter, options };
        self.send(|out| encode_subscribe(version, id, None, &[subscription], out).unwrap()).await;
    }

    /// Subscribes and waits for SUBACK, the next packet.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.subscribe_only(filter, SubscriptionOptions { qos, ..Default::default() }).await;
        match self.next().await {
            Got::SubAck(_, reasons) => assert_eq!(reasons, [Reason::from(qos)]),
            other => panic!("{other:?} instead of SUBACK"),
        }
    }

    pub(crate) async fn unsubscribe(&mut self, filter: &str) {
        let (id, version) = (self.id(), self.version);
        self.send(|out| encode_unsubscribe(version, id, &[filter], out).unwrap()).await;
    }

    pub(crate) async fn ack(&mut self, kind: AckKind, id: PacketId) {
        let receiver = Receiver::new(self.version);
        let ack = Ack::new(kind, id, Reason::Success);
        self.send(|out| ack.encode(&receiver, out).unwrap()).await;
    }

    /// Sends PINGREQ and returns everything before the answer.
    pub(crate) async fn sync(&mut self) -> Vec<Got> {
        self.send(write_pingreq).await;
        let mut before = Vec::new();
        loop {
            match self.next().await {
                Got::PingResp => return before,
                Got::End => panic!("the connection ended after {before:?}"),
                other => before.push(other),
            }
        }
    }

    /// The payload of the next packet, which must be a PUBLISH; acknowledged, if it has QoS 1.
    pub(crate) async fn payload(&mut self) -> String {
        match self.next().await {
            Got::Publish { payload, id, qos, .. } => {
                if let (Some(id), QoS::AtLeastOnce) = (id, qos) {
                    self.ack(AckKind::PubAck, id).await;
                }
                String::from_utf8(payload.to_vec()).unwrap()
            }
            other => panic!("{other:?} instead of PUBLISH"),
        }
    }

    pub(crate) async fn disconnect(mut self) {
        let version = self.version;
        let packet = Disconnect::new(Reason::Success);
        self.send(|out| encode_disconnect(version, &packet, out).unwrap()).await;
        assert_eq!(self.next().await, Got::End);
    }
}

fn owned(packet: &ServerPacket<'_>) -> Got {
    match packet {
        ServerPacket::ConnAck(connack) => Got::ConnAck(connack.reason, connack.session_present),
        ServerPacket::Publish(publish) => Got::Publish {
            topic: publish.topic.into(),
            payload: Bytes::copy_from_slice(publish.payload),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            id: publish.packet_id,
            expiry_s: publish.properties.message_expiry_s,
            ids: publish.subscription_ids.iter().collect(),
        },
        ServerPacket::Ack(ack) => Got::Ack(ack.kind, ack.packet_id, ack.reason),
        ServerPacket::SubAck(codes) => Got::SubAck(codes.packet_id, codes.reasons.clone()),
        ServerPacket::UnsubAck(codes) => Got::UnsubAck(codes.packet_id, codes.reasons.clone()),
        ServerPacket::PingResp => Got::PingResp,
        ServerPacket::Disconnect(disconnect) => Got::Disconnect(disconnect.reason),
        ServerPacket::Auth(_) => panic!("AUTH"),
    }
}
