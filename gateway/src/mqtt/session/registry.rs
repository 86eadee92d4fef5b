//! The sessions of this process, by client identifier.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::Session;

/// All sessions.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    sessions: Mutex<HashMap<Arc<str>, Arc<Session>, RandomState>>,
    next_key: AtomicU64,
}

impl Registry {
    /// The session of that client; a new one if there is none. Says whether it was there.
    pub(crate) fn get_or_create(&self, client_id: &str) -> (Arc<Session>, bool) {
        let mut sessions = self.sessions.lock();
        if let Some(session) = sessions.get(client_id) {
            return (session.clone(), true);
        }
        let client_id: Arc<str> = client_id.into();
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let session = Session::new(client_id.clone(), key);
        sessions.insert(client_id, session.clone());
        (session, false)
    }

    /// The session of that client.
    pub(crate) fn get(&self, client_id: &str) -> Option<Arc<Session>> {
        self.sessions.lock().get(client_id).cloned()
    }

    /// Whether a client of that identifier has a session.
    pub(crate) fn contains(&self, client_id: &str) -> bool {
        self.sessions.lock().contains_key(client_id)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Forgets a session, if it is (still) the one of its client.
    pub(crate) fn remove(&self, session: &Arc<Session>) {
        let mut sessions = self.sessions.lock();
        if sessions.get(&session.client_id).is_some_and(|other| Arc::ptr_eq(other, session)) {
            sessions.remove(&session.client_id);
        }
    }

    /// All of them now.
    pub(crate) fn all(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().values().cloned().collect()
    }
}
