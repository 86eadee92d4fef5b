//! Gateways: producers and followers of the logs, behind a router.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use interflow_meta::{LogId, NodeId};
use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::super::super::registry::{LogRecord, Registry, RegistryError};
use super::super::super::{batch, read, text};
use super::super::registry::Handle;
use super::network;
use super::world::World;
use crate::routing::{Place, Placed, Places};
use crate::{
    Append, AppendError, AppendKey, Bounds, LogClient, LogObserver, MetaDirectory, NodeTimes,
    Offset, RouteError, Router, RouterOptions,
};

/// A router answers an append within its own time.
const ANSWERED: Duration = Duration::from_secs(25);

/// Meta as a gateway's directory asks it.
struct Known {
    meta: Handle,
    rng: Mutex<StdRng>,
}

#[async_trait]
impl Places for Known {
    async fn places(&self, logs: &[LogId]) -> Vec<Result<Placed, RouteError>> {
        let records = self.meta.load_many(logs).await;
        let place = |record: Result<Option<LogRecord>, RegistryError>| {
            let record = record.map_err(|error| RouteError::Unavailable(error.to_string()))?;
            let LogRecord { head, factor, .. } = record.ok_or(RouteError::NoSuchLog)?;
            let place = Place {
                epoch: head.epoch,
                leader_epoch: head.leader_epoch,
                sequencer: head.sequencer.node,
                replicas: head.replicas.to_vec(),
                replication_factor: u32::try_from(factor.replicas).unwrap_or(u32::MAX),
            };
            let address = network::address(place.sequencer);
            Ok((place, Some(address)))
        };
        records.into_iter().map(place).collect()
    }

    async fn address(&self, node: NodeId) -> Result<Option<String>, RouteError> {
        Ok(Some(network::address(node)))
    }

    fn random(&self) -> u64 {
        self.rng.lock().random()
    }
}

/// A gateway's life: until its producers and followers have seen everything through. The first
/// one reads all logs at last.
pub(super) async fn gateway(
    world: Arc<World>,
    id: u32,
    producers: Vec<Producer>,
) -> turmoil::Result {
    let (chains, is_dead) = (Arc::clone(&world.chains), Arc::default());
    let known = Known {
        meta: Handle { chains, is_dead, node: NodeId(100 + id) },
        rng: Mutex::new(world.rng(200 + u64::from(id))),
    };
    let directory = MetaDirectory::by(Arc::new(known), network::access(), NodeTimes::default());
    let router = Arc::new(Router::new(Arc::new(directory), RouterOptions::default()));
    let mut followers = JoinSet::new();
    for log in world.chains.logs() {
        followers.spawn(follow(Arc::clone(&world), Arc::clone(&router), log, id));
    }
    let mut tasks = JoinSet::new();
    for producer in producers {
        tasks.spawn(producer.run(Arc::clone(&world), Arc::clone(&router)));
    }
    while tasks.join_next().await.is_some() {}
    world.producing.fetch_sub(1, Ordering::SeqCst);
    while followers.join_next().await.is_some() {}
    if id == 1 {
        for log in world.chains.logs() {
            let _doing = world.doing(format!("log {log} is read"));
            let all = read_all(&world, &router, log).await;
            let keyed: Vec<Vec<String>> = {
                let sent = world.sent.lock();
                let of_log = sent.values().filter(|(of, _)| *of == log);
                of_log.map(|(_, values)| values.clone()).collect()
            };
            let chain = world.chains.record(log).closed;
            world.oracle.ended(log, &all, &keyed, &chain);
            world.note(format_args!("log {log} has {} batches", all.len()));
        }
    }
    router.close().await;
    Ok(())
}

/// What one producer does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Producer {
    pub(super) id: u32,
    pub(super) log: LogId,
    pub(super) is_keyed: bool,
    pub(super) in_flight: u32,
    pub(super) max_pause_ms: u64,
}

impl Producer {
    fn append(&self, n: u32, attempt: u32) -> (String, Append) {
        let count = 1 + n % 3;
        if !self.is_keyed {
            // A retry is another batch: nobody knows the first.
            let value = format!("{}:{n}:{attempt}", self.id);
            return (value.clone(), batch(self.log, count, &value));
        }
        let sequence = n / 3 * 6 + [0, 1, 3][n as usize % 3];
        let key = AppendKey {
            producer_id: i64::from(self.id),
            producer_epoch: 0,
            sequence: i32::try_from(sequence).expect("few"),
        };
        let value = self.value(n);
        (value.clone(), Append { key: Some(key), ..batch(self.log, count, &value) })
    }

    fn value(&self, n: u32) -> String {
        format!("{}:{n}", self.id)
    }

