//! Cold scans of interleaved logs: as they were written, and after they were put in order, with
//! and without reading ahead.
//!
//! `cargo run --release -p interflow-logstore --example scan_bench -- [options]`
//!
//! `--logs N` logs in turn, `--bytes B` an entry, `--mib M` of each log, `--read R` KiB a read,
//! `--pause P` microseconds that the reader takes for each read, `--times T` scans of which the
//! median counts, `--dir FOLDER` on the disk to measure.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads real clocks")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interflow_logstore::disk::RealDisk;
use interflow_logstore::store::{
    Entry, EntryHeader, EntryKind, EntryStore, JournalStore, Options, Position, SegmentId,
    SegmentRead, StoreError, StoreEvents,
};
use interflow_logstore::{Epoch, LogId};

type Failure = Box<dyn std::error::Error>;

#[derive(Clone, Debug)]
struct Args {
    logs: u64,
    bytes: usize,
    mib: u64,
    read: usize,
    pause: u64,
    times: usize,
    dir: PathBuf,
}

fn args() -> Result<Args, Failure> {
    let dir = PathBuf::from("scan-bench");
    let mut args = Args { logs: 64, bytes: 4096, mib: 16, read: 1024, pause: 0, times: 5, dir };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or("an option without a value")?;
        match word.as_str() {
            "--logs" => args.logs = value.parse()?,
            "--bytes" => args.bytes = value.parse()?,
            "--mib" => args.mib = value.parse()?,
            "--read" => args.read = value.parse()?,
            "--pause" => args.pause = value.parse()?,
            "--times" => args.times = value.parse()?,
            "--dir" => args.dir = PathBuf::from(value),
            other => return Err(format!("no such option: {other}").into()),
        }
    }
    Ok(args)
}

/// Lets the writer wait for room.
#[derive(Default)]
struct Progress {
    told: Mutex<u64>,
    changed: Condvar,
}

impl Progress {
    fn tell(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.changed.notify_all();
    }

