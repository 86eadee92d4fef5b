//! Interflow as a cluster of processes on loopback: metadata, log stores, gateways.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context;

use crate::kafka_server::Places;
use crate::process::{Ready, Server, Usage};

const META_PORT: u16 = 29_440;
/// The ports before those of the first of each.
const GATEWAY_PORT: u16 = 29_400;
const GATEWAY_ADMIN_PORT: u16 = 29_410;
const STORE_PORT: u16 = 29_420;
const STORE_ADMIN_PORT: u16 = 29_430;

/// A running cluster with its data in a folder. Ended when dropped, the gateways first.
#[derive(Debug)]
pub struct Cluster {
    binary: PathBuf,
    folder: PathBuf,
    gateways: Vec<Server>,
    stores: Vec<Option<Server>>,
    meta: Server,
    /// Environment of log stores that are started from now on.
    settings: Vec<(&'static str, String)>,
}

/// What each process of a cluster has used so far.
#[derive(Clone, Debug)]
pub struct Used {
    /// The metadata server.
    pub meta: Usage,
    /// The log stores that run.
    pub stores: Vec<Usage>,
    /// The gateways.
    pub gateways: Vec<Usage>,
}

impl Used {
    /// By all together.
    pub fn sum(&self) -> Usage {
        [self.meta].iter().chain(&self.stores).chain(&self.gateways).copied().sum()
    }

    /// Each role with what its processes used together.
    pub fn by_role(&self) -> [(&'static str, Usage); 3] {
        let sum = |all: &[Usage]| all.iter().copied().sum();
        [("gateways", sum(&self.gateways)), ("log stores", sum(&self.stores)), ("meta", self.meta)]
    }
}

impl Cluster {
    /// Starts one with fresh data.
    pub fn start(places: &Places, stores: u16, gateways: u16) -> anyhow::Result<Self> {
        let folder = places.fresh("cluster")?;
        let meta = start_meta(&places.interflow, &folder)?;
        let binary = places.interflow.clone();
        let mut cluster = Self {
            binary,
            folder,
            gateways: Vec::new(),
            stores: (0..stores).map(|_| None).collect(),
            meta,
            settings: Vec::new(),
        };
        cluster.start_stores()?;
        cluster.set_gateways(gateways)?;
        Ok(cluster)
    }

