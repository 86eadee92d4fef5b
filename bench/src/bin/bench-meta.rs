//! `bench/meta`: how many transactions the metadata takes, by entity and store.
//!
//! Each store of each round has a process of its own (this program, called with `--store-of-round`),
//! so that memory and CPU time are that store's.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use interflow_bench::fsync;
use interflow_bench::kafka_server::Places;
use interflow_bench::meta_load::{Cursor, Outcome, Until, run};
use interflow_bench::meta_mixes::{Actor, MIXES, Mix};
use interflow_bench::meta_setup::{Sizes, create_logs, create_nodes, load_topics};
use interflow_bench::meta_stores::{Cluster, Kind, Opened, check_fdb};
use interflow_bench::process::Usage;
use interflow_bench::report::Report;
use interflow_bench::verdict::{Limit, Verdict};
use interflow_bench::versions;
use serde::{Deserialize, Serialize};

const FLOOR: &str = "bare fdatasync loop";
/// How long the floor is measured, each round.
const FLOOR_TIME: Duration = Duration::from_secs(2);
const RATE: &str = "transactions/s";
/// What each mix runs for before it is measured.
const WARM_UP: Duration = Duration::from_millis(500);

#[derive(Debug, Parser)]
#[command(about = "Transactions of the metadata, by entity and store, turn by turn")]
struct Options {
    /// Rounds; medians are over these
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each load
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Which stores: embedded, remote
    #[arg(long, value_delimiter = ',', default_value = "embedded,remote")]
    stores: Vec<String>,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    sizes: Sizes,
    /// Only scenarios whose name contains this
    #[arg(long, default_value = "")]
    only: String,
    /// Where the JSON goes
    #[arg(long, default_value = "bench/results/meta.json")]
    json: PathBuf,
    /// (internal) Measure this store once and print each value as a line of JSON
    #[arg(long, hide = true)]
    store_of_round: Option<String>,
}

/// One value, from the process that measured it.
#[derive(Debug, Serialize, Deserialize)]
struct Value {
    scenario: String,
    metric: String,
    value: f64,
}

impl Options {
    /// The mixes that are wanted.
    fn mixes(&self) -> impl Iterator<Item = Mix> + '_ {
        MIXES.into_iter().filter(|mix| mix.name(&self.sizes).contains(&self.only))
    }

    fn load_name(&self) -> String {
        format!("retained load, {} topics", self.sizes.retained_topics)
    }

    fn kinds(&self) -> anyhow::Result<Vec<Kind>> {
        let mut kinds = Vec::new();
        for name in &self.stores {
            kinds.push(kind_of(name)?);
        }
        if self.cluster.fdb.is_some() {
            check_fdb()?;
            kinds.push(Kind::FoundationDb);
        }
        ensure!(!kinds.is_empty(), "no store to measure: name some with --stores");
        Ok(kinds)
    }
}

