//! `bench/scale`: many partitions on three log stores: creating, load, restarts, a killed node, memory;
//! what a message costs as partitions and gateways grow; what cold logs cost to read.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use interflow_bench::cluster::Cluster;
use interflow_bench::kafka_load::{Load, create_topic};
use interflow_bench::kafka_server::Places;
use interflow_bench::many::{Pace, Producers, Steady, Target};
use interflow_bench::report::Report;
use interflow_bench::scale_faults::{self, add_seconds};
use interflow_bench::scale_scans::{self, Interleaving};
use interflow_bench::verdict::{Limit, Verdict};
use interflow_bench::versions;

const US: &str = "interflow";
const STORES: u16 = 3;
const CPU: &str = "CPU µs a record";
/// What a load runs for before it is measured.
const WARM_UP: Duration = Duration::from_secs(2);

#[derive(Debug, Parser)]
#[command(about = "Many partitions on three log stores on one machine, three replicas each")]
struct Options {
    /// Partitions
    #[arg(long, default_value_t = 10_000)]
    partitions: usize,
    /// Numbers of partitions that a message's CPU time is compared at, besides
    #[arg(long, value_delimiter = ',', default_value = "1,100")]
    fewer: Vec<usize>,
    /// Numbers of gateways that a message's CPU time is compared at; none leaves it out
    #[arg(long, value_delimiter = ',', num_args = 0.., default_value = "1,2,4")]
    gateways: Vec<u16>,
    /// Records a second of the steady loads, over all partitions
    #[arg(long, default_value_t = 4_000)]
    per_second: usize,
    /// Records of a batch, sent in one go to one partition
    #[arg(long, default_value_t = 10)]
    batch_records: usize,
    /// Bytes of a record
    #[arg(long, default_value_t = 200)]
    record_bytes: usize,
    /// Producers
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Seconds of each steady load
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Numbers of interleaved logs of the cold scans; none leaves them out
    #[arg(long, value_delimiter = ',', num_args = 0.., default_value = "1,1000,10000")]
    scans: Vec<usize>,
    /// Megabytes written before each cold scan
    #[arg(long, default_value_t = 400)]
    scan_megabytes: usize,
    /// Where the JSON goes
    #[arg(long, default_value = "bench/results/scale.json")]
    json: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let places = Places::find()?;
    let mut about = versions::machine(&places.scratch);
    about.insert("librdkafka".into(), versions::librdkafka());
    let mut report = Report::new(about, &options);
    let measured = options.measure(&mut report, &places).await;
    // What was measured before it failed is worth keeping.
    report.failed = measured.as_ref().err().map(|error| format!("{error:#}"));
    options.judge(&mut report);
    report.print(US);
    report.write(&options.json)?;
    measured
}

fn grown(partitions: usize) -> String {
    format!("steady load, {partitions} partitions")
}

fn spread(gateways: u16) -> String {
    format!("steady load, {gateways} gateways")
}

fn add_memory(report: &mut Report, cluster: &Cluster, when: &str) -> anyhow::Result<()> {
    let scenario = format!("memory {when}");
    let used = cluster.used()?;
    let mut add = |name: String, bytes: u64| {
        let metric = format!("{name}, resident MiB");
        report.add(&scenario, US, &metric, bytes as f64 / 1_048_576.0);
    };
    add("meta".to_owned(), used.meta.resident_bytes);
    for (n, store) in (1..).zip(&used.stores) {
        add(format!("log store {n}"), store.resident_bytes);
    }
    for (n, gateway) in (1..).zip(&used.gateways) {
        add(format!("gateway {n}"), gateway.resident_bytes);
    }
    Ok(())
}

impl Options {
    /// All parts, one after the other, until one fails.
    async fn measure(&self, report: &mut Report, places: &Places) -> anyhow::Result<()> {
        if self.partitions > 0 {
            let mut cluster = Cluster::start(places, STORES, 1)?;
            add_memory(report, &cluster, "with no topic")?;
            for partitions in &self.fewer {
                let target = self.create(report, &cluster, *partitions).await?;
                tokio::task::block_in_place(|| {
                    self.steady(report, &cluster, &target, &grown(*partitions))
                })?;
            }
            self.more_gateways(report, &mut cluster).await?;
            let target = self.create(report, &cluster, self.partitions).await?;
            tokio::task::block_in_place(|| self.life(report, cluster, &target))?;
        }
        for logs in &self.scans {
            let interleaving = Interleaving { logs: *logs, megabytes: self.scan_megabytes };
            scale_scans::measure(report, places, interleaving)
                .await
                .with_context(|| format!("cold scan, {logs} logs"))?;
        }
        Ok(())
    }

    fn target(&self, cluster: &Cluster, topic: &str, partitions: usize) -> Target {
        Target {
            bootstrap: cluster.bootstrap(),
            topic: topic.to_owned(),
            partitions,
            clients: self.clients,
        }
    }

    /// Creates a topic, and writes to each partition for the first time.
    async fn create(
        &self,
        report: &mut Report,
        cluster: &Cluster,
        partitions: usize,
    ) -> anyhow::Result<Target> {
        eprintln!("creating {partitions} partitions");
        let target = self.target(cluster, &format!("p{partitions}"), partitions);
        let begun = Instant::now();
        create_topic(&Load {
            bootstrap: target.bootstrap.clone(),
            topic: target.topic.clone(),
            partitions: i32::try_from(partitions)?,
            replicas: i32::from(STORES),
            records: 0,
            record_bytes: 0,
            batch_bytes: 0,
        })
        .await
        .with_context(|| format!("creating {partitions} partitions"))?;
        let scenario = format!("creating {partitions} partitions");
        report.add(&scenario, US, "seconds", begun.elapsed().as_secs_f64());
        tokio::task::block_in_place(|| -> anyhow::Result<()> {
            let producers = Producers::new(&target, 1)?;
            for which in ["first append", "second append"] {
                let seconds = producers.touch().with_context(|| format!("{scenario}: {which}"))?;
                add_seconds(report, &scenario, which, &seconds)?;
            }
            Ok(())
        })?;
        Ok(target)
    }

