//! The sections of the configuration that belong to no other part.

use std::path::PathBuf;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use crate::meta_store::MetaAddress;

/// Where the metadata is.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetaStore {
    /// The store.
    pub store: MetaAddress,
    /// FoundationDB's client library, where the dynamic linker doesn't find `libfdb_c.so`.
    pub fdb_library: Option<PathBuf>,
    /// File with the token of a remote store; else `INTERFLOW_META_TOKEN`.
    pub token_file: Option<PathBuf>,
    /// CAs of a remote store's certificate: speaks TLS to it.
    pub tls_ca: Option<PathBuf>,
    /// The certificate chain that is shown to a remote store.
    pub tls_cert: Option<PathBuf>,
    /// Its private key.
    pub tls_key: Option<PathBuf>,
}

impl MetaStore {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let of_remote = [
            ("token_file", &self.token_file),
            ("tls_ca", &self.tls_ca),
            ("tls_cert", &self.tls_cert),
            ("tls_key", &self.tls_key),
        ];
        let set = of_remote.iter().find(|(_, value)| value.is_some());
        if let Some((name, _)) = set
            && !matches!(self.store, MetaAddress::Remote { .. })
        {
            bail!("meta.{name} is for a remote metadata store, and meta.store is {}", self.store);
        }
        if self.tls_cert.is_some() != self.tls_key.is_some() {
            bail!("a certificate needs its key: set both --meta-tls-cert and --meta-tls-key");
        }
        if self.tls_cert.is_some() && self.tls_ca.is_none() {
            bail!("--meta-tls-cert needs --meta-tls-ca: whom to show the certificate to");
        }
        Ok(())
    }
}

/// A path with the default of the design.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(transparent)]
pub struct DataDir(pub PathBuf);

impl Default for DataDir {
    fn default() -> Self {
        Self("./interflow-data".into())
    }
}

/// Ports; 0 takes any free one.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ports {
    /// MQTT over TCP.
    pub mqtt: u16,
    /// MQTT over TLS.
    pub mqtts: u16,
    /// MQTT over WebSocket.
    pub ws: u16,
    /// MQTT over WebSocket and TLS.
    pub wss: u16,
    /// MQTT over QUIC.
    pub quic: u16,
    /// Kafka over TCP.
    pub kafka: u16,
    /// Kafka over TLS.
    pub kafkas: u16,
    /// Admin HTTP.
    pub admin: u16,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            mqtt: 1883,
            mqtts: 8883,
            ws: 8083,
            wss: 8084,
            quic: 14567,
            kafka: 9092,
            kafkas: 9093,
            admin: 8090,
        }
    }
}

/// Certificates in PEM files.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// The certificate chain.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// CAs whose client certificates are demanded.
    pub client_ca: Option<PathBuf>,
}

/// Logging of this process.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// A level, or directives such as `info,interflow_gateway=debug`.
    pub filter: String,
    /// `text` or `json`.
    pub format: LogFormat,
}

impl Default for Logging {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Limits of all listeners.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Net {
    /// Connections of one listener at a time.
    pub max_connections: usize,
    /// Connections of one listener from one IP address at a time.
    pub max_connections_per_address: usize,
    /// The path of WebSocket requests.
    pub ws_path: String,
    /// Origins of web pages that may connect by WebSocket; empty allows all.
    pub ws_allowed_origins: Vec<String>,
    /// How long clients get at shutdown, in milliseconds.
    pub shutdown_grace_ms: u64,
}

impl Default for Net {
    fn default() -> Self {
        Self {
            max_connections: 1_000_000,
            max_connections_per_address: 1_000_000,
            ws_path: "/mqtt".into(),
            ws_allowed_origins: Vec::new(),
            shutdown_grace_ms: 5_000,
        }
    }
}

/// The journal and the logs.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Bytes of an extent file.
    pub extent_bytes: u32,
    /// `fdatasync` calls that may overlap.
    pub sync_depth: usize,
    /// Files of deleted extents that are kept to be written over by new ones.
    pub recycled_extents: usize,
    /// Bytes of the newest entries kept in memory for readers.
    pub tail_cache_bytes: usize,
    /// Appends are refused with less free than this many bytes …
    pub min_free_bytes: u64,
    /// … or less than this share of the disk, in percent.
    pub min_free_percent: u64,
    /// Bytes a second that rewriting may write: it frees extents that are mostly dead and puts
    /// interleaved ones in order. While appends wait for the disk, a quarter of it.
    pub rewrite_bytes_per_second: u64,
    /// How often retention is looked at, in seconds.
    pub retention_interval_s: u64,
    /// How often closed segments are looked at for damage, in seconds …
    pub scrub_interval_s: u64,
    /// … and how many of their bytes a second; their other replicas are read as well. 0: only when
    /// `interflow log scrub` says so.
    pub scrub_bytes_per_second: u64,
    /// Partitions of the topic that MQTT messages go to, when it is created.
    pub mqtt_partitions: u32,
    /// Pages that the embedded metadata store keeps in memory, in bytes.
    pub meta_cache_bytes: usize,
    /// How many log stores keep a topic that doesn't say: 1 in a standalone, 3 in a cluster.
    pub default_replication_factor: Option<u32>,
    /// So many log stores have synced an append of a topic that doesn't say (`min.insync.replicas`)
    /// before it is acknowledged, and never fewer than most of its replicas.
    pub min_insync_replicas: Option<u32>,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            extent_bytes: 256 << 20,
            sync_depth: 4,
            recycled_extents: 2,
            tail_cache_bytes: 64 << 20,
            min_free_bytes: 1 << 30,
            min_free_percent: 5,
            rewrite_bytes_per_second: 32 << 20,
            retention_interval_s: 30,
            scrub_interval_s: 86_400,
            scrub_bytes_per_second: 4 << 20,
            mqtt_partitions: 8,
            meta_cache_bytes: 8 << 20,
            default_replication_factor: None,
            min_insync_replicas: None,
        }
    }
}
