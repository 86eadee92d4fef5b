//! Where the metadata is: what `--meta` says, and how to get there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, bail};
use interflow_meta::{
    ClientTls, EmbeddedOptions, EmbeddedStore, Env, OpenError, RemoteOptions, RemoteStore, Store,
    Token,
};
use serde::{Deserialize, Serialize};

use crate::foundationdb;

/// The file of the embedded store in the data folder.
pub const META_FILE: &str = "meta.redb";
/// The root of all keys, in every store.
pub const META_ROOT: &str = "interflow";

/// A store of metadata, by its address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MetaAddress {
    /// `embedded`: a file in the data folder, of one process at a time.
    #[default]
    Embedded,
    /// `remote:HOST:PORT`: an `interflow meta serve`.
    Remote {
        /// A name or an IP address; one of version 6 stands in brackets.
        host: String,
        /// Its port.
        port: u16,
    },
    /// `fdb` or `fdb:FILE`: a FoundationDB cluster, by its cluster file.
    FoundationDb {
        /// `None` is the one that FoundationDB's client finds by itself.
        cluster_file: Option<PathBuf>,
    },
}

/// Why an address can't be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// None of the kinds.
    #[error(
        "`{0}` is no address of a metadata store: say embedded, remote:HOST:PORT, fdb or \
         fdb:CLUSTER_FILE"
    )]
    UnknownKind(String),
    /// A server without host or port.
    #[error("`{0}` names no server: say remote:HOST:PORT, such as remote:localhost:7070")]
    NoServer(String),
}

impl FromStr for MetaAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = match text.split_once(':') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (text, None),
        };
        match (kind, rest) {
            ("embedded", None) => Ok(Self::Embedded),
            ("remote", Some(server)) => server_of(server)
                .map(|(host, port)| Self::Remote { host, port })
                .ok_or_else(|| AddressError::NoServer(text.to_owned())),
            ("remote", None) => Err(AddressError::NoServer(text.to_owned())),
            ("foundationdb" | "fdb", None) => Ok(Self::FoundationDb { cluster_file: None }),
            ("foundationdb" | "fdb", Some(file)) if !file.is_empty() => {
                Ok(Self::FoundationDb { cluster_file: Some(file.into()) })
            }
            _ => Err(AddressError::UnknownKind(text.to_owned())),
        }
    }
}

/// Host and port; an IPv6 address without brackets would be ambiguous.
fn server_of(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let is_v6 = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains([':', '/']) && !is_v6) {
        return None;
    }
    Some((host.to_owned(), port.parse().ok()?))
}

impl fmt::Display for MetaAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded => f.write_str("embedded"),
            Self::Remote { host, port } => write!(f, "remote:{host}:{port}"),
            Self::FoundationDb { cluster_file: None } => f.write_str("fdb"),
            Self::FoundationDb { cluster_file: Some(file) } => {
                write!(f, "fdb:{}", file.display())
            }
        }
    }
}

impl TryFrom<String> for MetaAddress {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MetaAddress> for String {
    fn from(address: MetaAddress) -> Self {
        address.to_string()
    }
}

/// What it takes to open a store, besides its address.
#[derive(Debug)]
pub struct Access<'a> {
    /// The folder of an embedded store.
    pub data_dir: &'a Path,
    /// Make an embedded store if there is none.
    pub create: bool,
    /// What a remote store wants to know.
    pub token: Option<Token>,
    /// CAs of a remote store's certificate, in a PEM file: speak TLS.
    pub tls_ca: Option<&'a Path>,
    /// Certificate and key to show to a remote store, in PEM files.
    pub tls_identity: Option<(&'a Path, &'a Path)>,
    /// FoundationDB's client library, where the system doesn't find it.
    pub fdb_library: Option<&'a Path>,
}

impl<'a> Access<'a> {
    /// For the embedded store of `data_dir`, made if there is none.
    #[must_use]
    pub fn folder(data_dir: &'a Path) -> Self {
        Self {
            data_dir,
            create: true,
            token: None,
            tls_ca: None,
            tls_identity: None,
            fdb_library: None,
        }
    }
}

/// The variable with the token of a remote store.
pub const META_TOKEN: &str = "INTERFLOW_META_TOKEN";

