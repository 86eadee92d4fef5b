//! Commits a second of the embedded store: many committers, three random keys each.
//!
//! `cargo run --release -p interflow-meta --example commit_bench -- [FOLDER] [SECONDS] [COMMITTERS]`

#![allow(clippy::disallowed_methods, reason = "a benchmark reads real clocks")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use interflow_meta::{EmbeddedOptions, EmbeddedStore, Env, Meta, MetaError};

/// Keys are drawn from this many.
const KEYS: u64 = 1_000_000;
const VALUE: [u8; 100] = [7; 100];

async fn commit(meta: &Meta) -> Result<Duration, MetaError> {
    let began = Instant::now();
    let tx = meta.begin();
    for _ in 0..3 {
        let key = tx.random_u64() % KEYS;
        tx.set(key.to_be_bytes().to_vec(), VALUE.to_vec())?;
    }
    tx.commit().await?;
    Ok(began.elapsed())
}

async fn run(meta: Meta, until: Instant) -> Result<Vec<Duration>, MetaError> {
    let mut took = Vec::new();
    while Instant::now() < until {
        took.push(commit(&meta).await?);
    }
    Ok(took)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let folder = args.next().map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds: u64 = args.next().map_or(Ok(5), |arg| arg.parse())?;
    let committers: usize = args.next().map_or(Ok(64), |arg| arg.parse())?;

    let path = folder.join(format!("commit_bench.{}.redb", std::process::id()));
    let env = Env::default();
    let store = EmbeddedStore::open(&path, &EmbeddedOptions::default(), env.clone())?;
    let meta = Meta::new(Arc::new(store), env, "bench");

    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..committers {
        tasks.spawn(run(meta.clone(), until));
    }
    let mut took = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        took.extend(ended??);
    }
    let elapsed = began.elapsed().as_secs_f64();
    meta.close().await;
    drop(meta);

    took.sort_unstable();
    let at = |share: f64| {
        let place = (took.len() as f64 * share) as usize;
        let one = took.get(place.min(took.len().saturating_sub(1)));
        one.map_or(0.0, Duration::as_secs_f64) * 1e3
    };
    println!(
        "{committers} committers, 3 of {KEYS} keys each, {elapsed:.1} s in {}",
        path.display()
    );
    println!("commits/s {:.0}", took.len() as f64 / elapsed);
    println!(
        "latency ms: p50 {:.2}, p90 {:.2}, p99 {:.2}, max {:.2}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0)
    );
    println!("file bytes {}", std::fs::metadata(&path)?.len());
    let began = Instant::now();
    let store = EmbeddedStore::open(&path, &EmbeddedOptions::default(), Env::default())?;
    println!("opened again in {} ms", began.elapsed().as_millis());
    drop(store);
    std::fs::remove_file(&path)?;
    Ok(())
}
