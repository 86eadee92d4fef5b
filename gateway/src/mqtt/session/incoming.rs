//! QoS 2 PUBLISHes from a client: each packet id is taken once [MQTT-4.3.3-10].

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use smallvec::{SmallVec, smallvec};

use super::State;
use crate::mqtt::codec::{AckKind, PacketId, Reason};

/// The exchanges that a client began and has not completed. Whatever the client leaves open comes
/// to one entry of two bytes a packet id; those under way hold their records' room in the writer.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    committing: HashMap<PacketId, Committing, RandomState>,
    /// PUBREL is to come.
    committed: HashSet<PacketId, RandomState>,
}

/// The record is on its way; PUBREC goes to these places of this connection.
#[derive(Debug)]
struct Committing {
    connection: u64,
    slots: SmallVec<[u64; 1]>,
}

/// What to do with an inbound QoS 2 PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Append it.
    New,
    /// It was taken before: only PUBREC is to be sent (again).
    Repeated,
}

impl Incoming {
    /// The id stands for a message that was taken.
    pub(crate) fn has(&self, id: PacketId) -> bool {
        self.committed.contains(&id) || self.committing.contains_key(&id)
    }
}

impl State {
    /// A QoS 2 PUBLISH came on connection `number`.
    pub(crate) fn receive(&mut self, number: u64, id: PacketId) -> Admission {
        let Some(online) = self.online.as_mut().filter(|online| online.number == number) else {
            return Admission::Repeated;
        };
        let slot = online.acks.push(AckKind::PubRec, id);
        if self.incoming.committed.contains(&id) {
            online.complete(slot, Reason::Success);
            return Admission::Repeated;
        }
        match self.incoming.committing.get_mut(&id) {
            None => {
                let committing = Committing { connection: number, slots: smallvec![slot] };
                self.incoming.committing.insert(id, committing);
                online.received += 1;
                Admission::New
            }
            Some(Committing { connection, slots }) => {
                if *connection != number {
                    *connection = number;
                    slots.clear();
                }
                slots.push(slot);
                Admission::Repeated
            }
        }
    }

    /// The record of an inbound QoS 2 PUBLISH is committed, or refused: then it is as if it had
    /// not come.
    pub(crate) fn complete_received(&mut self, id: PacketId, reason: Reason) {
        let incoming = &mut self.incoming;
        let Some(Committing { connection, slots }) = incoming.committing.remove(&id) else {
            return;
        };
        if incoming.committing.is_empty() && incoming.committing.capacity() > 64 {
            incoming.committing = HashMap::default();
        }
        if !reason.is_error() {
            incoming.committed.insert(id);
        }
        if let Some(online) = self.online_of(connection) {
            online.received = online.received.saturating_sub(usize::from(reason.is_error()));
            slots.into_iter().for_each(|slot| online.complete(slot, reason));
        }
    }

    /// PUBREL came: the exchange ends. Returns what PUBCOMP says. One whose PUBREC was not sent yet
    /// goes on: there is nothing to release.
    pub(crate) fn release_received(&mut self, id: PacketId) -> Reason {
        let committed = &mut self.incoming.committed;
        if !committed.remove(&id) {
            return Reason::PacketIdNotFound;
        }
        if committed.is_empty() && committed.capacity() > 64 {
            *committed = HashSet::default();
        }
        if let Some(online) = &mut self.online {
            // Also for an id of an earlier connection: so does the client count [MQTT-4.9].
            online.received = online.received.saturating_sub(1);
        }
        Reason::Success
    }
}
