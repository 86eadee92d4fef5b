//! `bench/cluster`: three log stores of Interflow next to three brokers of Apache Kafka, each record
//! on all three and acknowledged by two; Kafka's as shipped and with `flush.messages=1`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use clap::Parser;
use interflow_bench::cluster::Cluster;
use interflow_bench::kafka_load::{Load, acknowledge, count, create_topic, produce};
use interflow_bench::kafka_server::{Kind, Places};
use interflow_bench::process::{Server, Usage};
use interflow_bench::report::Report;
use interflow_bench::verdict::Limit;
use interflow_bench::{fsync, kafka_cluster, versions};

const FLOOR: &str = "bare fdatasync loop";
const REPLICAS: i32 = 3;

#[derive(Debug, Parser)]
#[command(about = "A cluster of Interflow next to one of Apache Kafka, three replicas, acks=all")]
struct Options {
    /// Rounds; medians are over these
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Megabytes of records in each load
    #[arg(long, default_value_t = 120)]
    megabytes: u64,
    /// Record size, bytes
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Batch sizes, bytes
    #[arg(long, value_delimiter = ',', default_value = "16384,262144")]
    batch_bytes: Vec<usize>,
    /// Partition counts
    #[arg(long, value_delimiter = ',', default_value = "1,12")]
    partitions: Vec<i32>,
    /// Seconds of each measurement of acknowledgements at a fixed rate; 0 leaves them out
    #[arg(long, default_value_t = 8)]
    latency_seconds: u64,
    /// That rate, records a second
    #[arg(long, default_value_t = 1_000)]
    per_second: u64,
    /// Which servers: interflow, kafka, kafka-flush
    #[arg(long, value_delimiter = ',', default_value = "interflow,kafka,kafka-flush")]
    servers: Vec<String>,
    /// Where the JSON goes
    #[arg(long, default_value = "bench/results/cluster.json")]
    json: PathBuf,
}

/// A cluster under test.
enum Running {
    Interflow(Cluster),
    Kafka(Vec<Server>),
}

impl Running {
    fn start(kind: Kind, places: &Places) -> anyhow::Result<Self> {
        let flush = match kind {
            Kind::Interflow => return Ok(Self::Interflow(Cluster::start(places, 3, 1)?)),
            Kind::KafkaShipped => false,
            Kind::KafkaFlush => true,
        };
        let folder = places.fresh("cluster")?;
        Ok(Self::Kafka(kafka_cluster::start(places, &folder, flush)?))
    }

    fn bootstrap(&self) -> String {
        match self {
            Self::Interflow(cluster) => cluster.bootstrap(),
            Self::Kafka(_) => kafka_cluster::bootstrap(),
        }
    }

    /// What all processes together have used so far.
    fn usage(&self) -> anyhow::Result<Usage> {
        match self {
            Self::Interflow(cluster) => Ok(cluster.used()?.sum()),
            Self::Kafka(brokers) => brokers.iter().map(Server::usage).sum(),
        }
    }

