//! The floor of every durable latency here: a bare loop of write and `fdatasync`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use crate::latency::Latencies;

/// Writes 1 KiB and syncs it, `rounds` times, in a file in `folder`.
pub fn measure(folder: &Path, rounds: usize) -> anyhow::Result<Latencies> {
    let path = folder.join("fsync-floor");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    let block = [7u8; 1024];
    let mut latencies = Latencies::new()?;
    for _ in 0..rounds {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        latencies.record_us(begun.elapsed().as_micros() as u64);
    }
    std::fs::remove_file(path)?;
    Ok(latencies)
}
