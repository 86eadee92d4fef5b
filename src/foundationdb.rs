//! Opens a metadata store on FoundationDB, in a binary that has its client (feature `fdb`).

use std::path::Path;
use std::sync::Arc;

use interflow_meta::Store;

/// The store of the cluster of `cluster_file`, by the client `library`; for each, `None` is what the
/// system finds. Once in the life of a process.
///
/// # Errors
/// What is missing, with what cures it: a binary with the client, the library, the cluster.
#[cfg(feature = "fdb")]
pub(crate) async fn open(
    library: Option<&Path>,
    cluster_file: Option<&Path>,
) -> anyhow::Result<Arc<dyn Store>> {
    use anyhow::Context;
    use interflow_meta::{FdbNetwork, FdbStore};

    let library = library.map(Path::to_owned);
    let network = tokio::task::spawn_blocking(move || FdbNetwork::boot(library.as_deref()))
        .await?
        .context("install FoundationDB's client, or say where its library is with --fdb-library")?;
    let store = FdbStore::open(&network, cluster_file).await.context("cannot use --meta fdb")?;
    Ok(Arc::new(store))
}

/// As with the feature, without it.
#[cfg(not(feature = "fdb"))]
pub(crate) async fn open(_: Option<&Path>, _: Option<&Path>) -> anyhow::Result<Arc<dyn Store>> {
    anyhow::bail!(
        "this binary has no FoundationDB client in it: build one that has with `cargo build \
         --release --features fdb`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_missing_is_told() {
        let library = Path::new("/nowhere/libfdb_c.so");
        let told = open(Some(library), None).await.map(drop).unwrap_err();
        let told = format!("{told:#}");
        let cure = if cfg!(feature = "fdb") { "--fdb-library" } else { "--features fdb" };
        assert!(told.contains(cure), "{told}");
    }
}
