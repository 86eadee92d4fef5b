//! The configuration: one TOML file, `INTERFLOW_*` variables, flags; later ones win.
//!
//! Every value knows where it came from, so that `interflow config` can say so. A section's
//! options are those of the part that it configures (`mqtt`, `kafka`, …); what none of them
//! knows is an error that names it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use interflow_gateway::kafka::KafkaConfig;
use interflow_gateway::mqtt::MqttConfig;
use serde::{Deserialize, Serialize};

use crate::meta_store::MetaAddress;

/// The prefix of variables.
const PREFIX: &str = "INTERFLOW_";

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
}

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
    fn check(&self) -> anyhow::Result<()> {
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
    /// Partitions of the topic that MQTT messages go to, when it is created.
    pub mqtt_partitions: u32,
    /// Pages that the embedded metadata store keeps in memory, in bytes.
    pub meta_cache_bytes: usize,
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
            mqtt_partitions: 8,
            meta_cache_bytes: 8 << 20,
        }
    }
}

/// The flags of `standalone` and `config`; each stands for a setting.
#[derive(Args, Clone, Debug, Default, Serialize)]
pub struct Flags {
    /// Configuration file (TOML); also INTERFLOW_CONFIG
    #[arg(long, env = "INTERFLOW_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// The folder with everything that is kept [default: ./interflow-data]
    #[arg(long, value_name = "DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
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
    /// Make a throw-away CA and certificate for the TLS, WSS and QUIC listeners
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dev_tls: bool,
    #[command(flatten)]
    #[serde(skip_serializing_if = "MetaFlags::is_empty")]
    meta: MetaFlags,
    #[command(flatten)]
    #[serde(skip_serializing_if = "PortFlags::is_empty")]
    ports: PortFlags,
    #[command(flatten)]
    #[serde(skip_serializing_if = "TlsFlags::is_empty")]
    tls: TlsFlags,
    #[command(flatten)]
    #[serde(skip_serializing_if = "LoggingFlags::is_empty")]
    logging: LoggingFlags,
}

