//! Fetch sessions (KIP-227): what a consumer wants is remembered, so that requests and responses
//! carry only what changed.
//!
//! The cache is bounded in sessions and in partitions over all of them. Where it is full, a new
//! session takes the place of those that are stale, longest idle first, then of smaller ones that
//! have lived long, smallest first, as in Kafka; else the consumer is served without one.

use std::time::Duration;

use hashbrown::HashMap;
use kafka_protocol::ResponseError;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::gather::Entry;
use super::request::{FetchRequest, Wanted};
use crate::kafka::data::topic::TopicKey;

/// Idle for longer a session is stale, and alive for longer it gives way to a larger one, as in Kafka.
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);

/// What one consumer wants.
#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) entries: Vec<Entry>,
    index: HashMap<(TopicKey, i32), usize, foldhash::fast::RandomState>,
    /// Its requests name topics by id, all of them.
    by_id: bool,
    /// Where the next response begins to look for data, so that no partition starves.
    pub(super) begin: usize,
}

impl Session {
    /// What one request wants; nothing can be looked up in it.
    fn once(wanted: Vec<Wanted>) -> Self {
        let entries = wanted.into_iter().map(Entry::new).collect();
        Self { entries, ..Self::default() }
    }

    /// Takes what a request adds, changes and forgets; what it names in both is forgotten.
    fn update(&mut self, wanted: Vec<Wanted>, forgotten: &[(TopicKey, i32)]) {
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
        for key in forgotten {
            if let Some(at) = self.index.remove(key) {
                self.entries.swap_remove(at);
                if let Some(moved) = self.entries.get(at) {
                    self.index.insert(moved.key(), at);
                }
            }
        }
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
    id: i32,
    session: Option<Session>,
}

impl Lent<'_> {
    /// Its id; 0 if it has ended meanwhile, which tells the consumer to begin anew.
    pub(super) fn id(&self) -> i32 {
        if self.sessions.state.lock().slots.contains_key(&self.id) { self.id } else { 0 }
    }

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
    began: Instant,
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
    /// The error of the whole response: the session is unknown, busy, at another epoch, or names
    /// topics in another way. It stays as it was.
    pub(super) fn serve(&self, request: &mut FetchRequest) -> Result<Service<'_>, ResponseError> {
        let wanted = std::mem::take(&mut request.wanted);
        if matches!(request.session_epoch, -1 | 0) {
            if request.session_id != 0 {
                self.state.lock().remove(request.session_id);
            }
            if request.session_epoch == -1 || wanted.is_empty() {
                return Ok(Service::Full(Session::once(wanted)));
            }
            let mut session = Session { by_id: request.by_id, ..Session::default() };
            session.update(wanted, &[]);
            return Ok(Service::First(session));
        }
        let mut lent = self.lend(request)?;
        lent.session().update(wanted, &request.forgotten);
        let partitions = lent.session().entries.len();
        if partitions == 0 {
            // Dropping it ends it: there is nothing to remember.
            return Ok(Service::Full(Session::default()));
        }
        self.resize(lent.id, partitions);
        Ok(Service::Incremental(lent))
    }

    fn lend(&self, request: &FetchRequest) -> Result<Lent<'_>, ResponseError> {
        let FetchRequest { session_id: id, session_epoch: epoch, by_id, .. } = *request;
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(&id).ok_or(ResponseError::FetchSessionIdNotFound)?;
        if slot.epoch != epoch {
            return Err(ResponseError::InvalidFetchSessionEpoch);
        }
        match &slot.session {
            None => return Err(ResponseError::InvalidFetchSessionEpoch),
            Some(session) if session.by_id != by_id => {
                return Err(ResponseError::FetchSessionTopicIdError);
            }
            Some(_) => {}
        }
        slot.epoch = epoch.checked_add(1).unwrap_or(1);
        slot.last_used = Instant::now();
        Ok(Lent { sessions: self, id, session: slot.session.take() })
    }

    /// Notes how many partitions a session has come to; past the bound it ends.
    fn resize(&self, id: i32, partitions: usize) {
        let mut state = self.state.lock();
        let Some(slot) = state.slots.get_mut(&id) else { return };
        let before = std::mem::replace(&mut slot.partitions, partitions);
        state.partitions = state.partitions - before + partitions;
        if state.partitions > self.max_partitions {
            state.remove(id);
        }
    }

    /// Begins a session, lent to the request that begins it.
    ///
    /// # Errors
    /// The session itself: there is no room for it, so it ends with this request.
    pub(super) fn begin(&self, session: Session) -> Result<Lent<'_>, Session> {
        let partitions = session.entries.len();
        let now = Instant::now();
        let mut state = self.state.lock();
        if !state.make_room(self, partitions, now) {
            return Err(session);
        }
        let id = loop {
            let id = rand::random_range(1..=i32::MAX);
            if !state.slots.contains_key(&id) {
                break id;
            }
        };
        let slot = Slot { epoch: 1, began: now, last_used: now, partitions, session: None };
        state.slots.insert(id, slot);
        state.partitions += partitions;
        Ok(Lent { sessions: self, id, session: Some(session) })
    }

    fn put_back(&self, id: i32, session: Session) {
        // One that has ended meanwhile has no place any more.
        if let Some(slot) = self.state.lock().slots.get_mut(&id) {
            slot.session = Some(session);
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

    /// Evicts what must go so that a session of `partitions` fits; where that isn't enough, nothing.
    fn make_room(&mut self, bounds: &Sessions, partitions: usize, now: Instant) -> bool {
        let fits = |sessions: usize, held: usize| {
            sessions < bounds.max_sessions && held + partitions <= bounds.max_partitions
        };
        let (mut sessions, mut held) = (self.slots.len(), self.partitions);
        let mut victims: Vec<(Place, i32)> = if fits(sessions, held) {
            Vec::new()
        } else {
            let rank = |(id, slot): (&i32, &Slot)| Some((slot.place(partitions, now)?, *id));
            self.slots.iter().filter_map(rank).collect()
        };
        victims.sort_unstable();
        let mut enough = 0;
        for (_, id) in &victims {
            if fits(sessions, held) {
                break;
            }
            sessions -= 1;
            held -= self.slots.get(id).map_or(0, |slot| slot.partitions);
            enough += 1;
        }
        let has_room = fits(sessions, held);
        if has_room {
            victims.iter().take(enough).for_each(|(_, id)| self.remove(*id));
        }
        has_room
    }
}

/// Which session goes before which, where one must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Nobody has used it for long: since when.
    Stale(Instant),
    /// It has had its time and is smaller than what wants in: its partitions.
    Smaller(usize),
}

impl Slot {
    /// Its place among those that may go for a session of `partitions`; `None`: it stays.
    fn place(&self, partitions: usize, now: Instant) -> Option<Place> {
        if now.duration_since(self.last_used) > EVICTABLE_AFTER {
            return Some(Place::Stale(self.last_used));
        }
        let is_old = now.duration_since(self.began) > EVICTABLE_AFTER;
        (is_old && self.partitions < partitions).then_some(Place::Smaller(self.partitions))
    }
}
