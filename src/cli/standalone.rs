//! `interflow standalone`: everything in one process.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::config::{Config, Flags, LogFormat, load};
use crate::run::{Disks, Standalone};

/// Worker threads; more than cores help nobody.
const MAX_WORKERS: usize = 32;

#[derive(Args)]
pub(crate) struct StandaloneCommand {
    #[command(flatten)]
    flags: Flags,
}

impl StandaloneCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = load(&self.flags)?.config;
        start_logging(&config)?;
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers.min(MAX_WORKERS))
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        runtime.block_on(serve(config))
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    // Before anything is opened: a signal from here on is not lost.
    let mut stop = Stop::new()?;
    let disks = Disks::open(&config)?;
    let running = Standalone::start(Arc::new(config), disks).await?;
    running.print_welcome();
    let signal = stop.next(&running).await;
    tracing::info!(signal, "stopping");
    running.stop().await
}

/// SIGTERM and SIGINT stop; SIGHUP reads certificates again.
struct Stop {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self, running: &Standalone) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => running.reload_certificates(),
            }
        }
    }
}

fn start_logging(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.logging.filter)
        .with_context(|| format!("logging.filter: {}", config.logging.filter))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.logging.format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
