//! The real servers and clients over a simulated network: gateways' routers and the log stores'
//! peers speak gRPC, connections break, links lose and hold what is sent, nodes crash and come back.
//!
//! ```text
//!   gateway-n: producers, followers ─ Router ─ RemoteLogs ─┐ turmoil
//!   store-n:   serve_logs ◄────────────────────────────────┤
//!              LogStore ─ GrpcPeers ───────────────────────┘
//!              MemStore (its journal is a task), Chains (meta)
//! ```
//!
//! One thread and virtual time; faults, latencies and what clients do come from the seed. The order
//! in which tasks of one moment run is partly the runtime's (`select!`, hash maps), so that a seed
//! goes nearly the same way each time, not quite: a failure may need some runs to come again. What a
//! connection has lost is lost for good: there is no TCP that sends it again, so that it stands
//! still until it is given up. `SIM_SEEDS=n` runs more seeds, `SIM_SEED=n` one, with its trace on
//! stderr if `SIM_TRACE` is set.

mod clients;
mod faults;
mod network;
mod tests;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rand::RngExt;

use self::clients::Producer;
use self::faults::{Faults, Kind};
use self::world::World;
use super::panics::{guarded, panicked};

const GATEWAYS: u32 = 2;
/// All is done and read so long after the last fault.
const CALM: Duration = Duration::from_secs(90);

/// How often things happened.
type Counts = BTreeMap<&'static str, u64>;

/// Runs a seed with faults of `kinds` to its end.
///
/// # Errors
/// What was violated.
fn simulate(seed: u64, kinds: &'static [Kind]) -> Result<Counts, String> {
    guarded(|| run(seed, kinds))
}

fn run(seed: u64, kinds: &'static [Kind]) -> Result<Counts, String> {
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(4_096)
        .simulation_duration(Duration::from_secs(600))
        .build();
    let world = World::new(seed);
    let mut rng = world.rng(1);
    let stores = rng.random_range(3..=4);
    for node in world.begin(stores) {
        let world = Arc::clone(&world);
        sim.host(network::store(node), move || Arc::clone(&world).serve(node));
    }
    let producers = world.people(stores, &mut rng);
    for gateway in 1..=GATEWAYS {
        let own: Vec<Producer> =
            producers.iter().filter(|of| of.id % GATEWAYS + 1 == gateway).copied().collect();
        let world = Arc::clone(&world);
        sim.client(network::gateway(gateway), clients::gateway(world, gateway, own));
    }
    let mut faults = Faults::new(&world, kinds, stores, &mut rng);
    let mut deadline = None;
    loop {
        let now = sim.elapsed();
        world.set_now(now);
        match panicked().or_else(|| world.oracle.violation()) {
            Some(what) => return Err(what),
            None if deadline.is_some_and(|deadline| now > deadline) => {
                return Err(format!("not all get through: {}", world.waiting()));
            }
            None => {}
        }
        if deadline.is_none() && faults.step(&mut sim, now) {
            world.heal();
            deadline = Some(now + CALM);
        }
        if sim.step().map_err(|error| error.to_string())? {
            break;
        }
    }
    world.is_over.store(true, Ordering::SeqCst);
    world.oracle.violation().map_or(Ok(()), Err)?;
    Ok(world.counts())
}