    fn stop(self) -> anyhow::Result<()> {
        match self {
            Self::Interflow(cluster) => cluster.stop(),
            // What they have is not needed any more, and the last would wait for a quorum.
            Self::Kafka(brokers) => brokers.into_iter().try_for_each(Server::kill),
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let places = Places::find()?;
    let mut about = versions::machine(&places.scratch);
    about.insert("kafka".into(), versions::kafka(&places.jars));
    about.insert("java".into(), versions::java());
    about.insert("librdkafka".into(), versions::librdkafka());
    let mut report = Report::new(about, &options);
    let mut kinds = Vec::new();
    for name in &options.servers {
        kinds.push(Kind::named(name)?);
    }
    for round in 0..options.rounds {
        // The order turns, so that no cluster always comes after the same neighbour.
        kinds.rotate_left(1);
        for kind in &kinds {
            eprintln!("round {} · {}", round + 1, kind.name());
            let running = Running::start(*kind, &places)?;
            one_round(&options, *kind, &running, &mut report).await?;
            running.stop()?;
        }
        let floor = fsync::measure(&places.scratch, Duration::from_secs(options.latency_seconds))?;
        for partitions in &options.partitions {
            let scenario = options.latency_name(*partitions);
            report.add(&scenario, FLOOR, "p50 ms", floor.ms(50.0));
            report.add(&scenario, FLOOR, "p99 ms", floor.ms(99.0));
        }
    }
    judge(&mut report);
    report.print(Kind::Interflow.name());
    report.write(&options.json)
}

/// What the report must show.
fn judge(report: &mut Report) {
    let [us, shipped, flush] =
        [Kind::Interflow, Kind::KafkaShipped, Kind::KafkaFlush].map(Kind::name);
    for (peer, rate, p99, of) in [
        (shipped, Limit::AtLeast(1.0), Limit::AtMost(1.0), "Kafka's as shipped"),
        (flush, Limit::AtLeast(3.0), Limit::AtMost(1.0 / 3.0), "Kafka's with flush.messages=1"),
    ] {
        let claim = format!("producing, throughput to {of}");
        report.bound_ratio(&claim, "produce", [us, peer, "records/s"], rate);
        let claim = format!("acknowledgements, p99 to {of}");
        report.bound_ratio(&claim, "acknowledge", [us, peer, "p99 ms"], p99);
    }
}

impl Options {
    fn latency_name(&self, partitions: i32) -> String {
        format!(
            "acknowledge {} B at {} records/s, {partitions} partitions",
            self.record_bytes, self.per_second
        )
    }

    fn load(&self, at: &Running, topic: &str, [partitions, replicas]: [i32; 2]) -> Load {
        Load {
            bootstrap: at.bootstrap(),
            topic: topic.into(),
            partitions,
            replicas,
            records: 0,
            record_bytes: self.record_bytes,
            batch_bytes: 16_384,
        }
    }

    fn records(&self, megabytes: u64) -> u64 {
        megabytes * 1_000_000 / self.record_bytes as u64
    }
}

async fn one_round(
    options: &Options,
    kind: Kind,
    running: &Running,
    report: &mut Report,
) -> anyhow::Result<()> {
    // The JVM compiles what it has seen: everybody gets the same first load, uncounted.
    let mut warm = options.load(running, "warm", [4, REPLICAS]);
    warm.records = options.records(40);
    create_topic(&warm).await?;
    tokio::task::block_in_place(|| produce(&warm))?;
    for partitions in &options.partitions {
        for batch_bytes in &options.batch_bytes {
            let topic = format!("p{partitions}-b{batch_bytes}");
            // With a sync for each batch small ones take very long: a tenth tells the rate.
            let part = if kind == Kind::KafkaFlush { 10 } else { 1 };
            let mut load = options.load(running, &topic, [*partitions, REPLICAS]);
            load.records = options.records((options.megabytes / part).max(1));
            load.batch_bytes = *batch_bytes;
            create_topic(&load).await?;
            let scenario =
                format!("produce, {partitions} partitions, {} KiB batches", batch_bytes / 1024);
            let before = running.usage()?;
            let seconds = tokio::task::block_in_place(|| produce(&load))?;
            let records = load.records as f64;
            report.add(&scenario, kind.name(), "records/s", records / seconds);
            report.add_usage(&scenario, kind.name(), before, running.usage()?, records);
            tokio::task::block_in_place(|| is_kept(&load))?;
        }
        if options.latency_seconds > 0 {
            let topic = format!("latency-p{partitions}");
            let mut load = options.load(running, &topic, [*partitions, REPLICAS]);
            create_topic(&load).await?;
            let (rate, seconds) = (options.per_second, options.latency_seconds);
            let before = running.usage()?;
            let latencies = tokio::task::block_in_place(|| acknowledge(&load, rate, seconds))?;
            // With the second that warms up.
            load.records = rate * (seconds + 1);
            let scenario = options.latency_name(*partitions);
            for (metric, percentile) in [("p50 ms", 50.0), ("p99 ms", 99.0), ("p99.9 ms", 99.9)] {
                report.add(&scenario, kind.name(), metric, latencies.ms(percentile));
            }
            let after = running.usage()?;
            report.add_usage(&scenario, kind.name(), before, after, load.records as f64);
            tokio::task::block_in_place(|| is_kept(&load))?;
        }
    }
    Ok(())
}

/// What was acknowledged is in the topic. A producer that isn't idempotent may have had to write
/// some of it twice.
fn is_kept(load: &Load) -> anyhow::Result<()> {
    let kept = count(load)?;
    ensure!(kept >= load.records, "{}: {kept} records of {}", load.topic, load.records);
    Ok(())
}
