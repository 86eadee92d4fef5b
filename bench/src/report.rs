//! Rows of results: medians with minimum and maximum over interleaved rounds.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use serde::Serialize;

use crate::process::Usage;
use crate::verdict::{Limit, Verdict};

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
    /// Machine, versions, commit, parameters.
    pub about: BTreeMap<String, String>,
    /// The rows, in the order in which they were first added.
    pub rows: Vec<Row>,
    /// The bounds, and whether they hold.
    pub verdicts: Vec<Verdict>,
    /// Why it ended before all was measured.
    pub failed: Option<String>,
}

impl Report {
    /// An empty report. `about` says what takes part, `parameters` all that can be chosen.
    pub fn new(mut about: BTreeMap<String, String>, parameters: &impl Debug) -> Self {
        let command: Vec<_> = std::env::args().collect();
        about.insert("command".into(), command.join(" "));
        about.insert("parameters".into(), format!("{parameters:?}"));
        Self { about, rows: Vec::new(), verdicts: Vec::new(), failed: None }
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

    /// Adds what a server used for so many messages, and the memory that it has now.
    pub fn add_usage(
        &mut self,
        scenario: &str,
        server: &str,
        before: Usage,
        after: Usage,
        messages: f64,
    ) {
        let cpu = (after.cpu_s - before.cpu_s) / messages.max(1.0) * 1e6;
        self.add(scenario, server, "server CPU s/million", cpu);
        self.add(scenario, server, "resident MiB", after.resident_bytes as f64 / 1_048_576.0);
    }

    /// The median of a metric over the rounds so far.
    pub fn median(&self, scenario: &str, server: &str, metric: &str) -> Option<f64> {
        let row = self.rows.iter().find(|row| row.scenario == scenario && row.server == server)?;
        Some(spread(row.metrics.get(metric)?).1)
    }

    /// Our median of a metric divided by that of `other`, where both were measured.
    pub fn ratio(&self, scenario: &str, ours: &str, other: &str, metric: &str) -> Option<f64> {
        let theirs = self.median(scenario, other, metric).filter(|theirs| *theirs != 0.0)?;
        Some(self.median(scenario, ours, metric)? / theirs)
    }

    /// Bounds the ratio of `ours` to `other` in every scenario whose name begins with `prefix`.
    pub fn bound_ratio(
        &mut self,
        claim: &str,
        prefix: &str,
        [ours, other, metric]: [&str; 3],
        limit: Limit,
    ) {
        let scenarios = self.scenarios(prefix);
        let values = scenarios
            .into_iter()
            .filter_map(|name| Some((self.ratio(&name, ours, other, metric)?, name)))
            .map(|(value, name)| (name, value))
            .collect();
        self.verdicts.push(Verdict::new(claim, limit, values));
    }

    /// Bounds a metric of `ours` itself in every scenario whose name begins with `prefix`.
    pub fn bound(&mut self, claim: &str, prefix: &str, ours: &str, metric: &str, limit: Limit) {
        let scenarios = self.scenarios(prefix);
        let values = scenarios
            .into_iter()
            .filter_map(|name| Some((self.median(&name, ours, metric)?, name)))
            .map(|(value, name)| (name, value))
            .collect();
        self.verdicts.push(Verdict::new(claim, limit, values));
    }

    fn scenarios(&self, prefix: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for row in self.rows.iter().filter(|row| row.scenario.starts_with(prefix)) {
            if !names.contains(&row.scenario) {
                names.push(row.scenario.clone());
            }
        }
        names
    }

    /// Prints what it was measured on, the table with the ratio of `ours` to every other server of
    /// a scenario, and the verdicts.
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
                    .ratio(&row.scenario, ours, &row.server, metric)
                    .filter(|_| row.server != ours)
                    .map(|ratio| format!("   {ours} is {ratio:.2} of it"))
                    .unwrap_or_default();
                println!("  {metric:<28} {median:>14.2} ({low:.2} to {high:.2}){ratio}");
            }
        }
        println!("\nbounds");
        for verdict in &self.verdicts {
            println!("  {}", verdict.line());
        }
        if let Some(why) = &self.failed {
            println!("\nnot all was measured: {why}");
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

/// Minimum, median, maximum.
fn spread(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |place: usize| sorted.get(place).copied().unwrap_or(0.0);
    (at(0), at(sorted.len() / 2), at(sorted.len().saturating_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_judged_by_medians_of_every_scenario_that_both_ran() {
        let mut report = Report::new(BTreeMap::new(), &"none");
        for (scenario, server, values) in [
            ("produce a", "us", [10.0, 30.0, 20.0]),
            ("produce a", "them", [10.0, 10.0, 90.0]),
            ("produce b", "us", [5.0, 5.0, 5.0]),
            ("produce b", "them", [10.0, 10.0, 10.0]),
            ("produce c", "us", [1.0, 1.0, 1.0]),
            ("consume a", "us", [1.0, 1.0, 1.0]),
        ] {
            for value in values {
                report.add(scenario, server, "rate", value);
            }
        }
        let of = ["us", "them", "rate"];
        report.bound_ratio("fast", "produce", of, Limit::AtLeast(0.8));
        report.bound_ratio("fast enough", "produce", of, Limit::AtLeast(0.5));
        report.bound_ratio("consuming", "consume", of, Limit::AtLeast(1.0));
        report.bound("rate", "produce", "us", "rate", Limit::AtMost(20.0));
        let judged: Vec<_> = report.verdicts.iter().map(|v| (v.values.len(), v.holds)).collect();
        assert_eq!(judged, [(2, false), (2, true), (0, false), (3, true)]);
        assert_eq!(
            report.verdicts.first().map(|v| v.values.clone()),
            Some(vec![("produce a".to_owned(), 2.0), ("produce b".to_owned(), 0.5),])
        );
        assert!(report.about.contains_key("parameters"));
    }
}