    /// Goes on while there are faults, and then gets through what it has begun.
    async fn run(self, world: Arc<World>, logs: Arc<Router>) {
        let _doing = world.doing(format!("producer {} of log {}", self.id, self.log));
        let mut rng = world.rng(u64::from(self.id));
        let (mut next, mut attempt, mut is_through) = (0, 0, true);
        while !world.is_healed() || !is_through {
            sleep(Duration::from_millis(rng.random_range(0..=self.max_pause_ms))).await;
            attempt += 1;
            let burst = next..next + rng.random_range(1..=self.in_flight);
            let tickets: Vec<_> = burst
                .clone()
                .map(|n| {
                    let (value, append) = self.append(n, attempt);
                    (n, value, logs.append(append))
                })
                .collect();
            let mut failure = None;
            for (n, value, ticket) in tickets {
                let answer = timeout(ANSWERED, ticket).await;
                let Ok(answer) = answer else {
                    world.oracle.fail(format!("{} {value} isn't answered", self.log));
                    return;
                };
                match answer {
                    Ok(appended) => {
                        let at = appended.base_offset;
                        world.note(format_args!("ack {} {value} at {at}", self.log));
                        world.trace.count("acks", 1);
                        world.trace.count("acks of duplicates", appended.duplicate.into());
                        world.oracle.acked(self.log, at, &value);
                        let refused =
                            failure.as_ref().filter(|error| **error != AppendError::Unknown);
                        if let Some(error) = refused.filter(|_| self.is_keyed) {
                            let log = self.log;
                            world.oracle.fail(format!("{log} {value} overtook: {error}"));
                        }
                        if failure.is_none() {
                            next = n + 1;
                        }
                    }
                    Err(AppendError::DuplicateSequence) if self.is_keyed => {
                        world.note(format_args!("old {} {value}", self.log));
                        if failure.is_none() {
                            next = n + 1;
                        }
                    }
                    Err(error) => {
                        world.note(format_args!("error {} {value}: {error}", self.log));
                        world.trace.count("errors", 1);
                        failure.get_or_insert(error);
                    }
                }
            }
            is_through = failure.is_none();
        }
        if self.is_keyed {
            let values = (0..next).map(|n| self.value(n)).collect();
            world.sent.lock().insert(self.id, (self.log, values));
        }
        world.note(format_args!("producer {} is done with {next}", self.id));
    }
}

/// Hears how far a log has come.
struct Heard {
    world: Arc<World>,
    committed: watch::Sender<Offset>,
}

impl LogObserver for Heard {
    fn advanced(&self, _: LogId, bounds: Bounds) {
        self.committed.send_if_modified(|known| {
            let is_more = bounds.committed > *known;
            *known = bounds.committed.max(*known);
            is_more
        });
    }

    fn ended(&self, log: LogId) {
        self.world.oracle.fail(format!("log {log} is said to be deleted"));
    }
}

/// Reads a log as it grows, whenever the observer hears that it has: never otherwise.
async fn follow(world: Arc<World>, logs: Arc<Router>, log: LogId, gateway: u32) {
    let _doing = world.doing(format!("gateway {gateway} follows log {log}"));
    let (committed, mut heard) = watch::channel(0);
    let observer = Arc::new(Heard { world: Arc::clone(&world), committed });
    let observation = loop {
        match logs.observe(log, Arc::clone(&observer) as Arc<dyn LogObserver>).await {
            Ok(observation) => break observation,
            Err(error) => {
                world.note(format_args!("observe {log} by {gateway}: {error}"));
                sleep(Duration::from_millis(200)).await;
            }
        }
    };
    let mut offset = 0;
    loop {
        while offset < *heard.borrow() {
            match logs.read(read(log, offset)).await {
                Ok(outcome) => {
                    for batch in &outcome.batches {
                        let end = batch.base_offset + u64::from(batch.count);
                        world.oracle.read(log, batch.base_offset, &text(&batch.bytes));
                        if batch.base_offset > offset || end > outcome.bounds.committed {
                            let at = (batch.base_offset, end, &outcome.bounds);
                            world.oracle.fail(format!("log {log} at {offset} is read as {at:?}"));
                        }
                        offset = end;
                    }
                    if outcome.next_offset != offset {
                        let next = outcome.next_offset;
                        world.oracle.fail(format!("log {log} at {offset} goes on at {next}"));
                        return;
                    }
                    if outcome.batches.is_empty() {
                        sleep(Duration::from_millis(20)).await;
                    }
                }
                Err(error) => {
                    world.note(format_args!("read {log} at {offset} by {gateway}: {error}"));
                    world.trace.count("failed reads", 1);
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        world.trace.count("followed", 1);
        // When nobody appends any more, the observer has heard of all there is.
        let is_last = world.producing.load(Ordering::SeqCst) == 0;
        if is_last && world.oracle.last_end(log) <= offset {
            break;
        }
        let _ = timeout(Duration::from_millis(100), heard.changed()).await;
    }
    drop(observation);
}

/// All of a log, once nothing fails any more.
async fn read_all(world: &World, logs: &Router, log: LogId) -> Vec<(Offset, u32, String)> {
    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let outcome = match logs.read(read(log, offset)).await {
            Ok(outcome) => outcome,
            Err(error) => {
                world.note(format_args!("read all {log} at {offset}: {error}"));
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        for batch in &outcome.batches {
            let value = text(&batch.bytes);
            world.oracle.read(log, batch.base_offset, &value);
            all.push((batch.base_offset, batch.count, value));
        }
        if outcome.next_offset == offset && offset == outcome.bounds.committed {
            return all;
        }
        offset = outcome.next_offset;
    }
}
