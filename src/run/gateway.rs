//! A gateway: it keeps nothing, and reaches logs at the log stores that have them.

use std::sync::Arc;

use interflow_gateway::admin::{Admin, AdminHandler};
use interflow_gateway::net::Tls;
use interflow_gateway::topics::Placement;
use interflow_logstore::{LogClient, MetaDirectory, NodeTimes, Router, RouterOptions};
use interflow_meta::members::{LifeOver, Members};
use interflow_meta::{Env, Meta};

use super::gateway_part::{self, GatewayPart};
use super::health::State;
use super::serving::Serving;
use super::{access, listen, metadata, metrics, seat, welcome};
use crate::config::{Config, Role};
use crate::meta_store::META_ROOT;

/// A running gateway.
pub struct Gateway {
    config: Arc<Config>,
    meta: Meta,
    members: Arc<Members>,
    router: Arc<Router>,
    gateway: GatewayPart,
    tls: Option<Arc<Tls>>,
    state: Arc<State>,
    serving: Serving,
}

impl Gateway {
    /// Starts on the current runtime; when this returns, all listeners serve. It waits for log
    /// stores, if there are none.
    ///
    /// # Errors
    /// What is wrong, with the flag that cures it.
    pub async fn start(config: Arc<Config>) -> anyhow::Result<Self> {
        config.check(Role::Gateway)?;
        let node_access = access::node_access(&config.logstore)?;
        let listeners = listen::bind(&config)?;
        let admin = listen::bind_admin(&config)?;
        let mut serving = Serving::new(config.net.shutdown_grace_ms);

        let env = Env::default();
        let store = metadata::open(&config, None, env.clone()).await?;
        let meta = Meta::new(store.clone(), env, META_ROOT);
        let (cluster, _) = seat::join_cluster(&meta).await?;
        let mut registration = seat::registration(&config, Role::Gateway);
        registration.endpoints = seat::endpoints(&config, &listeners.kafka);
        let members = seat::take(&config, &meta, registration, &serving.ending).await?;
        let directory = MetaDirectory::new(meta.clone(), node_access, NodeTimes::default());
        let router = Arc::new(Router::new(Arc::new(directory), RouterOptions::default()));
        let client: Arc<dyn LogClient> = router.clone();
        let deps = gateway_part::Deps {
            config: &config,
            meta: &meta,
            cluster,
            members: &members,
            logs: client,
            placement: Placement::Members {
                members: members.clone(),
                default_replication_factor: config.default_replication_factor(Role::Gateway),
                min_insync_replicas: config.storage.min_insync_replicas.unwrap_or(1),
            },
            disk_bytes: None,
        };
        let gateway = tokio::select! {
            started = GatewayPart::start(deps, &serving) => started?,
            over = members.over() => return Err(over.into()),
        };

        let state = State::new(None, store);
        let tls = listeners.tls.clone();
        gateway.serve(&config, listeners, &mut serving);
        let routes = AdminHandler::new(Admin {
            metrics: metrics::registry(metrics::Sources {
                log: None,
                gateway: Some(gateway.metrics()),
            }),
            health: state.clone(),
            meta: meta.clone(),
            members: members.clone(),
            store: None,
            gateway: Some(gateway.admin()),
        });
        serving.serve(admin, Arc::new(routes));
        members.ready().await?;
        state.set_ready(true);
        Ok(Self { config, meta, members, router, gateway, tls, state, serving })
    }

    /// Prints what the person who started it wants to know.
    pub fn print_welcome(&self) {
        let listeners = self.serving.listeners(&welcome::ORDER);
        let welcome = welcome::Welcome {
            listeners: &listeners,
            data: None,
            ca: None,
            clients: Some(welcome::Clients::new(&self.config, &self.gateway.users)),
            node: Some(self.members.me()),
        };
        welcome.print();
    }

    /// Reads certificates again; connections that are open keep theirs.
    pub fn reload_certificates(&self) {
        listen::reload(self.tls.as_deref());
    }

    /// Waits until the process must end, which may be for ever.
    pub async fn over(&self) -> LifeOver {
        self.members.over().await
    }

    /// Tells clients, finishes what they sent, and closes everything.
    pub async fn stop(self) {
        self.state.set_ready(false);
        // Listeners take no more.
        self.serving.closing.cancel();
        self.gateway.stop(&self.serving).await;
        self.serving.end().await;
        self.router.close().await;
        self.members.leave().await;
        self.meta.close().await;
    }
}
