//! What all roles have in common: a runtime, a log, and an end.

use std::io::IsTerminal;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

/// Worker threads; more than cores help nobody.
const MAX_WORKERS: usize = 32;
/// Threads that wait for the disk, each with memory that it keeps; a disk gains nothing by more.
const MAX_BLOCKING: usize = 64;

/// Runs a role on a runtime of its own.
pub(super) fn run(
    config: &Config,
    role: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    start_logging(config)?;
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers.min(MAX_WORKERS))
        .max_blocking_threads(MAX_BLOCKING)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(role)
}

/// SIGTERM and SIGINT stop; SIGHUP reads certificates again.
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Stop {
    /// Made before anything is opened: a signal from here on is not lost.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next signal to stop. `reload` is called for each SIGHUP until then.
    pub(super) async fn next(&mut self, reload: impl Fn()) -> &'static str {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return "SIGTERM",
                _ = self.interrupt.recv() => return "SIGINT",
                _ = self.hangup.recv() => reload(),
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
