//! Opens the metadata store that the configuration names.

use std::sync::Arc;

use anyhow::Context;
use interflow_meta::{Backend, EmbeddedOptions, EmbeddedStore, Env, Store};

use crate::config::Config;
use crate::meta_store::{self, Access, META_TOKEN, MetaAddress, read_token};

/// The store of `config`. An embedded one is on `embedded`; for any other, that is but the lock of
/// the data folder, if there is one.
///
/// # Errors
/// What is wrong, with the flag or command that cures it.
pub(super) async fn open(
    config: &Config,
    embedded: Option<Arc<dyn Backend>>,
    env: Env,
) -> anyhow::Result<Arc<dyn Store>> {
    match &config.meta.store {
        MetaAddress::Embedded => {
            let embedded = embedded.context("there is no folder for embedded metadata")?;
            let options = EmbeddedOptions { cache_bytes: config.storage.meta_cache_bytes };
            let opened = tokio::task::spawn_blocking(move || {
                EmbeddedStore::open_on(embedded, &options, env)
            });
            let folder = config.data_dir.0.display().to_string();
            let store =
                opened.await?.with_context(|| format!("cannot open the data folder {folder}"))?;
            Ok(Arc::new(store))
        }
        address => {
            let meta = &config.meta;
            let access = Access {
                token: read_token(meta.token_file.as_deref(), META_TOKEN)?,
                tls_ca: meta.tls_ca.as_deref(),
                tls_identity: meta.tls_cert.as_deref().zip(meta.tls_key.as_deref()),
                fdb_library: meta.fdb_library.as_deref(),
                ..Access::folder(&config.data_dir.0)
            };
            meta_store::open(address, &access, env).await
        }
    }
}
