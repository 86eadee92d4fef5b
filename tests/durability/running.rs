//! A standalone on the fault disk.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use interflow::config::Config;
use interflow::run::{Disks, Standalone};
use interflow_logstore::disk::{FaultDisk, FaultFolder};
use tokio::runtime::Runtime;

use crate::meta_file::MetaFile;

/// The journal's folder.
pub(crate) fn journal(disk: &FaultDisk) -> FaultFolder {
    disk.folder("journal")
}

/// The metadata store's folder.
pub(crate) fn meta(disk: &FaultDisk) -> FaultFolder {
    disk.folder("meta")
}

/// A standalone that serves until it is dropped.
pub(crate) struct Running {
    pub(crate) addresses: Addresses,
    standalone: Option<Standalone>,
    runtime: Option<Runtime>,
}

/// Where it listens.
#[derive(Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) mqtt: SocketAddr,
    pub(crate) kafka: SocketAddr,
    pub(crate) admin: SocketAddr,
}

impl Running {
    pub(crate) fn start(disk: &FaultDisk, config: Config) -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let meta = MetaFile::open(&meta(disk)).map_err(|error| error.to_string())?;
        let disks = Disks { journal: Arc::new(journal(disk)), meta: Arc::new(meta) };
        let standalone = runtime
            .block_on(Standalone::start(Arc::new(config), disks))
            .map_err(|error| format!("the standalone does not start: {error:#}"))?;
        let address = |listener: &str| {
            standalone.addresses(listener).first().copied().ok_or(format!("no {listener} listener"))
        };
        let addresses = Addresses {
            mqtt: address("mqtt")?,
            kafka: address("kafka")?,
            admin: address("admin")?,
        };
        Ok(Self { addresses, standalone: Some(standalone), runtime: Some(runtime) })
    }

    /// Ends it as a signal does: everything is finished.
    pub(crate) fn stop(mut self) {
        if let (Some(standalone), Some(runtime)) = (self.standalone.take(), &self.runtime) {
            runtime.block_on(standalone.stop()).expect("a clean stop");
        }
    }
}

impl Drop for Running {
    /// As `kill -9` does, together with the end of the disk's life: nothing is finished.
    fn drop(&mut self) {
        drop(self.standalone.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// Settings for a small disk without a floor.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    let ports = &mut config.ports;
    for port in [&mut ports.mqtt, &mut ports.ws, &mut ports.kafka, &mut ports.admin] {
        *port = 0;
    }
    config.storage.extent_bytes = 1 << 20;
    config.storage.min_free_bytes = 0;
    config.storage.min_free_percent = 0;
    config
}