    fn told(&self) -> u64 {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_past(&self, before: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        while *told <= before {
            told = self.changed.wait(told).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl StoreEvents for Progress {
    fn durable(&self, _: Position) {
        self.tell();
    }

    fn failed(&self, reason: &str) {
        eprintln!("the journal failed: {reason}");
        self.tell();
    }
}

fn segment(log: u64) -> SegmentId {
    SegmentId { log: LogId(log), epoch: Epoch(0) }
}

fn open(dir: &Path, options: Options) -> Result<(JournalStore, Arc<Progress>), Failure> {
    let progress = Arc::new(Progress::default());
    let disk = Arc::new(RealDisk::open(dir)?);
    Ok((JournalStore::open(disk, options, Arc::clone(&progress) as _)?, progress))
}

async fn write(args: &Args, dir: &Path) -> Result<(), Failure> {
    let (store, progress) = open(dir, Options::default())?;
    // Not to be compressed away below.
    let payload: Vec<u8> =
        (0u32..).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).take(args.bytes).collect();
    for n in 0..(args.mib << 20) / args.bytes as u64 {
        for log in 0..args.logs {
            let header = EntryHeader {
                id: segment(log),
                kind: EntryKind::Data,
                base_offset: n,
                count: 1,
                max_timestamp: 0,
                key: None,
                window: 5,
                digest: None,
            };
            let entry = Entry { header, payload: &payload, leader_epoch: Some(0) };
            loop {
                let before = progress.told();
                match store.append(&entry) {
                    Ok(_) => break,
                    Err(StoreError::Busy) => progress.wait_past(before),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    store.close().await;
    Ok(())
}

/// Takes the files out of the page cache.
fn chill(dir: &Path) -> Result<(), Failure> {
    for entry in std::fs::read_dir(dir)? {
        let file = std::fs::File::open(entry?.path())?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

/// Reads some logs, one after the other or all at once; returns MB/s and the share of reads that
/// didn't have to wait.
async fn scan(
    args: &Args,
    dir: &Path,
    ahead: usize,
    together: bool,
) -> Result<(f64, f64), Failure> {
    chill(dir)?;
    let options = Options {
        read_ahead_bytes: ahead,
        rewrite_scan_factor: u64::MAX,
        rewrite_live_percent: 0,
        ..Options::default()
    };
    let (store, _) = open(dir, options)?;
    let (max_bytes, pause) = (args.read << 10, Duration::from_micros(args.pause));
    let logs = args.logs.min(4);
    let mut offsets = vec![Some(0); logs as usize];
    let (mut bytes, mut reads, mut at_once) = (0, 0, 0);
    let start = Instant::now();
    while offsets.iter().any(Option::is_some) {
        for (log, place) in (0..).zip(&mut offsets) {
            while let Some(offset) = *place {
                let read = SegmentRead {
                    id: segment(log),
                    offset,
                    end: u64::MAX,
                    max_bytes,
                    filter: None,
                };
                reads += 1;
                let outcome = match store.try_read(&read) {
                    Some(outcome) => {
                        at_once += 1;
                        outcome?
                    }
                    None => store.read(read).await?,
                };
                bytes += outcome.batches.iter().map(|batch| batch.bytes.len()).sum::<usize>();
                *place = (outcome.next_offset > offset).then_some(outcome.next_offset);
                let begin = Instant::now();
                while begin.elapsed() < pause {
                    std::hint::spin_loop();
                }
                if together {
                    break;
                }
            }
        }
    }
    let rate = bytes as f64 / start.elapsed().as_secs_f64() / 1e6;
    Ok((rate, 100.0 * f64::from(at_once) / f64::from(reads)))
}

/// Puts everything in order, as fast as may be.
async fn rewrite(args: &Args, dir: &Path) -> Result<(), Failure> {
    let options = Options { rewrite_bytes_per_second: u64::MAX, ..Options::default() };
    let (store, _) = open(dir, options)?;
    for log in 0..args.logs {
        store.expect_life(LogId(log), Some(Duration::MAX));
    }
    let originals = || -> Result<usize, Failure> {
        let mut count = 0;
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            // The one that is written to, and the last, small one, stay.
            count += usize::from(name.starts_with('j') && entry.metadata()?.len() > 16 << 20);
        }
        Ok(count)
    };
    while originals()? > 1 {
        std::thread::sleep(Duration::from_millis(50));
    }
    store.close().await;
    Ok(())
}

async fn report(args: &Args, dir: &Path, name: &str) -> Result<(), Failure> {
    for together in [false, true] {
        let windows = [0, 1 << 20, 4 << 20];
        let mut rates = [const { Vec::new() }; 3];
        // In turn, so that whatever else the machine does meets all of them.
        for _ in 0..args.times {
            for (window, rates) in windows.into_iter().zip(&mut rates) {
                rates.push(scan(args, dir, window, together).await?);
            }
        }
        for (window, rates) in windows.into_iter().zip(&mut rates) {
            rates.sort_by(|(a, _), (b, _)| a.total_cmp(b));
            let (rate, at_once) = rates.get(rates.len() / 2).copied().unwrap_or_default();
            let how = if together { "4 at once" } else { "one by one" };
            let kib = window >> 10;
            println!(
                "{name:10} {how:10} {kib:5} KiB ahead {rate:8.1} MB/s {at_once:3.0} % at once"
            );
        }
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let args = args()?;
    println!("{args:?}");
    let dir = args.dir.join("journal");
    std::fs::create_dir_all(&dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build()?;
    runtime.block_on(async {
        write(&args, &dir).await?;
        report(&args, &dir, "as written").await?;
        rewrite(&args, &dir).await?;
        report(&args, &dir, "in order").await
    })?;
    std::fs::remove_dir_all(dir)?;
    Ok(())
}
