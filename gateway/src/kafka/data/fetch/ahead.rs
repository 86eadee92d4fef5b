//! Reads that begin before their turn, so that large responses are gathered by several threads.
//!
//! The order of partitions and the limits stay those of a response gathered one by one: a read
//! begins ahead only where all before it leave room for all that it may bring.

use interflow_logstore::{Read, ReadError, ReadOutcome};
use tokio_util::task::AbortOnDropHandle;

use super::gather::{Entry, Gathering};
use crate::kafka::data::DataPlane;

/// A read of so many bytes is worth a task of its own.
const LARGE: usize = 128 << 10;
/// Reads under way besides the one whose turn it is.
const READS: usize = 2;

/// A read under way; dropping it ends it.
#[derive(Debug)]
pub(super) struct Ahead {
    from: u64,
    room: usize,
    outcome: AbortOnDropHandle<Result<ReadOutcome, ReadError>>,
}

impl Ahead {
    pub(super) fn begin(plane: &DataPlane, read: Read) -> Self {
        let (from, room) = (read.offset, read.max_bytes);
        let log = plane.log().clone();
        let outcome = AbortOnDropHandle::new(tokio::spawn(async move { log.read(read).await }));
        Self { from, room, outcome }
    }

    /// Its outcome and the room that it had, if it is what would be read now.
    pub(super) async fn take(
        self,
        from: u64,
        room: usize,
    ) -> Option<(Result<ReadOutcome, ReadError>, usize)> {
        if self.from != from || self.room > room {
            return None;
        }
        // A read that ended by a panic is made again, in its turn.
        let outcome = self.outcome.await.ok()?;
        Some((outcome, self.room))
    }
}

/// Begins the reads of the entries behind the one whose turn it is, `turn`, if reads are large.
pub(super) async fn read_ahead(
    plane: &DataPlane,
    gathering: &Gathering,
    entries: &mut [Entry],
    turn: usize,
) {
    if gathering.last_read < LARGE {
        return;
    }
    let count = entries.len();
    let mut claimed = entries.get(turn).map_or(0, |entry| entry.wanted.max_bytes);
    for at in (turn + 1..turn + count).take(READS) {
        let Some(entry) = entries.get_mut(at % count) else { return };
        claimed = claimed.saturating_add(entry.wanted.max_bytes);
        if claimed > gathering.room() {
            return;
        }
        entry.read_ahead(plane, gathering).await;
    }
}
