//! PUBLISHes of QoS 1 or 2 that were sent and are not completed.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::mqtt::codec::{PacketId, Version};
use crate::mqtt::deliver::Outgoing;
use crate::mqtt::shared::Group;

/// Where a message for a session came from.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    /// A record of a log.
    Log { shard: u16, offset: u64 },
    /// A record that a shared subscription handed to this member.
    Group { group: Arc<Group>, shard: u16, offset: u64 },
    /// Not from the log: a retained message.
    Retained,
}

/// A message for one session.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) source: Source,
}

#[derive(Debug)]
enum Phase {
    /// PUBLISH was sent (or is to be sent again, if `again`).
    Sent { delivery: Delivery, order: u64, again: bool },
    /// PUBREC came; PUBREL was sent. The number orders the PUBRELs.
    Released(u64),
    /// Completed, behind one that isn't.
    Done,
}

impl Phase {
    fn bytes(&self) -> usize {
        match self {
            Self::Sent { delivery, .. } => delivery.outgoing.held_bytes(),
            Self::Released(_) | Self::Done => 0,
        }
    }
}

#[derive(Debug)]
struct Entry {
    id: PacketId,
    phase: Phase,
}

/// The window of one QoS, in the order of sending. Ids are taken from one half of the numbers, in
/// rising order, so that only the oldest one can be met again.
#[derive(Debug)]
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    first_id: u16,
    next_id: u16,
    live: usize,
    /// Of the packets that may have to be sent again.
    bytes: usize,
    releases: u64,
    /// None before this place is to be sent again.
    again_from: usize,
}

/// Past so many bytes that a client doesn't acknowledge, it gets no more.
const MAX_BYTES: usize = 8 << 20;

const HALF: u16 = 0x7fff;

impl Window {
    pub(crate) fn qos1() -> Self {
        Self::new(1)
    }

    pub(crate) fn qos2() -> Self {
        Self::new(0x8000)
    }

    fn new(first_id: u16) -> Self {
        Self {
            entries: VecDeque::new(),
            first_id,
            next_id: 0,
            live: 0,
            bytes: 0,
            releases: 0,
            again_from: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.live
    }

    fn id(&self, number: u16) -> Option<PacketId> {
        PacketId::new(self.first_id + number)
    }

    /// The id that the next message gets; `None` while the oldest unfinished one has it.
    fn free_id(&self) -> Option<PacketId> {
        let id = self.id(self.next_id)?;
        (self.entries.front().map(|entry| entry.id) != Some(id)).then_some(id)
    }

    /// There is an id, and memory, for one more.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < MAX_BYTES && self.free_id().is_some()
    }

    /// Adds a message that is being sent; `None` if it has no room.
    /// `order` rises with each message of the session.
    pub(crate) fn push(&mut self, delivery: Delivery, order: u64) -> Option<PacketId> {
        let id = self.free_id()?;
        self.next_id = if self.next_id + 1 == HALF { 0 } else { self.next_id + 1 };
        self.bytes += delivery.outgoing.held_bytes();
        self.entries.push_back(Entry { id, phase: Phase::Sent { delivery, order, again: false } });
        self.live += 1;
        Some(id)
    }

    /// Entries have all the ids from the first one's on, so that an id says its place.
    fn find(&mut self, id: PacketId) -> Option<&mut Entry> {
        let number = |id: PacketId| id.get().checked_sub(self.first_id).filter(|it| *it < HALF);
        let (first, wanted) = (number(self.entries.front()?.id)?, number(id)?);
        let place = if wanted >= first { wanted - first } else { wanted + HALF - first };
        let entry = self.entries.get_mut(usize::from(place))?;
        (entry.id == id && !matches!(entry.phase, Phase::Done)).then_some(entry)
    }

    /// The exchange ended: PUBACK, PUBCOMP, or PUBREC with an error. Returns whether it was open.
    pub(crate) fn finish(&mut self, id: PacketId) -> bool {
        let Some(entry) = self.find(id) else { return false };
        let freed = entry.phase.bytes();
        entry.phase = Phase::Done;
        self.bytes = self.bytes.saturating_sub(freed);
        self.live -= 1;
        while self.entries.front().is_some_and(|entry| matches!(entry.phase, Phase::Done)) {
            self.entries.pop_front();
            self.again_from = self.again_from.saturating_sub(1);
        }
        if self.entries.is_empty() && self.entries.capacity() > 64 {
            self.entries = VecDeque::new();
        }
        true
    }

    /// PUBREC came. Returns whether the id is open.
    pub(crate) fn release(&mut self, id: PacketId) -> bool {
        self.releases += 1;
        let order = self.releases;
        let Some(entry) = self.find(id) else { return false };
        let freed = entry.phase.bytes();
        if let Phase::Sent { .. } = entry.phase {
            entry.phase = Phase::Released(order);
        }
        self.bytes = self.bytes.saturating_sub(freed);
        true
    }

