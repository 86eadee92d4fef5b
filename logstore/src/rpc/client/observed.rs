//! The observations of a client: whom they are of, and what the server is still to be told. No I/O.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use interflow_meta::LogId;
use interflow_proto::log as proto;
use proto::observe_request::Kind;
use tokio::sync::oneshot;

use crate::{LogError, LogObserver};

pub(super) struct Watched {
    pub(super) log: LogId,
    pub(super) observer: Arc<dyn LogObserver>,
    /// Who waits for its first event.
    pub(super) began: Option<oneshot::Sender<Result<(), LogError>>>,
    /// What it is on this stream.
    pub(super) id: Option<u64>,
    /// Early batches can have been missed since it was last told of the log's offsets.
    pub(super) has_missed: bool,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) watched: HashMap<u64, Watched>,
    /// The observations by what they are on this stream.
    pub(super) of: HashMap<u64, u64>,
    pub(super) next_key: u64,
    pub(super) next_id: u64,
    /// What the server is to be told: observations to make, and ids to end.
    pub(super) unsent: VecDeque<Unsent>,
    pub(super) stream: u64,
    pub(super) is_live: bool,
    pub(super) closed: bool,
    pub(super) reason: String,
}

pub(super) enum Unsent {
    Observe(u64),
    Unobserve(u64),
}

/// Whom an event is for.
pub(super) struct Heard {
    pub(super) log: LogId,
    pub(super) observer: Arc<dyn LogObserver>,
    pub(super) began: Option<oneshot::Sender<Result<(), LogError>>>,
}

impl Heard {
    pub(super) fn begin(self, result: Result<(), LogError>) {
        if let Some(began) = self.began {
            // Who gave up waiting has ended the observation.
            let _ = began.send(result);
        }
    }
}

impl State {
    /// All observations are made anew: the server states each log's offsets.
    pub(super) fn begin_stream(&mut self) -> u64 {
        self.of.clear();
        for watched in self.watched.values_mut() {
            watched.id = None;
            watched.has_missed = watched.began.is_none();
        }
        let mut all: Vec<u64> = self.watched.keys().copied().collect();
        all.sort_unstable();
        self.unsent = all.into_iter().map(Unsent::Observe).collect();
        self.stream += 1;
        self.is_live = true;
        self.stream
    }

    /// The logs observed, each once, and the observations that haven't begun, which are none any
    /// more.
    pub(super) fn give_up_beginning(&mut self) -> (Vec<LogId>, Vec<Watched>) {
        let mut logs: Vec<LogId> = self.watched.values().map(|watched| watched.log).collect();
        logs.sort_unstable();
        logs.dedup();
        let beginning = self.watched.extract_if(|_, watched| watched.began.is_some());
        (logs, beginning.map(|(_, watched)| watched).collect())
    }

    /// The server must be told. Without a stream nothing is noted: the next begins with all.
    pub(super) fn note(&mut self, unsent: Unsent) {
        if self.is_live {
            self.unsent.push_back(unsent);
        }
    }

    pub(super) fn next(&mut self) -> Option<proto::ObserveRequest> {
        loop {
            let kind = match self.unsent.pop_front()? {
                Unsent::Unobserve(id) => Kind::Unobserve(id),
                Unsent::Observe(key) => {
                    let Some(watched) = self.watched.get_mut(&key) else { continue };
                    if watched.id.is_some() {
                        continue;
                    }
                    let id = self.next_id;
                    self.next_id += 1;
                    watched.id = Some(id);
                    self.of.insert(id, key);
                    Kind::Observe(proto::Observe { id, log: watched.log.0 })
                }
            };
            return Some(proto::ObserveRequest { kind: Some(kind) });
        }
    }

    /// Whom the event of `id` is for, and whether it may have missed something. With its offsets an
    /// observation has begun.
    pub(super) fn heard(&mut self, id: u64, begins: bool) -> Option<(Heard, bool)> {
        let watched = self.watched.get_mut(self.of.get(&id)?)?;
        let has_missed = begins && std::mem::take(&mut watched.has_missed);
        let began = if begins { watched.began.take() } else { None };
        let observer = Arc::clone(&watched.observer);
        Some((Heard { log: watched.log, observer, began }, has_missed))
    }
}
