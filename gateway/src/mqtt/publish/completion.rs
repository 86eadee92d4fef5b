//! What becomes of a publish once its record is committed, or refused.

use std::sync::Arc;

use interflow_logstore::AppendError;

use crate::mqtt::codec::{PacketId, Reason};
use crate::mqtt::session::{Session, State};

/// Who waits for a record.
#[derive(Debug)]
pub(crate) enum Completion {
    /// Nobody: QoS 0, or a will.
    Silent,
    /// A place in the acknowledgements of one connection (QoS 1).
    Ack {
        session: Arc<Session>,
        /// Which connection of the session.
        connection: u64,
        slot: u64,
    },
    /// An inbound QoS 2 exchange of the session, whatever its connection.
    Received { session: Arc<Session>, id: PacketId },
}

impl Completion {
    fn session(&self) -> Option<&Arc<Session>> {
        match self {
            Self::Silent => None,
            Self::Ack { session, .. } | Self::Received { session, .. } => Some(session),
        }
    }

    fn apply(&self, state: &mut State, reason: Reason) {
        match self {
            Self::Silent => {}
            Self::Ack { connection, slot, .. } => {
                if let Some(online) = state.online_of(*connection) {
                    online.complete(*slot, reason);
                }
            }
            Self::Received { id, .. } => state.complete_received(*id, reason),
        }
    }
}

/// Completes many, with one lock and one wake-up for each run of publishes of one session.
pub(crate) fn complete(completions: impl IntoIterator<Item = Completion>, reason: Reason) {
    let mut completions =
        completions.into_iter().filter(|completion| completion.session().is_some()).peekable();
    while let Some(first) = completions.next() {
        let Some(session) = first.session() else { continue };
        let mut state = session.lock();
        first.apply(&mut state, reason);
        while let Some(next) = completions
            .next_if(|next| next.session().is_some_and(|other| Arc::ptr_eq(other, session)))
        {
            next.apply(&mut state, reason);
        }
        let wake = state.take_wake();
        drop(state);
        if let Some(connection) = wake {
            connection.wake();
        }
    }
}

/// What a refused append means to a publisher.
pub(super) fn reason(error: &AppendError) -> Reason {
    match error {
        AppendError::DiskFull
        | AppendError::JournalFailed
        | AppendError::Busy
        | AppendError::TooLarge { .. } => Reason::QuotaExceeded,
        _ => Reason::ImplementationSpecificError,
    }
}
