//! `interflow gateway`: serves clients, and keeps nothing.

use std::sync::Arc;

use clap::Args;

use super::role::{Stop, run};
use crate::config::{Config, GatewayFlags, load};
use crate::run::Gateway;

#[derive(Args)]
pub(crate) struct GatewayCommand {
    #[command(flatten)]
    flags: GatewayFlags,
}

impl GatewayCommand {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = Arc::new(load(&self.flags.into())?.config);
        run(&config.clone(), serve(config))
    }
}

async fn serve(config: Arc<Config>) -> anyhow::Result<()> {
    let mut stop = Stop::new()?;
    let running = tokio::select! {
        started = Gateway::start(config) => started?,
        // It may be waiting for log stores.
        signal = stop.next(|| ()) => {
            tracing::info!(signal, "stopped before it was ready");
            return Ok(());
        }
    };
    running.print_welcome();
    let ended = tokio::select! {
        signal = stop.next(|| running.reload_certificates()) => {
            tracing::info!(signal, "stopping");
            Ok(())
        }
        over = running.over() => {
            tracing::error!(%over, "ending");
            Err(over.into())
        }
    };
    running.stop().await;
    ended
}
