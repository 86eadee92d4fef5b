//! Flags; each stands for a setting. A role has those of the groups that concern it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use crate::meta_store::MetaAddress;

/// All flags, for `config`.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) common: CommonFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) data: DataFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) clients: ClientFlags,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) dev_tls: DevTlsFlags,
    #[command(flatten)]
    #[serde(skip_serializing_if = "PortFlags::is_empty")]
    pub(super) ports: PortFlags,
    #[command(flatten)]
    #[serde(skip_serializing_if = "NodeFlags::is_empty")]
    pub(super) node: NodeFlags,
    #[command(flatten)]
    #[serde(skip_serializing_if = "LogstoreFlags::is_empty")]
    pub(super) logstore: LogstoreFlags,
}

impl Flags {
    /// The configuration file.
    pub(super) fn file(&self) -> Option<&Path> {
        self.common.config.as_deref()
    }
}

/// The flags of a standalone.
#[derive(Args, Clone, Debug, Default)]
pub struct StandaloneFlags {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    clients: ClientFlags,
    #[command(flatten)]
    dev_tls: DevTlsFlags,
    #[command(flatten)]
    ports: PortFlags,
}

impl From<StandaloneFlags> for Flags {
    fn from(flags: StandaloneFlags) -> Self {
        let StandaloneFlags { common, data, clients, dev_tls, ports } = flags;
        Self { common, data, clients, dev_tls, ports, ..Self::default() }
    }
}

/// The flags of a log store.
#[derive(Args, Clone, Debug, Default)]
pub struct LogstoreRoleFlags {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    admin: AdminPortFlags,
    #[command(flatten)]
    node: NodeFlags,
    #[command(flatten)]
    logstore: LogstoreFlags,
}

impl From<LogstoreRoleFlags> for Flags {
    fn from(flags: LogstoreRoleFlags) -> Self {
        let LogstoreRoleFlags { common, data, admin, node, logstore } = flags;
        let ports = PortFlags { admin: admin.admin, ..PortFlags::default() };
        Self { common, data, ports, node, logstore, ..Self::default() }
    }
}

/// The flags of a gateway: it keeps nothing, so it has no data folder.
#[derive(Args, Clone, Debug, Default)]
pub struct GatewayFlags {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    clients: ClientFlags,
    #[command(flatten)]
    ports: PortFlags,
    #[command(flatten)]
    node: NodeFlags,
    #[command(flatten)]
    logstore: LogstoreClientFlags,
}

impl From<GatewayFlags> for Flags {
    fn from(flags: GatewayFlags) -> Self {
        let GatewayFlags { common, clients, ports, node, logstore } = flags;
        let LogstoreClientFlags { token_file, tls_ca, tls_cert, tls_key } = logstore;
        let logstore =
            LogstoreFlags { token_file, tls_ca, tls_cert, tls_key, ..LogstoreFlags::default() };
        Self { common, clients, ports, node, logstore, ..Self::default() }
    }
}

/// What every role has.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub(super) struct CommonFlags {
    /// Configuration file (TOML); also INTERFLOW_CONFIG
    #[arg(long, env = "INTERFLOW_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    #[serde(skip_serializing_if = "MetaFlags::is_empty")]
    pub(super) meta: MetaFlags,
    #[command(flatten)]
    #[serde(skip_serializing_if = "LoggingFlags::is_empty")]
    pub(super) logging: LoggingFlags,
}

/// What roles have that keep something.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub(super) struct DataFlags {
    /// The folder with everything that is kept [default: ./interflow-data]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
}

/// What roles have that serve clients.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub(super) struct ClientFlags {
    /// Address to listen on; may be repeated [default: 127.0.0.1 and ::1]
    #[arg(long, value_name = "ADDR")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    listen: Vec<String>,
    /// Host name that Kafka clients are told to connect to [default: localhost]
    #[arg(long, value_name = "HOST")]
    #[serde(skip_serializing_if = "Option::is_none")]
    advertise: Option<String>,
    /// Take connections without credentials on any address
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    allow_anonymous: bool,
    #[command(flatten)]
    #[serde(skip_serializing_if = "TlsFlags::is_empty")]
    tls: TlsFlags,
}

/// Certificates of its own, which need a folder.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub(super) struct DevTlsFlags {
    /// Make a throw-away CA and certificate for the TLS, WSS and QUIC listeners
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dev_tls: bool,
}

