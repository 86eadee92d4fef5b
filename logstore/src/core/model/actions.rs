//! What can happen next.

use std::sync::Arc;

use interflow_meta::Offset;
use stateright::{Model, Property};

use super::closings::{Closer, Fate};
use super::{Message, Protocol, World, index, key_of};
use crate::core::recovery;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    Begin(usize),
    Append {
        node: usize,
        value: usize,
    },
    Deliver(Arc<Message>),
    Sync(usize),
    Crash {
        node: usize,
        is_kept: bool,
    },
    Recover,
    Tick(usize),
    Plan(usize),
    Transact(Closer, Fate),
    /// A sequencer reads that its segment is closed.
    Learn(usize),
    /// The tail goes on by one offset.
    ReadTail,
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.first()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let config = &self.config;
        let sequencer = index(world.head.sequencer.node);
        let node = &world.nodes[sequencer];
        if node.incarnation == world.head.sequencer.incarnation
            && node.begun != Some(world.head.epoch)
        {
            actions.push(Action::Begin(sequencer));
        }
        for (node, state) in world.nodes.iter().enumerate() {
            if let Some(open) = &state.sequencer {
                for (value, sent) in world.sent.iter().enumerate() {
                    // A producer sends in order, and what was sent may be sent again.
                    let is_next = value == 0
                        || config.values[value - 1].0 != config.values[value].0
                        || world.sent[value - 1] > 0;
                    if *sent < config.sends && is_next {
                        actions.push(Action::Append { node, value });
                    }
                }
                if world.plans < config.plans && open.plan.is_none() {
                    actions.push(Action::Plan(node));
                }
                if open.epoch < world.head.epoch {
                    actions.push(Action::Learn(node));
                }
            }
            if state.is_journaling() {
                actions.push(Action::Sync(node));
            }
            if world.crashes < config.crashes
                && (state.is_journaling() || state.sequencer.is_some())
            {
                actions.push(Action::Crash { node, is_kept: false });
                if state.is_journaling() {
                    actions.push(Action::Crash { node, is_kept: true });
                }
            }
        }
        actions.extend(world.wire.iter().map(|message| Action::Deliver(Arc::clone(message))));
        if world.recoverers.len() < config.recoveries {
            actions.push(Action::Recover);
        }
        if config.ticks {
            actions.extend((0..world.recoverers.len()).map(Action::Tick));
        }
        for closer in world.closers() {
            actions.push(Action::Transact(closer, Fate::Known));
            if world.unknowns < config.unknowns {
                actions.push(Action::Transact(closer, Fate::UnknownWritten));
                actions.push(Action::Transact(closer, Fate::UnknownLost));
            }
        }
        if world.tail.is_some() {
            actions.push(Action::ReadTail);
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        match action {
            Action::Begin(node) => world.begin(self, node),
            Action::Append { node, value } => {
                world.sent[value] += 1;
                world.append(self, node, self.config.values[value]);
            }
            Action::Deliver(message) => world.deliver(self, &message),
            Action::Sync(node) => world.sync(self, node),
            Action::Crash { node, is_kept } => {
                world.crashes += 1;
                world.crash(self, node, is_kept);
            }
            Action::Recover => world.recover(self),
            Action::Tick(by) => world.recover_on(self, by, recovery::Event::Tick),
            Action::Plan(node) => {
                world.plan(self, node);
                world.plans += 1;
            }
            Action::Transact(closer, fate) => {
                world.unknowns += u8::from(fate != Fate::Known);
                world.transact(self, closer, fate);
            }
            Action::Learn(node) => world.learn(node),
            Action::ReadTail => world.read_tail(),
        }
        for node in 0..world.nodes.len() {
            if world.nodes[node].sequencer.as_ref().is_some_and(|open| open.plan.is_some()) {
                world.plan_on(self, node);
            }
        }
        (world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        self.all_properties()
    }
}

impl World {
    fn learn(&mut self, node: usize) {
        let Some(epoch) = self.nodes[node].sequencer.as_ref().map(|open| open.epoch) else {
            return;
        };
        let end = self.closed.iter().find(|closed| closed.head.epoch == epoch);
        let Some(end) = end.map(|closed| closed.end) else { return };
        if let Some(open) = self.open(node) {
            open.log.closed_at(end);
        }
        self.settle(node);
        self.node(node).sequencer = None;
    }

    /// What a tail may read: closed segments, and what the open one's sequencer has committed.
    fn readable_end(&self) -> Offset {
        let sequencer = self.nodes[index(self.head.sequencer.node)].sequencer.as_ref();
        let open = sequencer.filter(|open| open.epoch == self.head.epoch);
        open.map_or(self.head.base, |open| open.log.sequencer().committed())
    }

    fn read_tail(&mut self) {
        let end = self.readable_end();
        let Some(next) = self.tail.as_ref().map(|tail| tail.next) else { return };
        let Some(value) = (next < end).then(|| self.read(next)).flatten() else { return };
        if let Some(tail) = &mut self.tail {
            tail.next += 1;
            if tail.core.committed(Some(&key_of(value)), next) {
                tail.shown.push(value);
            }
        }
    }
}
