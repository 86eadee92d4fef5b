//! A small blocking MQTT 5 client for the tools.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use clap::Args;
use interflow_gateway::mqtt::codec::client::{
    FrameRules, ServerPacket, encode_disconnect, encode_publish, encode_subscribe,
};
use interflow_gateway::mqtt::codec::{
    Ack, AckKind, AliasForm, Connect, Disconnect, PacketId, PublishOut, PublishProperties, QoS,
    Reason, Receiver, Subscription, SubscriptionOptions, Variant, Version,
};

use crate::cli::password_from_env;

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The keep-alive of a subscriber, in seconds; it pings at half of that.
const KEEP_ALIVE_S: u16 = 60;

/// Where an MQTT listener is.
#[derive(Args, Clone)]
pub(crate) struct Broker {
    /// Address of an MQTT listener
    #[arg(long, short = 'b', default_value = "localhost:1883", value_name = "HOST:PORT")]
    bootstrap: String,
    /// Client identifier; by default the broker assigns one
    #[arg(long, short = 'i', default_value = "", value_name = "ID")]
    client_id: String,
    /// User name; the password is read from INTERFLOW_PASSWORD
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// A message that arrived.
pub(crate) struct Arrived {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retained: bool,
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    input: BytesMut,
    rules: FrameRules,
    /// A quiet line is no error: ping.
    is_subscribed: bool,
}

/// A quality of service from the command line.
pub(crate) fn parse_qos(text: &str) -> Result<QoS, String> {
    text.parse().ok().and_then(QoS::from_bits).ok_or_else(|| "want 0, 1 or 2".to_owned())
}

impl Broker {
    /// Connects with a clean start.
    pub(crate) fn connect(&self) -> anyhow::Result<Client> {
        let stream = TcpStream::connect(&self.bootstrap).with_context(|| {
            format!("cannot connect to {} (is interflow running? see --bootstrap)", self.bootstrap)
        })?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut client = Client {
            stream,
            input: BytesMut::new(),
            rules: FrameRules::client(Version::V5, u32::MAX),
            is_subscribed: false,
        };
        let password = self.user.as_ref().map(|_| password_from_env()).transpose()?;
        let connect = Connect {
            keep_alive_s: KEEP_ALIVE_S,
            user_name: self.user.as_deref(),
            password: password.as_deref().map(str::as_bytes),
            ..Connect::new(Version::V5, &self.client_id)
        };
        let mut out = BytesMut::new();
        connect.encode(&mut out)?;
        client.stream.write_all(&out)?;
        let reason = client.expect(|packet| match packet {
            ServerPacket::ConnAck(answer) => Some(answer.reason),
            _ => None,
        })?;
        if reason.is_error() {
            bail!("the broker refused the connection: {reason:?}");
        }
        Ok(client)
    }
}

impl Client {
    /// Publishes and waits for what the QoS promises.
    pub(crate) fn publish(
        &mut self,
        topic: &str,
        payload: Bytes,
        qos: QoS,
        retain: bool,
    ) -> anyhow::Result<()> {
        let variant = Variant {
            version: Version::V5,
            qos,
            retain,
            alias: AliasForm::Name,
            subscription_ids: Default::default(),
        };
        let message = PublishOut { topic, properties: PublishProperties::default() };
        let id = (qos != QoS::AtMostOnce).then_some(PacketId::MIN);
        let mut out = BytesMut::new();
        encode_publish(&message, &variant, id, payload, &mut out)?;
        self.stream.write_all(&out)?;
        if qos == QoS::AtLeastOnce {
            self.acknowledged(AckKind::PubAck)?;
        }
        if qos == QoS::ExactlyOnce {
            self.acknowledged(AckKind::PubRec)?;
            self.send_ack(AckKind::PubRel, PacketId::MIN)?;
            self.acknowledged(AckKind::PubComp)?;
        }
        Ok(())
    }

