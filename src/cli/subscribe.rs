//! `interflow sub`: print what arrives by MQTT.

use std::io::Write;

use anyhow::bail;
use clap::Args;
use interflow_gateway::mqtt::codec::QoS;

use crate::mqtt::{Broker, parse_qos};

#[derive(Args)]
pub(crate) struct Subscribe {
    /// Topic filter; may be repeated
    #[arg(long = "topic", short = 't', required = true, value_name = "FILTER")]
    topics: Vec<String>,
    /// Highest quality of service
    #[arg(long, short = 'q', default_value = "1", value_parser = parse_qos)]
    qos: QoS,
    /// Stop after so many messages
    #[arg(long, short = 'C', value_name = "N")]
    count: Option<u64>,
    /// Print payloads only, without their topics
    #[arg(long)]
    payload_only: bool,
    /// Leave out retained messages
    #[arg(long, short = 'R')]
    no_retained: bool,
    #[command(flatten)]
    broker: Broker,
}

impl Subscribe {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut client = self.broker.connect()?;
        client.subscribe(&self.topics, self.qos)?;
        let mut out = std::io::stdout().lock();
        let mut seen = 0;
        while self.count.is_none_or(|count| seen < count) {
            let Some(message) = client.receive()? else {
                bail!("the broker closed the connection");
            };
            if message.retained && self.no_retained {
                continue;
            }
            if !self.payload_only {
                write!(out, "{} ", message.topic)?;
            }
            out.write_all(&message.payload)?;
            writeln!(out)?;
            out.flush()?;
            seen += 1;
        }
        client.disconnect()
    }
}
