//! Appends to a journal on the file system, next to a bare loop of overlapping `fdatasync`.
//!
//! `cargo run --release -p interflow-logstore --example journal_bench -- [options]`
//!
//! `--writers N` closed-loop writers, each with `--window W` entries in flight, `--bytes B` each,
//! `--depth D` syncs in flight, `--seconds S`, `--dir FOLDER` on the disk to measure,
//! `--recycled N` files of dead extents that are there to be written over.

#![allow(clippy::disallowed_methods, reason = "a benchmark reads real clocks")]

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use interflow_logstore::disk::RealDisk;
use interflow_logstore::store::{
    Entry, EntryHeader, EntryKind, EntryStore, JournalStore, Options, Position, SegmentId,
    StoreError, StoreEvents,
};
use interflow_logstore::{Epoch, LogId};

#[derive(Clone, Debug)]
struct Args {
    writers: u64,
    window: usize,
    bytes: usize,
    depth: usize,
    seconds: u64,
    recycled: usize,
    dir: PathBuf,
}

type Failure = Box<dyn std::error::Error>;

fn args() -> Result<Args, Failure> {
    let mut args = Args {
        writers: 64,
        window: 1,
        bytes: 1024,
        depth: 4,
        seconds: 4,
        recycled: 0,
        dir: PathBuf::from("journal-bench"),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or("an option without a value")?;
        match word.as_str() {
            "--writers" => args.writers = value.parse()?,
            "--window" => args.window = value.parse()?,
            "--bytes" => args.bytes = value.parse()?,
            "--depth" => args.depth = value.parse()?,
            "--seconds" => args.seconds = value.parse()?,
            "--recycled" => args.recycled = value.parse()?,
            "--dir" => args.dir = PathBuf::from(value),
            other => return Err(format!("no such option: {other}").into()),
        }
    }
    Ok(args)
}

/// What is durable, for those who wait.
#[derive(Default)]
struct Durable {
    at: Mutex<u64>,
    changed: Condvar,
}

