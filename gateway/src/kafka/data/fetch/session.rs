//! Fetch sessions (KIP-227): what a consumer wants is remembered, so that requests and responses
//! carry only what changed.
//!
//! The cache is bounded in sessions and in partitions over all of them. Where it is full, a new
//! session takes the place of the one that was idle longest, if that was for two minutes at least;
//! else the consumer is served without one.

use std::time::Duration;

use hashbrown::HashMap;
use kafka_protocol::ResponseError;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::gather::Entry;
use super::request::{FetchRequest, Wanted};
use crate::kafka::data::topic::TopicKey;

/// A session idle for less is not evicted, as in Kafka.
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);

/// What one consumer wants.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) entries: Vec<Entry>,
    index: HashMap<(TopicKey, i32), usize, foldhash::fast::RandomState>,
    /// Where the next response begins to look for data, so that no partition starves.
    pub(super) begin: usize,
}

impl Session {
    /// What one request wants; nothing can be looked up in it.
    fn once(wanted: Vec<Wanted>) -> Self {
        let entries = wanted.into_iter().map(Entry::new).collect();
        Self { entries, ..Self::default() }
    }

    /// Takes what a request adds, changes and forgets.
    pub(super) fn update(&mut self, wanted: Vec<Wanted>, forgotten: &[(TopicKey, i32)]) {
        for key in forgotten {
            if let Some(at) = self.index.remove(key) {
                self.entries.swap_remove(at);
                if let Some(moved) = self.entries.get(at) {
                    self.index.insert(moved.key(), at);
                }
            }
        }
        for wanted in wanted {
            let key = (wanted.topic.clone(), wanted.partition);
            let known = self.index.get(&key).and_then(|at| self.entries.get_mut(*at));
            match known {
                Some(entry) => entry.wanted = wanted,
                None => {
                    self.index.insert(key, self.entries.len());
                    self.entries.push(Entry::new(wanted));
                }
            }
        }
    }

    fn names_by_id(&self) -> Option<bool> {
        self.entries.first().map(|entry| matches!(entry.wanted.topic, TopicKey::Id(_)))
    }
}

/// How a request is served.
#[derive(Debug)]
pub(super) enum Service<'a> {
    /// Without a session.
    Full(Session),
    /// In a session that this request begins.
    First(Session),
    /// In a session, telling only what is new.
    Incremental(Lent<'a>),
}

/// A session while it serves a request. Dropped without [`Lent::give_back`] (the connection is
/// gone), the session ends.
#[derive(Debug)]
pub(super) struct Lent<'a> {
    sessions: &'a Sessions,
    pub(super) id: i32,
    session: Option<Session>,
}

impl Lent<'_> {
    /// The session.
    pub(super) fn session(&mut self) -> &mut Session {
        self.session.get_or_insert_default()
    }

    /// Ends the use of the session by this request.
    pub(super) fn give_back(mut self) {
        if let Some(session) = self.session.take() {
            self.sessions.put_back(self.id, session);
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if self.session.is_some() {
            self.sessions.state.lock().remove(self.id);
        }
    }
}

/// All sessions.
#[derive(Debug)]
pub(in crate::kafka::data) struct Sessions {
    max_sessions: usize,
    max_partitions: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<i32, Slot, foldhash::fast::RandomState>,
    partitions: usize,
}

#[derive(Debug)]
struct Slot {
    /// The epoch that the next request must have.
    epoch: i32,
    last_used: Instant,
    partitions: usize,
    /// `None` while it serves a request.
    session: Option<Session>,
}

impl Sessions {
    /// At most so many sessions, with at most so many partitions in all.
    pub(in crate::kafka::data) fn new(max_sessions: usize, max_partitions: usize) -> Self {
        Self { max_sessions, max_partitions, state: Mutex::default() }
    }

    /// Finds out how `request` is served, and takes from it what it wants.
    ///
    /// # Errors
    /// The error of the whole response: the session is unknown, busy or at another epoch.
    pub(super) fn serve(&self, request: &mut FetchRequest) -> Result<Service<'_>, ResponseError> {
        let wanted = std::mem::take(&mut request.wanted);
        if matches!(request.session_epoch, -1 | 0) {
            if request.session_id != 0 {
                self.state.lock().remove(request.session_id);
            }
            if request.session_epoch == -1 || wanted.is_empty() {
                return Ok(Service::Full(Session::once(wanted)));
            }
            let mut session = Session::default();
            session.update(wanted, &[]);
            return Ok(Service::First(session));
        }
        let mut lent = self.lend(request.session_id, request.session_epoch)?;
        let by_id = wanted.first().map(|wanted| matches!(wanted.topic, TopicKey::Id(_)));
        if let (Some(before), Some(now)) = (lent.session().names_by_id(), by_id)
            && before != now
        {
            lent.give_back();
            return Err(ResponseError::FetchSessionTopicIdError);
        }
        lent.session().update(wanted, &request.forgotten);
        Ok(Service::Incremental(lent))
    }

    fn lend(&self, id: i32, epoch: i32) -> Result<Lent<'_>, ResponseError> {
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if slot.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        let session = slot.session.take().ok_or(ResponseError::InvalidFetchSessionEpoch)?;
        slot.epoch = epoch.checked_add(1).unwrap_or(1);
        slot.last_used = Instant::now();
        Ok(Lent { sessions: self, id, session: Some(session) })
    }

    /// Begins a session, lent to the request that begins it.
    ///
    /// # Errors
    /// The session itself: there is no room for it, so it ends with this request.
    pub(super) fn begin(&self, session: Session) -> Result<Lent<'_>, Session> {
        let partitions = session.entries.len();
        let now = Instant::now();
        let mut state = self.state.lock();
        while state.slots.len() >= self.max_sessions
            || state.partitions + partitions > self.max_partitions
        {
            if !state.evict(now) {
                return Err(session);
            }
        }
        let id = loop {
            let id = rand::random_range(1..=i32::MAX);
            if !state.slots.contains_key(&id) {
                break id;
            }
        };
        state.slots.insert(id, Slot { epoch: 1, last_used: now, partitions, session: None });
        state.partitions += partitions;
        Ok(Lent { sessions: self, id, session: Some(session) })
    }

    fn put_back(&self, id: i32, session: Session) {
        let mut state = self.state.lock();
        let partitions = session.entries.len();
        let Some(slot) = state.slots.get_mut(&id) else { return }; // ended meanwhile
        let before = std::mem::replace(&mut slot.partitions, partitions);
        slot.session = Some(session);
        state.partitions = state.partitions - before + partitions;
        if state.partitions > self.max_partitions {
            state.remove(id);
        }
    }

    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.slots.len(), state.partitions)
    }
}

impl State {
    fn remove(&mut self, id: i32) {
        if let Some(slot) = self.slots.remove(&id) {
            self.partitions -= slot.partitions;
        }
    }

    /// Evicts the session that was idle longest, if that is long enough.
    fn evict(&mut self, now: Instant) -> bool {
        let idle = self.slots.iter().filter(|(_, slot)| slot.session.is_some());
        let oldest = idle.min_by_key(|(_, slot)| slot.last_used);
        let Some((&id, slot)) = oldest else { return false };
        if now.duration_since(slot.last_used) < EVICTABLE_AFTER {
            return false;
        }
        self.remove(id);
        true
    }
}