fn kind_of(name: &str) -> anyhow::Result<Kind> {
    match name {
        "embedded" => Ok(Kind::Embedded),
        "remote" => Ok(Kind::Remote),
        other => {
            bail!("no store {other}: embedded or remote, and --fdb CLUSTER_FILE for FoundationDB")
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let places = Places::find()?;
    if let Some(name) = &options.store_of_round {
        let kind =
            if name == Kind::FoundationDb.name() { Kind::FoundationDb } else { kind_of(name)? };
        return measure_store(&options, kind, &places).await;
    }
    let mut kinds = options.kinds()?;
    let mut report = Report::new(versions::machine(&places.scratch), &options);
    for round in 0..options.rounds {
        if round > 0 {
            kinds.rotate_left(1);
        }
        for kind in &kinds {
            eprintln!("round {} · {}", round + 1, kind.name());
            for value in in_own_process(*kind)? {
                report.add(&value.scenario, kind.name(), &value.metric, value.value);
            }
        }
        let floor = fsync::measure(&places.scratch, FLOOR_TIME)?;
        for mix in options.mixes().filter(|mix| mix.is_write()) {
            let scenario = mix.name(&options.sizes);
            report.add(&scenario, FLOOR, "p50 ms", floor.ms(50.0));
            report.add(&scenario, FLOOR, "p99 ms", floor.ms(99.0));
        }
    }
    judge(&mut report, &options, &kinds);
    report.print(Kind::Embedded.name());
    report.write(&options.json)
}

/// What the report must show: no entity makes less of the store than a tenth of what it allows.
fn judge(report: &mut Report, options: &Options, kinds: &[Kind]) {
    let bare = Mix::Bare.name(&options.sizes);
    for kind in kinds.iter().map(|kind| kind.name()) {
        let of_bare = |scenario: String| {
            let allowed = report.median(&bare, kind, RATE)?;
            Some((scenario.clone(), report.median(&scenario, kind, RATE)? / allowed))
        };
        let mixes =
            options.mixes().filter(|mix| mix.is_write() && mix.committers(&options.sizes) > 1);
        let names = mixes.map(|mix| mix.name(&options.sizes)).filter(|name| *name != bare);
        let values = names.filter_map(of_bare).collect();
        let claim = format!("{kind}, transactions to bare commits");
        report.verdicts.push(Verdict::new(&claim, Limit::AtLeast(0.1), values));
    }
}

/// Runs this program once more for one store, and takes its values.
fn in_own_process(kind: Kind) -> anyhow::Result<Vec<Value>> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .args(["--store-of-round", kind.name()])
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take().context("no output")?;
    let mut values = Vec::new();
    for line in std::io::BufReader::new(out).lines() {
        values.push(serde_json::from_str(&line?)?);
    }
    let status = child.wait()?;
    ensure!(status.success(), "{} could not be measured: {status}", kind.name());
    Ok(values)
}

async fn measure_store(options: &Options, kind: Kind, places: &Places) -> anyhow::Result<()> {
    let sizes = options.sizes;
    let opened = Opened::open(kind, places, &options.cluster).await?;
    create_nodes(&opened.meta, sizes.nodes).await?;
    let logs = if options.mixes().any(|mix| mix == Mix::Rolls) {
        create_logs(&opened.meta, sizes.logs).await?
    } else {
        Vec::new()
    };
    let actor = Actor::new(opened.meta.clone(), sizes, logs);
    let mut is_loaded = false;
    for mix in options.mixes() {
        if mix.is_of_retained() && !is_loaded {
            is_loaded = true;
            load(options, &opened).await?;
        }
        let mut cursors = Cursor::spread(mix.things(&sizes), mix.committers(&sizes));
        let acting = actor.clone();
        let act = move |thing, pass| acting.clone().act(mix, thing, pass);
        run(&mut cursors, Until::Time(WARM_UP), act.clone()).await?;
        actor.take_attempts();
        let before = opened.usage()?;
        let outcome =
            run(&mut cursors, Until::Time(Duration::from_secs(options.seconds)), act).await?;
        let scenario = mix.name(&sizes);
        tell_outcome(&scenario, &outcome)?;
        let each = 1.0 / outcome.transactions.max(1) as f64;
        tell(&scenario, "attempts each", actor.take_attempts() as f64 * each)?;
        tell_usage(&scenario, before, opened.usage()?, outcome.transactions)?;
    }
    drop(actor);
    opened.close().await
}

async fn load(options: &Options, opened: &Opened) -> anyhow::Result<()> {
    let scenario = options.load_name();
    let before = opened.usage()?;
    let outcome = load_topics(&opened.meta, options.sizes.retained_topics).await?;
    tell_outcome(&scenario, &outcome)?;
    tell_usage(&scenario, before, opened.usage()?, outcome.transactions)
}

fn tell(scenario: &str, metric: &str, value: f64) -> anyhow::Result<()> {
    let value = Value { scenario: scenario.to_owned(), metric: metric.to_owned(), value };
    println!("{}", serde_json::to_string(&value)?);
    Ok(())
}

fn tell_outcome(scenario: &str, outcome: &Outcome) -> anyhow::Result<()> {
    tell(scenario, RATE, outcome.transactions as f64 / outcome.seconds)?;
    tell(scenario, "rows/s", outcome.items as f64 / outcome.seconds)?;
    for (metric, percentile) in
        [("p50 ms", 50.0), ("p99 ms", 99.0), ("p99.9 ms", 99.9), ("max ms", 100.0)]
    {
        tell(scenario, metric, outcome.latencies.ms(percentile))?;
    }
    Ok(())
}

fn tell_usage(
    scenario: &str,
    before: (Usage, Option<Usage>),
    after: (Usage, Option<Usage>),
    transactions: u64,
) -> anyhow::Result<()> {
    let parts = [("", Some(before.0).zip(Some(after.0))), ("server ", before.1.zip(after.1))];
    for (whose, usage) in parts {
        let Some((before, after)) = usage else { continue };
        let each = 1.0 / transactions.max(1) as f64;
        let cpu_us = (after.cpu_s - before.cpu_s) * each * 1e6;
        tell(scenario, &format!("{whose}CPU µs each"), cpu_us)?;
        let resident = after.resident_bytes as f64 / 1_048_576.0;
        tell(scenario, &format!("{whose}resident MiB"), resident)?;
        let written = after.written_bytes.saturating_sub(before.written_bytes) as f64;
        tell(scenario, &format!("{whose}KiB written each"), written * each / 1024.0)?;
    }
    Ok(())
}
