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

    /// Publishes that came together go into the log together.
    pub(super) fn flush_publishes(&mut self) {
        for shard in self.touched.drain(..) {
            if let Some(shard) = self.broker.shard(shard) {
                shard.writer.flush();
            }
        }
    }
}
