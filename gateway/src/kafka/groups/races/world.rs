//! Three gateways, and what happens to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interflow_meta::{Env, Meta, NodeId, SystemClock};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::chance::Chance;
use super::client::Client;
use super::oracle::{Oracle, Totals};
use super::store::SlowStore;
use crate::cluster::{Endpoint, FixedGateways, Gateway};
use crate::kafka::brokers::{Brokers, Kind};
use crate::kafka::config::KafkaConfig;
use crate::kafka::groups::Groups;

const GATEWAYS: usize = 3;
const CLIENTS: usize = 3;
/// What happens before all becomes calm.
const EVENTS: usize = 60;
/// All are one generation so long after it became calm: a session, a rebalance, and then some.
const CALM: Duration = Duration::from_secs(40);

/// One life of a gateway.
#[derive(Clone)]
pub(super) struct Life {
    pub(super) groups: Arc<Groups>,
    view: Arc<FixedGateways>,
    incarnation: u64,
    shutdown: CancellationToken,
}

pub(super) struct World {
    pub(super) group: String,
    pub(super) chance: Chance,
    pub(super) oracle: Arc<Oracle>,
    pub(super) meta: Meta,
    lives: Mutex<Vec<Life>>,
    is_calm: AtomicBool,
}

fn gateway(at: usize, incarnation: u64) -> Gateway {
    let endpoint = Endpoint { host: "h".into(), port: 1 };
    let id = NodeId(u32::try_from(at).unwrap());
    Gateway { id, incarnation, rack: String::new(), kafka: vec![("l".into(), endpoint)] }
}

impl World {
    pub(super) fn new(seed: u64, is_blind: bool) -> Arc<Self> {
        let chance = Chance::new(seed);
        let oracle = Arc::new(Oracle::default());
        let store = SlowStore::new(chance.clone(), oracle.clone(), is_blind);
        let env = Env { clock: Arc::new(SystemClock::default()), random: Arc::new(chance.clone()) };
        let meta = Meta::new(Arc::new(store), env, "test");
        let world = Self {
            group: format!("group {seed}"),
            chance,
            oracle,
            meta,
            lives: Mutex::default(),
            is_calm: AtomicBool::new(false),
        };
        for at in 0..GATEWAYS {
            let life = world.life(at, 1);
            life.view.set_live((0..GATEWAYS).map(|at| gateway(at, 1)));
            world.lives.lock().push(life);
        }
        Arc::new(world)
    }

    fn life(&self, at: usize, incarnation: u64) -> Life {
        let view = FixedGateways::alone(NodeId(u32::try_from(at).unwrap()), incarnation);
        let config = KafkaConfig { group_initial_rebalance_delay_ms: 0, ..KafkaConfig::default() };
        let shutdown = CancellationToken::new();
        let brokers = Arc::new(Brokers::new(view.clone()));
        let meta = self.meta.clone();
        let groups = Groups::start(meta, brokers, config, Arc::default(), shutdown.clone());
        Life { groups, view, incarnation, shutdown }
    }

    /// The present life of a gateway.
    pub(super) fn at(&self, at: usize) -> Life {
        self.lives.lock()[at].clone()
    }

    /// The coordinator as a gateway that was asked by chance sees it.
    pub(super) fn find(&self) -> usize {
        let life = self.at(usize::try_from(self.chance.below(GATEWAYS as u64)).unwrap());
        let found = life.groups.brokers().coordinator(Kind::Group, &self.group, "l");
        found.map_or(0, |found| usize::try_from(found.id.0).unwrap())
    }

    /// Nothing happens any more.
    pub(super) fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Relaxed)
    }

    fn happen(&self) {
        let at = usize::try_from(self.chance.below(GATEWAYS as u64)).unwrap();
        let incarnations: Vec<_> = self.lives.lock().iter().map(|life| life.incarnation).collect();
        // Anybody may be missing, also itself; somebody may be known by an earlier life.
        let seen = |me: usize| {
            let live = incarnations.iter().enumerate().filter(|_| self.chance.percent(75));
            let live = live.map(|(at, now)| {
                let is_stale = at != me && *now > 1 && self.chance.percent(10);
                gateway(at, if is_stale { now - 1 } else { *now })
            });
            live.collect::<Vec<_>>()
        };
        match self.chance.below(10) {
            0 => self.at(at).view.set_lease(false),
            1 | 2 => self.at(at).view.set_lease(true),
            3 => {
                self.oracle.totals.lock().crashes += 1;
                let old = self.at(at);
                old.shutdown.cancel();
                let next = self.life(at, old.incarnation + 1);
                let mut live = seen(at);
                live.retain(|gateway| gateway.id.0 as usize != at);
                live.push(gateway(at, next.incarnation));
                next.view.set_live(live);
                self.lives.lock()[at] = next;
            }
            _ => self.at(at).view.set_live(seen(at)),
        }
    }

    pub(super) async fn run(self: Arc<Self>) -> Totals {
        let over = CancellationToken::new();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| tokio::spawn(Client::new(self.clone()).run(over.clone())))
            .collect();
        for _ in 0..EVENTS {
            sleep(Duration::from_millis(self.chance.below(1_000))).await;
            self.happen();
        }
        let lives = self.lives.lock().clone();
        for life in &lives {
            let live = lives.iter().enumerate().map(|(at, life)| gateway(at, life.incarnation));
            life.view.set_live(live);
            life.view.set_lease(true);
        }
        self.is_calm.store(true, Ordering::Relaxed);
        let calm = Instant::now();
        sleep(CALM).await;
        over.cancel();
        let mut generations = Vec::new();
        for client in clients {
            let (generation, beat) = client.await.unwrap();
            assert!(beat.is_some_and(|at| at > calm), "a client didn't find into the group");
            generations.push(generation);
        }
        assert!(generations.iter().all(|one| *one == generations[0]), "{generations:?}");
        for life in lives {
            life.shutdown.cancel();
            life.groups.stopped().await;
        }
        *self.oracle.totals.lock()
    }
}
