//! `interflow meta`: serves a metadata store, and looks after it.

use std::fs::File;
use std::io::{BufReader, BufWriter, IsTerminal};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use interflow_meta::levels::{self, Levels, Upgrade};
use interflow_meta::{
    DumpError, Env, Meta, MetaError, NodeId, Report, ServeOptions, ServerTls, check, dump, restore,
    serve,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{print_line, print_table};
use crate::meta_store::{Access, META_ROOT, META_TOKEN, MetaAddress, open, read_token};

#[derive(Subcommand)]
pub(crate) enum MetaCommand {
    /// Serve the embedded store of a data folder to other processes; for development: it is not
    /// highly available
    Serve(Serve),
    /// Check that everything decodes and that what refers to something finds it
    Check {
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Raise the feature level: the formats of this version come into use, and earlier versions are
    /// refused from then on
    Upgrade {
        /// The level [default: the highest that this version works with]
        #[arg(long, value_name = "LEVEL")]
        level: Option<u32>,
        /// Show what it would come to, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Write all metadata to a file
    Dump {
        /// The file; must not exist
        file: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Fill a store from the file of a dump
    Restore {
        /// The file
        file: PathBuf,
        /// Remove all metadata that is there
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        store: StoreArgs,
    },
}

/// Which store, for the tools; nobody else may run on a data folder meanwhile.
#[derive(Args)]
pub(crate) struct StoreArgs {
    /// The store: embedded, remote:HOST:PORT, fdb or fdb:CLUSTER_FILE
    #[arg(long, default_value = "embedded", value_name = "STORE")]
    meta: MetaAddress,
    /// The data folder of an embedded store
    #[arg(long, default_value = "./interflow-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// File with the token of a remote store; else INTERFLOW_META_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// CAs of a remote store's certificate (PEM): speaks TLS
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate to show to a remote store (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "tls_ca")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// FoundationDB's client library [default: libfdb_c.so, as the system finds it]
    #[arg(long, value_name = "FILE")]
    fdb_library: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct Serve {
    /// The data folder
    #[arg(long, default_value = "./interflow-data", value_name = "DIR")]
    data_dir: PathBuf,
    /// Address to listen on; one that is not loopback needs a token or --tls-client-ca
    #[arg(long, default_value = "127.0.0.1:7070", value_name = "ADDR")]
    listen: SocketAddr,
    /// File with the token that clients must know (16 characters or more); else
    /// INTERFLOW_META_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Certificate chain (PEM): speaks TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// CAs whose client certificates are demanded (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
}

impl MetaCommand {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(async {
            match self {
                Self::Serve(command) => command.run().await,
                Self::Check { store } => run_check(&store).await,
                Self::Upgrade { level, dry_run, store } => {
                    run_upgrade(level, dry_run, &store).await
                }
                Self::Dump { file, store } => run_dump(&file, &store).await,
                Self::Restore { file, replace, store } => run_restore(&file, replace, &store).await,
            }
        })
    }
}

impl StoreArgs {
    /// The store; with `create`, a data folder's is made if there is none.
    async fn open(&self, create: bool) -> anyhow::Result<Meta> {
        let access = Access {
            data_dir: &self.data_dir,
            create,
            token: read_token(self.token_file.as_deref(), META_TOKEN)?,
            tls_ca: self.tls_ca.as_deref(),
            tls_identity: self.tls_cert.as_deref().zip(self.tls_key.as_deref()),
            fdb_library: self.fdb_library.as_deref(),
        };
        let env = Env::default();
        let store = open(&self.meta, &access, env.clone()).await?;
        Ok(Meta::new(store, env, META_ROOT))
    }
}

impl Serve {
    async fn run(self) -> anyhow::Result<ExitCode> {
        tracing_subscriber::fmt()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .with_target(false)
            .init();
        // Before anything is opened: a signal from here on is not lost.
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let read = |path: &Path| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let tls = match (&self.tls_cert, &self.tls_key) {
            (Some(cert), Some(key)) => Some(ServerTls {
                cert_pem: read(cert)?,
                key_pem: read(key)?,
                client_ca_pem: self.tls_client_ca.as_deref().map(read).transpose()?,
            }),
            _ => None,
        };
        let options =
            ServeOptions { token: read_token(self.token_file.as_deref(), META_TOKEN)?, tls };
        options.check(self.listen)?;
        let env = Env::default();
        let access = Access::folder(&self.data_dir);
        let store = open(&MetaAddress::Embedded, &access, env.clone()).await?;
        let listener = tokio::net::TcpListener::bind(self.listen)
            .await
            .with_context(|| format!("cannot listen on {} (see --listen)", self.listen))?;
        print_line(&format!("serving metadata on {}", listener.local_addr()?))?;
        let closing = CancellationToken::new();
        let serving = serve(listener, Arc::clone(&store), env, options, closing.clone());
        tokio::pin!(serving);
        let signalled = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let served = tokio::select! {
            served = &mut serving => served,
            () = signalled => {
                closing.cancel();
                serving.await
            }
        };
        store.close().await;
        served?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn run_check(store: &StoreArgs) -> anyhow::Result<ExitCode> {
    let meta = store.open(false).await?;
    let report = check(&meta).await?;
    meta.close().await;
    print(&report)?;
    Ok(if report.problems.count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(report: &Report) -> std::io::Result<()> {
    let rows: Vec<_> =
        report.families.iter().map(|(name, count)| vec![name.clone(), count.to_string()]).collect();
    print_table(&["KIND", "ROWS"], &rows)?;
    for (kind, findings) in [("note", &report.notes), ("problem", &report.problems)] {
        for finding in &findings.listed {
            print_line(&format!("{kind}: {finding}"))?;
        }
        let listed = u64::try_from(findings.listed.len()).unwrap_or(u64::MAX);
        if findings.count > listed {
            print_line(&format!("{kind}: and {} more", findings.count - listed))?;
        }
    }
    if report.has_moved {
        print_line("note: somebody wrote meanwhile, which may look like a problem: check again")?;
    }
    print_line(&format!("{} problems", report.problems.count))
}

async fn run_upgrade(
    level: Option<u32>,
    is_dry_run: bool,
    store: &StoreArgs,
) -> anyhow::Result<ExitCode> {
    let meta = store.open(false).await?;
    let done = if is_dry_run {
        levels::upgrade(&meta.begin(), level, Levels::SUPPORTED).await
    } else {
        meta.transact(|tx| async move { levels::upgrade(&tx, level, Levels::SUPPORTED).await })
            .await
    };
    meta.close().await;
    let Upgrade { from, to, nodes } = done?;
    let row = |(node, levels): &(NodeId, Levels)| vec![node.to_string(), levels.to_string()];
    print_table(&["NODE", "LEVELS"], &nodes.iter().map(row).collect::<Vec<_>>())?;
    print_line(&match (from == to, is_dry_run) {
        (true, _) => format!("the feature level is {to}: nothing is to be raised"),
        (false, true) => format!("the feature level would be raised from {from} to {to}"),
        (false, false) => format!("the feature level was raised from {from} to {to}"),
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn run_dump(path: &Path, store: &StoreArgs) -> anyhow::Result<ExitCode> {
    let meta = store.open(false).await?;
    let file = File::create_new(path)
        .with_context(|| format!("cannot make the file {}", path.display()))?;
    let mut out = BufWriter::new(file);
    let dumped = dump(&meta, &mut out).await;
    meta.close().await;
    let synced = dumped.map_err(anyhow::Error::from).and_then(|dumped| {
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()?;
        Ok(dumped)
    });
    let dumped = match synced {
        Ok(dumped) => dumped,
        Err(error) => {
            // Half a dump must not be taken for one.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
    };
    if dumped.has_moved {
        eprintln!("warning: somebody wrote meanwhile; the dump may be of several moments");
    }
    print_line(&format!("{} rows in {}", dumped.rows, path.display()))?;
    Ok(ExitCode::SUCCESS)
}

async fn run_restore(path: &Path, replace: bool, store: &StoreArgs) -> anyhow::Result<ExitCode> {
    // A folder is not made for a file that isn't there.
    drop(File::open(path).with_context(|| format!("cannot open {}", path.display()))?);
    let meta = store.open(true).await?;
    let restored = restore(&meta, || Ok(BufReader::new(File::open(path)?)), replace).await;
    meta.close().await;
    let restored = match restored {
        Err(DumpError::NotEmpty) => {
            bail!("there is metadata in {} already: --replace removes it", store.meta)
        }
        Err(DumpError::Meta(error @ MetaError::Unavailable(_))) => {
            return Err(anyhow::Error::new(error).context("restore again, with --replace"));
        }
        restored => restored?,
    };
    print_line(&format!("{} rows restored", restored.rows))?;
    Ok(ExitCode::SUCCESS)
}
