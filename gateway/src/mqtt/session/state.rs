//! What a session holds.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use tokio::time::Instant;

use super::deliver::Limits;
use super::incoming::Incoming;
use super::link::Link;
use super::online::Online;
use super::window::{Delivery, Window};
use crate::mqtt::codec::{Ack, AckKind, QoS, Reason};
use crate::mqtt::connection::ConnShared;
use crate::mqtt::routes::{Route, Subscribed};
use crate::mqtt::shared::Group;
use crate::mqtt::will::Will;

/// A will, as long as its session may publish it.
#[derive(Debug)]
pub(crate) struct StoredWill {
    pub(crate) will: Will,
    pub(crate) delay_s: u32,
}

/// What a session holds. Small while nothing is under way.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) online: Option<Box<Online>>,
    /// By filter, `$share/GROUP/` included.
    pub(crate) subscriptions: HashMap<Arc<str>, Subscribed, RandomState>,
    /// Rises with each change of the subscriptions.
    pub(crate) subscriptions_version: u64,
    /// What they take, about.
    pub(crate) subscription_bytes: usize,
    /// Shared subscriptions that it is a member of.
    pub(crate) groups: Vec<Arc<Group>>,
    /// One a log, once there was a subscription.
    pub(crate) links: Box<[Link]>,
    pub(crate) qos1: Window,
    pub(crate) qos2: Window,
    /// QoS 1 and 2 messages that were ever sent.
    pub(crate) sent: u64,
    /// QoS 1 and 2 messages that wait for quota, in the order of their logs.
    pub(crate) pending: VecDeque<Delivery>,
    pub(crate) pending_bytes: usize,
    pub(crate) incoming: Incoming,
    pub(crate) expiry_s: u32,
    pub(crate) will: Option<Box<StoredWill>>,
    /// While it is away: when its will is due, and when it ends.
    pub(crate) will_at: Option<Instant>,
    pub(crate) ends_at: Option<Instant>,
    /// Rises with each connection.
    pub(crate) generation: u64,
    /// It is no longer anybody's.
    pub(crate) ended: bool,
}

impl Default for State {
    fn default() -> Self {
        Self {
            online: None,
            subscriptions: HashMap::default(),
            subscriptions_version: 0,
            subscription_bytes: 0,
            groups: Vec::new(),
            links: Box::default(),
            qos1: Window::qos1(),
            qos2: Window::qos2(),
            sent: 0,
            pending: VecDeque::new(),
            pending_bytes: 0,
            incoming: Incoming::default(),
            expiry_s: 0,
            will: None,
            will_at: None,
            ends_at: None,
            generation: 0,
            ended: false,
        }
    }
}

impl State {
    /// The connection, if it is (still) number `number`.
    pub(crate) fn online_of(&mut self, number: u64) -> Option<&mut Online> {
        self.online.as_deref_mut().filter(|online| online.number == number)
    }

    /// Whom to wake after changes, if nobody else is about to.
    pub(crate) fn take_wake(&mut self) -> Option<Arc<ConnShared>> {
        let online = self.online.as_mut()?;
        if !online.wants_wake || online.wake_queued {
            return None;
        }
        online.wake_queued = true;
        Some(online.connection.clone())
    }

    pub(crate) fn window(&mut self, qos: QoS) -> &mut Window {
        if qos == QoS::ExactlyOnce { &mut self.qos2 } else { &mut self.qos1 }
    }

    /// When its timer fires, if it has one.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        [self.will_at, self.ends_at].into_iter().flatten().min()
    }

    /// The session's own subscriptions.
    pub(crate) fn routes(&self) -> Vec<Arc<Route>> {
        let own = |subscribed: &Subscribed| match subscribed {
            Subscribed::Own(route) => Some(route.clone()),
            Subscribed::Shared(_) => None,
        };
        self.subscriptions.values().filter_map(own).collect()
    }

    /// The connection's buffer takes more.
    pub(crate) fn has_buffer(&self, limits: Limits) -> bool {
        self.online.as_ref().is_some_and(|online| online.backlog() <= limits.max_outbound_bytes)
    }

    /// The next QoS 1 or 2 message of any source would be sent at once.
    pub(crate) fn has_space(&self, limits: Limits) -> bool {
        self.pending.is_empty()
            && self.qos1.has_room()
            && self.qos2.has_room()
            && self.has_buffer(limits)
            && self.online.as_ref().is_some_and(|online| {
                online.to_send_again == 0 && online.outstanding < online.quota
            })
    }

    /// Messages in flight to the client.
    pub(crate) fn in_flight(&self) -> usize {
        self.qos1.len() + self.qos2.len()
    }

    /// The session reads logs by itself, or is to.
    pub(crate) fn needs_feed(&self) -> bool {
        self.online.as_ref().is_some_and(|online| {
            !online.wishes.is_empty()
                || (self.pending.is_empty() && self.links.iter().any(|link| link.is_behind()))
        })
    }

    /// PUBACK, PUBREC, PUBREL or PUBCOMP came on connection `number`. Returns how many exchanges
    /// of the server's it ended.
    pub(crate) fn acknowledged(&mut self, number: u64, ack: &Ack<'_>) -> usize {
        let (kind, id) = (ack.kind, ack.packet_id);
        if self.online_of(number).is_none() {
            return 0;
        }
        let (finished, answer) = match kind {
            AckKind::PubAck => (self.qos1.finish(id), None),
            AckKind::PubComp => (self.qos2.finish(id), None),
            AckKind::PubRec if ack.reason.is_error() => (self.qos2.finish(id), None),
            AckKind::PubRec => {
                let reason =
                    if self.qos2.release(id) { Reason::Success } else { Reason::PacketIdNotFound };
                (false, Some(Ack::new(AckKind::PubRel, id, reason)))
            }
            AckKind::PubRel => {
                (false, Some(Ack::new(AckKind::PubComp, id, self.release_received(id))))
            }
        };
        if let Some(online) = self.online_of(number) {
            online.outstanding = online.outstanding.saturating_sub(usize::from(finished));
            if let Some(answer) = answer {
                online.ack(&answer);
            }
        }
        usize::from(finished)
    }
}
