//! This process among the nodes of a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use interflow_meta::nodes::{DEFAULT_LEASE, FIRST_ALLOCATED, LAST_ID};
use serde::{Deserialize, Serialize};

/// This process among the nodes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Its id: of its own for each log store and each gateway, and the same after a restart.
    pub id: Option<u32>,
    /// Where it stands: replicas of a log are kept in as many racks as there are.
    pub rack: String,
    /// Without a sign of life for so long it counts as dead, in milliseconds.
    pub lease_ms: u64,
}

impl Default for NodeConfig {
    fn default() -> Self {
        let lease_ms = u64::try_from(DEFAULT_LEASE.as_millis()).unwrap_or(u64::MAX);
        Self { id: None, rack: String::new(), lease_ms }
    }
}

/// A shorter lease would be lost to a slow disk, in milliseconds.
const MIN_LEASE_MS: u64 = 500;
/// A longer one would leave the dead unmissed, in milliseconds.
const MAX_LEASE_MS: u64 = 600_000;

impl NodeConfig {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if !(MIN_LEASE_MS..=MAX_LEASE_MS).contains(&self.lease_ms) {
            bail!("node.lease_ms {}: want {MIN_LEASE_MS} to {MAX_LEASE_MS}", self.lease_ms);
        }
        if let Some(id) = self.id
            && !(1..=LAST_ID.0).contains(&id)
        {
            bail!("node.id {id}: want 1 to {}", LAST_ID.0);
        }
        Ok(())
    }

    /// The id of a log store.
    pub(super) fn check_log_store(&self) -> anyhow::Result<()> {
        match self.id {
            None => bail!(
                "a log store needs an id that is its own and stays the same: --node-id 1, for \
                 example"
            ),
            Some(id) if id >= FIRST_ALLOCATED.0 => {
                bail!("node.id {id}: ids from {} up are of gateways", FIRST_ALLOCATED.0)
            }
            Some(_) => Ok(()),
        }
    }
}

/// The log service between nodes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogstoreConfig {
    /// Where a log store listens; beyond loopback it needs a token or `tls_client_ca`.
    pub listen: SocketAddr,
    /// `HOST:PORT` that others are told to reach it at; none is where it listens.
    pub advertise: Option<String>,
    /// File with the token that log stores and gateways share; else `INTERFLOW_LOGSTORE_TOKEN`.
    pub token_file: Option<PathBuf>,
    /// CAs of the log stores' certificates: speaks TLS to them.
    pub tls_ca: Option<PathBuf>,
    /// The certificate chain of a log store; also shown to other log stores.
    pub tls_cert: Option<PathBuf>,
    /// Its private key.
    pub tls_key: Option<PathBuf>,
    /// CAs of which a log store demands certificates of its clients.
    pub tls_client_ca: Option<PathBuf>,
}

impl Default for LogstoreConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 7071)),
            advertise: None,
            token_file: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            tls_client_ca: None,
        }
    }
}

impl LogstoreConfig {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            bail!(
                "a certificate needs its key: set both --logstore-tls-cert and --logstore-tls-key"
            );
        }
        if self.tls_client_ca.is_some() && self.tls_cert.is_none() {
            bail!("--logstore-tls-client-ca needs --logstore-tls-cert: there is no TLS without it");
        }
        if self.tls_cert.is_some() && self.tls_ca.is_none() {
            bail!(
                "--logstore-tls-cert needs --logstore-tls-ca: log stores and gateways speak TLS \
                 to one another, or none of them does"
            );
        }
        if let Some(advertise) = &self.advertise
            && advertise
                .rsplit_once(':')
                .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        {
            bail!("logstore.advertise {advertise}: want HOST:PORT");
        }
        Ok(())
    }

    /// What others are told, for a log store that listens on `listens`.
    ///
    /// # Errors
    /// It listens on all addresses, and none was said.
    pub fn address(&self, listens: SocketAddr) -> anyhow::Result<String> {
        match &self.advertise {
            Some(advertise) => Ok(advertise.clone()),
            None if listens.ip().is_unspecified() => bail!(
                "the log store listens on all addresses ({listens}): say which one others reach it \
                 at, by --logstore-advertise HOST:PORT"
            ),
            None => Ok(listens.to_string()),
        }
    }
}
