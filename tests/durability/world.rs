//! A disk with its standalone: started, loaded, cut off, started again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use interflow::config::Config;
use interflow::run::{Disks, Standalone};
use interflow_logstore::disk::{Disk, DiskFile, FaultDisk, FaultFolder};
use interflow_meta::Backend;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::check;
use crate::load::{Acknowledged, Load};

/// What is wrong with the build under test.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// Nothing.
    None,
    /// `fdatasync` does nothing.
    NoSync,
    /// Records are acknowledged when they are in memory.
    EarlyAck,
}

/// One seed's disk.
pub(crate) struct World {
    seed: u64,
    mutant: Mutant,
    disk: FaultDisk,
}

/// The lives of a disk: load and power cut, so many times, and a last look.
const LIVES: u64 = 2;

impl World {
    pub(crate) fn new(seed: u64, mutant: Mutant) -> Self {
        let disk = FaultDisk::new();
        disk.set_no_sync(mutant == Mutant::NoSync);
        Self { seed, mutant, disk }
    }

    /// Loads and cuts the power, twice, and checks after each restart. Returns how many
    /// acknowledgements were given, or what was lost.
    pub(crate) fn life_and_death(&self) -> Result<u64, String> {
        let mut all = Acknowledged::default();
        for life in 0..LIVES {
            self.with_standalone(|addresses| {
                if life > 0 {
                    check::everything(addresses, &all)?;
                }
                let mut rng = StdRng::seed_from_u64(self.seed * LIVES + life);
                let load = Load {
                    mqtt: addresses.mqtt,
                    kafka: addresses.kafka,
                    life,
                    is_early: self.mutant == Mutant::EarlyAck,
                };
                let cut_after = rng.random_range(5..80);
                let crash_seed = rng.random();
                load.run(cut_after, &mut all, || self.disk.crash(crash_seed));
                Ok(())
            })?;
        }
        self.with_standalone(|addresses| check::everything(addresses, &all))?;
        Ok(all.count())
    }

    fn with_standalone(
        &self,
        act: impl FnOnce(&Addresses) -> Result<(), String>,
    ) -> Result<(), String> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let journal = self.disk.folder("journal");
        let meta = MetaFile::open(&self.disk.folder("meta")).map_err(|error| error.to_string())?;
        let disks = Disks { journal: Arc::new(journal), meta: Arc::new(meta) };
        let running = runtime
            .block_on(Standalone::start(Arc::new(config()), disks))
            .map_err(|error| format!("the standalone does not start: {error:#}"))?;
        let address = |listener: &str| {
            running.addresses(listener).first().copied().ok_or(format!("no {listener} listener"))
        };
        let addresses = Addresses { mqtt: address("mqtt")?, kafka: address("kafka")? };
        let outcome = act(&addresses);
        // The power is off, or all was read: what is still running has nothing to finish.
        drop(running);
        runtime.shutdown_timeout(Duration::from_secs(5));
        outcome
    }
}

/// Where the standalone listens.
pub(crate) struct Addresses {
    pub(crate) mqtt: SocketAddr,
    pub(crate) kafka: SocketAddr,
}

fn config() -> Config {
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

/// The metadata store's file on the faulty disk.
struct MetaFile(Arc<dyn DiskFile>);

impl MetaFile {
    fn open(folder: &FaultFolder) -> io::Result<Self> {
        const NAME: &str = "meta.redb";
        let file = match folder.open(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let file = folder.create(NAME)?;
                folder.sync_folder()?;
                file
            }
            opened => opened?,
        };
        Ok(Self(file))
    }
}

impl std::fmt::Debug for MetaFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetaFile")
    }
}

impl Backend for MetaFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut at = 0;
        while at < out.len() {
            match self.0.read_at(&mut out[at..], offset + at as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => at += read,
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_vectored_at(&[data], offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }
}
