//! One flight a block: of those who want the same block of an extent from the disk, one goes.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::journal::ExtentId;

/// Bytes of a block.
const BLOCK_BYTES: u32 = 256 << 10;

/// A block of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Block(ExtentId, u32);

/// The blocks that are being fetched.
#[derive(Default)]
pub(crate) struct Flights {
    in_air: Arc<Mutex<HashMap<Block, CancellationToken>>>,
}

/// A place on a flight.
pub(crate) enum Seat {
    /// Fetch it; dropping the flight ends it, however it went.
    Pilot(Flight),
    /// Somebody does: cancelled when that is over.
    Passenger(CancellationToken),
}

/// A block on its way.
#[must_use = "dropping it ends the flight"]
pub(crate) struct Flight {
    block: Block,
    in_air: Arc<Mutex<HashMap<Block, CancellationToken>>>,
    landed: CancellationToken,
}

impl Block {
    /// The block of an extent that holds the byte at `at`.
    pub(crate) fn of(extent: ExtentId, at: u32) -> Self {
        Self(extent, at / BLOCK_BYTES)
    }
}

impl Flights {
    pub(crate) fn board(&self, block: Block) -> Seat {
        let mut in_air = self.in_air.lock();
        if let Some(landed) = in_air.get(&block) {
            return Seat::Passenger(landed.clone());
        }
        let landed = CancellationToken::new();
        in_air.insert(block, landed.clone());
        Seat::Pilot(Flight { block, in_air: Arc::clone(&self.in_air), landed })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.in_air.lock().remove(&self.block);
        self.landed.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_flies_and_the_others_wait_for_it() {
        let flights = Flights::default();
        let block = |at| Block::of(ExtentId(1), at);
        let Seat::Pilot(flight) = flights.board(block(5)) else { panic!("the first") };
        let Seat::Passenger(landed) = flights.board(block(BLOCK_BYTES - 1)) else {
            panic!("the same block")
        };
        assert!(matches!(flights.board(block(BLOCK_BYTES)), Seat::Pilot(_)), "the next block");
        assert!(matches!(flights.board(Block::of(ExtentId(2), 5)), Seat::Pilot(_)));
        assert!(!landed.is_cancelled());
        drop(flight);
        assert!(landed.is_cancelled());
        assert!(matches!(flights.board(block(5)), Seat::Pilot(_)), "it is over");
        assert!(flights.in_air.lock().is_empty());
    }
}
