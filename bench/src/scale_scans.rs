//! Cold scans: what log stores read from their disks for logs that were written interleaved.

use std::time::{Duration, Instant};

use crate::cluster::{Cluster, drop_cached};
use crate::cold_scan::scan;
use crate::kafka_load::{Load, create_topic};
use crate::kafka_server::Places;
use crate::many::{Producers, Target};
use crate::process::Usage;
use crate::report::Report;

const US: &str = "interflow";
const TOPIC: &str = "interleaved";
const RECORD_BYTES: usize = 1_000;
/// Records of a batch.
const BATCH: usize = 8;
/// Of more logs than this a part is read.
const MOST_READ: usize = 200;
/// The log stores have put in order what they will, or looked at what they have, when they write or
/// read nothing for so long.
const QUIET: Duration = Duration::from_secs(5);
/// That is waited for no longer than this.
const ORDERED: Duration = Duration::from_secs(60);

/// Logs that are written in turn, a batch each.
#[derive(Clone, Copy, Debug)]
pub struct Interleaving {
    /// How many.
    pub logs: usize,
    /// Megabytes of all.
    pub megabytes: usize,
}

/// Writes the logs, and reads some of them from a disk that nobody remembers: as they were written,
/// and others after the log stores had time to put them in order.
pub async fn measure(report: &mut Report, places: &Places, of: Interleaving) -> anyhow::Result<()> {
    let mut cluster = Cluster::start(places, 3, 1)?;
    eprintln!("writing {} interleaved logs", of.logs);
    let bootstrap = cluster.bootstrap();
    create_topic(&Load {
        bootstrap: bootstrap.clone(),
        topic: TOPIC.to_owned(),
        partitions: i32::try_from(of.logs)?,
        replicas: 3,
        records: 0,
        record_bytes: 0,
        batch_bytes: 0,
    })
    .await?;
    tokio::task::block_in_place(|| {
        let target = Target { bootstrap, topic: TOPIC.to_owned(), partitions: of.logs, clients: 4 };
        let rounds = (of.megabytes * 1_000_000 / (of.logs * BATCH * RECORD_BYTES)).max(1);
        let producers = Producers::new(&target, BATCH)?;
        let seconds = producers.fill(rounds, BATCH, &[7; RECORD_BYTES])?;
        drop(producers);
        let bytes = (rounds * of.logs * BATCH * RECORD_BYTES) as f64;
        let scenario = format!("cold scan, {} logs, as written", of.logs);
        report.add(&scenario, US, "writing, MB/s", bytes / seconds / 1e6);
        // Of two times the logs that are read, every second.
        let read = (of.logs / 2).clamp(1, MOST_READ);
        let step = (of.logs / read / 2).max(1);
        let choose = |first: usize| -> Vec<usize> {
            (0..read).map(|n| (n * 2 * step + first) % of.logs).collect()
        };
        let records = rounds * BATCH;
        cluster.set_settings(&[("INTERFLOW_STORAGE__REWRITE_BYTES_PER_SECOND", "1".to_owned())]);
        cold(report, &mut cluster, &scenario, &choose(0), records)?;
        cluster.set_settings(&[]);
        cluster.restart(|_| Ok(()))?;
        let begun = Instant::now();
        await_quiet(|| total(&cluster, |store| store.written_bytes))?;
        let scenario = format!("cold scan, {} logs, put in order", of.logs);
        report.add(&scenario, US, "put in order after s", begun.elapsed().as_secs_f64());
        cold(report, &mut cluster, &scenario, &choose(step), records)?;
        cluster.stop()
    })
}

/// Restarts the cluster, waits until the log stores have looked at their logs, and reads with nothing
/// cached.
fn cold(
    report: &mut Report,
    cluster: &mut Cluster,
    scenario: &str,
    partitions: &[usize],
    records: usize,
) -> anyhow::Result<()> {
    eprintln!("{scenario}");
    let (_, starting) = cluster.restart(drop_cached)?;
    report.add(scenario, US, "starting, s", starting);
    let read = || total(cluster, |store| store.read_bytes);
    await_quiet(read)?;
    report.add(scenario, US, "MB read before, since its start", read()? as f64 / 1e6);
    cluster.drop_cached()?;
    let before = read()?;
    let scanned = scan(&cluster.bootstrap(), TOPIC, partitions, records)?;
    let after = read()?;
    let (read, bytes) = ((after - before) as f64, scanned.bytes as f64);
    report.add(scenario, US, "logs read", scanned.logs as f64);
    report.add(scenario, US, "MB delivered", bytes / 1e6);
    report.add(scenario, US, "MB/s", bytes / scanned.seconds / 1e6);
    report.add(scenario, US, "MB read from disk", read / 1e6);
    report.add(scenario, US, "read to delivered", read / bytes);
    Ok(())
}

/// A sum over the log stores.
fn total(cluster: &Cluster, of: impl Fn(&Usage) -> u64) -> anyhow::Result<u64> {
    Ok(cluster.used()?.stores.iter().map(of).sum())
}

/// Waits until the log stores don't read or write more for a while.
fn await_quiet(bytes: impl Fn() -> anyhow::Result<u64>) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (mut had, mut since) = (bytes()?, Instant::now());
    while since.elapsed() < QUIET && begun.elapsed() < ORDERED {
        std::thread::sleep(Duration::from_millis(500));
        let have = bytes()?;
        // A superblock or a marker is no rewriting.
        if have - had > 1 << 20 {
            (had, since) = (have, Instant::now());
        }
    }
    Ok(())
}
