//! Acknowledgements that a connection owes its client, in the order of the PUBLISHes
//! [MQTT-4.6.0-2, MQTT-4.6.0-3].

use std::collections::VecDeque;

use crate::mqtt::codec::{Ack, AckKind, PacketId, Reason};

#[derive(Debug)]
struct Slot {
    kind: AckKind,
    id: PacketId,
    reason: Option<Reason>,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(crate) struct AckQueue {
    first: u64,
    slots: VecDeque<Slot>,
    qos1: usize,
}

impl AckQueue {
    /// Takes a place; returns its number.
    pub(crate) fn push(&mut self, kind: AckKind, id: PacketId) -> u64 {
        self.qos1 += usize::from(kind == AckKind::PubAck);
        self.slots.push_back(Slot { kind, id, reason: None });
        self.first + self.slots.len() as u64 - 1
    }

    /// Acknowledgements that are owed.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// PUBACKs that are owed.
    pub(crate) fn qos1(&self) -> usize {
        self.qos1
    }

    /// The outcome of a place is known.
    pub(crate) fn complete(&mut self, slot: u64, reason: Reason) {
        let index = slot.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some(slot) = index.and_then(|index| self.slots.get_mut(index)) {
            slot.reason.get_or_insert(reason);
        }
    }

    /// The next acknowledgement that may be sent.
    pub(crate) fn pop(&mut self) -> Option<Ack<'static>> {
        let reason = self.slots.front()?.reason?;
        let slot = self.slots.pop_front()?;
        self.first += 1;
        self.qos1 -= usize::from(slot.kind == AckKind::PubAck);
        if self.slots.is_empty() && self.slots.capacity() > 64 {
            self.slots = VecDeque::new();
        }
        Some(Ack::new(slot.kind, slot.id, reason))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn p21_acknowledgements_leave_in_the_order_of_the_publishes(
            order in Just((0_u16..40).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut queue = AckQueue::default();
            for id in 1..=40 {
                let slot = queue.push(AckKind::PubAck, PacketId::new(id).unwrap());
                prop_assert_eq!(slot, u64::from(id) - 1);
            }
            let mut sent = Vec::new();
            for slot in order {
                queue.complete(u64::from(slot), Reason::Success);
                while let Some(ack) = queue.pop() {
                    sent.push(ack.packet_id.get());
                }
            }
            prop_assert_eq!(sent, (1..=40).collect::<Vec<_>>());
            prop_assert_eq!(queue.qos1(), 0);
        }
    }
}
