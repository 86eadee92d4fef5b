//! FoundationDB for tests: the stand-in, or a real cluster.
//!
//! - `INTERFLOW_TEST_FDB_CLUSTER` names the cluster file of a real cluster. Without it each store has
//!   a cluster of its own in the stand-in.
//! - `INTERFLOW_TEST_FDB_LIBRARY` names the client library; without it that is the stand-in where
//!   cargo builds it, and for a real cluster `libfdb_c.so` on the dynamic linker's path.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "not every test needs all of it")]
#![allow(clippy::disallowed_methods, reason = "tests use real files and clocks")]

use std::path::PathBuf;
use std::sync::LazyLock;

use interflow_meta::{FdbNetwork, FdbStore};
use tempfile::TempDir;

/// The client library; `None` is the default one.
pub(crate) fn library() -> Option<PathBuf> {
    let named = std::env::var_os("INTERFLOW_TEST_FDB_LIBRARY").map(PathBuf::from);
    if named.is_some() || real_cluster().is_some() {
        return named;
    }
    // target/debug/deps/<this test>, and target/debug/libfdb_c.so.
    let this = std::env::current_exe().unwrap();
    let library = this.parent().unwrap().parent().unwrap().join("libfdb_c.so");
    assert!(
        library.exists(),
        "there is no {}: build it with `cargo build -p interflow-fdb-stand-in`",
        library.display()
    );
    Some(library)
}

/// The cluster file of a real cluster.
pub(crate) fn real_cluster() -> Option<PathBuf> {
    std::env::var_os("INTERFLOW_TEST_FDB_CLUSTER").map(PathBuf::from)
}

/// The client, started at the first call and stopped when the process exits.
pub(crate) fn network() -> &'static FdbNetwork {
    static NETWORK: LazyLock<FdbNetwork> =
        LazyLock::new(|| match FdbNetwork::boot(library().as_deref()) {
            Ok(network) => network,
            Err(error) => panic!("{error}"),
        });
    &NETWORK
}

/// A cluster file of the stand-in, of a cluster that nobody else uses.
pub(crate) fn new_cluster(description: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fdb.cluster");
    std::fs::write(&file, format!("{description}:id@127.0.0.1:4500\n")).unwrap();
    (folder, file)
}

/// A store on a new cluster of the stand-in.
pub(crate) async fn new_store() -> (TempDir, FdbStore) {
    let (folder, file) = new_cluster("stand_in");
    (folder, FdbStore::open(network(), Some(&file)).await.unwrap())
}
