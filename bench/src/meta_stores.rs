//! The stores that metadata is measured on, each fresh.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, bail};
use interflow_meta::{
    EmbeddedOptions, EmbeddedStore, Env, Meta, RemoteOptions, RemoteStore, Store,
};

use crate::kafka_server::Places;
use crate::meta_setup::clear;
use crate::process::{Server, Usage, usage_of};

/// The port of the server of metadata.
const PORT: u16 = 27_070;
/// The root of all keys: others' metadata in a shared cluster stays as it is.
const ROOT: &str = "interflow-bench";

/// A store of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file of this process, every commit synced.
    Embedded,
    /// The same in an `interflow meta serve`, over loopback.
    Remote,
    /// A FoundationDB cluster.
    FoundationDb,
}

impl Kind {
    /// The name in reports and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Remote => "remote",
            Self::FoundationDb => "fdb",
        }
    }
}

/// Where a FoundationDB cluster is.
#[derive(clap::Args, Clone, Debug)]
pub struct Cluster {
    /// Also measure the FoundationDB cluster of this cluster file (feature fdb)
    #[arg(long, value_name = "CLUSTER_FILE")]
    pub fdb: Option<PathBuf>,
    /// FoundationDB's client library [default: libfdb_c.so, as the system finds it]
    #[arg(long, value_name = "FILE")]
    pub fdb_library: Option<PathBuf>,
}

/// An open store.
#[derive(Debug)]
pub struct Opened {
    /// What is measured.
    pub meta: Meta,
    kind: Kind,
    folder: PathBuf,
    server: Option<Server>,
}

impl Opened {
    /// Opens a store of `kind`, with nothing in it.
    pub async fn open(kind: Kind, places: &Places, cluster: &Cluster) -> anyhow::Result<Self> {
        let folder = places.scratch.join("meta");
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let env = Env::default();
        let mut server = None;
        let store: Arc<dyn Store> = match kind {
            Kind::Embedded => {
                let file = folder.join("meta.redb");
                Arc::new(EmbeddedStore::open(&file, &EmbeddedOptions::default(), env.clone())?)
            }
            Kind::Remote => {
                let address = SocketAddr::from(([127, 0, 0, 1], PORT));
                let mut command = Command::new(&places.interflow);
                command.args(["meta", "serve", "--listen", &address.to_string()]);
                command.arg("--data-dir").arg(&folder);
                let log = places.scratch.join("meta-server.log");
                server = Some(Server::start(command, address, &log)?);
                Arc::new(RemoteStore::connect(RemoteOptions::new("127.0.0.1", PORT)).await?)
            }
            Kind::FoundationDb => open_fdb(cluster).await?,
        };
        let meta = Meta::new(store, env, ROOT);
        if kind == Kind::FoundationDb {
            clear(&meta).await.context("cannot clear the keys of a run before")?;
        }
        Ok(Self { meta, kind, folder, server })
    }

    /// What this process has used so far; what the server has, where there is one.
    pub fn usage(&self) -> anyhow::Result<(Usage, Option<Usage>)> {
        let server = self.server.as_ref().map(Server::usage).transpose()?;
        Ok((usage_of(std::process::id())?, server))
    }

    /// Ends the store and removes what is in it.
    pub async fn close(self) -> anyhow::Result<()> {
        if self.kind == Kind::FoundationDb {
            clear(&self.meta).await?;
        }
        self.meta.close().await;
        drop(self.meta);
        if let Some(server) = self.server {
            server.stop()?;
        }
        Ok(std::fs::remove_dir_all(self.folder)?)
    }
}

/// Whether this binary can use FoundationDB; else what cures it.
pub fn check_fdb() -> anyhow::Result<()> {
    if cfg!(feature = "fdb") {
        return Ok(());
    }
    bail!(
        "this binary has no FoundationDB client in it: `bench/meta --fdb CLUSTER_FILE` builds one \
         that has, or `cargo run --release -p interflow-bench --features fdb --bin bench-meta`"
    )
}

#[cfg(feature = "fdb")]
async fn open_fdb(cluster: &Cluster) -> anyhow::Result<Arc<dyn Store>> {
    let network = interflow_meta::FdbNetwork::boot(cluster.fdb_library.as_deref())
        .context("install FoundationDB's client, or say where it is with --fdb-library")?;
    let file = cluster.fdb.as_deref();
    Ok(Arc::new(interflow_meta::FdbStore::open(&network, file).await?))
}

#[cfg(not(feature = "fdb"))]
async fn open_fdb(_: &Cluster) -> anyhow::Result<Arc<dyn Store>> {
    check_fdb()?;
    bail!("no FoundationDB")
}
