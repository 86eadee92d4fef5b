//! `interflow log`: the logs behind a topic, by the admin API.

use clap::Subcommand;
use interflow_gateway::admin::{LagReport, LogReport, SegmentReport};

use super::{Admin, print_line, print_table};

/// Logs that are asked for at a time.
const PAGE: usize = 1_000;

#[derive(Subcommand)]
pub(crate) enum Log {
    /// Show the segments of each partition of a topic, with their replicas and damaged ranges
    Describe {
        /// The topic, or one partition as TOPIC:PARTITION
        topic: String,
        /// Print what the admin API answers
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: Admin,
    },
    /// Have a log store look at the closed segments that it keeps for damage, now
    Scrub {
        #[command(flatten)]
        admin: Admin,
    },
}

impl Log {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Describe { topic, json, admin } => Self::describe(topic, json, &admin),
            Self::Scrub { admin } => {
                admin.json::<bool>(Admin::agent().post(admin.url("/v1/scrub")).send_empty())?;
                Ok(print_line("closed segments are being looked at for damage")?)
            }
        }
    }

    fn describe(topic: String, json: bool, admin: &Admin) -> anyhow::Result<()> {
        let (topic, partition) = match topic.rsplit_once(':') {
            Some((topic, partition)) => (topic.to_owned(), Some(partition.parse::<u32>()?)),
            None => (topic, None),
        };
        let mut reports = match partition {
            // A page that ends with it.
            Some(partition) => page(&topic, partition.checked_sub(1), 1, admin)?,
            None => page(&topic, None, PAGE, admin)?,
        };
        reports.retain(|report| partition.is_none_or(|wanted| wanted == report.partition));
        let mut all = Vec::new();
        loop {
            let next = match reports.last() {
                Some(last) if partition.is_none() && reports.len() == PAGE => Some(last.partition),
                _ => None,
            };
            if json {
                all.append(&mut reports);
            }
            Self::print(&topic, &reports)?;
            let Some(after) = next else { break };
            reports = page(&topic, Some(after), PAGE, admin)?;
        }
        if json {
            print_line(&serde_json::to_string_pretty(&all)?)?;
        }
        Ok(())
    }

    fn print(topic: &str, reports: &[LogReport]) -> anyhow::Result<()> {
        for report in reports {
            print_line(&format!(
                "{topic}:{} log {}, offsets {} to {} (stable {}), leader epoch {}, {} producers, \
                 sequencer {}, replication factor {}",
                report.partition,
                report.log,
                report.start,
                report.committed,
                report.stable,
                report.leader_epoch,
                report.producers,
                report.sequencer,
                report.replication_factor
            ))?;
            if let Some(why) = &report.unavailable {
                print_line(&format!(
                    "  by the metadata alone, for its node can't be asked: {why}"
                ))?;
            }
            let rows: Vec<_> = report
                .segments
                .iter()
                .map(|segment| {
                    let damaged: Vec<_> =
                        segment.damaged.iter().map(|(from, to)| format!("{from}..{to}")).collect();
                    vec![
                        segment.epoch.to_string(),
                        segment.base.to_string(),
                        segment.end.map_or_else(|| "open".into(), |end| end.to_string()),
                        segment.bytes.to_string(),
                        replicas(segment),
                        lags(segment),
                        if damaged.is_empty() { "-".into() } else { damaged.join(" ") },
                    ]
                })
                .collect();
            print_table(&["  EPOCH", "BASE", "END", "BYTES", "REPLICAS", "LAG", "DAMAGED"], &rows)?;
        }
        Ok(())
    }
}

/// Up to `limit` of the topic's logs, behind partition `after`.
fn page(
    topic: &str,
    after: Option<u32>,
    limit: usize,
    admin: &Admin,
) -> anyhow::Result<Vec<LogReport>> {
    let after = after.map_or_else(String::new, |after| format!("&after={after}"));
    let url = admin.url(&format!("/v1/topics/{topic}/logs?limit={limit}{after}"));
    admin.json(Admin::agent().get(&url).call())
}

fn replicas(segment: &SegmentReport) -> String {
    let nodes: Vec<_> = segment.replicas.iter().map(u32::to_string).collect();
    nodes.join(",") + if segment.is_short { " (short)" } else { "" }
}

/// How many records each replica of an open segment is behind, in their order.
fn lags(segment: &SegmentReport) -> String {
    match &segment.lags {
        _ if segment.end.is_some() => "-".to_owned(),
        None => "unknown".to_owned(),
        Some(lags) => {
            let of = |lag: &LagReport| {
                lag.records.to_string() + if lag.is_in_sync { "" } else { " (out of sync)" }
            };
            lags.iter().map(of).collect::<Vec<_>>().join(",")
        }
    }
}
