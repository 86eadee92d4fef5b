//! Everything in one process: a log node, and a gateway that calls it directly.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use interflow_gateway::admin::{Admin, AdminHandler};
use interflow_gateway::net::Tls;
use interflow_gateway::topics::Placement;
use interflow_logstore::LogClient;
use interflow_meta::members::LifeOver;
use interflow_meta::{Env, Meta};

use super::disks::Disks;
use super::gateway_part::{self, GatewayPart};
use super::health::State;
use super::log_part::{KnownDisk, LogPart};
use super::serving::Serving;
use super::{listen, metadata, metrics, seat, welcome};
use crate::config::{Config, Role};
use crate::meta_store::META_ROOT;

/// A running standalone.
pub struct Standalone {
    config: Arc<Config>,
    meta: Meta,
    logs: LogPart,
    gateway: GatewayPart,
    tls: Option<Arc<Tls>>,
    ca: Option<PathBuf>,
    state: Arc<State>,
    serving: Serving,
}

impl Standalone {
    /// Starts everything on the current runtime; when this returns, all listeners serve.
    ///
    /// # Errors
    /// What is wrong, with the flag that cures it.
    pub async fn start(config: Arc<Config>, disks: Disks) -> anyhow::Result<Self> {
        config.check(Role::Standalone)?;
        let listeners = listen::bind(&config)?;
        let admin = listen::bind_admin(&config)?;
        let mut serving = Serving::new(config.net.shutdown_grace_ms);

        let disk = KnownDisk::check(&config, disks.journal).await?;
        let env = Env::default();
        let store = metadata::open(&config, Some(disks.meta), env.clone()).await?;
        let meta = Meta::new(store.clone(), env, META_ROOT);
        let mut registration = seat::registration(&config, Role::Standalone);
        registration.endpoints = seat::endpoints(&config, &listeners.kafka);
        let ending = &serving.ending;
        let logs =
            LogPart::open(&config, Role::Standalone, disk, &meta, registration, ending).await?;
        let client: Arc<dyn LogClient> = Arc::new(logs.log.clone());
        let me = logs.members.me();
        let deps = gateway_part::Deps {
            config: &config,
            meta: &meta,
            cluster: logs.cluster,
            members: &logs.members,
            logs: client,
            placement: Placement::Fixed { node: me.id, incarnation: me.incarnation },
            disk_bytes: Some(logs.disk_bytes),
        };
        let gateway = GatewayPart::start(deps, &serving).await?;

        let state = State::new(Some(logs.log.clone()), store);
        let (tls, ca) = (listeners.tls.clone(), listeners.ca.clone());
        gateway.serve(&config, listeners, &mut serving);
        let routes = AdminHandler::new(Admin {
            metrics: metrics::registry(metrics::Sources {
                log: Some(logs.log.clone()),
                gateway: Some(gateway.metrics()),
            }),
            health: state.clone(),
            meta: meta.clone(),
            members: logs.members.clone(),
            store: Some(logs.log.clone()),
            gateway: Some(gateway.admin()),
        });
        serving.serve(admin, Arc::new(routes));
        logs.members.ready().await?;
        state.set_ready(true);
        Ok(Self { config, meta, logs, gateway, tls, ca, state, serving })
    }

    /// Where a listener listens: `mqtt`, `mqtts`, `ws`, `wss`, `quic`, `kafka`, `kafkas`, `admin`.
    pub fn addresses(&self, listener: &str) -> &[SocketAddr] {
        self.serving.addresses(listener)
    }

    /// Prints what the person who started it wants to know.
    pub fn print_welcome(&self) {
        let listeners = self.serving.listeners(&welcome::ORDER);
        let welcome = welcome::Welcome {
            listeners: &listeners,
            data: Some(&self.config.data_dir.0),
            ca: self.ca.as_deref(),
            clients: Some(welcome::Clients::new(&self.config, &self.gateway.users)),
            node: None,
        };
        welcome.print();
    }

    /// Reads certificates again; connections that are open keep theirs.
    pub fn reload_certificates(&self) {
        listen::reload(self.tls.as_deref());
    }

    /// Waits until the process must end, which may be for ever.
    pub async fn over(&self) -> LifeOver {
        self.logs.members.over().await
    }

    /// Tells clients, finishes appends, and closes everything.
    ///
    /// # Errors
    /// What could not be finished in time.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.state.set_ready(false);
        // Listeners take no more.
        self.serving.closing.cancel();
        self.gateway.stop(&self.serving).await;
        self.serving.end().await;
        let finished = self.logs.stop().await;
        self.meta.close().await;
        finished
    }
}
