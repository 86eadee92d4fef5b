//! A cluster by seed: faults on network, disk, clock and meta, and an oracle that knows the
//! invariants.
//!
//! ```text
//!   seed ─► world (nodes, logs) ─► producers, readers ─┐
//!      └──► faults ─► heal ─► all get through ─► read all ─► oracle ─► Report
//! ```
//!
//! Everything runs on one thread in virtual time, and everything random comes from the seed: the
//! same seed has the same trace. `SIM_SEEDS=n` runs more of them, `SIM_SEED=n` one (with its trace
//! on stderr if `SIM_TRACE` is set).

mod clients;
mod faults;
mod tests;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use interflow_meta::logs::Policy;
use interflow_meta::{Durability, LogId};
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, timeout};

use self::clients::Producer;
use self::world::World;
use super::net::Net;
use super::oracle::{Disks, Oracle};
use super::panics::{guarded, panicked};
use super::registry::Chains;
use super::{Cluster, node};
use crate::LogConfig;
use crate::core::rules::{Broken, Rules};
use crate::log::registry::LogRecord;

/// What came of a seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Report {
    trace: u64,
    counts: BTreeMap<&'static str, u64>,
}

/// Runs a seed to its end.
///
/// # Errors
/// What was violated.
fn simulate(seed: u64, broken: Option<Broken>) -> Result<Report, String> {
    guarded(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let result = runtime.block_on(run(seed, Rules::without(broken)));
        // What still waits is dropped with the runtime.
        drop(runtime);
        result
    })
}

