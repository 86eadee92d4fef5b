//! Where a topic's logs are, as the admin port of a gateway tells.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

/// A log.
#[derive(Clone, Debug, Deserialize)]
pub struct Log {
    /// Its partition.
    pub partition: usize,
    /// The node that gives out offsets.
    pub sequencer: usize,
    /// Its segments; the last is open.
    pub segments: Vec<Segment>,
}

/// A segment.
#[derive(Clone, Debug, Deserialize)]
pub struct Segment {
    /// The nodes that store it.
    pub replicas: Vec<usize>,
}

impl Log {
    /// Each of its segments is on so many nodes.
    pub fn is_on(&self, nodes: usize) -> bool {
        self.segments.iter().all(|segment| segment.replicas.len() == nodes)
    }
}

/// Logs that are asked for at a time.
const PAGE: usize = 1_000;

/// The logs of `topic`.
pub fn of(admin: SocketAddr, topic: &str) -> anyhow::Result<Vec<Log>> {
    let agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(120)));
    let agent = agent.build().new_agent();
    let mut logs: Vec<Log> = Vec::new();
    loop {
        let after =
            logs.last().map_or_else(String::new, |last| format!("&after={}", last.partition));
        let url = format!("http://{admin}/v1/topics/{topic}/logs?limit={PAGE}{after}");
        let mut answer = agent.get(url).call()?;
        // A log with a chain of some segments takes some hundred bytes.
        let page: Vec<Log> = answer.body_mut().with_config().limit(256 << 20).read_json()?;
        let is_last = page.len() < PAGE;
        logs.extend(page);
        if is_last {
            return Ok(logs);
        }
    }
}
