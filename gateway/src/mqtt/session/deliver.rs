//! Hands messages to a session: sends them, lets them wait, or leaves them in the log.

use std::collections::VecDeque;
use std::sync::Arc;

use interflow_logstore::AppendKey;
use smallvec::SmallVec;

use super::state::State;
use super::window::{Delivery, Source};
use crate::mqtt::codec::{AliasForm, QoS, Variant};
use crate::mqtt::deliver::{Early, Variants};
use crate::mqtt::routes::Route;

/// Bounds of what waits for a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_outbound_bytes: usize,
    pub(crate) max_pending_bytes: usize,
}

/// Where a message lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    pub(crate) shard: u16,
    /// `None` for an early batch, which has no offset yet.
    pub(crate) offset: Option<u64>,
    /// The place of its batch among early ones, if it was (or is being) delivered early.
    pub(crate) early: Option<Early>,
    /// The key of its batch.
    pub(crate) key: Option<AppendKey>,
    /// The newest early batch so far, and its [`Early::alone`].
    pub(crate) newest_early: Option<(AppendKey, u64)>,
}

/// Who hands it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The log's tail: what can't be taken, the session will read by itself.
    Live,
    /// The session's own reading: what can't be taken is to be offered again.
    CatchUp { qos0_from: u64 },
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Sent, kept, dropped, or not for the session.
    Taken,
    /// The session can't take it now.
    Blocked,
    /// The client takes no packet of its size: nothing was sent, kept or counted.
    TooLarge,
}

/// Counts of one round of deliveries.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) delivered: [u64; 3],
    pub(crate) dropped: [u64; 3],
    pub(crate) in_flight: u64,
    /// Of those in flight, how many were given up.
    pub(crate) ended: u64,
}

impl Tally {
    fn count(counts: &mut [u64; 3], qos: QoS) {
        if let Some(count) = counts.get_mut(usize::from(qos.bits())) {
            *count += 1;
        }
    }

    pub(crate) fn deliver(&mut self, qos: QoS) {
        Self::count(&mut self.delivered, qos);
        self.in_flight += u64::from(qos != QoS::AtMostOnce);
    }

    pub(crate) fn drop(&mut self, qos: QoS) {
        Self::count(&mut self.dropped, qos);
    }
}

impl State {
    /// Offers a message to a session whose `routes` match it.
    pub(crate) fn deliver(
        &mut self,
        routes: &[&Arc<Route>],
        at: At,
        mode: Mode,
        variants: &mut Variants<'_>,
        limits: Limits,
        tally: &mut Tally,
    ) -> Outcome {
        let Some(link) = self.links.get(usize::from(at.shard)).copied() else {
            return Outcome::Taken;
        };
        if mode == Mode::Live && !link.is_due(at) {
            return Outcome::Taken;
        }
        let client_id = variants.message().client_id;
        let mut granted: Option<QoS> = None;
        let mut retain = false;
        let mut ids = SmallVec::<[u32; 2]>::new();
        for route in routes {
            if at.offset.is_some_and(|offset| offset < route.start(at.shard))
                || at.early.is_some_and(|early| early.number < route.early_from(at.shard))
            {
                continue;
            }
            if route.options.no_local && client_id == Some(&*route.session.client_id) {
                continue;
            }
            granted = granted.max(Some(route.options.qos));
            retain |= route.options.retain_as_published;
            ids.extend(route.subscription_id);
        }
        let Some(granted) = granted else { return Outcome::Taken };
        let message = variants.message();
        let (qos, retain) = (message.qos.min(granted), retain && message.retain);
        let source = Source::Log { shard: at.shard, offset: at.offset.unwrap_or(0) };
        if let (Mode::CatchUp { qos0_from }, QoS::AtMostOnce, Some(offset)) = (mode, qos, at.offset)
            && offset < qos0_from
        {
            return Outcome::Taken;
        }
        let outcome = self.offer(qos, retain, ids, source, variants, limits, tally);
        if outcome == Outcome::Blocked
            && mode == Mode::Live
            && let Some(link) = self.links.get_mut(usize::from(at.shard))
            && link.fall_behind(at)
        {
            return Outcome::Taken;
        }
        outcome
    }

    /// Sends a message, or keeps it to be sent when the client acknowledges others. One that is too
    /// large for the client is dropped, as if it had been sent and completed [MQTT-3.1.2-25].
    #[expect(clippy::too_many_arguments, reason = "the parts of one delivery, borrowed apart")]
    pub(crate) fn offer(
        &mut self,
        qos: QoS,
        retain: bool,
        subscription_ids: SmallVec<[u32; 2]>,
        source: Source,
        variants: &mut Variants<'_>,
        limits: Limits,
        tally: &mut Tally,
    ) -> Outcome {
        let outcome =
            self.try_offer(qos, retain, subscription_ids, source, variants, limits, tally);
        if outcome == Outcome::TooLarge {
            tally.drop(qos);
            return Outcome::Taken;
        }
        outcome
    }