macro_rules! flags {
    ($(#[$outer:meta])* $name:ident { $($field:ident: $type:ty, $long:literal, $value:literal, $help:literal;)* }) => {
        $(#[$outer])*
        #[derive(Args, Clone, Debug, Default, Serialize)]
        pub(super) struct $name {
            $(
                #[arg(id = $long, long = $long, value_name = $value, help = $help)]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub(super) $field: Option<$type>,
            )*
        }

        impl $name {
            fn is_empty(&self) -> bool {
                true $(&& self.$field.is_none())*
            }
        }
    };
}

flags!(PortFlags {
    mqtt: u16, "mqtt-port", "PORT", "MQTT over TCP [default: 1883]";
    mqtts: u16, "mqtts-port", "PORT", "MQTT over TLS [default: 8883]";
    ws: u16, "ws-port", "PORT", "MQTT over WebSocket [default: 8083]";
    wss: u16, "wss-port", "PORT", "MQTT over WebSocket and TLS [default: 8084]";
    quic: u16, "quic-port", "PORT", "MQTT over QUIC [default: 14567]";
    kafka: u16, "kafka-port", "PORT", "Kafka over TCP [default: 9092]";
    kafkas: u16, "kafkas-port", "PORT", "Kafka over TLS [default: 9093]";
    admin: u16, "admin-port", "PORT", "Admin HTTP, on loopback only [default: 8090]";
});

flags!(MetaFlags {
    store: MetaAddress, "meta", "STORE",
        "Metadata store: embedded, remote:HOST:PORT, or fdb[:CLUSTER_FILE] [default: embedded]";
    fdb_library: PathBuf, "fdb-library", "FILE",
        "FoundationDB's client library [default: libfdb_c.so, as the system finds it]";
    token_file: PathBuf, "meta-token-file", "FILE",
        "File with the token of a remote metadata store; else INTERFLOW_META_TOKEN";
    tls_ca: PathBuf, "meta-tls-ca", "FILE",
        "CAs of a remote metadata store's certificate (PEM): speaks TLS to it";
    tls_cert: PathBuf, "meta-tls-cert", "FILE",
        "Certificate chain to show to a remote metadata store (PEM)";
    tls_key: PathBuf, "meta-tls-key", "FILE", "Its private key (PEM)";
});

flags!(TlsFlags {
    cert: PathBuf, "tls-cert", "FILE", "Certificate chain (PEM); opens the TLS and QUIC listeners";
    key: PathBuf, "tls-key", "FILE", "Private key of the certificate (PEM)";
    client_ca: PathBuf, "tls-client-ca", "FILE", "CAs whose client certificates are demanded (PEM)";
});

flags!(LoggingFlags {
    filter: String, "log", "FILTER", "Log level or directives [default: info]";
    format: String, "log-format", "FORMAT", "text or json [default: text]";
});

/// The port of roles that serve no clients.
#[derive(Args, Clone, Debug, Default)]
struct AdminPortFlags {
    /// Admin HTTP, on loopback only [default: 8090]
    #[arg(id = "admin-port", long = "admin-port", value_name = "PORT")]
    admin: Option<u16>,
}

flags!(NodeFlags {
    id: u32, "node-id", "ID",
        "Number of this node, its own; a gateway without one is given one at each start";
    rack: String, "rack", "NAME", "Where this node stands: replicas are spread over racks";
    lease_ms: u64, "lease-ms", "MS", "Without a sign of life for so long it is dead [default: 6000]";
});

flags!(LogstoreFlags {
    listen: SocketAddr, "logstore-listen", "ADDR:PORT",
        "Where gateways and log stores reach it; beyond loopback it needs a token or \
         --logstore-tls-client-ca [default: 127.0.0.1:7071]";
    advertise: String, "logstore-advertise", "HOST:PORT",
        "Address that others are told [default: where it listens]";
    token_file: PathBuf, "logstore-token-file", "FILE",
        "File with the token of the log stores; else INTERFLOW_LOGSTORE_TOKEN";
    tls_ca: PathBuf, "logstore-tls-ca", "FILE",
        "CAs of the log stores' certificates (PEM): speaks TLS to them";
    tls_cert: PathBuf, "logstore-tls-cert", "FILE", "Its certificate chain (PEM)";
    tls_key: PathBuf, "logstore-tls-key", "FILE", "Its private key (PEM)";
    tls_client_ca: PathBuf, "logstore-tls-client-ca", "FILE",
        "CAs whose client certificates are demanded (PEM)";
});

/// How a gateway gets into log stores.
#[derive(Args, Clone, Debug, Default)]
struct LogstoreClientFlags {
    /// File with the token of the log stores; else INTERFLOW_LOGSTORE_TOKEN
    #[arg(id = "logstore-token-file", long = "logstore-token-file", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// CAs of the log stores' certificates (PEM): speaks TLS to them
    #[arg(id = "logstore-tls-ca", long = "logstore-tls-ca", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate chain to show to log stores (PEM)
    #[arg(id = "logstore-tls-cert", long = "logstore-tls-cert", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(id = "logstore-tls-key", long = "logstore-tls-key", value_name = "FILE")]
    tls_key: Option<PathBuf>,
}
