//! Sessions: what outlives a connection.
//!
//! ```text
//!   dispatcher ─► State::deliver ─► window (sent, unacknowledged) ─► out ─► the connection
//!                     │       └───► pending (waits for quota), bounded
//!                     └─ full ────► link: Behind{cursor}; the log keeps the rest
//! ```
//!
//! One lock guards a session. Its order among others: a log's tail, the routes, then a session.

mod acks;
mod aliases;
mod attach;
mod deliver;
mod incoming;
mod link;
mod online;
mod out;
mod registry;
mod state;
mod window;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

pub(crate) use attach::{Opening, TakenBack};
pub(crate) use deliver::{At, Limits, Mode, Outcome, Tally};
pub(crate) use incoming::Admission;
pub(crate) use link::Link;
pub(crate) use online::{Online, Wish};
pub(crate) use out::OutQueue;
pub(crate) use registry::Registry;
pub(crate) use state::{State, StoredWill};
pub(crate) use window::Source;

/// A session, connected or not.
pub(crate) struct Session {
    pub(crate) client_id: Arc<str>,
    /// Unlike every other session's of this process.
    pub(crate) key: u64,
    state: Mutex<State>,
}

impl Session {
    pub(crate) fn new(client_id: Arc<str>, key: u64) -> Arc<Self> {
        Arc::new(Self { client_id, key, state: Mutex::new(State::default()) })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}
