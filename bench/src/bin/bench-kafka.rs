//! `bench/kafka`: Interflow next to Apache Kafka, as shipped and with `flush.messages=1`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use interflow_bench::fsync;
use interflow_bench::kafka_load::{Load, consume, create_topic, end_to_end, produce};
use interflow_bench::kafka_server::{Kind, PORT, Places};
use interflow_bench::process::Server;
use interflow_bench::report::Report;
use interflow_bench::verdict::Limit;
use interflow_bench::versions;

const END_TO_END: &str = "end to end, 2,000 records/s";
const FLOOR: &str = "bare fdatasync loop";
const RECORDS_A_SECOND: u64 = 2_000;

#[derive(Debug, Parser)]
#[command(about = "Interflow next to Apache Kafka, the same generators, turn by turn")]
struct Options {
    /// Rounds; medians are over these
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Megabytes of records in each load
    #[arg(long, default_value_t = 400)]
    megabytes: u64,
    /// Record sizes, bytes
    #[arg(long, value_delimiter = ',', default_value = "100,1024")]
    record_bytes: Vec<usize>,
    /// Batch sizes, bytes
    #[arg(long, value_delimiter = ',', default_value = "16384,262144")]
    batch_bytes: Vec<usize>,
    /// Partition counts
    #[arg(long, value_delimiter = ',', default_value = "1,64")]
    partitions: Vec<i32>,
    /// Seconds of the end-to-end measurement at 2,000 records a second; 0 leaves it out
    #[arg(long, default_value_t = 15)]
    latency_seconds: u64,
    /// Which servers: interflow, kafka, kafka-flush
    #[arg(long, value_delimiter = ',', default_value = "interflow,kafka,kafka-flush")]
    servers: Vec<String>,
    /// Where the JSON goes
    #[arg(long, default_value = "bench/results/kafka.json")]
    json: PathBuf,
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
        // The order turns, so that no server always comes after the same neighbour.
        kinds.rotate_left(1);
        for kind in &kinds {
            eprintln!("round {} · {}", round + 1, kind.name());
            let server = places.start(*kind)?;
            one_round(&options, *kind, &server, &mut report).await?;
            server.stop()?;
        }
        let floor = fsync::measure(&places.scratch, Duration::from_secs(options.latency_seconds))?;
        report.add(END_TO_END, FLOOR, "p50 ms", floor.ms(50.0));
        report.add(END_TO_END, FLOOR, "p99 ms", floor.ms(99.0));
    }
    judge(&mut report);
    report.print(Kind::Interflow.name());
    report.write(&options.json)
}

/// What the report must show.
fn judge(report: &mut Report) {
    let [us, shipped, flush] =
        [Kind::Interflow, Kind::KafkaShipped, Kind::KafkaFlush].map(Kind::name);
    let (rate, cpu) = ("records/s", "server CPU s/million");
    let at_least = Limit::AtLeast;
    let claim = "producing, throughput to Kafka's as shipped";
    report.bound_ratio(claim, "produce", [us, shipped, rate], at_least(0.8));
    let claim = "producing, server CPU a record to Kafka's as shipped";
    report.bound_ratio(claim, "produce", [us, shipped, cpu], Limit::AtMost(1.0));
    let claim = "producing, throughput to Kafka's with flush.messages=1";
    report.bound_ratio(claim, "produce", [us, flush, rate], at_least(3.0));
    let claim = "consuming, throughput to Kafka's as shipped";
    report.bound_ratio(claim, "consume", [us, shipped, rate], at_least(1.0));
    let claim = "end to end, p99 to that of a bare fdatasync loop";
    report.bound_ratio(claim, END_TO_END, [us, FLOOR, "p99 ms"], Limit::AtMost(5.0));
}

async fn one_round(
    options: &Options,
    kind: Kind,
    server: &Server,
    report: &mut Report,
) -> anyhow::Result<()> {
    let name = kind.name();
    // The JVM compiles what it has seen: everybody gets the same first load, uncounted.
    let warm = load("warm", 1, 1024, 16_384, 50);
    create_topic(&warm).await?;
    tokio::task::block_in_place(|| produce(&warm).and_then(|_| consume(&warm)))?;
    for partitions in &options.partitions {
        for record_bytes in &options.record_bytes {
            for batch_bytes in &options.batch_bytes {
                let topic = format!("p{partitions}-r{record_bytes}-b{batch_bytes}");
                // With a sync for each batch small ones take very long: a tenth tells the rate.
                let part = if kind == Kind::KafkaFlush { 10 } else { 1 };
                let megabytes = (options.megabytes / part).max(1);
                let load = load(&topic, *partitions, *record_bytes, *batch_bytes, megabytes);
                create_topic(&load).await?;
                let scenario = format!(
                    "{record_bytes} B, {partitions} partitions, {} KiB batches",
                    batch_bytes / 1024
                );
                measure(report, &format!("produce {scenario}"), name, server, &load, produce)?;
                if kind != Kind::KafkaFlush {
                    measure(report, &format!("consume {scenario}"), name, server, &load, consume)?;
                }
            }
        }
    }
    if options.latency_seconds > 0 {
        let load = load("latency", 1, 1024, 16_384, 1);
        create_topic(&load).await?;
        let (seconds, before) = (options.latency_seconds, server.usage()?);
        let latencies =
            tokio::task::block_in_place(|| end_to_end(&load, RECORDS_A_SECOND, seconds))?;
        let records = RECORDS_A_SECOND * seconds;
        for (metric, percentile) in [("p50 ms", 50.0), ("p99 ms", 99.0), ("p99.9 ms", 99.9)] {
            report.add(END_TO_END, name, metric, latencies.ms(percentile));
        }
        report.add_usage(END_TO_END, name, before, server.usage()?, records as f64);
    }
    Ok(())
}

fn load(
    topic: &str,
    partitions: i32,
    record_bytes: usize,
    batch_bytes: usize,
    megabytes: u64,
) -> Load {
    Load {
        bootstrap: format!("127.0.0.1:{PORT}"),
        topic: topic.into(),
        partitions,
        replicas: 1,
        records: megabytes * 1_000_000 / record_bytes as u64,
        record_bytes,
        batch_bytes,
    }
}

fn measure(
    report: &mut Report,
    scenario: &str,
    name: &str,
    server: &Server,
    load: &Load,
    act: fn(&Load) -> anyhow::Result<f64>,
) -> anyhow::Result<()> {
    let before = server.usage()?;
    let seconds = tokio::task::block_in_place(|| act(load))?;
    let after = server.usage()?;
    let records = load.records as f64;
    report.add(scenario, name, "records/s", records / seconds);
    report.add(scenario, name, "MB/s", records * load.record_bytes as f64 / seconds / 1e6);
    report.add_usage(scenario, name, before, after, records);
    Ok(())
}
