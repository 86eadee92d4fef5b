//! SUBSCRIBE: answered once the routes are live.

use std::sync::Arc;

use super::input::Flow;
use super::run::{Close, Core};
use crate::mqtt::broker::Broker;
use crate::mqtt::codec::{PacketId, Reason, RetainHandling, SubAck, Subscribe};
use crate::mqtt::session::Session;
use crate::mqtt::subscriptions::Request;
use crate::mqtt::topic::SharedFilter;

impl Core {
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Result<Flow, Close> {
        let requests: Vec<Result<Request, Reason>> = subscribe
            .subscriptions
            .iter()
            .map(|subscription| {
                let filter = subscription.filter;
                if !self.broker.topic_limits.admit(filter) {
                    return Err(Reason::QuotaExceeded);
                }
                let shared = SharedFilter::parse(filter);
                let inner = shared.map_or(filter, |shared| shared.filter);
                // Not served yet.
                if inner == "$kafka" || inner.starts_with("$kafka/") {
                    return Err(Reason::TopicFilterInvalid);
                }
                Ok(Request {
                    filter: filter.into(),
                    shared: shared.map(|shared| shared.filter.into()),
                    options: subscription.options,
                    subscription_id: subscribe.subscription_id,
                })
            })
            .collect();
        let wants_retained = requests.iter().flatten().any(|request| {
            request.shared.is_none() && request.options.retain_handling != RetainHandling::Never
        });
        let broker = self.broker.clone();
        let (session, number, id) = (self.session.clone(), self.number, subscribe.packet_id);
        // Retained messages that were accepted before are to be there when they are looked for.
        self.flush_publishes();
        let is_settled = !wants_retained
            || (broker.feed.tails.iter().all(|tail| tail.is_even())
                && !broker.retained.is_under_way());
        if is_settled {
            answer(&broker, &session, number, id, &requests);
            return Ok(Flow::Next);
        }
        self.job = Some(Box::pin(async move {
            for tail in broker.feed.tails.iter() {
                tail.reached(tail.committed()).await;
            }
            if let Some(settled) = broker.retained.settled() {
                settled.await;
            }
            answer(&broker, &session, number, id, &requests);
        }));
        Ok(Flow::Pause)
    }
}

fn answer(
    broker: &Arc<Broker>,
    session: &Arc<Session>,
    number: u64,
    packet_id: PacketId,
    requests: &[Result<Request, Reason>],
) {
    broker.subscribe(session, number, requests, |online, reasons| {
        let answer = SubAck { packet_id, reasons, diagnostics: Default::default() };
        online.answer(|receiver, out| answer.encode(receiver, out));
    });
}
