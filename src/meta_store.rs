//! Where the metadata is: what `--meta` says.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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
    /// `foundationdb` or `foundationdb:FILE`: a cluster, by its cluster file.
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
        "`{0}` is no address of a metadata store: say embedded, remote:HOST:PORT, foundationdb or \
         foundationdb:CLUSTER_FILE"
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
            ("foundationdb", None) => Ok(Self::FoundationDb { cluster_file: None }),
            ("foundationdb", Some(file)) if !file.is_empty() => {
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
            Self::FoundationDb { cluster_file: None } => f.write_str("foundationdb"),
            Self::FoundationDb { cluster_file: Some(file) } => {
                write!(f, "foundationdb:{}", file.display())
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
            ("foundationdb", cluster(None)),
            (
                "foundationdb:/etc/foundationdb/fdb.cluster",
                cluster(Some("/etc/foundationdb/fdb.cluster")),
            ),
        ] {
            assert_eq!(text.parse(), Ok(address.clone()), "{text}");
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_told() {
        for text in ["", "embeded", "embedded:x", "foundationdb:", "etcd:localhost:1"] {
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
