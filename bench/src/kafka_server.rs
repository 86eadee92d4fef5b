//! The servers that speak Kafka: Interflow and Apache Kafka, each on a fresh folder.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::process::Server;

/// The id of Kafka's clusters.
pub const CLUSTER_ID: &str = "Zm9yYmVuY2htYXJrc29ubA";

/// The port of the server under test.
pub const PORT: u16 = 29_192;

/// A peer, or us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Interflow, every acknowledgement synced.
    Interflow,
    /// Apache Kafka as shipped: it does not sync.
    KafkaShipped,
    /// Apache Kafka with `flush.messages=1`: it syncs each batch.
    KafkaFlush,
}

impl Kind {
    /// The one that is called so on the command line.
    pub fn named(name: &str) -> anyhow::Result<Self> {
        match name {
            "interflow" => Ok(Self::Interflow),
            "kafka" => Ok(Self::KafkaShipped),
            "kafka-flush" => Ok(Self::KafkaFlush),
            other => bail!("no server {other}: interflow, kafka or kafka-flush"),
        }
    }

    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interflow => "interflow",
            Self::KafkaShipped => "kafka",
            Self::KafkaFlush => "kafka flush.messages=1",
        }
    }
}

/// Where things are.
#[derive(Clone, Debug)]
pub struct Places {
    /// The `interflow` binary.
    pub interflow: PathBuf,
    /// The folder of Kafka's jars.
    pub jars: PathBuf,
    /// A scratch folder on the disk to be measured.
    pub scratch: PathBuf,
}

impl Places {
    /// The usual places in this repository; `bench/setup` fills them.
    pub fn find() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = std::env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| root.join("../target"), PathBuf::from);
        let places = Self {
            interflow: target.join("release/interflow"),
            jars: root.join(".cache/kafka"),
            scratch: root.join(".cache/scratch"),
        };
        fs::create_dir_all(&places.scratch)?;
        Ok(places)
    }

    /// The Java command with all jars on its class path.
    pub fn java(&self, heap: &str) -> Command {
        let mut command = Command::new("java");
        command
            .arg(format!("-Xmx{heap}"))
            .arg(format!("-Xms{heap}"))
            .arg("-Dlog4j2.level=WARN")
            .arg("-cp")
            .arg(self.jars.join("*"));
        command
    }

    /// An empty folder of that name in the scratch folder.
    pub fn fresh(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.scratch.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Starts a fresh server of `kind`; its data goes with the returned folder.
    pub fn start(&self, kind: Kind) -> anyhow::Result<Server> {
        let data = self.fresh("server")?;
        let log = self.scratch.join("server.log");
        let ready = SocketAddr::from(([127, 0, 0, 1], PORT));
        match kind {
            Kind::Interflow => {
                let mut command = Command::new(&self.interflow);
                command.arg("standalone").arg("--data-dir").arg(data.join("data"));
                command.args(["--kafka-port", &PORT.to_string()]);
                for port in ["mqtt", "ws", "admin"] {
                    command.args([format!("--{port}-port"), "0".into()]);
                }
                Server::start(command, ready, &log)
            }
            Kind::KafkaShipped | Kind::KafkaFlush => {
                let config = self.kafka_config(&data, kind == Kind::KafkaFlush)?;
                let status = self
                    .java("256m")
                    .args(["kafka.tools.StorageTool", "format", "--standalone", "-t"])
                    .arg(CLUSTER_ID)
                    .arg("-c")
                    .arg(&config)
                    .stdout(fs::File::create(self.scratch.join("format.log"))?)
                    .status()
                    .context("java")?;
                if !status.success() {
                    bail!("could not format Kafka's folder; see {}", self.scratch.display());
                }
                // Kafka's own start script gives it a heap of 1 GiB.
                let mut command = self.java("1g");
                command.arg("-XX:+UseG1GC").arg("kafka.Kafka").arg(&config);
                Server::start(command, ready, &log)
            }
        }
    }

    fn kafka_config(&self, data: &Path, flush: bool) -> anyhow::Result<PathBuf> {
        let controller = PORT + 1;
        let mut text = format!(
            "process.roles=broker,controller\nnode.id=1\n\
             controller.quorum.bootstrap.servers=localhost:{controller}\n\
             listeners=PLAINTEXT://127.0.0.1:{PORT},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{PORT},CONTROLLER://127.0.0.1:{controller}\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
             log.dirs={}\n\
             num.network.threads=3\nnum.io.threads=8\n\
             offsets.topic.replication.factor=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             share.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\n",
            data.join("kafka").display(),
        );
        if flush {
            text.push_str("log.flush.interval.messages=1\n");
        }
        let path = data.join("server.properties");
        fs::write(&path, text)?;
        Ok(path)
    }
}
