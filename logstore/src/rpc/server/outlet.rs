//! What a stream's observations are to be told: a slot for each, so that a slow reader costs no
//! more than its logs.
//!
//! In a slot lie, in the order in which they go out, early batches within bounds, the newest of
//! those withheld, and the newest offsets. While something is withheld all early batches are: they
//! would overtake.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use interflow_meta::LogId;
use interflow_proto::log as proto;
use parking_lot::Mutex;
use proto::observe_event::Kind;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::rpc::wire;
use crate::{Bounds, EarlyBatch, LogObserver, Withheld};

/// Events, and bytes of early batches, in one message.
const MAX_EVENTS: usize = 1_024;
const MAX_EVENT_BYTES: usize = 256 << 10;

#[derive(Default)]
struct Slot {
    early: VecDeque<EarlyBatch>,
    early_bytes: usize,
    withheld: Option<Withheld>,
    advanced: Option<Bounds>,
    /// The last event.
    end: Option<Kind>,
    is_listed: bool,
    /// The reader was told where the log is: early batches come after that.
    has_begun: bool,
}

#[derive(Default)]
struct State {
    slots: HashMap<u64, Slot>,
    /// Slots with something in them, in the order in which they came to have it.
    listed: VecDeque<u64>,
    early_bytes: usize,
}

/// The events of one stream.
pub(super) struct Outlet {
    state: Mutex<State>,
    changed: Notify,
    max_early_bytes: usize,
    max_log_early_bytes: usize,
}

impl Outlet {
    pub(super) fn new(max_early_bytes: usize, max_log_early_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Notify::new(),
            max_early_bytes,
            max_log_early_bytes,
        })
    }

    /// The observer of observation `id`. When the server ends, its end isn't told as the log's.
    pub(super) fn teller(self: &Arc<Self>, id: u64, closing: CancellationToken) -> Arc<Teller> {
        self.state.lock().slots.insert(id, Slot::default());
        Arc::new(Teller { outlet: Arc::clone(self), id, closing })
    }

    /// Nothing more is told of observation `id`.
    pub(super) fn forget(&self, id: u64) {
        let mut state = self.state.lock();
        if let Some(slot) = state.slots.remove(&id) {
            state.early_bytes -= slot.early_bytes;
        }
    }

    /// `kind` is the last that is told of observation `id`.
    pub(super) fn end(&self, id: u64, kind: Kind) {
        self.change(id, |slot, _| slot.end = Some(kind));
    }

    fn change(&self, id: u64, change: impl FnOnce(&mut Slot, &mut usize)) {
        let mut state = self.state.lock();
        let State { slots, listed, early_bytes } = &mut *state;
        let Some(slot) = slots.get_mut(&id) else { return };
        change(slot, early_bytes);
        if !std::mem::replace(&mut slot.is_listed, true) {
            listed.push_back(id);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The next events, when there are any.
    pub(super) async fn next(&self) -> proto::ObserveEvents {
        loop {
            let events = self.state.lock().take();
            if !events.is_empty() {
                return proto::ObserveEvents { events };
            }
            self.changed.notified().await;
        }
    }
}

impl State {
    fn take(&mut self) -> Vec<proto::ObserveEvent> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while events.len() < MAX_EVENTS
            && bytes < MAX_EVENT_BYTES
            && let Some(id) = self.listed.pop_front()
        {
            let Some(slot) = self.slots.get_mut(&id) else { continue };
            slot.is_listed = false;
            let before = slot.early_bytes;
            let is_empty = slot.take(id, &mut events, &mut bytes);
            self.early_bytes -= before - slot.early_bytes;
            if !is_empty {
                slot.is_listed = true;
                self.listed.push_back(id);
            } else if events.last().is_some_and(|event| event.id == id && is_last(event)) {
                self.slots.remove(&id);
            }
        }
        events
    }
}

fn is_last(event: &proto::ObserveEvent) -> bool {
    matches!(event.kind, Some(Kind::Ended(_) | Kind::Moved(_) | Kind::Failed(_)))
}

impl Slot {
    /// Moves events out; says whether it is empty.
    fn take(&mut self, id: u64, events: &mut Vec<proto::ObserveEvent>, bytes: &mut usize) -> bool {
        let mut push = |kind| events.push(proto::ObserveEvent { id, kind: Some(kind) });
        while let Some(batch) = self.early.pop_front() {
            let weight = weight(&batch);
            self.early_bytes -= weight;
            *bytes += weight;
            push(Kind::Early(wire::early_message(batch)));
            if *bytes >= MAX_EVENT_BYTES && !self.early.is_empty() {
                return false;
            }
        }
        match self.withheld.take() {
            Some(Withheld::UpTo(key)) => push(Kind::Withheld(wire::key_message(key))),
            Some(Withheld::Below(offset)) => push(Kind::WithheldBelow(offset)),
            None => {}
        }
        if let Some(bounds) = self.advanced.take() {
            self.has_begun = true;
            push(Kind::Advanced(wire::bounds_message(&bounds)));
        }
        if let Some(end) = self.end.take() {
            push(end);
        }
        true
    }
}

/// What an early batch weighs.
fn weight(batch: &EarlyBatch) -> usize {
    batch.bytes.len() + size_of::<EarlyBatch>()
}