async fn run(seed: u64, rules: Rules) -> Result<Report, String> {
    let (net, chains) = (Net::new(seed, 3, 2), Chains::new(seed, 3, 20));
    let mut dice = rand::rngs::StdRng::seed_from_u64(seed);
    let default = LogConfig::default();
    // Little room, in some.
    let config = LogConfig {
        snapshot_batches: [3, 7, 1000][dice.random_range(0..3)],
        max_in_flight_bytes: [60, default.max_in_flight_bytes][dice.random_range(0..2)],
        max_waiting_bytes: [600, default.max_waiting_bytes][dice.random_range(0..2)],
        max_kept_bytes: [200, default.max_kept_bytes, default.max_kept_bytes]
            [dice.random_range(0..3)],
        max_segment_offsets: [10, 100, default.max_segment_offsets][dice.random_range(0..3)],
        ..default
    };
    let cluster = Cluster::empty(Arc::clone(&net), Arc::clone(&chains), config, rules);
    let disks = Disks::default();
    let oracle = Arc::new(Oracle::new(Arc::clone(&disks)));
    let world = Arc::new(World::new(seed, cluster, disks, Arc::clone(&oracle)));
    let mut rng = world.rng(1);
    net.set_lease(Duration::from_millis(rng.random_range(0..=3000)));
    let nodes = rng.random_range(3..=5);
    let max_step_ms = [6, 25, 100][rng.random_range(0..3)];
    for id in 1..=nodes {
        world.begin(node(id)).await;
        tokio::spawn(Arc::clone(&world).keep_journal(node(id), max_step_ms));
    }
    let producers = people(&world, nodes, &mut rng);
    let watcher = Arc::downgrade(&world);
    chains.watch(Arc::new(move |log, before, closed, after| {
        let Some(world) = watcher.upgrade() else { return };
        let (epoch, end, is_short) = (closed.epoch, closed.end, closed.is_short);
        let (next, nodes) = (after.base, &after.replicas);
        world.note(format_args!("closed {log} {epoch} at {end} {is_short}, {next} at {nodes:?}"));
        world.count("closes", 1);
        world.count("short closes", u64::from(is_short));
        world.count("degraded openings", u64::from(nodes.len() < before.replicas.len()));
        world.oracle.closed(log, before, closed, after);
    }));
    let mut tasks = tokio::task::JoinSet::new();
    for producer in &producers {
        tasks.spawn(producer.run(Arc::clone(&world)));
    }
    for (actor, log) in (500..).zip(chains.logs()) {
        tokio::spawn(clients::follow(Arc::clone(&world), log, actor));
    }
    let until = Instant::now() + Duration::from_millis(rng.random_range(8_000..=18_000));
    let mut faults = tokio::spawn(faults::inject(Arc::clone(&world), nodes, until));
    let mut is_injecting = true;
    let mut deadline = None;
    loop {
        check(&world)?;
        if is_injecting && timeout(Duration::from_millis(50), &mut faults).await.is_ok() {
            is_injecting = false;
            world.heal(nodes).await;
            deadline = Some(Instant::now() + Duration::from_secs(90));
        }
        if !is_injecting {
            while tasks.try_join_next().is_some() {}
            if tasks.is_empty() {
                break;
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                world.describe();
                return Err(format!("{} producers don't get through", tasks.len()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    sleep(Duration::from_secs(2)).await;
    whole(&world).await?;
    world.is_over.store(true, Ordering::SeqCst);
    for log in chains.logs() {
        let Some(all) = clients::read_all(&world, log).await else {
            return Err(format!("log {log} can't be read to its end"));
        };
        let keyed: Vec<Vec<_>> = producers
            .iter()
            .filter(|producer| producer.log == log && producer.is_keyed)
            .map(|producer| (0..producer.batches).map(|n| producer.value(n)).collect())
            .collect();
        oracle.ended(log, &all, &keyed, &chains.record(log).closed);
        world.note(format_args!("log {log} has {} batches", all.len()));
    }
    check(&world)?;
    Ok(Report { trace: world.trace(), counts: world.counts() })
}

/// Waits until each closed segment is on as many nodes as its log is to have.
async fn whole(world: &World) -> Result<(), String> {
    let few = |log| {
        let LogRecord { closed, factor, .. } = world.chains.record(log);
        let few = closed.into_iter().filter(move |at| at.replicas.len() < factor.replicas);
        few.map(move |closed| (log, closed))
    };
    let few = || world.chains.logs().into_iter().flat_map(few).collect::<Vec<_>>();
    world.count("segments on too few nodes", few().len() as u64);
    let deadline = Instant::now() + Duration::from_secs(90);
    while let Some((log, closed)) = few().first() {
        if Instant::now() > deadline {
            world.describe();
            return Err(format!("log {log} keeps a segment on too few nodes: {closed:?}"));
        }
        check(world)?;
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

fn check(world: &World) -> Result<(), String> {
    panicked().or_else(|| world.oracle.violation()).map_or(Ok(()), Err)
}

/// The logs and their producers.
fn people(world: &Arc<World>, nodes: u32, rng: &mut rand::rngs::StdRng) -> Vec<Producer> {
    let mut producers = Vec::new();
    for log in 1..=rng.random_range(1..=4) {
        let factor = [3, 3, 3, 2, 2, 1][rng.random_range(0..6)];
        let class = match rng.random_range(0..10) {
            0 => Durability::Replicated,
            1 => Durability::Volatile,
            _ => Durability::Durable,
        };
        let first = rng.random_range(0..nodes);
        let replicas: Vec<_> = (0..factor).map(|n| node((first + n) % nodes + 1)).collect();
        let segment_bytes = [120, 400, 1500, 1 << 30][rng.random_range(0..4)];
        let policy = Policy { segment_bytes, ..Policy::default() };
        let log = LogId(log);
        world.chains.create(log, &replicas, factor as usize, class, policy);
        world.oracle.created(log, &world.chains.record(log).head);
        for _ in 0..rng.random_range(1..=2) {
            producers.push(Producer {
                id: 10 + u32::try_from(producers.len()).expect("few"),
                log,
                is_keyed: class == Durability::Durable && rng.random_range(0..4) > 0,
                in_flight: rng.random_range(1..=5),
                batches: rng.random_range(20..=70),
                max_pause_ms: rng.random_range(5..=400),
            });
        }
    }
    producers
}
