//! Recoveries, planned closes, and the transactions that they write.

use std::sync::Arc;

use interflow_meta::{Durability, Epoch};
use smallvec::SmallVec;

use super::{Closed, Message, Protocol, Recoverer, World, byte, index};
use crate::core::closing::{self, Close, Finish, Outcome};
use crate::core::planned::{self, PlannedClose};
use crate::core::recovery::{self, Recovery, RecoveryLimits};
use crate::core::segment::{Head, Life};

/// How a transaction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    Known,
    /// Written, but nobody is told.
    UnknownWritten,
    /// Not written, and nobody is told.
    UnknownLost,
}

/// Who writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Closer {
    Recovery(usize),
    Plan(usize),
}

/// The first token of planned closes.
pub(super) const PLANNED: u64 = 100;

/// The token of a recovery.
fn token(recovery: usize) -> u64 {
    recovery as u64 + 1
}

impl World {
    /// Someone begins to recover the open segment.
    pub(super) fn recover(&mut self, protocol: &Protocol) {
        let by = self.recoverers.len();
        let epoch = self.head.epoch;
        let limits = RecoveryLimits { retry_ms: 0, max_retries: 0, max_rounds: 3 };
        let mut core = Recovery::new(epoch, token(by), limits, protocol.rules());
        let effects = core.start(0);
        let recoverer = Recoverer { core, epoch, transaction: None, has_failed: false };
        self.recoverers.push(Arc::new(recoverer));
        self.recovery_wants(protocol, by, effects);
    }

    pub(super) fn recover_on(&mut self, protocol: &Protocol, by: usize, event: recovery::Event) {
        let Some(recoverer) = self.recoverers.get_mut(by) else { return };
        let effects = Arc::make_mut(recoverer).core.handle(0, event);
        self.recovery_wants(protocol, by, effects);
    }

    fn recovery_wants(&mut self, protocol: &Protocol, by: usize, effects: recovery::Effects) {
        for effect in effects {
            match effect {
                recovery::Effect::ReadHead => {
                    let event = recovery::Event::Head(Some(self.head.clone()));
                    self.recover_on(protocol, by, event);
                }
                recovery::Effect::Seal { nodes, epoch, base } => {
                    for node in nodes {
                        let to = byte(index(node));
                        self.send(Message::Seal { to, epoch, base, by: byte(by) });
                    }
                }
                recovery::Effect::Copy { source, target, from, until } => {
                    let epoch = self.recoverers[by].epoch;
                    let to = byte(index(target));
                    let segment = self.nodes[index(source)].segment(epoch);
                    let copied: Vec<_> = segment
                        .iter()
                        .flat_map(|segment| &segment.entries)
                        .filter(|(entry, _)| entry.first >= from && entry.first < until)
                        .cloned()
                        .collect();
                    self.seen.has_repaired = true;
                    for (entry, payload) in copied {
                        self.send(Message::Repair { to, epoch, by: byte(by), entry, payload });
                    }
                }
                recovery::Effect::Closing(effect) => {
                    self.closing_wants(protocol, Closer::Recovery(by), effect);
                }
                recovery::Effect::Finished(result) => {
                    self.recoverer(by).has_failed = result.is_err();
                    self.recoverer(by).transaction = None;
                    if let Ok(Finish::Won(head)) = result {
                        self.seen.has_recovered |= head.base > 0;
                        self.won(&head, token(by));
                    }
                }
                recovery::Effect::Replay { .. } | recovery::Effect::Timer { .. } => {}
            }
        }
    }

    fn recoverer(&mut self, by: usize) -> &mut Recoverer {
        Arc::make_mut(&mut self.recoverers[by])
    }

    /// I12: who is told that it won has written what meta has.
    fn won(&mut self, head: &Head, token: u64) {
        let is_there = self.descriptor(head.epoch) == Some(head);
        if !is_there || head.token != token {
            self.violate(12);
        }
    }

    /// A sequencer begins to close its segment.
    pub(super) fn plan(&mut self, protocol: &Protocol, node: usize) {
        let head = self.head.clone();
        let token = PLANNED + u64::from(self.plans);
        let Some(open) = self.open(node) else { return };
        if open.plan.is_none() && open.epoch == head.epoch {
            open.plan = Some(PlannedClose::new(head, token, &mut open.log));
            self.plan_on(protocol, node);
        }
    }

    /// Looks whether a planned close can go on.
    pub(super) fn plan_on(&mut self, protocol: &Protocol, node: usize) {
        let Some(open) = self.open(node) else { return };
        let Some(plan) = &mut open.plan else { return };
        if plan.progress(&open.log) == Some(planned::Effect::Snapshot) {
            self.write_snapshot(protocol, node);
            let Some(plan) = self.open(node).and_then(|open| open.plan.as_mut()) else { return };
            if let Some(planned::Effect::Closing(effect)) = plan.snapshot_done() {
                self.closing_wants(protocol, Closer::Plan(node), effect);
            }
        }
    }