/// The observer of one observation.
pub(super) struct Teller {
    outlet: Arc<Outlet>,
    id: u64,
    closing: CancellationToken,
}

impl LogObserver for Teller {
    fn advanced(&self, _: LogId, bounds: Bounds) {
        self.outlet.change(self.id, |slot, _| slot.advanced = Some(bounds));
    }

    fn early(&self, _: LogId, batch: &EarlyBatch) {
        let (weight, outlet) = (weight(batch), &self.outlet);
        outlet.change(self.id, |slot, all| {
            let fits = slot.early_bytes + weight <= outlet.max_log_early_bytes
                && *all + weight <= outlet.max_early_bytes;
            if slot.withheld.is_some() || !fits || !slot.has_begun {
                slot.withheld = Some(Withheld::UpTo(batch.key));
                return;
            }
            slot.early_bytes += weight;
            *all += weight;
            // The batch is a slice of the journal's memory, which would be kept for a slow reader.
            let bytes = bytes::Bytes::copy_from_slice(&batch.bytes);
            slot.early.push_back(EarlyBatch { key: batch.key, bytes });
        });
    }

    fn withheld(&self, _: LogId, until: Withheld) {
        // A key is of a later batch than what was in flight before it.
        self.outlet.change(self.id, |slot, _| slot.withheld = Some(until));
    }

    fn moved(&self, _: LogId) {
        self.outlet.end(self.id, Kind::Moved(proto::Moved {}));
    }

    fn ended(&self, _: LogId) {
        if !self.closing.is_cancelled() {
            self.outlet.end(self.id, Kind::Ended(proto::Ended {}));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::AppendKey;

    const LOG: LogId = LogId(1);

    fn key(sequence: i32) -> AppendKey {
        AppendKey { producer_id: 1, producer_epoch: 0, sequence }
    }

    fn at(committed: u64) -> Bounds {
        Bounds { start: 0, committed, stable: committed, leader_epoch: 0 }
    }

    /// What goes out: the sequences of early and withheld batches, and offsets.
    async fn told(outlet: &Outlet) -> Vec<String> {
        let events = outlet.next().await.events;
        let told = |event: proto::ObserveEvent| match event.kind {
            Some(Kind::Early(batch)) => format!("early {}", batch.key.unwrap().sequence),
            Some(Kind::Withheld(key)) => format!("withheld {}", key.sequence),
            Some(Kind::WithheldBelow(offset)) => format!("below {offset}"),
            Some(Kind::Advanced(bounds)) => format!("at {}", bounds.committed),
            other => format!("{other:?}"),
        };
        events.into_iter().map(told).collect()
    }

    #[tokio::test]
    async fn a_slow_reader_costs_bounded_memory_and_hears_of_what_it_missed() {
        let outlet = Outlet::new(1 << 20, 16 << 10);
        let teller = outlet.teller(0, CancellationToken::new());
        let early = |sequence| {
            let batch = EarlyBatch { key: key(sequence), bytes: Bytes::from(vec![0; 1_000]) };
            teller.early(LOG, &batch);
        };
        // Before it is known where the log is, no early batch is shown.
        early(0);
        teller.advanced(LOG, at(0));
        assert_eq!(told(&outlet).await, ["withheld 0", "at 0"]);
        for n in 1..10_000 {
            early(n);
            teller.advanced(LOG, at(u64::try_from(n).unwrap()));
        }
        assert!(outlet.state.lock().early_bytes <= 16 << 10);
        let all = told(&outlet).await;
        let shown = all.len() - 2;
        assert!((10..=16).contains(&shown));
        for (n, told) in all[..shown].iter().enumerate() {
            assert_eq!(*told, format!("early {}", n + 1));
        }
        assert_eq!(all[shown..], ["withheld 9999", "at 9999"]);
        assert_eq!(outlet.state.lock().early_bytes, 0);
        early(10_000);
        assert_eq!(told(&outlet).await, ["early 10000"]);
    }

    #[tokio::test]
    async fn no_slot_is_left_behind() {
        let outlet = Outlet::new(10_000, 10_000);
        let closing = CancellationToken::new();
        let tellers: Vec<_> = (0..3).map(|id| outlet.teller(id, closing.clone())).collect();
        tellers.iter().for_each(|teller| teller.advanced(LOG, at(0)));
        assert_eq!(told(&outlet).await, ["at 0"; 3]);
        let batch = EarlyBatch { key: key(0), bytes: Bytes::from(vec![0; 100]) };
        tellers.iter().for_each(|teller| teller.early(LOG, &batch));
        outlet.forget(0);
        tellers[1].ended(LOG);
        assert_eq!(told(&outlet).await, ["early 0", "Some(Ended(Ended))", "early 0"]);
        let moves = outlet.teller(3, closing.clone());
        moves.advanced(LOG, at(1));
        moves.moved(LOG);
        assert_eq!(told(&outlet).await, ["at 1", "Some(Moved(Moved))"]);
        // The end of the server isn't that of a log.
        closing.cancel();
        tellers[2].ended(LOG);
        let state = outlet.state.lock();
        assert_eq!((state.slots.len(), state.listed.len(), state.early_bytes), (1, 0, 0));
    }
}
