//! `interflow standalone`: everything in one process.

use std::sync::Arc;

use clap::Args;

use super::role::{Stop, run};
use crate::config::{Config, StandaloneFlags, load};
use crate::run::{Disks, Standalone};

#[derive(Args)]
pub(crate) struct StandaloneCommand {
    #[command(flatten)]
    flags: StandaloneFlags,
}

impl StandaloneCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = Arc::new(load(&self.flags.into())?.config);
        run(&config.clone(), serve(config))
    }
}

async fn serve(config: Arc<Config>) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let disks = Disks::open(&config)?;
    let running = Standalone::start(config, disks).await?;
    running.print_welcome();
    tokio::select! {
        signal = stop.next(|| running.reload_certificates()) => {
            tracing::info!(signal, "stopping");
            running.stop().await
        }
        over = running.over() => {
            tracing::error!(%over, "ending");
            running.stop().await.and(Err(over.into()))
        }
    }
}