    fn closing_wants(&mut self, protocol: &Protocol, closer: Closer, effect: closing::Effect) {
        match effect {
            closing::Effect::Place => {
                let epoch = match closer {
                    Closer::Recovery(by) => self.recoverers[by].epoch,
                    Closer::Plan(node) => self.open(node).map_or(Epoch(0), |open| open.epoch),
                };
                let nodes = protocol.place(Epoch(epoch.0 + 1));
                self.tell_closing(protocol, closer, closing::Event::Placed(Some(nodes)));
            }
            closing::Effect::Transact(close) => self.set_transaction(closer, Some(close)),
            closing::Effect::ReadHead => {
                let head = closing::Event::Head(Some(self.head.clone()));
                self.seen.has_resolved_an_unknown = true;
                self.tell_closing(protocol, closer, head);
            }
            closing::Effect::Later => {}
            closing::Effect::Finished(finish) => {
                self.set_transaction(closer, None);
                if let (Finish::Won(head), Closer::Plan(_)) = (&finish, closer)
                    && (self.descriptor(head.epoch) != Some(head) || head.token < PLANNED)
                {
                    self.violate(12);
                }
            }
        }
    }

    fn tell_closing(&mut self, protocol: &Protocol, closer: Closer, event: closing::Event) {
        match closer {
            Closer::Recovery(by) => {
                self.recover_on(protocol, by, recovery::Event::Closing(event));
            }
            Closer::Plan(node) => {
                let plan = self.open(node).and_then(|open| open.plan.as_mut());
                if let Some(planned::Effect::Closing(effect)) =
                    plan.and_then(|plan| plan.handle(event))
                {
                    self.closing_wants(protocol, closer, effect);
                }
            }
        }
    }

    fn set_transaction(&mut self, closer: Closer, close: Option<Close>) {
        match closer {
            Closer::Recovery(by) => self.recoverer(by).transaction = close,
            Closer::Plan(node) => {
                if let Some(open) = self.open(node) {
                    open.transaction = close;
                }
            }
        }
    }

    /// Those who have a transaction to write.
    pub(super) fn closers(&self) -> SmallVec<[Closer; 4]> {
        let recoveries = self.recoverers.iter().enumerate();
        let recoveries = recoveries.filter(|(_, recoverer)| recoverer.transaction.is_some());
        let plans = self.nodes.iter().enumerate().filter(|(_, node)| {
            node.sequencer.as_ref().is_some_and(|open| open.transaction.is_some())
        });
        let recoveries = recoveries.map(|(by, _)| Closer::Recovery(by));
        recoveries.chain(plans.map(|(node, _)| Closer::Plan(node))).collect()
    }

    /// A transaction is written, or not. Meta's part is `close_and_open`'s.
    pub(super) fn transact(&mut self, protocol: &Protocol, closer: Closer, fate: Fate) {
        let close = match closer {
            Closer::Recovery(by) => self.recoverer(by).transaction.take(),
            Closer::Plan(node) => self.open(node).and_then(|open| open.transaction.take()),
        };
        let Some(close) = close else { return };
        let outcome = match fate {
            Fate::UnknownLost => Outcome::Unknown,
            Fate::UnknownWritten => {
                self.write(protocol, &close);
                Outcome::Unknown
            }
            Fate::Known => self.write(protocol, &close),
        };
        self.tell_closing(protocol, closer, closing::Event::Transacted(outcome));
    }

    fn write(&mut self, protocol: &Protocol, close: &Close) -> Outcome {
        if self.head.epoch != close.epoch {
            let is_own = self.head.epoch.0 == close.epoch.0 + 1 && self.head.token == close.token;
            let head = self.head.clone();
            return if is_own { Outcome::Committed(head) } else { Outcome::Moved(head) };
        }
        let is_durable = self.head.durability == Durability::Durable;
        // I3
        if close.end < self.head.base
            || close.next_base < close.end
            || is_durable && close.next_base != close.end
        {
            self.violate(3);
        }
        let sequencer = close.next_replicas[0];
        let incarnation = self.nodes[index(sequencer)].incarnation;
        let head = Head {
            epoch: Epoch(close.epoch.0 + 1),
            base: close.next_base,
            leader_epoch: close.next_leader_epoch,
            durability: self.head.durability,
            sequencer: Life { node: sequencer, incarnation },
            acks: protocol.acks(&close.next_replicas),
            replicas: close.next_replicas.clone(),
            token: close.token,
        };
        let old = std::mem::replace(&mut self.head, head.clone());
        self.closed.push(Closed { head: old, end: close.end, is_short: close.is_short });
        Outcome::Committed(head)
    }
}
