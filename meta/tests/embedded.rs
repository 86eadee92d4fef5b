//! The embedded store does what FoundationDB does.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod conformance;

use std::sync::Arc;

use conformance::{Provided, conformance_tests};
use interflow_meta::{EmbeddedStore, Env, Meta, MetaError};

async fn open(env: Env) -> Provided {
    Provided {
        store: Arc::new(EmbeddedStore::in_memory(env).expect("a store in memory")),
        is_shared: false,
        has_real_clock: false,
        guard: Box::new(()),
    }
}

conformance_tests!(open);

/// A case that nobody lists would be dead code; one that doesn't say what it pins is found here.
#[test]
fn every_case_names_what_it_pins() {
    const PAGES: [&str; 6] = [
        "Developer guide, “",
        "C API, ",
        "Error codes, ",
        "Known limitations, “",
        "Consistency, “",
        "Data modeling, “",
    ];
    for case in conformance::CASES {
        let (module, function) = case.name.split_once("::").unwrap();
        let path = format!("{}/tests/conformance/{module}.rs", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(path).unwrap();
        let begin = source.find(&format!("pub(super) async fn {function}(")).unwrap();
        let doc: Vec<&str> =
            source[..begin].lines().rev().take_while(|line| line.starts_with("///")).collect();
        assert!(
            doc.iter().any(|line| PAGES.iter().any(|page| line.contains(page))),
            "{}",
            case.name
        );
    }
}

/// What an embedded store adds: reads go on when it is closed.
#[tokio::test]
async fn a_closed_store_serves_reads() {
    let env = Env::default();
    let meta = Meta::new(Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap()), env, "test");
    meta.transact(|tx| async move { tx.set("a", "v") }).await.unwrap();
    meta.close().await;
    let tx = meta.begin();
    assert!(tx.get(b"a").await.unwrap().is_some());
    tx.set("a", "w").unwrap();
    assert!(matches!(tx.commit().await, Err(MetaError::Unavailable(_))));
}