/// The token in `file`, or else in the environment's `variable`; a line's end is no part of it.
///
/// # Errors
/// A file that can't be read; a text that is no token.
pub fn read_token(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<Token>> {
    let (text, source) = match file {
        Some(file) => {
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            (text, file.display().to_string())
        }
        None => match std::env::var(variable) {
            Ok(text) => (text, variable.to_owned()),
            Err(_) => return Ok(None),
        },
    };
    Token::new(text.trim_end_matches(['\r', '\n'])).map(Some).context(source)
}

/// Opens the store at `address`; a remote one has answered then.
///
/// # Errors
/// What is wrong, for people: another process on the folder, a damaged file, a server that can't be
/// reached or refuses.
pub async fn open(
    address: &MetaAddress,
    access: &Access<'_>,
    env: Env,
) -> anyhow::Result<Arc<dyn Store>> {
    match address {
        MetaAddress::Embedded => open_embedded(access, env).await,
        MetaAddress::Remote { host, port } => open_remote(host, *port, access).await,
        MetaAddress::FoundationDb { cluster_file } => {
            foundationdb::open(access.fdb_library, cluster_file.as_deref()).await
        }
    }
}

async fn open_embedded(access: &Access<'_>, env: Env) -> anyhow::Result<Arc<dyn Store>> {
    let (folder, file) = (access.data_dir, access.data_dir.join(META_FILE));
    if access.create {
        std::fs::create_dir_all(folder).with_context(|| {
            format!("cannot make the data folder {} (see --data-dir)", folder.display())
        })?;
    } else if !file.exists() {
        bail!("there is no metadata in {} (see --data-dir)", folder.display());
    }
    let options = EmbeddedOptions::default();
    let opening = file.clone();
    let opened =
        tokio::task::spawn_blocking(move || EmbeddedStore::open(&opening, &options, env)).await?;
    match opened {
        Ok(store) => Ok(Arc::new(store)),
        Err(OpenError::Locked) => bail!(
            "another interflow runs on {}: end that one, or choose another folder with --data-dir",
            folder.display()
        ),
        Err(other) => {
            Err(anyhow::Error::new(other).context(format!("cannot open {}", file.display())))
        }
    }
}

async fn open_remote(host: &str, port: u16, access: &Access<'_>) -> anyhow::Result<Arc<dyn Store>> {
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let identity_pem = match access.tls_identity {
        Some((cert, key)) => Some((read(cert)?, read(key)?)),
        None => None,
    };
    let tls = match access.tls_ca {
        Some(ca) => Some(ClientTls { ca_pem: read(ca)?, identity_pem }),
        None => None,
    };
    let options =
        RemoteOptions { token: access.token.clone(), tls, ..RemoteOptions::new(host, port) };
    let store = RemoteStore::connect(options)
        .await
        .with_context(|| format!("cannot use the metadata store at {host}:{port}"))?;
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_and_written_alike() {
        let remote = |host: &str, port| MetaAddress::Remote { host: host.to_owned(), port };
        let cluster = |file: Option<&str>| MetaAddress::FoundationDb {
            cluster_file: file.map(PathBuf::from),
        };
        for (text, address) in [
            ("embedded", MetaAddress::Embedded),
            ("remote:localhost:7070", remote("localhost", 7070)),
            ("remote:[::1]:7070", remote("[::1]", 7070)),
            ("fdb", cluster(None)),
            ("fdb:/etc/foundationdb/fdb.cluster", cluster(Some("/etc/foundationdb/fdb.cluster"))),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn fdb_has_a_long_name() {
        for (short, long) in [("fdb", "foundationdb"), ("fdb:/a", "foundationdb:/a")] {
            assert_eq!(short.parse::<MetaAddress>(), long.parse());
        }
    }

    #[test]
    fn what_is_no_address_is_told() {
        for text in ["", "embeded", "embedded:x", "fdb:", "etcd:localhost:1"] {
            let told = text.parse::<MetaAddress>().unwrap_err();
            assert_eq!(told, AddressError::UnknownKind(text.to_owned()));
        }
        for text in [
            "remote",
            "remote:",
            "remote:localhost",
            "remote::1",
            "remote:::1:7070",
            "remote:a:65536",
            "remote:http://a:1",
        ] {
            let told = text.parse::<MetaAddress>().unwrap_err();
            assert_eq!(told, AddressError::NoServer(text.to_owned()));
        }
    }
}
