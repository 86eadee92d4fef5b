//! From bytes to packets.

use super::run::{Close, Core};
use crate::mqtt::codec::Packet;

/// What comes after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// The next one.
    Next,
    /// The next one, once the job is done.
    Pause,
    /// The same one again, once there is room.
    Stall,
}

impl Core {
    /// Handles the whole packets that `bytes` begins with. Returns how many bytes they are.
    pub(super) fn consume(&mut self, bytes: &[u8]) -> (usize, Result<(), Close>) {
        let mut taken = 0;
        self.is_clogged = self.owes_too_much();
        if self.is_clogged {
            self.is_stalled = true;
            return (0, Ok(()));
        }
        let result = loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let (frame, len) = match self.rules.split(rest) {
                Ok(Some(split)) => split,
                Ok(None) => break Ok(()),
                Err(error) => break Err(Close::Broken(error)),
            };
            if let Some(keep_alive) = &mut self.keep_alive {
                keep_alive.packet();
            }
            let packet = match Packet::decode(self.version, frame) {
                Ok(packet) => packet,
                Err(error) => break Err(Close::Broken(error)),
            };
            match self.packet(packet) {
                Ok(Flow::Next) => taken += len,
                Ok(Flow::Pause) => {
                    taken += len;
                    self.is_stalled = true;
                    break Ok(());
                }
                Ok(Flow::Stall) => {
                    self.is_stalled = true;
                    break Ok(());
                }
                Err(close) => break Err(close),
            }
        };
        self.flush_publishes();
        (taken, result)
    }

    /// The client doesn't take its answers: it gets no more before it does. Deliveries alone never
    /// come to this much, so a client that writes before it reads isn't held up by them.
    pub(super) fn owes_too_much(&self) -> bool {
        let config = &self.broker.config;
        let limit =
            (2 * config.max_outbound_bytes).saturating_add(config.max_packet_bytes as usize);
        self.session.lock().online_of(self.number).is_some_and(|online| online.backlog() > limit)
    }

    /// Publishes that came together go into the log together.
    pub(super) fn flush_publishes(&mut self) {
        for shard in self.touched.drain(..) {
            if let Some(shard) = self.broker.shard(shard) {
                shard.writer.flush();
            }
        }
    }
}