    /// Log stores that are started from now on have these settings, by the names of the environment.
    pub fn set_settings(&mut self, settings: &[(&'static str, String)]) {
        self.settings = settings.to_vec();
    }

    /// Ends gateways and log stores and starts them again on their data; `between` is called while
    /// nothing runs but the metadata. Returns how long stopping and starting took, in seconds.
    pub fn restart(
        &mut self,
        between: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<(f64, f64)> {
        let begun = Instant::now();
        let gateways = u16::try_from(self.gateways.len())?;
        self.set_gateways(0)?;
        let stopping: Vec<_> = self.stores.iter_mut().filter_map(Option::take).collect();
        stop_all(stopping)?;
        let stopped = begun.elapsed().as_secs_f64();
        between(&self.folder)?;
        let begun = Instant::now();
        self.start_stores()?;
        self.set_gateways(gateways)?;
        Ok((stopped, begun.elapsed().as_secs_f64()))
    }

    /// Starts the log stores that don't run, together; returns when all are ready.
    pub fn start_stores(&mut self) -> anyhow::Result<()> {
        let mut starting = Vec::new();
        for (id, store) in (1u16..).zip(&mut self.stores) {
            if store.is_some() {
                continue;
            }
            let mut command = role(&self.binary, "logstore");
            command.args(["--node-id", &id.to_string()]);
            command.args(["--rack", &format!("rack-{id}")]);
            command.arg("--data-dir").arg(self.folder.join(format!("store-{id}")));
            command.args(["--logstore-listen", &local(STORE_PORT + id).to_string()]);
            command.args(["--admin-port", &(STORE_ADMIN_PORT + id).to_string()]);
            command.envs(self.settings.iter().map(|(name, value)| (name, value)));
            let log = self.folder.join(format!("store-{id}.log"));
            let server = store.insert(Server::spawn(command, local(STORE_PORT + id), &log)?);
            starting.push((server, log));
        }
        for (server, log) in starting {
            server.wait(Ready::Line("ready"), &log)?;
        }
        Ok(())
    }

    /// Kills a log store, the first is 0.
    pub fn kill_store(&mut self, store: usize) -> anyhow::Result<()> {
        self.stores.get_mut(store).and_then(Option::take).context("no such log store")?.kill()
    }

    /// Starts or ends gateways, so that there are so many.
    pub fn set_gateways(&mut self, count: u16) -> anyhow::Result<()> {
        stop_all(self.gateways.drain(self.gateways.len().min(count.into())..).collect())?;
        for id in u16::try_from(self.gateways.len())? + 1..=count {
            let mut command = role(&self.binary, "gateway");
            // Not the one of a log store.
            command.args(["--node-id", &(100 + id).to_string()]);
            command.args(["--kafka-port", &(GATEWAY_PORT + id).to_string()]);
            command.args(["--admin-port", &(GATEWAY_ADMIN_PORT + id).to_string()]);
            for port in ["mqtt", "ws"] {
                command.args([format!("--{port}-port"), "0".into()]);
            }
            let log = self.folder.join(format!("gateway-{id}.log"));
            let mut gateway = Server::spawn(command, local(GATEWAY_PORT + id), &log)?;
            gateway.wait(Ready::Line("ready"), &log)?;
            self.gateways.push(gateway);
        }
        Ok(())
    }

    /// Where clients begin.
    pub fn bootstrap(&self) -> String {
        let of = |(id, _)| local(GATEWAY_PORT + id).to_string();
        (1u16..).zip(&self.gateways).map(of).collect::<Vec<_>>().join(",")
    }

    /// The admin port of the first gateway.
    pub fn admin(&self) -> SocketAddr {
        local(GATEWAY_ADMIN_PORT + 1)
    }

    /// Takes what the log stores have on disk out of the page cache.
    pub fn drop_cached(&self) -> anyhow::Result<()> {
        drop_cached(&self.folder)
    }

    /// What the processes have used so far.
    pub fn used(&self) -> anyhow::Result<Used> {
        Ok(Used {
            meta: self.meta.usage()?,
            stores: self.stores.iter().flatten().map(Server::usage).collect::<Result<_, _>>()?,
            gateways: self.gateways.iter().map(Server::usage).collect::<Result<_, _>>()?,
        })
    }

    /// Ends all, the gateways first.
    pub fn stop(self) -> anyhow::Result<()> {
        stop_all(self.gateways)?;
        stop_all(self.stores.into_iter().flatten().collect())?;
        self.meta.stop()
    }
}

fn stop_all(mut servers: Vec<Server>) -> anyhow::Result<()> {
    for server in &mut servers {
        server.ask_to_stop()?;
    }
    servers.into_iter().try_for_each(Server::stop)
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn role(binary: &Path, name: &str) -> Command {
    let mut command = Command::new(binary);
    command.arg(name).args(["--meta", &format!("remote:{}", local(META_PORT))]);
    command
}

fn start_meta(binary: &Path, folder: &Path) -> anyhow::Result<Server> {
    let mut command = Command::new(binary);
    command.args(["meta", "serve", "--listen", &local(META_PORT).to_string()]);
    command.arg("--data-dir").arg(folder.join("meta"));
    let log = folder.join("meta.log");
    let mut meta = Server::spawn(command, local(META_PORT), &log)?;
    meta.wait(Ready::Line("serving"), &log)?;
    Ok(meta)
}

/// Takes the log stores' files out of the page cache, so that reading them reads the disk.
pub fn drop_cached(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            drop_cached(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            let file = fs::File::open(entry.path())?;
            // Only what has been written stays out.
            file.sync_all()?;
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
                .map_err(io::Error::from)?;
        }
    }
    Ok(())
}