    /// What waits to be sent again must be in the new connection's version.
    pub(crate) fn speak(&mut self, version: Version) {
        for entry in &mut self.entries {
            if let Phase::Sent { delivery, .. } = &mut entry.phase
                && let Some(other) = delivery.outgoing.in_version(version)
            {
                let (before, after) = (delivery.outgoing.held_bytes(), other.held_bytes());
                self.bytes = (self.bytes + after).saturating_sub(before);
                delivery.outgoing = Arc::new(other);
            }
        }
    }

    /// A new connection: what was sent is to be sent again. Returns how many.
    pub(crate) fn resume(&mut self) -> usize {
        let mut count = 0;
        self.again_from = 0;
        for entry in &mut self.entries {
            if let Phase::Sent { again, .. } = &mut entry.phase {
                *again = true;
                count += 1;
            }
        }
        count
    }

    /// The ids whose PUBREL is to be sent again, in the order of their PUBRECs [MQTT-4.6.0-4].
    pub(crate) fn released(&self) -> Vec<PacketId> {
        let mut released: Vec<_> = self
            .entries
            .iter()
            .filter_map(|entry| match entry.phase {
                Phase::Released(order) => Some((order, entry.id)),
                _ => None,
            })
            .collect();
        released.sort_unstable();
        released.into_iter().map(|(_, id)| id).collect()
    }

    /// The order of the oldest message that is to be sent again.
    pub(crate) fn next_again(&self) -> Option<u64> {
        let from = self.again_from.min(self.entries.len());
        self.entries.range(from..).find_map(|entry| match entry.phase {
            Phase::Sent { order, again: true, .. } => Some(order),
            _ => None,
        })
    }

    /// The oldest message that is to be sent again: it is, from here on.
    pub(crate) fn send_again(&mut self) -> Option<(PacketId, &Delivery)> {
        let from = self.again_from.min(self.entries.len());
        self.entries.range_mut(from..).find_map(|entry| {
            self.again_from += 1;
            match &mut entry.phase {
                Phase::Sent { delivery, again, .. } if *again => {
                    *again = false;
                    Some((entry.id, &*delivery))
                }
                _ => None,
            }
        })
    }

    /// Takes out everything: the session ends. Returns what was never acknowledged, in order.
    pub(crate) fn drain(&mut self) -> Vec<Delivery> {
        self.live = 0;
        self.bytes = 0;
        self.entries
            .drain(..)
            .filter_map(|entry| match entry.phase {
                Phase::Sent { delivery, .. } => Some(delivery),
                _ => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::{AliasForm, PublishProperties, QoS, Variant};
    use crate::mqtt::deliver::{Message, Variants};

    fn delivery() -> Delivery {
        let message = Message {
            topic: "t",
            payload: b"",
            qos: QoS::AtLeastOnce,
            retain: false,
            client_id: None,
            expires_at_ms: None,
            properties: PublishProperties::default(),
        };
        let variant = Variant {
            version: Version::V5,
            qos: QoS::AtLeastOnce,
            retain: false,
            alias: AliasForm::Name,
            subscription_ids: Default::default(),
        };
        let outgoing = Variants::new(&message, 0).get(&variant).unwrap();
        Delivery { outgoing, source: Source::Retained }
    }

    #[test]
    fn p22_ids_come_round_and_none_in_use_is_given_again() {
        for mut window in [Window::qos1(), Window::qos2()] {
            let delivery = delivery();
            let first: Vec<_> = (0..HALF)
                .map(|order| window.push(delivery.clone(), order.into()).unwrap())
                .collect();
            assert!(!window.has_room() && window.push(delivery.clone(), 0).is_none());
            // All but the oldest are completed, in any order: its id is the next.
            for id in first.iter().skip(1).rev() {
                assert!(window.finish(*id) && !window.finish(*id));
            }
            assert!(!window.has_room() && window.len() == 1);
            assert!(window.finish(first[0]));
            assert_eq!((window.len(), window.bytes), (0, 0));
            // Over the end of the numbers.
            for _ in 0..10 {
                assert!(window.push(delivery.clone(), 1).is_some());
            }
            for id in first.iter().take(10) {
                assert!(window.finish(*id));
            }
            assert_eq!(window.push(delivery.clone(), 1), Some(first[10]));
        }
    }

    #[test]
    fn p18_each_is_sent_again_once_in_order() {
        let mut window = Window::qos2();
        let delivery = delivery();
        let ids: Vec<_> =
            (0..6).map(|order| window.push(delivery.clone(), order).unwrap()).collect();
        window.finish(ids[1]);
        window.release(ids[3]);
        for _ in 0..2 {
            assert_eq!(window.resume(), 4);
            let mut again = Vec::new();
            while let Some(order) = window.next_again() {
                let (id, _) = window.send_again().unwrap();
                again.push((order, id));
            }
            assert_eq!(again, [0, 2, 4, 5].map(|n| (n as u64, ids[n])));
            assert_eq!(window.released(), [ids[3]]);
        }
        // An end in the midst of it.
        window.resume();
        window.send_again();
        window.finish(ids[0]);
        assert_eq!(window.send_again().map(|(id, _)| id), Some(ids[2]));
        assert_eq!(window.next_again(), Some(4));
    }
}
