//! What goes wrong on the network and with the nodes, by seed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use interflow_meta::NodeId;
use rand::RngExt;
use rand::rngs::StdRng;
use turmoil::Sim;

use super::GATEWAYS;
use super::network;
use super::world::World;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing passes between two.
    TwoWay,
    /// Nothing passes from one to the other.
    OneWay,
    /// From one to the other some of it is lost, for good.
    Loss,
    /// What passes between two takes long.
    Slow,
    /// What passes between two comes when that ends, as if it had been sent again.
    Held,
    /// A store reaches nobody, and nobody it.
    Isolated,
    /// A store's process is killed.
    Crash,
    /// A store's machine is gone: its connections don't end.
    Blackout,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::TwoWay => "two-way partitions",
            Self::OneWay => "one-way partitions",
            Self::Loss => "lossy links",
            Self::Slow => "slow links",
            Self::Held => "held links",
            Self::Isolated => "isolated stores",
            Self::Crash => "crashes",
            Self::Blackout => "blackouts",
        }
    }
}

/// A fault that lasts.
struct Fault {
    kind: Kind,
    /// Its links, by where most of what is lost comes from.
    links: Vec<(String, String)>,
    store: NodeId,
    until: Duration,
    /// Of a lossy link: whether it loses at this moment.
    is_losing: bool,
}

/// See the module.
pub(super) struct Faults {
    world: Arc<World>,
    kinds: &'static [Kind],
    rng: StdRng,
    stores: u32,
    gap_ms: u64,
    max_ms: u64,
    next: Duration,
    until: Duration,
    lasting: Vec<Fault>,
}

impl Faults {
    pub(super) fn new(
        world: &Arc<World>,
        kinds: &'static [Kind],
        stores: u32,
        rng: &mut StdRng,
    ) -> Self {
        Self {
            world: Arc::clone(world),
            kinds,
            rng: world.rng(999),
            stores,
            gap_ms: rng.random_range(300..=1_500),
            max_ms: [800, 4_000, 10_000][rng.random_range(0..3)],
            next: Duration::from_secs(1),
            until: Duration::from_millis(rng.random_range(6_000..=12_000)),
            lasting: Vec::new(),
        }
    }

    /// What is due at `now`. Says whether all faults are over.
    pub(super) fn step(&mut self, sim: &mut Sim<'_>, now: Duration) -> bool {
        let is_over = now >= self.until;
        let (due, lasting): (Vec<_>, Vec<_>) =
            self.lasting.drain(..).partition(|fault| is_over || fault.until <= now);
        self.lasting = lasting;
        due.into_iter().for_each(|fault| self.end(sim, fault));
        for fault in &mut self.lasting {
            if fault.kind == Kind::Loss && self.rng.random_range(0..8) == 0 {
                fault.is_losing = !fault.is_losing;
                let (from, to) = &fault.links[0];
                match fault.is_losing {
                    true => sim.partition_oneway(from.as_str(), to.as_str()),
                    false => sim.repair_oneway(from.as_str(), to.as_str()),
                }
            }
        }
        if !is_over && now >= self.next && !self.kinds.is_empty() {
            self.next = now + Duration::from_millis(self.rng.random_range(1..=2 * self.gap_ms));
            self.begin(sim, now);
        }
        is_over
    }

    fn begin(&mut self, sim: &mut Sim<'_>, now: Duration) {
        let kind = self.kinds[self.rng.random_range(0..self.kinds.len())];
        let store = NodeId(self.rng.random_range(1..=self.stores));
        let name = network::store(store);
        let others: Vec<_> = (1..=self.stores)
            .map(|id| network::store(NodeId(id)))
            .chain((1..=GATEWAYS).map(network::gateway))
            .filter(|other| *other != name)
            .collect();
        if self.is_too_much(kind, store) {
            return;
        }
        let links: Vec<_> = match kind {
            Kind::Crash => Vec::new(),
            Kind::Isolated | Kind::Blackout => {
                others.into_iter().map(|other| (name.clone(), other)).collect()
            }
            _ => {
                let other = others[self.rng.random_range(0..others.len())].clone();
                let is_back = self.rng.random_range(0..2) == 0;
                vec![if is_back { (other, name.clone()) } else { (name.clone(), other) }]
            }
        };
        let links: Vec<_> = links.into_iter().filter(|link| !self.is_faulty(link)).collect();
        if links.is_empty() && kind != Kind::Crash {
            return;
        }
        let lasts = Duration::from_millis(self.rng.random_range(20..=self.max_ms));
        for (from, to) in &links {
            let (from, to) = (from.as_str(), to.as_str());
            match kind {
                Kind::TwoWay | Kind::Isolated | Kind::Blackout => sim.partition(from, to),
                Kind::OneWay => sim.partition_oneway(from, to),
                Kind::Slow => {
                    let latency = Duration::from_millis(self.rng.random_range(50..=1_500));
                    sim.set_link_latency(from, to, latency);
                }
                Kind::Held => sim.hold(from, to),
                Kind::Loss | Kind::Crash => {}
            }
        }
        match kind {
            Kind::Isolated => self.world.chains.set_cut(store, true),
            Kind::Crash | Kind::Blackout => {
                sim.crash(name.as_str());
                let keep = [0, 0, 30, 100][self.rng.random_range(0..4)];
                self.world.died(store, keep);
            }
            _ => {}
        }
        self.world.note(format_args!("{} {name} {links:?} for {lasts:?}", kind.name()));
        self.world.trace.count(kind.name(), 1);
        let until = now + lasts;
        self.lasting.push(Fault { kind, links, store, until, is_losing: false });
    }

    /// More than one store is seldom down.
    fn is_too_much(&mut self, kind: Kind, store: NodeId) -> bool {
        let is_down = |kind| matches!(kind, Kind::Crash | Kind::Blackout | Kind::Isolated);
        let down = self.lasting.iter().filter(|fault| is_down(fault.kind));
        let down: BTreeSet<_> = down.map(|fault| fault.store).collect();
        is_down(kind)
            && (down.contains(&store) || !down.is_empty() && self.rng.random_range(0..4) > 0)
    }

    /// A link has one fault at a time.
    fn is_faulty(&self, (a, b): &(String, String)) -> bool {
        let mut faulty = self.lasting.iter().flat_map(|fault| &fault.links);
        faulty.any(|(c, d)| (a, b) == (c, d) || (a, b) == (d, c))
    }

    fn end(&self, sim: &mut Sim<'_>, fault: Fault) {
        let Fault { kind, links, store, .. } = fault;
        self.world.note(format_args!("no more {} {store} {links:?}", kind.name()));
        for (from, to) in &links {
            let (from, to) = (from.as_str(), to.as_str());
            match kind {
                Kind::Slow => sim.set_link_latency(from, to, Duration::from_millis(2)),
                Kind::Held => sim.release(from, to),
                _ => sim.repair(from, to),
            }
        }
        match kind {
            Kind::Isolated => self.world.chains.set_cut(store, false),
            Kind::Crash | Kind::Blackout => {
                self.world.comes_back(store);
                sim.bounce(network::store(store).as_str());
            }
            _ => {}
        }
    }
}
