//! The part of a session that lives as long as one connection.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::sync::Arc;

use super::acks::AckQueue;
use super::aliases::OutAliases;
use super::out::OutQueue;
use bytes::BytesMut;

use crate::mqtt::codec::{Ack, EncodeError, PacketId, Reason, Receiver};
use crate::mqtt::connection::ConnShared;
use crate::mqtt::deliver::Outgoing;
use crate::mqtt::routes::Route;

/// Retained messages that are to be sent for a new subscription.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) route: Arc<Route>,
    /// A retained message whose record lies at or past its shard's offset here comes (again) from
    /// the log.
    pub(crate) below: Arc<[u64]>,
}

/// A session's connection.
#[derive(Debug)]
pub(crate) struct Online {
    pub(crate) connection: Arc<ConnShared>,
    /// Unlike every other connection's of the session.
    pub(crate) number: u64,
    pub(crate) receiver: Receiver,
    /// QoS 1 and 2 PUBLISHes that the client takes unacknowledged.
    pub(crate) quota: usize,
    /// Of these, how many are out.
    pub(crate) outstanding: usize,
    /// Messages of earlier connections that are still to be sent again.
    pub(crate) to_send_again: usize,
    /// QoS 2 PUBLISHes that came on it and are not completed.
    pub(crate) received: usize,
    pub(crate) acks: AckQueue,
    pub(crate) out: OutQueue,
    /// Bytes that the connection took from `out` and has not written yet.
    pub(crate) unsent: usize,
    pub(crate) aliases: Option<Box<OutAliases>>,
    pub(crate) wishes: VecDeque<Wish>,
    /// There is something for the connection to do.
    pub(crate) wants_wake: bool,
    /// Whoever set this wakes it.
    pub(crate) wake_queued: bool,
}

impl Online {
    /// Bytes that wait for the client to take them.
    pub(crate) fn backlog(&self) -> usize {
        self.out.len() + self.unsent
    }

    /// Writes an outgoing PUBLISH.
    pub(crate) fn publish(
        &mut self,
        outgoing: &Outgoing,
        id: Option<PacketId>,
        dup: bool,
        alias: Option<NonZeroU16>,
        now_ms: i64,
    ) {
        outgoing.write(id, dup, alias, now_ms, &mut self.out);
        self.wants_wake = true;
    }

    /// An acknowledgement that needs no place in the order.
    pub(crate) fn ack(&mut self, ack: &Ack<'_>) {
        self.answer(|receiver, out| ack.encode(receiver, out));
    }

    /// Writes a packet that the client waits for. One that is larger than the client takes must
    /// not be sent, and without it the client would wait for ever: then the connection ends.
    pub(crate) fn answer(
        &mut self,
        encode: impl FnOnce(&Receiver, &mut BytesMut) -> Result<(), EncodeError>,
    ) {
        let receiver = self.receiver;
        if self.out.write(|out| encode(&receiver, out)).is_err() {
            self.connection.close(Reason::PacketTooLarge);
        }
        self.wants_wake = true;
    }

    /// The outcome of a PUBLISH from the client is known: sends what may be sent by now.
    pub(crate) fn complete(&mut self, slot: u64, reason: Reason) {
        if reason.is_error() && !self.receiver.version.is_v5() {
            // 3.1.1 can't say no: closed without an answer, the client sends it again.
            self.connection.close(reason);
            return;
        }
        self.acks.complete(slot, reason);
        while let Some(ack) = self.acks.pop() {
            self.ack(&ack);
        }
    }
}