    fn pace(&self) -> Pace {
        Pace {
            per_second: self.per_second,
            batch_records: self.batch_records,
            record_bytes: self.record_bytes,
        }
    }

    /// A load at a fixed rate: what it costs, and how long acknowledgements take.
    fn steady(
        &self,
        report: &mut Report,
        cluster: &Cluster,
        target: &Target,
        scenario: &str,
    ) -> anyhow::Result<()> {
        eprintln!("{scenario}");
        let steady = Steady::begin(target, self.pace())?;
        std::thread::sleep(WARM_UP);
        steady.take_latencies()?;
        let (before, had, begun) = (cluster.used()?, steady.acknowledged(), Instant::now());
        std::thread::sleep(Duration::from_secs(self.seconds));
        let (after, have, took) = (cluster.used()?, steady.acknowledged(), begun.elapsed());
        let latencies = steady.take_latencies()?;
        steady.finish().with_context(|| scenario.to_owned())?;
        let records = (have - had) as f64;
        let mut sum = 0.0;
        for ((role, before), (_, after)) in before.by_role().into_iter().zip(after.by_role()) {
            let each = (after.cpu_s - before.cpu_s) / records.max(1.0) * 1e6;
            report.add(scenario, US, &format!("{CPU}, {role}"), each);
            sum += each;
        }
        report.add(scenario, US, CPU, sum);
        report.add(scenario, US, "records/s", records / took.as_secs_f64());
        report.add(scenario, US, "p50 ms", latencies.ms(50.0));
        report.add(scenario, US, "p99 ms", latencies.ms(99.0));
        Ok(())
    }

    async fn more_gateways(
        &self,
        report: &mut Report,
        cluster: &mut Cluster,
    ) -> anyhow::Result<()> {
        let Some(partitions) = self.fewer.last() else { return Ok(()) };
        for gateways in &self.gateways {
            cluster.set_gateways(*gateways)?;
            let target = self.target(cluster, &format!("p{partitions}"), *partitions);
            tokio::task::block_in_place(|| {
                self.steady(report, cluster, &target, &spread(*gateways))
            })?;
        }
        cluster.set_gateways(1)
    }

    /// All partitions at rest, under load, over a restart and a killed node.
    fn life(
        &self,
        report: &mut Report,
        mut cluster: Cluster,
        target: &Target,
    ) -> anyhow::Result<()> {
        let all = format!("{} partitions", self.partitions);
        add_memory(report, &cluster, &format!("with {all}, written to"))?;
        let rest = format!("at rest, {all}");
        let (before, begun) = (cluster.used()?, Instant::now());
        std::thread::sleep(Duration::from_secs(self.seconds));
        let (after, minutes) = (cluster.used()?, begun.elapsed().as_secs_f64() / 60.0);
        for ((role, before), (_, after)) in before.by_role().into_iter().zip(after.by_role()) {
            let a_minute = (after.cpu_s - before.cpu_s) / minutes;
            report.add(&rest, US, &format!("CPU s a minute, {role}"), a_minute);
        }
        self.steady(report, &cluster, target, &grown(self.partitions))?;
        add_memory(report, &cluster, &format!("with {all}, under load"))?;

        eprintln!("restarting {all}");
        let scenario = format!("restart, {all}");
        let (stopping, starting) = cluster.restart(|_| Ok(())).context("the restart")?;
        report.add(&scenario, US, "stopping, s", stopping);
        report.add(&scenario, US, "starting, s", starting);
        let begun = Instant::now();
        let producers = Producers::new(target, 1)?;
        report.add(&scenario, US, "producers' metadata, s", begun.elapsed().as_secs_f64());
        add_seconds(report, &scenario, "append to each", &producers.touch()?)?;
        add_memory(report, &cluster, &format!("with {all}, restarted"))?;

        eprintln!("killing one of {all}");
        scale_faults::kill(report, &mut cluster, target, &producers, self.pace())
            .with_context(|| format!("killing one of {all}"))?;
        add_memory(report, &cluster, &format!("with {all}, a node back"))?;
        drop(producers);
        cluster.stop()
    }

    /// What the report must show.
    fn judge(&self, report: &mut Report) {
        let mut flat = |claim: &str, first: String, others: Vec<String>| {
            let Some(one) = report.median(&first, US, CPU) else { return };
            let of = |name: String| Some((name.clone(), report.median(&name, US, CPU)? / one));
            let values = others.into_iter().filter_map(of).collect();
            report.verdicts.push(Verdict::new(claim, Limit::AtMost(1.5), values));
        };
        let mut counts = self.fewer.clone();
        counts.push(self.partitions);
        let mut counts = counts.into_iter().map(grown);
        if let Some(first) = counts.next() {
            flat("CPU a record as partitions grow, to the fewest", first, counts.collect());
        }
        let mut counts = self.gateways.iter().copied().map(spread);
        if let Some(first) = counts.next() {
            flat("CPU a record as gateways grow, to the fewest", first, counts.collect());
        }
        for (claim, metric, most) in [
            (
                "after kill -9 under load, appends to the node's logs, median s",
                "its logs, median s",
                1.0,
            ),
            (
                "after kill -9 under load, appends to the node's logs, longest s",
                "its logs, longest s",
                3.0,
            ),
        ] {
            report.bound(claim, scale_faults::UNDER_LOAD, US, metric, Limit::AtMost(most));
        }
    }
}
