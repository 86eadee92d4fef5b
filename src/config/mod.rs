//! The configuration: one TOML file, `INTERFLOW_*` variables, flags; later ones win.
//!
//! Every value knows where it came from, so that `interflow config` can say so. A section's
//! options are those of the part that it configures (`mqtt`, `kafka`, …); what none of them
//! knows is an error that names it.

mod flags;
mod load;
mod node;
mod sections;
#[cfg(test)]
mod tests;

use anyhow::bail;
use interflow_gateway::kafka::KafkaConfig;
use interflow_gateway::mqtt::MqttConfig;
use serde::{Deserialize, Serialize};

use crate::meta_store::MetaAddress;

pub use flags::{Flags, GatewayFlags, LogstoreRoleFlags, StandaloneFlags};
pub use load::{Loaded, load};
pub use node::{LogstoreConfig, NodeConfig};
pub use sections::{DataDir, LogFormat, Logging, MetaStore, Net, Ports, Storage, Tls};

/// All settings.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The folder with everything that is kept.
    pub data_dir: DataDir,
    /// Addresses of the MQTT and Kafka listeners.
    pub listen: Vec<String>,
    /// The host name that Kafka clients are told to connect to.
    pub advertise: Option<String>,
    /// Take connections without credentials on addresses other than loopback.
    pub allow_anonymous: bool,
    /// Make a throw-away CA and certificate, and open the TLS and QUIC listeners with it.
    pub dev_tls: bool,
    /// The ports of the listeners.
    pub ports: Ports,
    /// Certificates.
    pub tls: Tls,
    /// Logging of this process.
    pub logging: Logging,
    /// Limits of all listeners.
    pub net: Net,
    /// The MQTT side.
    pub mqtt: MqttConfig,
    /// The Kafka side.
    pub kafka: KafkaConfig,
    /// The journal and the logs.
    pub storage: Storage,
    /// Where the metadata is.
    pub meta: MetaStore,
    /// This process among the nodes of a cluster.
    pub node: NodeConfig,
    /// The log service between nodes.
    pub logstore: LogstoreConfig,
}

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Standalone,
    /// Keeps logs.
    Logstore,
    /// Serves clients.
    Gateway,
}

impl Config {
    /// A process of this role can be started with it.
    ///
    /// # Errors
    /// What is missing or in the way, with the flag that cures it.
    pub fn check(&self, role: Role) -> anyhow::Result<()> {
        if role != Role::Standalone && self.meta.store == MetaAddress::Embedded {
            bail!(
                "the metadata must be one that all nodes share: --meta remote:HOST:PORT (an \
                 `interflow meta serve`) or --meta fdb"
            );
        }
        match role {
            Role::Logstore => self.node.check_log_store(),
            Role::Gateway if self.dev_tls => bail!(
                "a gateway keeps nothing on disk, so it can't make certificates: leave out \
                 dev_tls, or set tls.cert and tls.key"
            ),
            Role::Gateway | Role::Standalone => Ok(()),
        }
    }

    /// How many log stores keep a topic that doesn't say.
    pub fn default_replication_factor(&self, role: Role) -> u32 {
        let by_role = if role == Role::Standalone { 1 } else { 3 };
        self.storage.default_replication_factor.unwrap_or(by_role)
    }
}
