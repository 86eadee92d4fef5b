//! A log store: a log node that gateways reach by gRPC.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use interflow_gateway::admin::{Admin, AdminHandler};
use interflow_logstore::{LogServerOptions, serve_logs};
use interflow_meta::{Env, Meta, ServeError};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::disks::Disks;
use super::health::State;
use super::log_part::{KnownDisk, LogPart};
use super::serving::Serving;
use super::{access, listen, metadata, metrics, seat, welcome};
use crate::config::{Config, Role};
use crate::meta_store::META_ROOT;

/// A running log store.
pub struct Logstore {
    data: PathBuf,
    meta: Meta,
    logs: LogPart,
    state: Arc<State>,
    serving: Serving,
    /// Ends the log service, before the logs.
    service_closing: CancellationToken,
    service: JoinHandle<Result<(), ServeError>>,
}

impl Logstore {
    /// Starts on the current runtime; when this returns, its logs are served.
    ///
    /// # Errors
    /// What is wrong, with the flag that cures it.
    pub async fn start(config: Arc<Config>) -> anyhow::Result<Self> {
        config.check(Role::Logstore)?;
        let access = access::serve_options(&config.logstore)?;
        let listen = config.logstore.listen;
        access.check(listen).context(
            "set --logstore-token-file (or INTERFLOW_LOGSTORE_TOKEN), or --logstore-tls-client-ca",
        )?;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen} (see --logstore-listen)"))?;
        let address = listener.local_addr()?;
        let admin = listen::bind_admin(&config)?;
        let mut serving = Serving::new(config.net.shutdown_grace_ms);

        let disks = Disks::open(&config)?;
        let disk = KnownDisk::check(&config, disks.journal).await?;
        let env = Env::default();
        let store = metadata::open(&config, Some(disks.meta), env.clone()).await?;
        let meta = Meta::new(store.clone(), env, META_ROOT);
        let mut registration = seat::registration(&config, Role::Logstore);
        registration.address = config.logstore.address(address)?;
        let ending = &serving.ending;
        let logs =
            LogPart::open(&config, Role::Logstore, disk, &meta, registration, ending).await?;

        let service_closing = CancellationToken::new();
        let service = tokio::spawn({
            let (log, closing) = (logs.log.clone(), service_closing.clone());
            let options = LogServerOptions { access, ..LogServerOptions::default() };
            async move { serve_logs(listener, &log, options, closing).await }
        });
        serving.note("logstore", vec![address]);
        let state = State::new(Some(logs.log.clone()), store);
        let routes = AdminHandler::new(Admin {
            metrics: metrics::registry(metrics::Sources {
                log: Some(logs.log.clone()),
                gateway: None,
            }),
            health: state.clone(),
            meta: meta.clone(),
            members: logs.members.clone(),
            store: Some(logs.log.clone()),
            gateway: None,
        });
        serving.serve(admin, Arc::new(routes));
        logs.members.ready().await?;
        state.set_ready(true);
        let data = config.data_dir.0.clone();
        Ok(Self { data, meta, logs, state, serving, service_closing, service })
    }

    /// Prints what the person who started it wants to know.
    pub fn print_welcome(&self) {
        let listeners = self.serving.listeners(&welcome::ORDER);
        let welcome = welcome::Welcome {
            listeners: &listeners,
            data: Some(&self.data),
            ca: None,
            clients: None,
            node: Some(self.logs.members.me()),
        };
        welcome.print();
    }

    /// Waits until the process must end, which may be for ever; says why.
    pub async fn over(&mut self) -> anyhow::Error {
        tokio::select! {
            over = self.logs.members.over() => over.into(),
            served = &mut self.service => match served {
                Ok(Ok(())) => anyhow::anyhow!("the log service has ended"),
                Ok(Err(error)) => anyhow::Error::new(error).context("the log service failed"),
                Err(error) => anyhow::Error::new(error).context("the log service failed"),
            },
        }
    }

    /// Finishes appends, and closes everything.
    ///
    /// # Errors
    /// What could not be finished in time.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.state.set_ready(false);
        self.serving.closing.cancel();
        self.logs.hand_over().await;
        self.service_closing.cancel();
        if !self.service.is_finished() {
            // What became of it is of no interest any more.
            let _ = (&mut self.service).await;
        }
        self.serving.connections_ended().await;
        self.serving.end().await;
        let finished = self.logs.stop().await;
        self.meta.close().await;
        finished
    }
}