    /// Subscribes and waits for the answer.
    pub(crate) fn subscribe(&mut self, filters: &[String], qos: QoS) -> anyhow::Result<()> {
        let subscriptions: Vec<_> = filters
            .iter()
            .map(|filter| Subscription {
                filter,
                options: SubscriptionOptions { qos, ..SubscriptionOptions::default() },
            })
            .collect();
        let mut out = BytesMut::new();
        encode_subscribe(Version::V5, PacketId::MIN, None, &subscriptions, &mut out)?;
        self.stream.write_all(&out)?;
        let reasons = self.expect(|packet| match packet {
            ServerPacket::SubAck(answer) => Some(answer.reasons),
            _ => None,
        })?;
        for (filter, reason) in filters.iter().zip(reasons) {
            if reason.is_error() {
                bail!("the broker refused to subscribe {filter}: {reason:?}");
            }
        }
        self.is_subscribed = true;
        self.stream.set_read_timeout(Some(Duration::from_secs(u64::from(KEEP_ALIVE_S) / 2)))?;
        Ok(())
    }

    /// The next message, acknowledged; `None` when the broker has closed the connection.
    pub(crate) fn receive(&mut self) -> anyhow::Result<Option<Arrived>> {
        loop {
            while let Some((frame, length)) = self.rules.split(&self.input)? {
                let mut arrived = None;
                let mut answer = None;
                match ServerPacket::decode(Version::V5, frame)? {
                    ServerPacket::Publish(publish) => {
                        answer = publish.packet_id.map(|id| match publish.qos {
                            QoS::ExactlyOnce => (AckKind::PubRec, id),
                            _ => (AckKind::PubAck, id),
                        });
                        arrived = Some(Arrived {
                            topic: publish.topic.to_owned(),
                            payload: publish.payload.to_vec(),
                            retained: publish.retain,
                        });
                    }
                    ServerPacket::Ack(ack) if ack.kind == AckKind::PubRel => {
                        answer = Some((AckKind::PubComp, ack.packet_id));
                    }
                    ServerPacket::Disconnect(disconnect) => {
                        bail!("the broker disconnected: {:?}", disconnect.reason);
                    }
                    _ => {}
                }
                let _ = self.input.split_to(length);
                if let Some((kind, id)) = answer {
                    self.send_ack(kind, id)?;
                }
                if arrived.is_some() {
                    return Ok(arrived);
                }
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// Says goodbye.
    pub(crate) fn disconnect(mut self) -> anyhow::Result<()> {
        let mut out = BytesMut::new();
        encode_disconnect(Version::V5, &Disconnect::new(Reason::Success), &mut out)?;
        Ok(self.stream.write_all(&out)?)
    }

    fn send_ack(&mut self, kind: AckKind, id: PacketId) -> anyhow::Result<()> {
        let mut out = BytesMut::new();
        Ack::new(kind, id, Reason::Success).encode(&Receiver::new(Version::V5), &mut out)?;
        Ok(self.stream.write_all(&out)?)
    }

    fn acknowledged(&mut self, kind: AckKind) -> anyhow::Result<()> {
        let reason = self.expect(|packet| match packet {
            ServerPacket::Ack(ack) if ack.kind == kind => Some(ack.reason),
            _ => None,
        })?;
        if reason.is_error() {
            bail!("the broker refused the message: {reason:?}");
        }
        Ok(())
    }

    /// Reads packets until `wanted` finds the answer.
    fn expect<T>(&mut self, wanted: impl Fn(ServerPacket<'_>) -> Option<T>) -> anyhow::Result<T> {
        loop {
            while let Some((frame, length)) = self.rules.split(&self.input)? {
                let packet = ServerPacket::decode(Version::V5, frame)?;
                if let ServerPacket::Disconnect(disconnect) = &packet {
                    bail!("the broker disconnected: {:?}", disconnect.reason);
                }
                let found = wanted(packet);
                let _ = self.input.split_to(length);
                if let Some(found) = found {
                    return Ok(found);
                }
            }
            if !self.fill().context("no answer from the broker")? {
                bail!("the broker closed the connection");
            }
        }
    }

    /// Reads more; `false` at the end of the stream. A quiet subscriber pings.
    fn fill(&mut self) -> anyhow::Result<bool> {
        let mut chunk = [0; 16 * 1024];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(false),
                Ok(read) => {
                    self.input.extend_from_slice(chunk.get(..read).unwrap_or_default());
                    return Ok(true);
                }
                Err(error)
                    if error.kind() == std::io::ErrorKind::WouldBlock && self.is_subscribed =>
                {
                    let mut out = BytesMut::new();
                    interflow_gateway::mqtt::codec::client::write_pingreq(&mut out);
                    self.stream.write_all(&out)?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}
