//! What each packet of a connected client does.

use super::input::Flow;
use super::run::{Close, Core};
use crate::mqtt::codec::{
    Ack, AckKind, DecodeError, Disconnect, Packet, PacketId, Publish, QoS, Reason, UnsubAck,
    Unsubscribe, write_pingresp,
};
use crate::mqtt::publish::{Completion, Full, Inbound};
use crate::mqtt::session::Admission;

const fn broken(reason: Reason, what: &'static str) -> Close {
    Close::Broken(DecodeError { reason, what })
}

impl Core {
    pub(super) fn packet(&mut self, packet: Packet<'_>) -> Result<Flow, Close> {
        match packet {
            Packet::Publish(publish) => self.publish(&publish),
            Packet::Ack(ack) => {
                self.acknowledgement(&ack);
                Ok(Flow::Next)
            }
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => {
                self.unsubscribe(&unsubscribe);
                Ok(Flow::Next)
            }
            Packet::PingReq => {
                if let Some(online) = self.session.lock().online_of(self.number) {
                    online.out.write(write_pingresp);
                }
                Ok(Flow::Next)
            }
            Packet::Disconnect(disconnect) => Err(self.disconnect(&disconnect)),
            Packet::Auth(_) => {
                Err(broken(Reason::ProtocolError, "an AUTH without enhanced authentication"))
            }
        }
    }

    fn acknowledgement(&mut self, ack: &Ack<'_>) {
        let finished = self.session.lock().acknowledged(self.number, ack);
        self.broker.metrics.in_flight.sub(finished as u64);
    }

    fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Close {
        if let Some(expiry_s) = disconnect.session_expiry_s {
            if self.expiry_s == 0 && expiry_s > 0 {
                return broken(
                    Reason::ProtocolError,
                    "a session expiry in DISCONNECT where CONNECT had none",
                );
            }
            let mut state = self.session.lock();
            if state.online_of(self.number).is_some() {
                state.expiry_s = self.broker.granted_expiry(expiry_s);
            }
        }
        Close::Disconnected { with_will: disconnect.reason != Reason::Success }
    }

    fn publish(&mut self, publish: &Publish<'_>) -> Result<Flow, Close> {
        let alias = self.alias(publish)?;
        let topic = alias.as_deref().unwrap_or(publish.topic);
        let flow = self.publish_to(topic, publish)?;
        if flow == Flow::Next {
            self.broker.metrics.publishes_received.at(publish.qos).inc();
        }
        Ok(flow)
    }

    /// The topic that the PUBLISH means, if it names it by an alias.
    fn alias(&mut self, publish: &Publish<'_>) -> Result<Option<std::sync::Arc<str>>, Close> {
        let Some(alias) = publish.topic_alias else { return Ok(None) };
        if alias.get() > self.broker.config.topic_alias_maximum {
            return Err(broken(Reason::TopicAliasInvalid, "a topic alias over the maximum"));
        }
        let index = usize::from(alias.get() - 1);
        if publish.topic.is_empty() {
            let topic = self.aliases.get(index).cloned().flatten();
            let unknown = broken(Reason::ProtocolError, "a topic alias that stands for no topic");
            return topic.map(Some).ok_or(unknown);
        }
        if publish.topic.len() <= self.broker.config.max_topic_bytes {
            if self.aliases.len() <= index {
                self.aliases.resize(index + 1, None);
            }
            if let Some(place) = self.aliases.get_mut(index)
                && place.as_deref() != Some(publish.topic)
            {
                *place = Some(publish.topic.into());
            }
        }
        Ok(None)
    }

    fn publish_to(&mut self, topic: &str, publish: &Publish<'_>) -> Result<Flow, Close> {
        if let Some(id) = publish.packet_id {
            let mut state = self.session.lock();
            let is_repeated = publish.qos == QoS::ExactlyOnce && state.incoming.has(id);
            let Some(online) = state.online_of(self.number) else { return Ok(Flow::Next) };
            let open = if is_repeated || !self.version.is_v5() {
                online.acks.len()
            } else {
                online.acks.qos1() + online.received
            };
            if open >= usize::from(self.broker.config.receive_maximum) {
                if !self.version.is_v5() {
                    return Ok(Flow::Stall);
                }
                return Err(broken(
                    Reason::ReceiveMaximumExceeded,
                    "more PUBLISHes than the receive maximum",
                ));
            }
            if is_repeated {
                state.receive(self.number, id);
                return Ok(Flow::Next);
            }
        }
        if !self.broker.topic_limits.admit(topic) || topic.starts_with('$') {
            return self.refuse(publish, Reason::TopicNameInvalid);
        }
        let shard = self.broker.shard_of(topic);
        let message = Inbound {
            topic,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties,
            client_id: &self.session.client_id,
            now_ms: self.broker.clock.now_ms(),
        };
        let completion = || self.completion(publish.qos, publish.packet_id);
        match shard.writer.submit(&message, Some(&self.shared), completion) {
            Err(Full) => Ok(Flow::Stall),
            Ok(()) => {
                let shard = shard.tail.shard;
                if !self.touched.contains(&shard) {
                    self.touched.push(shard);
                }
                Ok(Flow::Next)
            }
        }
    }

    /// Who is told when the record is committed.
    fn completion(&self, qos: QoS, id: Option<PacketId>) -> Completion {
        let Some(id) = id else { return Completion::Silent };
        let session = self.session.clone();
        let mut state = session.lock();
        let completion = match qos {
            QoS::AtMostOnce => None,
            QoS::AtLeastOnce => state.online_of(self.number).map(|online| Completion::Ack {
                session: self.session.clone(),
                connection: self.number,
                slot: online.acks.push(AckKind::PubAck, id),
            }),
            QoS::ExactlyOnce => (state.receive(self.number, id) == Admission::New)
                .then(|| Completion::Received { session: self.session.clone(), id }),
        };
        completion.unwrap_or(Completion::Silent)
    }

    /// A PUBLISH that is not taken. MQTT 5 is told so; 3.1.1 can't be, and is answered as if it
    /// had been.
    fn refuse(&mut self, publish: &Publish<'_>, reason: Reason) -> Result<Flow, Close> {
        self.broker.metrics.publishes_refused.inc();
        let reason = if self.version.is_v5() { reason } else { Reason::Success };
        let Some(id) = publish.packet_id else { return Ok(Flow::Next) };
        let mut state = self.session.lock();
        if publish.qos == QoS::ExactlyOnce {
            state.receive(self.number, id);
            state.complete_received(id, reason);
        } else if let Some(online) = state.online_of(self.number) {
            let slot = online.acks.push(AckKind::PubAck, id);
            online.complete(slot, reason);
        }
        Ok(Flow::Next)
    }

    fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) {
        let reasons: Vec<Reason> = unsubscribe
            .filters
            .iter()
            .map(|filter| {
                if self.broker.unsubscribe(&self.session, filter) {
                    Reason::Success
                } else {
                    Reason::NoSubscriptionExisted
                }
            })
            .collect();
        let mut state = self.session.lock();
        let Some(online) = state.online_of(self.number) else { return };
        let answer = UnsubAck {
            packet_id: unsubscribe.packet_id,
            reasons: &reasons,
            diagnostics: Default::default(),
        };
        online.answer(|receiver, out| answer.encode(receiver, out));
    }
}