    /// Like [`State::offer`], but says so of one that is too large: somebody else may take it.
    #[expect(clippy::too_many_arguments, reason = "the parts of one delivery, borrowed apart")]
    pub(crate) fn try_offer(
        &mut self,
        qos: QoS,
        retain: bool,
        subscription_ids: SmallVec<[u32; 2]>,
        source: Source,
        variants: &mut Variants<'_>,
        limits: Limits,
        tally: &mut Tally,
    ) -> Outcome {
        let Some(online) = self.online.as_deref_mut() else { return Outcome::Blocked };
        let version = online.receiver.version;
        let name = Variant { version, qos, retain, alias: AliasForm::Name, subscription_ids };
        let Some(outgoing) = variants.get(&name) else { return Outcome::TooLarge };
        if outgoing.is_expired(variants.now_ms()) {
            tally.drop(qos);
            return Outcome::Taken;
        }
        let max_packet_bytes = online.receiver.max_packet_bytes as usize;
        if outgoing.bytes() > max_packet_bytes {
            return Outcome::TooLarge;
        }
        if qos == QoS::AtMostOnce {
            if online.backlog() > limits.max_outbound_bytes {
                tally.drop(qos);
                return Outcome::Taken;
            }
        } else {
            let can_send = self.pending.is_empty()
                && online.to_send_again == 0
                && online.outstanding < online.quota
                && online.backlog() <= limits.max_outbound_bytes
                && self.window(qos).has_room();
            if !can_send {
                if matches!(source, Source::Retained)
                    || self.pending_bytes + outgoing.held_bytes() > limits.max_pending_bytes
                {
                    return Outcome::Blocked;
                }
                self.pending_bytes += outgoing.held_bytes();
                self.pending.push_back(Delivery { outgoing, source });
                return Outcome::Taken;
            }
        }
        let id = match qos {
            QoS::AtMostOnce => None,
            qos => {
                let delivery = Delivery { outgoing: outgoing.clone(), source };
                self.sent += 1;
                let order = self.sent;
                self.window(qos).push(delivery, order)
            }
        };
        let Some(online) = self.online.as_deref_mut() else { return Outcome::Blocked };
        online.outstanding += usize::from(id.is_some());
        tally.deliver(qos);

        let mut alias = None;
        let mut outgoing = outgoing;
        if let Some(aliases) = &mut online.aliases {
            let topic = variants.message().topic;
            let (form, number) = aliases.form(topic);
            let aliased = (form != AliasForm::Name)
                .then(|| variants.get(&Variant { alias: form, ..name }))
                .flatten()
                .filter(|aliased| aliased.bytes() <= max_packet_bytes);
            if let (Some(aliased), Some(number)) = (aliased, number) {
                if form == AliasForm::Define {
                    aliases.define(topic, number);
                }
                outgoing = aliased;
                alias = Some(number);
            }
        }
        online.publish(&outgoing, id, false, alias, variants.now_ms());
        Outcome::Taken
    }

    /// Sends what waits, as far as quota and buffers allow: first what earlier connections sent,
    /// then what is pending.
    pub(crate) fn pump(&mut self, limits: Limits, now_ms: i64, tally: &mut Tally) {
        let Some(online) = self.online.as_deref_mut() else { return };
        // In the original order, whatever the QoS [MQTT-4.6.0-1].
        while online.to_send_again > 0
            && online.outstanding < online.quota
            && online.backlog() <= limits.max_outbound_bytes
        {
            let is_qos1 = match (self.qos1.next_again(), self.qos2.next_again()) {
                (Some(one), Some(two)) => one < two,
                (one, _) => one.is_some(),
            };
            let window = if is_qos1 { &mut self.qos1 } else { &mut self.qos2 };
            let Some((id, delivery)) = window.send_again() else {
                online.to_send_again = 0;
                break;
            };
            online.to_send_again -= 1;
            if delivery.outgoing.bytes() > online.receiver.max_packet_bytes as usize {
                // This connection takes less than the one it was sent on [MQTT-3.1.2-25].
                tally.drop(delivery.outgoing.qos());
                tally.ended += u64::from(window.finish(id));
                continue;
            }
            online.publish(&delivery.outgoing, Some(id), true, None, now_ms);
            online.outstanding += 1;
        }
        if online.to_send_again > 0 {
            return;
        }
        while let Some(next) = self.pending.front() {
            let qos = next.outgoing.qos();
            let window = if qos == QoS::ExactlyOnce { &mut self.qos2 } else { &mut self.qos1 };
            if online.outstanding >= online.quota
                || online.backlog() > limits.max_outbound_bytes
                || !window.has_room()
            {
                return;
            }
            let Some(delivery) = self.pending.pop_front() else { return };
            self.pending_bytes = self.pending_bytes.saturating_sub(delivery.outgoing.held_bytes());
            if delivery.outgoing.is_expired(now_ms)
                || delivery.outgoing.bytes() > online.receiver.max_packet_bytes as usize
            {
                tally.drop(qos);
                continue;
            }
            let outgoing = delivery.outgoing.clone();
            self.sent += 1;
            let id = window.push(delivery, self.sent);
            online.outstanding += 1;
            tally.deliver(qos);
            online.publish(&outgoing, id, false, None, now_ms);
        }
        if self.pending.capacity() > 64 {
            self.pending = VecDeque::new();
        }
    }
}
