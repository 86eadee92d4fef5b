//! A killed log store among many partitions.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::chains;
use crate::cluster::Cluster;
use crate::many::{Pace, Producers, Steady, Target};
use crate::report::Report;

const US: &str = "interflow";
/// The log store that is killed, of the cluster's; its node has the next number.
const STORE: usize = 1;
/// The load goes on for so long before the kill.
const BEFORE: Duration = Duration::from_secs(2);
/// After the load has written to all partitions once, records may wait for so long.
const AFTER: Duration = Duration::from_secs(5);
/// How long logs may take until all are whole again.
const WHOLE: Duration = Duration::from_secs(180);

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

/// The name of what the bound on failover is judged by begins with this.
pub const UNDER_LOAD: &str = "kill -9 under load";

/// Kills a log store twice. First under a load over all partitions, which is waited for until it has
/// written to each of them once: how long its records wait, of the killed node's logs and of others.
/// Then with a record to every partition at that moment, next to the same with nothing killed.
/// It is started again each time, until all logs are on as many nodes as before. No record is
/// refused meanwhile.
pub fn kill(
    report: &mut Report,
    cluster: &mut Cluster,
    target: &Target,
    producers: &Producers,
    pace: Pace,
) -> anyhow::Result<()> {
    let scenario = &format!("{UNDER_LOAD}, {} partitions", target.partitions);
    let logs = chains::of(cluster.admin(), &target.topic)?;
    let steady = Steady::begin(target, pace)?;
    std::thread::sleep(BEFORE);
    steady.take_latencies()?;
    steady.watch();
    cluster.kill_store(STORE)?;
    std::thread::sleep(steady.round(pace) + AFTER);
    let waits = steady.waits();
    ensure!(waits.iter().all(|wait| *wait > 0.0), "not all partitions were written to");
    add_of_both(report, scenario, &logs, &waits)?;
    let load = steady.take_latencies()?;
    report.add(scenario, US, "all records, p99 s", load.ms(99.0) / 1e3);
    come_back(report, cluster, target, scenario)?;

    let scenario = &format!("kill -9 and {} partitions written to at once", target.partitions);
    add_seconds(report, scenario, "before, all logs", &producers.touch()?)?;
    let logs = chains::of(cluster.admin(), &target.topic)?;
    cluster.kill_store(STORE)?;
    add_of_both(report, scenario, &logs, &producers.touch()?)?;
    add_seconds(report, scenario, "then, all logs", &producers.touch()?)?;
    come_back(report, cluster, target, scenario)?;
    let records = steady.finish()?;
    report.add(scenario, US, "records of the load, all acknowledged", records as f64);
    Ok(())
}

/// Adds how long the killed node's logs took, and the others.
fn add_of_both(
    report: &mut Report,
    scenario: &str,
    logs: &[chains::Log],
    seconds: &[f64],
) -> anyhow::Result<()> {
    let (its, others): (Vec<&chains::Log>, Vec<_>) =
        logs.iter().partition(|log| log.sequencer == STORE + 1);
    let of = |logs: &[&chains::Log]| -> Vec<f64> {
        logs.iter().filter_map(|log| seconds.get(log.partition)).copied().collect()
    };
    report.add(scenario, US, "its logs", its.len() as f64);
    add_seconds(report, scenario, "its logs", &of(&its))?;
    add_seconds(report, scenario, "other logs", &of(&others))
}

/// Starts it again, and waits until all logs are whole.
fn come_back(
    report: &mut Report,
    cluster: &mut Cluster,
    target: &Target,
    scenario: &str,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    cluster.start_stores()?;
    report.add(scenario, US, "starting it again, s", begun.elapsed().as_secs_f64());
    let nodes = cluster.used()?.stores.len();
    let whole = loop {
        let logs = chains::of(cluster.admin(), &target.topic)?;
        let whole = logs.iter().filter(|log| log.is_on(nodes)).count();
        if whole == logs.len() || begun.elapsed() > WHOLE {
            break whole;
        }
        std::thread::sleep(Duration::from_secs(1));
    };
    report.add(
        scenario,
        US,
        "back, s until all segments are on three nodes",
        begun.elapsed().as_secs_f64(),
    );
    report.add(scenario, US, "back, logs on three nodes", whole as f64);
    Ok(())
}
