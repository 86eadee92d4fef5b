//! Reads in this process, next to reads over gRPC on loopback, from the memory of the same journal.
//!
//! `cargo run --release -p interflow-logstore --example read_bench -- [options]`
//!
//! `--logs N` logs with `--batches B` batches of `--bytes B` each; `--in-flight F` readers, each
//! reading one batch after the other, from log to log, for `--seconds S`. CPU is that of the whole
//! process: client, server and log store.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads real clocks")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use interflow_logstore::clock::SystemClock;
use interflow_logstore::disk::{Disk, FaultDisk};
use interflow_logstore::store::Options;
use interflow_logstore::{
    Append, AppendKind, Durability, Identity, LogClient, LogConfig, LogId, LogServerOptions,
    LogStore, NodeId, Read, RemoteLogs, RemoteLogsOptions, serve_logs,
};
use interflow_meta::logs::{Opening, Policy};
use interflow_meta::topics::{self, NewLogs, NewTopic};
use interflow_meta::{DEFAULT_TENANT, EmbeddedStore, Env, Meta};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const NODE: NodeId = NodeId(1);

#[derive(Clone, Copy, Debug)]
struct Args {
    logs: u32,
    batches: u64,
    bytes: usize,
    in_flight: usize,
    seconds: u64,
}

fn args() -> Result<Args, Failure> {
    let mut args = Args { logs: 8, batches: 4, bytes: 1024, in_flight: 16, seconds: 5 };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or("an option without a value")?;
        match word.as_str() {
            "--logs" => args.logs = value.parse()?,
            "--batches" => args.batches = value.parse()?,
            "--bytes" => args.bytes = value.parse()?,
            "--in-flight" => args.in_flight = value.parse()?,
            "--seconds" => args.seconds = value.parse()?,
            other => return Err(format!("no such option: {other}").into()),
        }
    }
    Ok(args)
}

async fn open(args: &Args) -> Result<(LogStore, Vec<LogId>), Failure> {
    let meta = EmbeddedStore::in_memory(Env::default())?;
    let meta = Meta::new(Arc::new(meta), Env::default(), "read-bench");
    let disk: Arc<dyn Disk> = Arc::new(FaultDisk::new().folder("journal"));
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
            policy: Policy { retention_ms: None, ..Policy::default() },
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
    let batch = Bytes::from(vec![7; args.bytes]);
    for log in &topic.logs {
        for _ in 0..args.batches {
            let append = Append {
                log: *log,
                kind: AppendKind::Data,
                key: None,
                window: 5,
                count: 1,
                max_timestamp: 0,
                digest: None,
                early: false,
                batch: batch.clone(),
            };
            logs.append(append).await?;
        }
    }
    Ok((logs, topic.logs))
}

/// One reader's latencies.
async fn read(
    client: Arc<dyn LogClient>,
    logs: Arc<[LogId]>,
    first: usize,
    args: Args,
    until: Instant,
) -> Result<Vec<Duration>, Failure> {
    let mut latencies = Vec::new();
    for n in first.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let log = *logs.get(n % logs.len()).ok_or("without logs")?;
        let offset = (n / logs.len()) as u64 % args.batches;
        let read = Read { log, offset, max_bytes: args.bytes, stable_only: false, filter: None };
        let outcome = client.read(read).await?;
        if outcome.batches.iter().map(|batch| batch.bytes.len()).sum::<usize>() != args.bytes {
            return Err("a read didn't bring its batch".into());
        }
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}

/// User and system time of this process.
fn cpu() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let behind_name = stat.rsplit_once(')').ok_or("no name")?.1;
    let ticks = |at| -> Result<u64, Failure> {
        Ok(behind_name.split_whitespace().nth(at).ok_or("too short")?.parse()?)
    };
    // A tick is 10 ms.
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

async fn measure(
    what: &str,
    client: Arc<dyn LogClient>,
    logs: &[LogId],
    args: Args,
) -> Result<(), Failure> {
    let logs: Arc<[LogId]> = logs.into();
    let (began, cpu_before) = (Instant::now(), cpu()?);
    let until = began + Duration::from_secs(args.seconds);
    let tasks: Vec<_> = (0..args.in_flight)
        .map(|first| tokio::spawn(read(client.clone(), logs.clone(), first, args, until)))
        .collect();
    let mut latencies = Vec::new();
    for task in tasks {
        latencies.extend(task.await??);
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu()?.saturating_sub(cpu_before));
    latencies.sort_unstable();
    let at = |percent: usize| {
        let index = (latencies.len() * percent / 100).min(latencies.len().saturating_sub(1));
        latencies.get(index).map_or(0.0, |latency| latency.as_secs_f64() * 1e3)
    };
    let reads = latencies.len() as f64;
    println!(
        "{what:<12} {:>9.0} reads/s {:>8.1} MB/s   CPU {:>7.2} µs a read   p50 {:>7.3} ms   p99 {:>7.3} ms",
        reads / seconds,
        reads * args.bytes as f64 / seconds / 1e6,
        cpu.as_secs_f64() * 1e6 / reads,
        at(50),
        at(99)
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args = args()?;
    println!(
        "{} logs, {} readers of batches of {} bytes, {} s",
        args.logs, args.in_flight, args.bytes, args.seconds
    );
    let (local, logs) = open(&args).await?;
    measure("in process", Arc::new(local.clone()), &logs, args).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let closing = CancellationToken::new();
    let (served, ended) = (local.clone(), closing.clone());
    let serving = tokio::spawn(async move {
        serve_logs(listener, &served, LogServerOptions::default(), ended).await
    });
    let remote = Arc::new(RemoteLogs::open(RemoteLogsOptions::new("127.0.0.1", port, 1))?);
    measure("gRPC", remote.clone(), &logs, args).await?;
    remote.close().await;
    closing.cancel();
    serving.await??;
    local.shutdown().await;
    Ok(())
}
