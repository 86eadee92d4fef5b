//! Rows of results: medians with minimum and maximum over interleaved rounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

/// One scenario on one server: each metric's value in each round.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was done.
    pub scenario: String,
    /// By whom.
    pub server: String,
    /// The values of each round.
    pub metrics: BTreeMap<String, Vec<f64>>,
}

/// All rows of a run, with what they were measured on.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Command, machine, versions, commit.
    pub about: BTreeMap<String, String>,
    /// The rows, in the order in which they were first added.
    pub rows: Vec<Row>,
}

impl Report {
    /// An empty report that describes this machine and the command line.
    pub fn new() -> Self {
        let mut about = BTreeMap::new();
        about.insert("command".into(), std::env::args().collect::<Vec<_>>().join(" "));
        about.insert("commit".into(), output("git", &["rev-parse", "--short=12", "HEAD"]));
        about.insert("kernel".into(), output("uname", &["-sr"]));
        about.insert("cores".into(), output("nproc", &[]));
        about.insert("rustc".into(), output("rustc", &["--version"]));
        if let Ok(info) = std::fs::read_to_string("/proc/cpuinfo")
            && let Some(model) = info.lines().find(|line| line.starts_with("model name"))
        {
            let name = model.split_once(':').map_or(model, |(_, name)| name);
            about.insert("cpu".into(), name.trim().to_owned());
        }
        Self { about, rows: Vec::new() }
    }

    /// Adds one round's value of a metric.
    pub fn add(&mut self, scenario: &str, server: &str, metric: &str, value: f64) {
        let place = self
            .rows
            .iter()
            .position(|row| row.scenario == scenario && row.server == server)
            .unwrap_or_else(|| {
                self.rows.push(Row {
                    scenario: scenario.into(),
                    server: server.into(),
                    metrics: BTreeMap::new(),
                });
                self.rows.len() - 1
            });
        if let Some(row) = self.rows.get_mut(place) {
            row.metrics.entry(metric.into()).or_default().push(value);
        }
    }

    /// The median of a metric over the rounds so far.
    pub fn median(&self, scenario: &str, server: &str, metric: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.scenario == scenario && row.server == server)?;
        Some(spread(row.metrics.get(metric)?).1)
    }

    /// Prints the table, and the ratio of `ours` to every other server of a scenario.
    pub fn print(&self, ours: &str) {
        for (key, value) in &self.about {
            println!("{key}: {value}");
        }
        println!("\nmedian (minimum to maximum) of the rounds");
        for row in &self.rows {
            println!("\n{} · {}", row.scenario, row.server);
            for (metric, values) in &row.metrics {
                let (low, median, high) = spread(values);
                let ratio = self
                    .median(&row.scenario, ours, metric)
                    .filter(|_| row.server != ours && median != 0.0)
                    .map(|our| format!("   {ours} is {:.2} of it", our / median))
                    .unwrap_or_default();
                println!("  {metric:<28} {median:>14.2} ({low:.2} to {high:.2}){ratio}");
            }
        }
    }

    /// Writes the report as JSON.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_string_pretty(self)?)?;
        println!("\nwritten to {}", path.display());
        Ok(())
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// Minimum, median, maximum.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}
