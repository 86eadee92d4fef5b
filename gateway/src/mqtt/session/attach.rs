//! Connections come to a session and leave it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::acks::AckQueue;
use super::aliases::OutAliases;
use super::link::Link;
use super::online::Online;
use super::out::OutQueue;
use super::state::{State, StoredWill};
use super::window::Source;
use crate::mqtt::codec::{Ack, AckKind, Reason, Receiver};
use crate::mqtt::connection::ConnShared;
use crate::mqtt::deliver::{Position, Tail};
use crate::mqtt::shared::Group;

/// A connection that is about to have a session.
pub(crate) struct Opening {
    pub(crate) connection: Arc<ConnShared>,
    pub(crate) receiver: Receiver,
    pub(crate) quota: usize,
    pub(crate) aliases: u16,
    pub(crate) expiry_s: u32,
    pub(crate) will: Option<Box<StoredWill>>,
}

/// What a connection found.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Of the connection within its session.
    pub(crate) number: u64,
}

/// Records that a shared subscription must hand to somebody else.
pub(crate) type TakenBack = Vec<(Arc<Group>, u16, u64)>;

impl State {
    /// Leaves everything that was not sent to the log. `positions` are the tails', locked.
    pub(crate) fn park<'p>(&mut self, positions: impl Iterator<Item = &'p Position>) -> TakenBack {
        for (link, position) in self.links.iter_mut().zip(positions) {
            *link = position.behind(*link);
        }
        let mut taken_back = Vec::new();
        for delivery in self.pending.drain(..) {
            match delivery.source {
                Source::Log { shard, offset } => {
                    if let Some(Link::Behind { cursor, .. }) =
                        self.links.get_mut(usize::from(shard))
                    {
                        *cursor = offset.min(*cursor);
                    }
                }
                Source::Group { group, shard, offset } => taken_back.push((group, shard, offset)),
                Source::Retained => {}
            }
        }
        self.pending = VecDeque::new();
        self.pending_bytes = 0;
        taken_back
    }

    /// Gives the session a new connection; it must be parked. `connack` is the first that goes
    /// out, then what is to be completed of earlier connections.
    pub(crate) fn attach(
        &mut self,
        opening: Opening,
        tails: &[Arc<Tail>],
        connack: impl FnOnce(&mut OutQueue),
    ) -> Attached {
        self.generation += 1;
        self.expiry_s = opening.expiry_s;
        self.will = opening.will;
        let only_qos0 = self.has_only_qos0();
        for (link, tail) in self.links.iter_mut().zip(tails) {
            if let Link::Behind { cursor, qos0_from, .. } = link {
                *qos0_from = tail.committed();
                if only_qos0 {
                    *cursor = (*cursor).max(*qos0_from);
                }
            }
        }
        let version = opening.receiver.version;
        for window in [&mut self.qos1, &mut self.qos2] {
            window.speak(version);
        }
        let to_send_again = self.qos1.resume() + self.qos2.resume();
        let released = self.qos2.released();
        let mut online = Box::new(Online {
            connection: opening.connection,
            number: self.generation,
            receiver: opening.receiver,
            quota: opening.quota,
            outstanding: released.len(),
            to_send_again,
            received: 0,
            acks: AckQueue::default(),
            out: OutQueue::default(),
            unsent: 0,
            aliases: OutAliases::new(opening.aliases),
            wishes: VecDeque::new(),
            wants_wake: true,
            wake_queued: true,
        });
        connack(&mut online.out);
        for id in released {
            online.ack(&Ack::new(AckKind::PubRel, id, Reason::Success));
        }
        self.online = Some(online);
        Attached { number: self.generation }
    }

    fn has_only_qos0(&self) -> bool {
        self.routes().iter().all(|route| route.options.qos == crate::mqtt::codec::QoS::AtMostOnce)
    }
}
