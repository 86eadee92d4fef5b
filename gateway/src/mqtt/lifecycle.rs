//! How sessions begin, change hands and end, with their wills.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::broker::Broker;
use super::codec::{ConnAck, Connect, Reason};
use super::connection::ConnShared;
use super::deliver::Position;
use super::publish::Completion;
use super::routes::Subscribed;
use super::session::{Opening, Session, Source, State, StoredWill, TakenBack};
use super::will::Will;

/// A CONNECT that was accepted.
pub(crate) struct Accepted {
    pub(crate) session: Arc<Session>,
    /// Of the connection within its session.
    pub(crate) number: u64,
    pub(crate) keep_alive_s: u16,
    /// CONNACK is on its way; if not, it was too large for the client.
    pub(crate) is_told: bool,
}

/// All tails, locked in their order: no delivery is under way.
pub(crate) type Positions<'a> = SmallVec<[MutexGuard<'a, Position>; 16]>;

/// How long a connection may take to handle what it has read, when another takes its session.
const DISPLACE: Duration = Duration::from_millis(500);

/// What is left to do after the locks are free.
#[derive(Default)]
struct After {
    will: Option<Box<StoredWill>>,
    taken_back: TakenBack,
}

impl Broker {
    pub(crate) fn positions(&self) -> Positions<'_> {
        self.feed.tails.iter().map(|tail| tail.position()).collect()
    }

    /// Ends the connection that a client has already, once what it sent was handled.
    pub(crate) async fn displace(&self, client_id: &str) {
        let Some(session) = self.registry.get(client_id) else { return };
        let old = session.lock().online.as_ref().map(|online| online.connection.clone());
        if let Some(old) = old {
            old.close(Reason::SessionTakenOver);
            // One that can't go on now doesn't hold up its successor for long.
            let _ = tokio::time::timeout(DISPLACE, old.drained()).await;
        }
    }

    /// Gives an accepted CONNECT its session, takes that from an older connection if need be, and
    /// queues CONNACK.
    pub(crate) fn accept(&self, connect: &Connect<'_>, connection: Arc<ConnShared>) -> Accepted {
        let assigned = connect.client_id.is_empty().then(|| self.new_client_id());
        let client_id = assigned.as_deref().unwrap_or(connect.client_id);
        let keep_alive_s = self.keep_alive(connect.keep_alive_s);
        let expiry_s = self.granted_expiry(connect.session_expiry_s);
        loop {
            let (session, existed) = self.registry.get_or_create(client_id);
            if existed && connect.clean_start {
                self.discard(&session);
                continue;
            }
            let positions = if existed { self.positions() } else { Positions::new() };
            let mut state = session.lock();
            if state.ended {
                continue; // its end takes it out of the registry
            }
            self.disarm(&session, &mut state);
            let after = self.take_over(&mut state, &positions);
            let will = connect.will.map(|will| {
                let delay_s = will.delay_s;
                Box::new(StoredWill { will: Will::new(&will, session.client_id.clone()), delay_s })
            });
            let opening = Opening {
                connection: connection.clone(),
                receiver: connect.receiver(),
                quota: usize::from(connect.receive_maximum.min(self.config.max_in_flight)),
                aliases: connect.topic_alias_maximum.min(self.config.outbound_topic_aliases),
                expiry_s,
                will,
            };
            let connack = ConnAck {
                session_present: existed,
                session_expiry_s: (expiry_s != connect.session_expiry_s).then_some(expiry_s),
                receive_maximum: self.config.receive_maximum,
                max_packet_bytes: Some(self.config.max_packet_bytes),
                assigned_client_id: assigned.as_deref(),
                topic_alias_maximum: self.config.topic_alias_maximum,
                server_keep_alive_s: (keep_alive_s != connect.keep_alive_s).then_some(keep_alive_s),
                ..ConnAck::new(Reason::Success)
            };
            let receiver = opening.receiver;
            let mut is_told = false;
            let attached = state.attach(opening, &self.feed.tails, |out| {
                // One that is too large for the client must not be sent.
                is_told = out.write(|out| connack.encode(&receiver, out)).is_ok();
            });
            drop(state);
            drop(positions);
            self.metrics.clients.inc();
            if !existed {
                self.metrics.sessions.inc();
            }
            self.do_after(&session, after);
            return Accepted { session, number: attached.number, keep_alive_s, is_told };
        }
    }

    /// Parks a session, and ends its connection if it has one.
    fn take_over(&self, state: &mut State, positions: &Positions<'_>) -> After {
        let taken_back = state.park(positions.iter().map(|position| &**position));
        let mut will = state.will.take();
        if let Some(online) = state.online.take() {
            self.metrics.clients.sub(1);
            online.connection.close(Reason::SessionTakenOver);
            // The old connection ended badly; the new one came within any delay.
            will = will.filter(|will| will.delay_s == 0);
        } else {
            will = None;
        }
        After { will, taken_back }
    }

    /// A connection of a session ended; `with_will` unless the client took leave.
    pub(crate) fn leave(&self, session: &Arc<Session>, number: u64, with_will: bool) {
        let positions = self.positions();
        let mut state = session.lock();
        if state.online_of(number).is_none() {
            return;
        }
        let taken_back = state.park(positions.iter().map(|position| &**position));
        drop(positions);
        state.online = None;
        self.metrics.clients.sub(1);
        if !with_will {
            state.will = None;
        }
        let mut after = After { will: None, taken_back };
        let ends = state.expiry_s == 0;
        if !ends {
            let now = Instant::now();
            let at = |seconds: u32| {
                (seconds != u32::MAX).then(|| now + Duration::from_secs(u64::from(seconds)))
            };
            match state.will.as_ref().map(|will| will.delay_s.min(state.expiry_s)) {
                Some(0) => after.will = state.will.take(),
                Some(delay_s) => state.will_at = at(delay_s),
                None => {}
            }
            state.ends_at = at(state.expiry_s);
            if let Some(due) = state.next_due() {
                self.timers.set(due, session);
            }
        }
        drop(state);
        self.do_after(session, after);
        if ends {
            // Unless somebody came for it since.
            self.end_if(session, |state| state.online.is_none());
        }
    }

    /// A session's timer fired.
    pub(crate) fn due(&self, session: &Arc<Session>) {
        let now = Instant::now();
        let (will, ends) = {
            let mut state = session.lock();
            let ends = state.ends_at.is_some_and(|at| at <= now);
            let mut will = None;
            if state.will_at.is_some_and(|at| at <= now) {
                state.will_at = None;
                will = state.will.take();
            }
            if !ends && let Some(due) = state.next_due() {
                self.timers.set(due, session);
            }
            (will, ends)
        };
        self.do_after(session, After { will, ..After::default() });
        if ends {
            self.end_if(session, |state| state.ends_at.is_some_and(|at| at <= now));
        }
    }

    /// The session is no longer away, or no longer at all.
    fn disarm(&self, session: &Arc<Session>, state: &mut State) {
        if let Some(due) = state.next_due() {
            self.timers.cancel(due, session);
        }
        state.will_at = None;
        state.ends_at = None;
    }

    /// Ends a session whose client wants a new one.
    fn discard(&self, session: &Arc<Session>) {
        self.end_if(session, |_| true);
    }

    /// Ends a session: its subscriptions, messages and, if it still has one, its will, which is
    /// published now. Nothing happens unless `condition` still holds.
    fn end_if(&self, session: &Arc<Session>, condition: impl FnOnce(&State) -> bool) {
        let (subscriptions, will, mut lost) = {
            let mut state = session.lock();
            if state.ended || !condition(&state) {
                return;
            }
            state.ended = true;
            self.disarm(session, &mut state);
            if let Some(online) = state.online.take() {
                self.metrics.clients.sub(1);
                online.connection.close(Reason::SessionTakenOver);
            }
            state.links = Box::default();
            let groups = std::mem::take(&mut state.groups);
            self.metrics.in_flight.sub(state.in_flight() as u64);
            let lost: Vec<_> =
                state.qos1.drain().into_iter().chain(state.pending.drain(..)).collect();
            state.qos2.drain(); // never handed to another [MQTT-4.8.2-5]
            drop(groups);
            (std::mem::take(&mut state.subscriptions), state.will.take(), lost)
        };
        self.registry.remove(session);
        self.metrics.sessions.sub(1);
        self.metrics.subscriptions.sub(subscriptions.len() as u64);
        for (filter, subscribed) in subscriptions {
            match subscribed {
                Subscribed::Own(route) => self.routes.remove(&route),
                Subscribed::Shared(group) => self.leave_group(&filter, &group, session),
            }
        }
        let taken_back = lost
            .drain(..)
            .filter_map(|delivery| match delivery.source {
                Source::Group { group, shard, offset } => Some((group, shard, offset)),
                _ => None,
            })
            .collect();
        self.do_after(session, After { will, taken_back });
    }

    fn do_after(&self, session: &Arc<Session>, after: After) {
        for (group, shard, offset) in after.taken_back {
            group.take_back(shard, offset);
        }
        if let Some(stored) = after.will {
            self.metrics.wills.inc();
            tracing::debug!(client = %session.client_id, "publishing a will");
            let message = stored.will.message(self.clock.now_ms());
            let shard = self.shard_of(message.topic);
            // Without a connection to slow down it is always taken.
            let _ = shard.writer.submit(&message, None, || Completion::Silent);
            shard.writer.flush();
        }
    }

    fn keep_alive(&self, asked_s: u16) -> u16 {
        match self.config.max_keep_alive_s {
            0 => asked_s,
            max if asked_s == 0 => max,
            max => asked_s.min(max),
        }
    }

    fn new_client_id(&self) -> String {
        loop {
            let id = format!("auto-{:032x}", rand::random::<u128>());
            if !self.registry.contains(&id) {
                return id;
            }
        }
    }
}
