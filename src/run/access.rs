//! Who may call the log service, and how this process gets into that of others.

use std::path::Path;

use anyhow::Context;
use interflow_logstore::NodeAccess;
use interflow_meta::{ClientTls, ServeOptions, ServerTls};

use crate::config::LogstoreConfig;
use crate::meta_store::read_token;

/// The variable with the token of log stores.
const LOGSTORE_TOKEN: &str = "INTERFLOW_LOGSTORE_TOKEN";

/// Whom a log store serves.
///
/// # Errors
/// A file that can't be read; a text that is no token.
pub(super) fn serve_options(config: &LogstoreConfig) -> anyhow::Result<ServeOptions> {
    let tls = match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Some(ServerTls {
            cert_pem: read(cert)?,
            key_pem: read(key)?,
            client_ca_pem: config.tls_client_ca.as_deref().map(read).transpose()?,
        }),
        _ => None,
    };
    Ok(ServeOptions { token: read_token(config.token_file.as_deref(), LOGSTORE_TOKEN)?, tls })
}

/// How log stores are got into.
///
/// # Errors
/// As [`serve_options`].
pub(super) fn node_access(config: &LogstoreConfig) -> anyhow::Result<NodeAccess> {
    let identity_pem = match (&config.tls_cert, &config.tls_key) {
        (Some(cert), Some(key)) => Some((read(cert)?, read(key)?)),
        _ => None,
    };
    let tls = match &config.tls_ca {
        Some(ca) => Some(ClientTls { ca_pem: read(ca)?, identity_pem }),
        None => None,
    };
    let token = read_token(config.token_file.as_deref(), LOGSTORE_TOKEN)?;
    Ok(NodeAccess { token, tls, ..NodeAccess::default() })
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
