//! A killed log store among many partitions.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::chains;
use crate::cluster::Cluster;
use crate::many::{Pace, Producers, Steady, Target};
use crate::report::Report;

const US: &str = "interflow";
/// The log store that is killed, of the cluster's; its node has the next number.
const STORE: usize = 1;
/// The load goes on for so long before the kill.
const BEFORE: Duration = Duration::from_secs(2);
/// How long logs may take until all are whole again.
const WHOLE: Duration = Duration::from_secs(120);

/// Adds how long each of many things took: median, p99, longest.
pub fn add_seconds(
    report: &mut Report,
    scenario: &str,
    what: &str,
    seconds: &[f64],
) -> anyhow::Result<()> {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (sorted.len() as f64 * share) as usize;
        sorted.get(place.min(sorted.len().saturating_sub(1))).copied().context("nothing measured")
    };
    for (name, share) in [("median", 0.5), ("p99", 0.99), ("longest", 1.0)] {
        report.add(scenario, US, &format!("{what}, {name} s"), at(share)?);
    }
    Ok(())
}

/// Kills a log store under load and writes to each partition at once: how long that takes, of its own
/// logs and of the others. Then starts it again, until all logs have as many replicas as before.
/// No record is refused meanwhile.
pub fn kill(
    report: &mut Report,
    cluster: &mut Cluster,
    target: &Target,
    producers: &Producers,
    pace: Pace,
) -> anyhow::Result<()> {
    let scenario = &format!("kill -9, {} partitions", target.partitions);
    let begun = Instant::now();
    let logs = chains::of(cluster.admin(), &target.topic)?;
    report.add(scenario, US, "describing all logs, s", begun.elapsed().as_secs_f64());
    let nodes = cluster.used()?.stores.len();
    let steady = Steady::begin(target, pace)?;
    std::thread::sleep(BEFORE);
    add_seconds(report, scenario, "before, all logs", &producers.touch()?)?;
    steady.take_latencies()?;

    cluster.kill_store(STORE)?;
    let seconds = producers.touch()?;
    let is_its = |log: &&chains::Log| log.sequencer == STORE + 1;
    let of = |logs: Vec<&chains::Log>| -> Vec<f64> {
        logs.iter().filter_map(|log| seconds.get(log.partition)).copied().collect()
    };
    let its = of(logs.iter().filter(is_its).collect());
    let others = of(logs.iter().filter(|log| !is_its(log)).collect());
    report.add(scenario, US, "its logs", its.len() as f64);
    add_seconds(report, scenario, "its logs", &its)?;
    add_seconds(report, scenario, "other logs", &others)?;
    let load = steady.take_latencies()?;
    report.add(scenario, US, "load meanwhile, p99 s", load.ms(99.0) / 1e3);
    report.add(scenario, US, "load meanwhile, longest s", load.ms(100.0) / 1e3);
    add_seconds(report, scenario, "then, all logs", &producers.touch()?)?;

    let begun = Instant::now();
    cluster.start_stores()?;
    report.add(scenario, US, "starting it again, s", begun.elapsed().as_secs_f64());
    add_seconds(report, scenario, "back, all logs", &producers.touch()?)?;
    let whole = loop {
        let logs = chains::of(cluster.admin(), &target.topic)?;
        let whole = logs.iter().filter(|log| log.is_on(nodes)).count();
        if whole == logs.len() || begun.elapsed() > WHOLE {
            break whole;
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    report.add(scenario, US, "back, s until whole", begun.elapsed().as_secs_f64());
    report.add(scenario, US, "back, whole logs", whole as f64);
    let records = steady.finish()?;
    report.add(scenario, US, "records of the load, all acknowledged", records as f64);
    Ok(())
}
