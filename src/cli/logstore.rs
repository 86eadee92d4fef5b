//! `interflow logstore`: keeps logs, for gateways.

use std::sync::Arc;

use clap::Args;

use super::role::{Stop, run};
use crate::config::{Config, LogstoreRoleFlags, load};
use crate::run::Logstore;

#[derive(Args)]
pub(crate) struct LogstoreCommand {
    #[command(flatten)]
    flags: LogstoreRoleFlags,
}

impl LogstoreCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = Arc::new(load(&self.flags.into())?.config);
        run(&config.clone(), serve(config))
    }
}

async fn serve(config: Arc<Config>) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let mut running = Logstore::start(config).await?;
    running.print_welcome();
    // Its certificates are those that it started with.
    let ended = tokio::select! {
        signal = stop.next(|| ()) => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
        over = running.over() => {
            tracing::error!(error = format!("{over:#}"), "ending");
            Err(over)
        }
    };
    running.stop().await.and(ended)
}