impl Durable {
    fn raise(&self, to: u64) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        *at = (*at).max(to);
        drop(at);
        self.changed.notify_all();
    }

    fn wait(&self, at_least: u64) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        while *at < at_least {
            at = self.changed.wait(at).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn now(&self) -> u64 {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoreEvents for Durable {
    fn durable(&self, position: Position) {
        self.raise(position.0);
    }

    fn failed(&self, reason: &str) {
        eprintln!("the journal failed: {reason}");
        self.raise(u64::MAX);
    }
}

/// Runs closed-loop writers over `put`, which returns what to wait for.
fn drive(args: &Args, durable: &Durable, put: impl Fn(u64, u64) -> u64 + Sync) -> Vec<Duration> {
    let stop = AtomicBool::new(false);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for writer in 0..args.writers {
            let (stop, all, put) = (&stop, &all, &put);
            scope.spawn(move || {
                let mut times = Vec::new();
                let mut window = VecDeque::new();
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    while window.len() < args.window {
                        let start = Instant::now();
                        window.push_back((start, put(writer, n)));
                        n += 1;
                    }
                    if let Some((start, at)) = window.pop_front() {
                        durable.wait(at);
                        times.push(start.elapsed());
                    }
                }
                all.lock().unwrap_or_else(PoisonError::into_inner).extend(times);
            });
        }
        std::thread::sleep(Duration::from_secs(args.seconds));
        stop.store(true, Ordering::Relaxed);
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn report(name: &str, args: &Args, mut times: Vec<Duration>, syncs: Option<u64>, cpu: Duration) {
    times.sort_unstable();
    let at = |share: usize| {
        times.get(times.len() * share / 1000).map_or(0.0, |time| time.as_secs_f64() * 1e3)
    };
    let rate = times.len() as f64 / args.seconds as f64;
    let syncs = syncs.map_or(String::new(), |n| format!(", {} syncs/s", n / args.seconds));
    println!(
        "{name:8} {rate:9.0} writes/s {:8.1} MB/s  p50 {:6.2} ms  p99 {:6.2} ms  p99.9 {:6.2} ms  \
         {:5.2} s CPU{syncs}",
        rate * args.bytes as f64 / 1e6,
        at(500),
        at(990),
        at(999),
        cpu.as_secs_f64(),
    );
}

/// CPU time of this process so far, from the kernel's count in ticks of 10 ms.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u64 = fields.skip(11).take(2).filter_map(|n| n.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

/// Makes files as dead extents leave them: written to their end, and not in memory.
fn make_dead(dir: &Path, n: usize, bytes: u32) -> Result<(), Failure> {
    let noise = vec![0xa5; 1 << 20];
    for id in 1..=n {
        let file = File::create_new(dir.join(format!("j{id:010}-00000000.extent.free")))?;
        for at in (0..u64::from(bytes)).step_by(noise.len()) {
            file.write_all_at(&noise, at)?;
        }
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}

fn journal(args: &Args, dir: &Path) -> Result<(), Failure> {
    let durable = Arc::new(Durable::default());
    let options =
        Options { sync_depth: args.depth, recycled_extents: args.recycled, ..Options::default() };
    let disk = Arc::new(RealDisk::open(dir)?);
    make_dead(dir, args.recycled, options.extent_bytes)?;
    let store = JournalStore::open(disk, options.clone(), Arc::clone(&durable) as _)?;
    let payload = vec![7; args.bytes];
    let busy = AtomicU64::new(0);
    let before = cpu();
    let times = drive(args, &durable, |writer, n| {
        let header = EntryHeader {
            id: SegmentId { log: LogId(writer), epoch: Epoch(0) },
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
            let before = durable.now();
            match store.append(&entry) {
                Ok(position) => return position.0,
                Err(StoreError::Busy) => {
                    busy.fetch_add(1, Ordering::Relaxed);
                    durable.wait(before.saturating_add(1));
                }
                Err(error) => {
                    eprintln!("append: {error}");
                    return 0;
                }
            }
        }
    });
    report("journal", args, times, None, cpu() - before);
    // Without a clean end, so the last extent is scanned.
    drop(store);
    let start = Instant::now();
    let store =
        JournalStore::open(Arc::new(RealDisk::open(dir)?), options, Arc::clone(&durable) as _)?;
    let opened = start.elapsed();
    let bytes: u64 = store.segments().iter().map(|found| found.bytes).sum();
    println!("         opened again in {opened:.0?}, {:.1} GB", bytes as f64 / 1e9);
    let busy = busy.into_inner();
    if busy > 0 {
        println!("         busy {busy} times");
    }
    Ok(())
}

/// The least that anything durable must do: write at the end, sync, wait.
fn bare(args: &Args, dir: &Path) -> Result<(), Failure> {
    let path = dir.join("bare");
    let file = File::options().create(true).truncate(true).write(true).read(true).open(&path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 4 << 30)?;
    file.sync_all()?;
    let durable = Durable::default();
    // Written up to here; claimed by a sync up to here; stop.
    let state = Mutex::new((0u64, 0u64, false));
    let wake = Condvar::new();
    let syncs = AtomicU64::new(0);
    let payload = vec![7; args.bytes];
    let before = cpu();
    let times = std::thread::scope(|scope| {
        for _ in 0..args.depth {
            scope.spawn(|| {
                let mut s = state.lock().unwrap_or_else(PoisonError::into_inner);
                loop {
                    while s.1 >= s.0 && !s.2 {
                        s = wake.wait(s).unwrap_or_else(PoisonError::into_inner);
                    }
                    if s.2 {
                        return;
                    }
                    let to = s.0;
                    s.1 = to;
                    drop(s);
                    if file.sync_data().is_ok() {
                        syncs.fetch_add(1, Ordering::Relaxed);
                        durable.raise(to);
                    }
                    s = state.lock().unwrap_or_else(PoisonError::into_inner);
                }
            });
        }
        let times = drive(args, &durable, |_, _| {
            let mut s = state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = file.write_all_at(&payload, s.0) {
                eprintln!("write: {error}");
            }
            s.0 += payload.len() as u64;
            wake.notify_one();
            s.0
        });
        state.lock().unwrap_or_else(PoisonError::into_inner).2 = true;
        wake.notify_all();
        times
    });
    report("bare", args, times, Some(syncs.into_inner()), cpu() - before);
    std::fs::remove_file(path)?;
    Ok(())
}

fn main() -> Result<(), Failure> {
    let args = args()?;
    println!(
        "{} writers x {} in flight, {} bytes, {} syncs in flight, {} s",
        args.writers, args.window, args.bytes, args.depth, args.seconds
    );
    std::fs::create_dir_all(&args.dir)?;
    bare(&args, &args.dir)?;
    journal(&args, &args.dir.join("journal"))?;
    std::fs::remove_dir_all(args.dir.join("journal"))?;
    Ok(())
}
