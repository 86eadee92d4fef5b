//! What goes wrong, by seed.

use std::sync::Arc;
use std::time::Duration;

use interflow_meta::NodeId;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::world::World;
use crate::LogClient;
use crate::store::StoreError;

/// Kinds that must all have been injected over the seeds of a run.
pub(super) const KINDS: [&str; 14] = [
    "kills",
    "one-way cuts",
    "two-way cuts",
    "pauses",
    "stalled journals",
    "failed journals",
    "full disks",
    "damaged replicas",
    "meta outages",
    "meta delays",
    "slow networks",
    "clock jumps",
    "drained nodes",
    "hasty recoveries",
];

/// What ends by itself.
enum End {
    Mend(NodeId, NodeId),
    Restart(NodeId),
    /// A journal failed: somebody kills the process.
    Kill(NodeId),
    Resume(NodeId),
    Unstall(NodeId),
    Room(NodeId),
    MetaUp,
    MetaDelay,
    Network,
    Writable(NodeId),
}

/// Injects faults until `until`.
pub(super) async fn inject(world: Arc<World>, nodes: u32, until: Instant) {
    let mut rng = world.rng(999);
    let mut ends: Vec<(Instant, End)> = Vec::new();
    // How often things happen, and how long they last, is the seed's as well.
    let gap_ms = rng.random_range(100..=1500);
    let max_ms = [400, 3000, 14_000][rng.random_range(0..3)];
    let mut is_damaged = false;
    let mut next = Instant::now() + Duration::from_millis(gap_ms);
    while Instant::now() < until {
        let now = Instant::now();
        let (due, left): (Vec<_>, Vec<_>) = ends.into_iter().partition(|(at, _)| *at <= now);
        ends = left;
        for (_, end) in due {
            undo(&world, end, &mut rng, &mut is_damaged, &mut ends).await;
        }
        if now >= next {
            next = now + Duration::from_millis(rng.random_range(1..=2 * gap_ms));
            let lasts = Duration::from_millis(rng.random_range(20..=max_ms));
            let node = NodeId(rng.random_range(1..=nodes));
            if let Some(end) = fault(&world, node, nodes, &mut rng) {
                ends.push((now + lasts, end));
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
    for (_, end) in ends {
        // The others end by the healing.
        if let End::Mend(a, b) = end {
            world.net.mend(a, b);
        }
    }
}

fn fault(world: &Arc<World>, node: NodeId, nodes: u32, rng: &mut StdRng) -> Option<End> {
    let is_down = world.is_down(node);
    let down = u32::try_from(world.live().len()).expect("few");
    let other = NodeId((node.0 + rng.random_range(0..nodes - 1)) % nodes + 1);
    let (kind, end) = match rng.random_range(0..100) {
        0..25 => {
            // Seldom more than one at a time.
            if is_down || down < nodes && rng.random_range(0..4) > 0 {
                return None;
            }
            let keep = [0, 0, 30, 60, 100][rng.random_range(0..5)];
            world.kill(node, keep);
            ("kills", End::Restart(node))
        }
        25..33 => {
            world.net.cut(node, other);
            ("one-way cuts", End::Mend(node, other))
        }
        33..42 => {
            world.net.cut(node, other);
            world.net.cut(other, node);
            ("two-way cuts", End::Mend(node, other))
        }
        42..52 => {
            world.paused.lock().insert(node);
            world.chains.set_cut(node, true);
            for id in (1..=nodes).map(NodeId).filter(|id| *id != node) {
                world.net.cut(node, id);
                world.net.cut(id, node);
            }
            ("pauses", End::Resume(node))
        }
        52..60 => {
            world.stalled.lock().insert(node);
            ("stalled journals", End::Unstall(node))
        }
        60..66 => {
            if is_down || !world.failed.lock().insert(node) {
                return None;
            }
            let store = Arc::clone(&world.cluster.lock().members[&node].store);
            store.fail();
            ("failed journals", End::Kill(node))
        }
        66..72 => {
            if is_down || world.failed.lock().contains(&node) {
                return None;
            }
            world.disks.lock()[&node].refuse(Some(StoreError::DiskFull));
            ("full disks", End::Room(node))
        }
        72..79 => {
            world.chains.set_down(true);
            ("meta outages", End::MetaUp)
        }
        79..85 => {
            world.chains.set_max_delay(rng.random_range(10..=400));
            ("meta delays", End::MetaDelay)
        }
        85..91 => {
            world.net.set_delay(rng.random_range(5..=150), rng.random_range(0..=30));
            ("slow networks", End::Network)
        }
        91..95 => {
            let by = rng.random_range(-3_600_000..=3_600_000);
            let cluster = world.cluster.lock();
            cluster.clock.jump_ms.fetch_add(by, std::sync::atomic::Ordering::SeqCst);
            drop(cluster);
            world.count("clock jumps", 1);
            return None;
        }
        95..98 => {
            let logs = world.chains.logs();
            let log = logs[rng.random_range(0..logs.len())];
            let epoch = world.chains.record(log).head.epoch;
            let (logs, _) = world.reach(node)?;
            world.count("hasty recoveries", 1);
            world.note(format_args!("a hasty recovery of {log} {epoch} at {node}"));
            tokio::spawn(async move { logs.recover(log, epoch).await });
            return None;
        }
        _ => {
            world.net.set_writable(node, false);
            ("drained nodes", End::Writable(node))
        }
    };
    world.count(kind, 1);
    world.note(format_args!("fault {kind} {node} {other}"));
    Some(end)
}

async fn undo(
    world: &Arc<World>,
    end: End,
    rng: &mut StdRng,
    is_damaged: &mut bool,
    ends: &mut Vec<(Instant, End)>,
) {
    match end {
        End::Mend(a, b) => {
            world.net.mend(a, b);
            world.net.mend(b, a);
        }
        End::Kill(node) => {
            world.kill(node, rng.random_range(0..=100));
            let after = Duration::from_millis(rng.random_range(10..=1000));
            ends.push((Instant::now() + after, End::Restart(node)));
        }
        End::Restart(node) => {
            if !world.is_down(node) {
                return;
            }
            if !*is_damaged && rng.random_range(0..4) == 0 && world.damage(node, rng) {
                *is_damaged = true;
                world.count("damaged replicas", 1);
            }
            world.restart(node).await;
        }
        End::Resume(node) => {
            world.paused.lock().remove(&node);
            world.chains.set_cut(node, false);
            // With it, other cuts of the node end.
            world.net.mend_all(node);
        }
        End::Unstall(node) => {
            world.stalled.lock().remove(&node);
        }
        End::Room(node) => {
            if !world.failed.lock().contains(&node) {
                world.disks.lock()[&node].refuse(None);
            }
        }
        End::MetaUp => world.chains.set_down(false),
        End::MetaDelay => world.chains.set_max_delay(3),
        End::Network => world.net.set_delay(3, 2),
        End::Writable(node) => world.net.set_writable(node, true),
    }
    world.note(format_args!("a fault ends"));
}
