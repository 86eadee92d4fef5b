//! Apache Kafka with three brokers, each also a controller (KRaft), on fresh folders.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::kafka_server::{CLUSTER_ID, Places};
use crate::process::{Ready, Server};

const BROKERS: u16 = 3;
/// The port before that of the first broker.
const BROKER_PORT: u16 = 29_300;
/// The port before that of the first controller.
const CONTROLLER_PORT: u16 = 29_310;
/// Of each broker; Kafka's own start script gives it 1 GiB.
const HEAP: &str = "1g";

fn all(of: impl Fn(u16) -> String) -> String {
    (1..=BROKERS).map(of).collect::<Vec<_>>().join(",")
}

/// Where clients begin.
pub fn bootstrap() -> String {
    all(|id| format!("127.0.0.1:{}", BROKER_PORT + id))
}

/// Starts the brokers with their data in `folder`; with `flush` each batch is synced.
pub fn start(places: &Places, folder: &Path, flush: bool) -> anyhow::Result<Vec<Server>> {
    let mut brokers = Vec::new();
    for id in 1..=BROKERS {
        let config = format_broker(places, folder, id, flush)?;
        let mut command = places.java(HEAP);
        command.arg("-XX:+UseG1GC").arg("kafka.Kafka").arg(&config);
        let address = SocketAddr::from(([127, 0, 0, 1], BROKER_PORT + id));
        let log = folder.join(format!("broker-{id}.log"));
        brokers.push((Server::spawn(command, address, &log)?, address, log));
    }
    // A broker's port opens when the quorum has let it in.
    let mut started = Vec::new();
    for (mut broker, address, log) in brokers {
        broker.wait(Ready::Port(address), &log)?;
        started.push(broker);
    }
    Ok(started)
}

/// Writes a broker's configuration, and the marks that Kafka wants in its folder.
fn format_broker(places: &Places, folder: &Path, id: u16, flush: bool) -> anyhow::Result<PathBuf> {
    let (broker, controller) = (BROKER_PORT + id, CONTROLLER_PORT + id);
    let mut text = format!(
        "process.roles=broker,controller\nnode.id={id}\n\
         controller.quorum.voters={}\n\
         listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
         log.dirs={}\n\
         num.network.threads=3\nnum.io.threads=8\n\
         min.insync.replicas=2\n",
        all(|id| format!("{id}@127.0.0.1:{}", CONTROLLER_PORT + id)),
        folder.join(format!("kafka-{id}")).display(),
    );
    if flush {
        text.push_str("log.flush.interval.messages=1\n");
    }
    let config = folder.join(format!("broker-{id}.properties"));
    fs::write(&config, text)?;
    let status = places
        .java("256m")
        .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
        .arg(&config)
        .stdout(fs::File::create(folder.join("format.log"))?)
        .status()
        .context("java")?;
    if !status.success() {
        bail!("could not format a folder of Kafka's; see {}", folder.display());
    }
    Ok(config)
}
