//! `interflow pub`: publish by MQTT.

use std::io::{BufRead, Read};

use bytes::Bytes;
use clap::Args;
use interflow_gateway::mqtt::codec::QoS;

use crate::mqtt::{Broker, parse_qos};

#[derive(Args)]
pub(crate) struct Publish {
    /// Topic to publish to
    #[arg(long, short = 't')]
    topic: String,
    /// The message; without it and without --lines all of standard input is one message
    #[arg(long, short = 'm', conflicts_with = "lines")]
    message: Option<String>,
    /// Publish each line of standard input
    #[arg(long, short = 'l')]
    lines: bool,
    /// Quality of service; 1 and 2 wait until the message is synced
    #[arg(long, short = 'q', default_value = "1", value_parser = parse_qos)]
    qos: QoS,
    /// Retain the message
    #[arg(long, short = 'r')]
    retain: bool,
    #[command(flatten)]
    broker: Broker,
}

impl Publish {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let mut client = self.broker.connect()?;
        if let Some(message) = self.message {
            client.publish(&self.topic, message.into(), self.qos, self.retain)?;
        } else if self.lines {
            for line in std::io::stdin().lock().lines() {
                client.publish(&self.topic, line?.into(), self.qos, self.retain)?;
            }
        } else {
            let mut message = Vec::new();
            std::io::stdin().lock().read_to_end(&mut message)?;
            client.publish(&self.topic, Bytes::from(message), self.qos, self.retain)?;
        }
        client.disconnect()
    }
}
