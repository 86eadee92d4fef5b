//! The store on FoundationDB does what all stores do.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod conformance;
mod fdb_support;

use std::sync::Arc;

use conformance::{Provided, conformance_tests};
use fdb_support::{network, new_store, real_cluster};
use interflow_meta::{Env, FdbStore};

async fn open(_: Env) -> Provided {
    let Some(file) = real_cluster() else {
        let (folder, store) = new_store().await;
        return Provided {
            store: Arc::new(store),
            is_shared: false,
            has_real_clock: true,
            guard: Box::new(folder),
        };
    };
    let store = FdbStore::open(network(), Some(&file)).await.expect("the cluster answers");
    Provided { store: Arc::new(store), is_shared: true, has_real_clock: true, guard: Box::new(()) }
}

conformance_tests!(open);
