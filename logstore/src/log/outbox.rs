//! What observers of a log are told: in order, and with no lock held while they are called.
//!
//! Events are queued under the log's lock; one thread at a time takes them out and calls.

use std::collections::VecDeque;
use std::sync::Arc;

use interflow_meta::{LogId, Offset};

use crate::{Bounds, EarlyBatch, LogObserver, Withheld};

/// Something to tell.
#[derive(Clone)]
pub(super) enum Event {
    Advanced(Bounds),
    Early(EarlyBatch),
    Moved,
    Ended,
}

#[derive(Clone)]
struct Observer {
    id: u64,
    /// The number of the first event that it is told of.
    since: u64,
    /// Early batches below were in flight when it began.
    withheld_below: Option<Offset>,
    observer: Arc<dyn LogObserver>,
}

/// The observers of a log and what they are still to be told.
#[derive(Default)]
pub(super) struct Outbox {
    observers: Arc<Vec<Observer>>,
    events: VecDeque<Event>,
    /// The number of the first event in `events`.
    first: u64,
    next_id: u64,
    is_calling: bool,
}

/// One event and who is to be told.
pub(super) struct Call {
    event: Event,
    number: u64,
    observers: Arc<Vec<Observer>>,
}

impl Outbox {
    /// Adds an observer that is told of `bounds` first and of all that comes later. Offsets up to
    /// `next` were given out.
    pub(super) fn observe(
        &mut self,
        observer: Arc<dyn LogObserver>,
        bounds: Bounds,
        next: Offset,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        let since = self.first + self.events.len() as u64;
        let withheld_below = (next > bounds.committed).then_some(next);
        let observer = Observer { id, since, withheld_below, observer };
        Arc::make_mut(&mut self.observers).push(observer);
        // The others hear it once more: it is where the log is.
        self.events.push_back(Event::Advanced(bounds));
        id
    }

    /// Takes an observer out.
    pub(super) fn forget(&mut self, id: u64) {
        Arc::make_mut(&mut self.observers).retain(|observer| observer.id != id);
    }

    /// Queues an event, if anyone is there to hear it.
    pub(super) fn push(&mut self, event: Event) {
        if !self.observers.is_empty() {
            self.events.push_back(event);
        }
    }

    /// Whether anyone observes.
    pub(super) fn has_observers(&self) -> bool {
        !self.observers.is_empty()
    }

    /// Whether a call of [`Outbox::begin`] would find something to do.
    pub(super) fn wants_calls(&self) -> bool {
        !self.is_calling && !self.events.is_empty()
    }

    /// Makes the calling thread the one that calls; false if there is one.
    pub(super) fn begin(&mut self) -> bool {
        !std::mem::replace(&mut self.is_calling, true)
    }

    /// The next event; `None` ends the calling.
    pub(super) fn next(&mut self) -> Option<Call> {
        let Some(event) = self.events.pop_front() else {
            self.is_calling = false;
            return None;
        };
        let number = self.first;
        self.first += 1;
        let observers = Arc::clone(&self.observers);
        if matches!(event, Event::Moved) {
            // Nothing more comes from here for those that were there.
            Arc::make_mut(&mut self.observers).retain(|observer| observer.since > number);
        }
        Some(Call { event, number, observers })
    }
}

impl Call {
    /// Tells each observer.
    pub(super) fn run(self, log: LogId) {
        for observer in self.observers.iter().filter(|observer| observer.since <= self.number) {
            if observer.since == self.number
                && let Some(below) = observer.withheld_below
            {
                observer.observer.withheld(log, Withheld::Below(below));
            }
            match &self.event {
                Event::Advanced(bounds) => observer.observer.advanced(log, *bounds),
                Event::Early(batch) => observer.observer.early(log, batch),
                Event::Moved => observer.observer.moved(log),
                Event::Ended => observer.observer.ended(log),
            }
        }
    }
}
