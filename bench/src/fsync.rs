//! The floor of every durable latency here: a bare loop of write and `fdatasync`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::latency::Latencies;

/// Writes 1 KiB and syncs it, again and again for `time`, in a file in `folder`. As long as a latency
/// load: what else the disk does now and then is in the p99 of both.
pub fn measure(folder: &Path, time: Duration) -> anyhow::Result<Latencies> {
    let path = folder.join("fsync-floor");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let block = [7u8; 1024];
    let mut latencies = Latencies::new()?;
    let end = Instant::now() + time;
    loop {
        let begun = Instant::now();
        if begun >= end {
            break;
        }
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.record_us(begun.elapsed().as_micros() as u64);
    }
    std::fs::remove_file(path)?;
    Ok(latencies)
}
