//! Appends in this process, next to appends over gRPC on loopback, to the same kind of journal.
//!
//! `cargo run --release -p interflow-logstore --example rpc_bench -- [options]`
//!
//! `--logs N` closed-loop producers, one a log, each with `--window W` appends of `--bytes B` in
//! flight, for `--seconds S`; the journal is in `--dir FOLDER`, which is made and removed, or in
//! memory without one.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads real clocks")]

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use interflow_logstore::clock::SystemClock;
use interflow_logstore::disk::{Disk, FaultDisk, RealDisk};
use interflow_logstore::store::Options;
use interflow_logstore::{
    Append, AppendKey, AppendKind, Durability, Identity, LogClient, LogConfig, LogId,
    LogServerOptions, LogStore, NodeId, RemoteLogs, RemoteLogsOptions, serve_logs,
};
use interflow_meta::logs::{Opening, Policy};
use interflow_meta::topics::{self, NewLogs, NewTopic};
use interflow_meta::{DEFAULT_TENANT, EmbeddedStore, Env, Meta};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const NODE: NodeId = NodeId(1);

#[derive(Clone, Debug)]
struct Args {
    logs: u32,
    window: usize,
    bytes: usize,
    seconds: u64,
    dir: Option<PathBuf>,
}

fn args() -> Result<Args, Failure> {
    let mut args = Args { logs: 8, window: 8, bytes: 1024, seconds: 5, dir: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or("an option without a value")?;
        match word.as_str() {
            "--logs" => args.logs = value.parse()?,
            "--window" => args.window = value.parse()?,
            "--bytes" => args.bytes = value.parse()?,
            "--seconds" => args.seconds = value.parse()?,
            "--dir" => args.dir = Some(PathBuf::from(value)),
            other => return Err(format!("no such option: {other}").into()),
        }
    }
    Ok(args)
}

async fn open(args: &Args) -> Result<(LogStore, Vec<LogId>), Failure> {
    let meta =
        Meta::new(Arc::new(EmbeddedStore::in_memory(Env::default())?), Env::default(), "rpc-bench");
    let disk: Arc<dyn Disk> = match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            Arc::new(RealDisk::open(dir)?)
        }
        None => Arc::new(FaultDisk::new().folder("journal")),
    };
    let identity = Identity { node: NODE, incarnation: 1 };
    let options = Options { min_free_bytes: 0, min_free_percent: 0, ..Options::default() };
    let clock = Arc::new(SystemClock::new());
    let config = LogConfig::default();
    let logs = LogStore::open_journal(disk, options, meta.clone(), identity, config, clock).await?;
    let new = &NewTopic {
        name: "bench".to_owned(),
        id: Uuid::from_u128(1),
        partitions: args.logs,
        config: Default::default(),
        logs: NewLogs {
            durability: Durability::Durable,
            policy: Policy::default(),
            replication_factor: 1,
            opening: Opening {
                base: 0,
                leader_epoch: 0,
                sequencer: NODE,
                incarnation: 1,
                replicas: vec![NODE],
                token: 1,
                opened_ms: 0,
            },
        },
    };
    let topic =
        meta.transact(|tx| async move { topics::create(&tx, DEFAULT_TENANT, new).await }).await?;
    Ok((logs, topic.logs))
}

/// One producer's latencies.
async fn produce(
    client: Arc<dyn LogClient>,
    log: LogId,
    window: usize,
    bytes: usize,
    until: Instant,
) -> Result<Vec<Duration>, Failure> {
    let batch = Bytes::from(vec![7; bytes]);
    let (mut sequence, mut in_flight) = (0, VecDeque::new());
    let mut latencies = Vec::new();
    loop {
        let is_over = Instant::now() >= until;
        while !is_over && in_flight.len() < window {
            let key = AppendKey { producer_id: 1, producer_epoch: 0, sequence };
            let append = Append {
                log,
                kind: AppendKind::Data,
                key: Some(key),
                window: u16::try_from(window)?,
                count: 1,
                max_timestamp: 0,
                digest: None,
                early: false,
                batch: batch.clone(),
            };
            in_flight.push_back((Instant::now(), client.append(append)));
            sequence += 1;
        }
        let Some((began, ticket)) = in_flight.pop_front() else { return Ok(latencies) };
        ticket.await?;
        latencies.push(began.elapsed());
    }
}

async fn measure(
    what: &str,
    client: Arc<dyn LogClient>,
    logs: &[LogId],
    args: &Args,
) -> Result<(), Failure> {
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds);
    let tasks: Vec<_> = logs
        .iter()
        .map(|log| tokio::spawn(produce(client.clone(), *log, args.window, args.bytes, until)))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let seconds = began.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |percent: usize| {
        let index = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
        latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    };
    let rate = latencies.len() as f64 / seconds;
    println!("{what:<12} {rate:>9.0} appends/s   p50 {:>7.3} ms   p99 {:>7.3} ms", at(50), at(99));
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = args()?;
    println!(
        "{} logs, {} appends of {} bytes in flight each, {} s, journal {}",
        args.logs,
        args.window,
        args.bytes,
        args.seconds,
        args.dir.as_ref().map_or("in memory".to_owned(), |dir| format!("in {}", dir.display())),
    );
    let (local, logs) = open(&args).await?;
    measure("in process", Arc::new(local.clone()), &logs, &args).await?;
    local.shutdown().await;
    remove(&args)?;

    let (local, logs) = open(&args).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let closing = CancellationToken::new();
    let (served, ended) = (local.clone(), closing.clone());
    let serving = tokio::spawn(async move {
        serve_logs(listener, &served, LogServerOptions::default(), ended).await
    });
    let remote = Arc::new(RemoteLogs::open(RemoteLogsOptions::new("127.0.0.1", port, 1))?);
    measure("gRPC", remote.clone(), &logs, &args).await?;
    remote.close().await;
    closing.cancel();
    serving.await??;
    local.shutdown().await;
    remove(&args)
}

fn remove(args: &Args) -> Result<(), Failure> {
    if let Some(dir) = &args.dir {
        std::fs::remove_dir_all(dir)?;
    }
    Ok(())
}
