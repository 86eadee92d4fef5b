//! QoS 2 PUBLISHes from a client: each packet id is taken once [MQTT-4.3.3-10].

use smallvec::{SmallVec, smallvec};

use super::State;
use crate::mqtt::codec::{AckKind, PacketId, Reason};

/// An inbound QoS 2 exchange that is not completed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// Its record is on its way; PUBREC goes to these places of this connection.
    Committing { connection: u64, slots: SmallVec<[u64; 1]> },
    /// It is committed; PUBREL is to come.
    Committed,
}

/// What to do with an inbound QoS 2 PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Append it.
    New,
    /// It was taken before: only PUBREC is to be sent (again).
    Repeated,
}

impl State {
    /// A QoS 2 PUBLISH came on connection `number`.
    pub(crate) fn receive(&mut self, number: u64, id: PacketId) -> Admission {
        let Some(online) = self.online.as_mut().filter(|online| online.number == number) else {
            return Admission::Repeated;
        };
        let slot = online.acks.push(AckKind::PubRec, id);
        match self.received.get_mut(&id) {
            None => {
                let slots = smallvec![slot];
                self.received.insert(id, Received::Committing { connection: number, slots });
                Admission::New
            }
            Some(Received::Committing { connection, slots }) => {
                if *connection != number {
                    *connection = number;
                    slots.clear();
                }
                slots.push(slot);
                Admission::Repeated
            }
            Some(Received::Committed) => {
                online.complete(slot, Reason::Success);
                Admission::Repeated
            }
        }
    }

    /// The record of an inbound QoS 2 PUBLISH is committed, or refused: then it is as if it had
    /// not come.
    pub(crate) fn complete_received(&mut self, id: PacketId, reason: Reason) {
        let Some(received) = self.received.get_mut(&id) else { return };
        let Received::Committing { connection, slots } =
            std::mem::replace(received, Received::Committed)
        else {
            return;
        };
        if reason.is_error() {
            self.received.remove(&id);
        }
        if let Some(online) = self.online_of(connection) {
            slots.into_iter().for_each(|slot| online.complete(slot, reason));
        }
    }

    /// PUBREL came: the exchange ends. Returns what PUBCOMP says.
    pub(crate) fn release_received(&mut self, id: PacketId) -> Reason {
        if self.received.remove(&id).is_some() { Reason::Success } else { Reason::PacketIdNotFound }
    }
}