macro_rules! flags {
    ($(#[$outer:meta])* $name:ident { $($field:ident: $type:ty, $long:literal, $value:literal, $help:literal;)* }) => {
        $(#[$outer])*
        #[derive(Args, Clone, Debug, Default, Serialize)]
        struct $name {
            $(
                #[arg(long = $long, value_name = $value, help = $help)]
                #[serde(skip_serializing_if = "Option::is_none")]
                $field: Option<$type>,
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

/// The settings with their sources.
pub struct Loaded {
    /// The settings.
    pub config: Config,
    figment: Figment,
}

/// Puts file, variables and flags together.
///
/// # Errors
/// A file that cannot be read or parsed, an unknown option, a value out of its type.
pub fn load(flags: &Flags) -> anyhow::Result<Loaded> {
    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    if let Some(path) = &flags.config {
        if !path.exists() {
            bail!("there is no configuration file {}", path.display());
        }
        figment = figment.merge(Toml::file_exact(path));
    }
    // A cluster manager sets variables such as INTERFLOW_PORT for a service of this name, so what
    // names no section here is not ours.
    let sections = serde_json::to_value(Config::default())?;
    let known = move |key: &str| {
        let section = key.split("__").next().unwrap_or(key).to_ascii_lowercase();
        sections.get(section).is_some()
    };
    figment = figment
        .merge(Env::prefixed(PREFIX).filter(move |key| known(key.as_str())).split("__"))
        .merge(FlagProvider(flags.clone()));
    let config: Config = figment.extract().context("the configuration is not valid")?;
    if config.tls.cert.is_some() != config.tls.key.is_some() {
        bail!("a certificate needs its key: set both --tls-cert and --tls-key");
    }
    config.meta.check()?;
    Ok(Loaded { config, figment })
}

/// The flags as a source of their own.
struct FlagProvider(Flags);

impl figment::Provider for FlagProvider {
    fn metadata(&self) -> figment::Metadata {
        figment::Metadata::named("flag")
    }

    fn data(
        &self,
    ) -> figment::error::Result<figment::value::Map<figment::Profile, figment::value::Dict>> {
        Serialized::globals(&self.0).data()
    }
}

impl Loaded {
    /// Every setting: its name, value as JSON, and where the value came from.
    pub fn values(&self) -> anyhow::Result<Vec<(String, String, String)>> {
        let mut rows = Vec::new();
        walk("", &serde_json::to_value(&self.config)?, &mut rows);
        Ok(rows
            .into_iter()
            .map(|(key, value)| {
                let source = self.source(&key);
                (key, value, source)
            })
            .collect())
    }

    fn source(&self, key: &str) -> String {
        let Some(metadata) = self.figment.find_metadata(key) else { return "default".into() };
        if metadata.name == "flag" {
            return "flag".into();
        }
        match &metadata.source {
            Some(figment::Source::File(path)) => format!("file {}", display(path)),
            _ if metadata.name.contains("environment") => {
                format!("variable {PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
            }
            _ => "default".into(),
        }
    }
}

fn display(path: &Path) -> String {
    path.display().to_string()
}

/// All leaves below `value`, with dotted names.
fn walk(prefix: &str, value: &serde_json::Value, rows: &mut Vec<(String, String)>) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                walk(&name, value, rows);
            }
        }
        leaf => rows.push((prefix.to_owned(), leaf.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_beats_the_file_and_the_source_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("interflow.toml");
        std::fs::write(&file, "advertise = \"a\"\n[ports]\nmqtt = 11\nkafka = 12\n").unwrap();
        let flags = Flags {
            config: Some(file),
            ports: PortFlags { mqtt: Some(13), ..PortFlags::default() },
            ..Flags::default()
        };
        let loaded = load(&flags).unwrap();
        assert_eq!((loaded.config.ports.mqtt, loaded.config.ports.kafka), (13, 12));
        let values = loaded.values().unwrap();
        let source = |key: &str| {
            values.iter().find(|(name, _, _)| name == key).map(|(_, _, source)| source.clone())
        };
        assert_eq!(source("ports.mqtt").as_deref(), Some("flag"));
        assert!(source("ports.kafka").unwrap().starts_with("file "));
        assert_eq!(source("ports.admin").as_deref(), Some("default"));
    }

    #[test]
    fn a_metadata_store_is_named_in_the_file_or_by_a_flag() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("interflow.toml");
        std::fs::write(&file, "[meta]\nstore = \"fdb:/a\"\n").unwrap();
        let mut flags = Flags { config: Some(file), ..Flags::default() };
        let cluster = |file: &str| MetaAddress::FoundationDb { cluster_file: Some(file.into()) };
        assert_eq!(load(&flags).unwrap().config.meta.store, cluster("/a"));
        flags.meta.store = Some(cluster("/b"));
        assert_eq!(load(&flags).unwrap().config.meta.store, cluster("/b"));
    }

    #[test]
    fn how_a_remote_store_is_reached_must_fit_together() {
        let file = || Some(PathBuf::from("/a"));
        let remote = || Some("remote:a:1".parse().unwrap());
        for (meta, expected) in [
            (MetaFlags { store: remote(), tls_ca: file(), ..Default::default() }, None),
            (
                MetaFlags {
                    store: remote(),
                    token_file: file(),
                    tls_ca: file(),
                    tls_cert: file(),
                    tls_key: file(),
                    ..Default::default()
                },
                None,
            ),
            (
                MetaFlags { tls_ca: file(), ..Default::default() },
                Some("meta.tls_ca is for a remote metadata store, and meta.store is embedded"),
            ),
            (
                MetaFlags {
                    store: Some("fdb".parse().unwrap()),
                    token_file: file(),
                    ..Default::default()
                },
                Some("meta.token_file is for a remote"),
            ),
            (
                MetaFlags {
                    store: remote(),
                    tls_ca: file(),
                    tls_key: file(),
                    ..Default::default()
                },
                Some("--meta-tls-cert and --meta-tls-key"),
            ),
            (
                MetaFlags {
                    store: remote(),
                    tls_cert: file(),
                    tls_key: file(),
                    ..Default::default()
                },
                Some("needs --meta-tls-ca"),
            ),
        ] {
            let flags = Flags { meta, ..Flags::default() };
            match (load(&flags).map(|_| ()), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(expected)) => {
                    assert!(error.to_string().contains(expected), "{error}");
                }
                (loaded, expected) => panic!("{loaded:?} instead of {expected:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_option_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("interflow.toml");
        std::fs::write(&file, "[ports]\nmqt = 11\n").unwrap();
        let flags = Flags { config: Some(file), ..Flags::default() };
        let error = format!("{:#}", load(&flags).map(|_| ()).unwrap_err());
        assert!(error.contains("mqt"), "{error}");
    }

    #[test]
    fn the_readme_lists_every_setting_and_no_other() {
        let readme = include_str!("../README.md");
        let settings = load(&Flags::default()).unwrap().values().unwrap();
        for (name, value, _) in &settings {
            let row = format!("| `{name}` | `{value}` |");
            assert!(readme.contains(&row), "README.md has no row {row}");
        }
        let section =
            readme.split("\n## ").find(|section| section.starts_with("Settings")).unwrap();
        let listed = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
        for name in listed {
            assert!(settings.iter().any(|(known, ..)| known == name), "there is no setting {name}");
        }
    }
}
