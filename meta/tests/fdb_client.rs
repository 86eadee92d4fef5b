//! What is FoundationDB's own: its client library, its errors, its watches. On the stand-in, which
//! fails as it is told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]
#![allow(clippy::disallowed_methods, reason = "tests use real files and clocks")]

mod fdb_support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fdb_support::{library, network, new_cluster, new_store};
use interflow_meta::{
    Commit, EmbeddedStore, Env, FdbBootError, FdbNetwork, FdbOpenError, FdbStore, KeyRange, Meta,
    MetaError, Mutation, Store, WatchRequest,
};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A test that waits longer hangs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn new_meta() -> (TempDir, FdbStore, Meta) {
    let (folder, store) = new_store().await;
    let meta = Meta::new(Arc::new(store.clone()), Env::default(), "test");
    (folder, store, meta)
}

fn set(key: &'static str) -> Commit {
    Commit { mutations: vec![Mutation::Set(key.into(), "v".into())], ..Commit::default() }
}

/// Tells the stand-in what will fail next.
async fn plan(store: &FdbStore, faults: &'static str) {
    let key = &b"\xff\xff/stand-in/faults"[..];
    let plan = Mutation::Set(key.into(), faults.into());
    let plan = Commit { mutations: vec![plan], ..Commit::default() };
    store.snapshot().await.unwrap().commit(plan).await.unwrap();
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it hangs")
}

/// Runs another of this file's tests in a process of its own, where no cluster file is named, or this.
fn alone(test: &str, cluster_file: Option<&Path>) {
    let mut this = Command::new(std::env::current_exe().unwrap());
    match cluster_file {
        Some(file) => this.env("FDB_CLUSTER_FILE", file),
        None => this.env_remove("FDB_CLUSTER_FILE"),
    };
    let ended = this.args(["--exact", "--ignored", test]).output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
}

/// The dynamic linker doesn't look for the library when this starts.
#[test]
fn the_binary_does_not_name_the_library() {
    let this = std::env::current_exe().unwrap();
    let dynamic = Command::new("readelf").arg("-d").arg(this).output().unwrap();
    let dynamic = String::from_utf8(dynamic.stdout).unwrap();
    let needed: Vec<&str> = dynamic.lines().filter(|line| line.contains("(NEEDED)")).collect();
    assert!(needed.iter().any(|line| line.contains("libc.so")), "{dynamic}");
    assert!(!needed.iter().any(|line| line.contains("fdb")), "{needed:?}");
}

#[test]
fn a_binary_runs_without_the_library() {
    alone("without_the_library", None);
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn without_the_library() {
    let env = Env::default();
    let meta = Meta::new(Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap()), env, "test");
    meta.transact(|tx| async move { tx.set("a", "v") }).await.unwrap();

    let missing = FdbNetwork::boot(Some(Path::new("/nowhere/libfdb_c.so"))).unwrap_err();
    let told = missing.to_string();
    assert!(matches!(missing, FdbBootError::Load { .. }), "{told}");
    assert!(told.contains("/nowhere/libfdb_c.so"), "{told}");
    let other = FdbNetwork::boot(Some(Path::new("libc.so.6"))).unwrap_err();
    assert!(matches!(other, FdbBootError::Symbol { .. }), "{other}");

    // Nothing is lost by trying.
    let network = FdbNetwork::boot(library().as_deref()).unwrap();
    let (_folder, file) = new_cluster("stand_in");
    FdbStore::open(&network, Some(&file)).await.unwrap();
}

#[test]
fn the_client_starts_once_and_stops_with_its_last_handle() {
    alone("started_once", None);
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn started_once() {
    let network = FdbNetwork::boot(library().as_deref()).unwrap();
    let twice = FdbNetwork::boot(library().as_deref()).unwrap_err();
    assert!(matches!(twice, FdbBootError::Twice), "{twice}");
    let (_folder, file) = new_cluster("stand_in");
    let store = FdbStore::open(&network, Some(&file)).await.unwrap();
    drop(network);
    store.snapshot().await.unwrap();
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let running = threads();
    drop(store);
    // Joined; the kernel takes a moment more to forget it.
    let began = Instant::now();
    while threads() >= running {
        assert!(began.elapsed() < PATIENCE, "its thread runs on");
        std::thread::yield_now();
    }
    let again = FdbNetwork::boot(library().as_deref()).unwrap_err();
    assert!(matches!(again, FdbBootError::Twice), "{again}");
}

#[tokio::test]
async fn a_cluster_file_that_is_not_there_is_told_by_name() {
    let refused = FdbStore::open(network(), Some(Path::new("/nowhere/fdb.cluster"))).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, FdbOpenError::NoClusterFile(_)), "{refused}");
    assert!(refused.to_string().contains("/nowhere/fdb.cluster"), "{refused}");
    // A folder can't be read as a file.
    let refused = FdbStore::open(network(), Some(Path::new("/"))).await.unwrap_err();
    assert!(matches!(refused, FdbOpenError::Refused { .. }), "{refused}");
}

#[tokio::test]
async fn a_file_that_is_no_cluster_file_is_told_by_name() {
    let (_folder, file) = new_cluster("stand_in");
    for content in ["", "hello\n", "a:b\n", "a:b@host\n", "a:b@host:x\n", "a:b@h:1\na:b@h:1\n"] {
        std::fs::write(&file, content).unwrap();
        let refused = FdbStore::open(network(), Some(&file)).await.unwrap_err();
        assert!(matches!(refused, FdbOpenError::Refused { .. }), "{content:?}: {refused}");
        let told = refused.to_string();
        assert!(told.contains(&file.display().to_string()), "{told}");
        assert!(told.contains("Connection string invalid"), "{told}");
    }
    std::fs::write(&file, "# a comment\na_b:c1@127.0.0.1:4500,[::1]:4501,host:4502:tls\n").unwrap();
    FdbStore::open(network(), Some(&file)).await.unwrap();
}

#[test]
fn the_variable_names_a_cluster_file() {
    alone("a_variable_that_names_nothing", Some(Path::new("/nowhere/fdb.cluster")));
    let (_folder, file) = new_cluster("stand_in");
    alone("a_variable_that_names_one", Some(&file));
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn a_variable_that_names_nothing() {
    let refused = FdbStore::open(network(), None).await.unwrap_err();
    assert!(matches!(refused, FdbOpenError::NoClusterFile(_)), "{refused}");
    assert!(refused.to_string().contains("/nowhere/fdb.cluster"), "{refused}");
}

#[tokio::test]
#[ignore = "run by another test, in a process of its own"]
async fn a_variable_that_names_one() {
    FdbStore::open(network(), None).await.unwrap();
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_is_told_in_bounded_time() {
    let (_folder, file) = new_cluster("unreachable");
    let began = Instant::now();
    let refused = soon(FdbStore::open(network(), Some(&file))).await.unwrap_err();
    assert!(matches!(refused, FdbOpenError::NoAnswer { seconds: 10, .. }), "{refused}");
    assert!(refused.to_string().contains(&file.display().to_string()), "{refused}");
    assert!(began.elapsed() >= Duration::from_secs(10));
}

/// Each of FoundationDB's errors of a commit is the one that its caller can act on.
#[tokio::test]
async fn errors_of_commits_are_told_apart() {
    let (_folder, store) = new_store().await;
    for (fault, expected) in [
        ("commit:1007", MetaError::TooOld),
        ("commit:1020", MetaError::Conflict),
        ("commit:1021", MetaError::CommitUnknown),
        ("commit:1025", MetaError::CommitUnknown),
        ("commit:1031", MetaError::CommitUnknown),
        ("commit:1039", MetaError::CommitUnknown),
        ("commit:1100", MetaError::CommitUnknown),
        ("commit:2101", MetaError::TransactionTooLarge(4)),
        ("commit:2102", MetaError::KeyTooLarge(3)),
        ("commit:2103", MetaError::ValueTooLarge(1)),
    ] {
        let snapshot = store.snapshot().await.unwrap();
        plan(&store, fault).await;
        assert_eq!(snapshot.commit(set("key")).await, Err(expected), "{fault}");
        let after = store.snapshot().await.unwrap();
        assert_eq!(after.get(b"key").await, Ok(None), "{fault}");
    }
    for fault in ["commit:1037", "commit:1038", "commit:1042", "commit:1051", "commit:1213"] {
        let snapshot = store.snapshot().await.unwrap();
        plan(&store, fault).await;
        let refused = snapshot.commit(set("key")).await.unwrap_err();
        assert!(matches!(refused, MetaError::Unavailable(_)), "{fault}: {refused}");
    }
    let snapshot = store.snapshot().await.unwrap();
    plan(&store, "commit:2108").await;
    let refused = snapshot.commit(set("key")).await.unwrap_err();
    assert!(matches!(refused, MetaError::InvalidOperation(_)) && !refused.is_retryable());
}

#[tokio::test]
async fn errors_of_reads_are_told_apart() {
    let (_folder, store) = new_store().await;
    for code in [1009, 1037, 1038, 1078, 1213] {
        let faults: &'static str = format!("version:{code},read:{code},read:{code}").leak();
        let snapshot = store.snapshot().await.unwrap();
        plan(&store, faults).await;
        for refused in [
            store.snapshot().await.map(drop).unwrap_err(),
            snapshot.get(b"k").await.map(drop).unwrap_err(),
            snapshot.get_range(&KeyRange::new("a", "b"), 1, 1, false).await.map(drop).unwrap_err(),
        ] {
            assert!(matches!(refused, MetaError::Unavailable(_)), "{code}: {refused}");
            assert!(refused.to_string().contains(&code.to_string()), "{refused}");
        }
    }
    let snapshot = store.snapshot().await.unwrap();
    plan(&store, "read:1007,read:2004").await;
    assert_eq!(snapshot.get(b"k").await, Err(MetaError::TooOld));
    assert_eq!(snapshot.get(b"k").await, Err(MetaError::KeyOutsideLegalRange));
}

/// The retry loop gets through, and what may have been made is made once.
#[tokio::test]
async fn unknown_commits_are_resolved_both_ways() {
    let (_folder, store, meta) = new_meta().await;
    for (fault, was_made) in [("commit:1021+made", true), ("commit:1021", false)] {
        plan(&store, fault).await;
        let token = &fault.as_bytes().to_vec();
        let found = meta
            .transact(|tx| async move {
                let found = tx.get(token).await?.is_some();
                assert!(tx.is_maybe_committed() || !found);
                if !found {
                    tx.set(token.clone(), "t")?;
                    tx.add("n", 1)?;
                }
                Ok::<_, MetaError>(found)
            })
            .await
            .unwrap();
        assert_eq!(found, was_made);
    }
    assert_eq!(meta.begin().get(b"n").await.unwrap().unwrap()[..], 2_u64.to_le_bytes());
}

#[tokio::test]
async fn a_commit_that_is_never_answered_is_unknown_in_bounded_time() {
    let (_folder, store) = new_store().await;
    let snapshot = store.snapshot().await.unwrap();
    plan(&store, "commit:hang").await;
    assert_eq!(soon(snapshot.commit(set("k"))).await, Err(MetaError::CommitUnknown));
}

#[tokio::test]
async fn a_commit_goes_on_when_nobody_waits_for_it() {
    let (_folder, _store, meta) = new_meta().await;
    let watching = meta.transact(|tx| async move { tx.watch("k").await }).await.unwrap();
    let tx = meta.begin();
    tx.read_version().await.unwrap();
    tx.set("k", "v").unwrap();
    tokio::select! {
        biased;
        ended = tx.commit() => panic!("it was not waited for: {ended:?}"),
        () = std::future::ready(()) => {}
    }
    soon(watching.changed()).await.unwrap();
    assert_eq!(meta.begin().get(b"k").await.unwrap(), Some("v".into()));
}

/// What is under way when the store is closed is finished, also if nobody waits for it.
#[tokio::test]
async fn closing_waits_for_commits() {
    let (_folder, store, meta) = new_meta().await;
    let tx = meta.begin();
    tx.read_version().await.unwrap();
    tx.set("k", "v").unwrap();
    tokio::select! {
        biased;
        ended = tx.commit() => panic!("it was not waited for: {ended:?}"),
        () = std::future::ready(()) => {}
    }
    soon(meta.close()).await;
    let after = store.snapshot().await.unwrap();
    assert_eq!(after.get(b"k").await, Ok(Some("v".into())));
    let refused = after.commit(set("k")).await;
    assert!(matches!(refused, Err(MetaError::Unavailable(_))), "{refused:?}");
}

/// A watch that FoundationDB ends, as it does when its servers are replaced, begins anew.
#[tokio::test]
async fn a_watch_survives_the_clusters_errors() {
    let (_folder, store, meta) = new_meta().await;
    plan(&store, "watch:1039,watch:1101").await;
    let watching = meta.transact(|tx| async move { tx.watch("k").await }).await.unwrap();
    meta.transact(|tx| async move { tx.set("k", "v") }).await.unwrap();
    soon(watching.changed()).await.unwrap();
    plan(&store, "watch:2108").await;
    let watching = meta.transact(|tx| async move { tx.watch("k").await }).await.unwrap();
    let ended = soon(watching.changed()).await;
    assert!(matches!(ended, Err(MetaError::Unavailable(_))), "{ended:?}");
}

#[tokio::test]
async fn watches_have_a_bound_and_those_given_up_make_room() {
    let (_folder, store) = new_store().await;
    let watches = |count| -> (Vec<WatchRequest>, Vec<oneshot::Receiver<()>>) {
        let watch = |_| {
            let (fire, fired) = oneshot::channel();
            (WatchRequest { key: "k".into(), seen: None, fire }, fired)
        };
        (0..count).map(watch).unzip()
    };
    let snapshot = store.snapshot().await.unwrap();
    let (requests, _fired) = watches(100_001);
    let refused = snapshot.commit(Commit { watches: requests, ..set("x") }).await.unwrap_err();
    assert_eq!((&refused, refused.code()), (&MetaError::TooManyWatches, Some(1032)));
    let after = store.snapshot().await.unwrap();
    assert_eq!(after.get(b"x").await, Ok(None), "nothing was written");
    let (requests, fired) = watches(100_000);
    snapshot.commit(Commit { watches: requests, ..Commit::default() }).await.unwrap();
    let one_more = async || {
        let (requests, _fired) = watches(1);
        snapshot.commit(Commit { watches: requests, ..Commit::default() }).await
    };
    assert_eq!(one_more().await, Err(MetaError::TooManyWatches));
    drop(fired);
    soon(async {
        while one_more().await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Background work runs at batch priority, which a busy cluster holds up first.
#[tokio::test]
async fn background_work_gives_way() {
    let (_folder, store, meta) = new_meta().await;
    plan(&store, "batch:1051").await;
    meta.transact(|tx| async move { tx.set("k", "v") }).await.unwrap();
    let background = meta.background();
    let held_up = background.begin().get(b"k").await.unwrap_err();
    assert!(matches!(held_up, MetaError::Unavailable(_)), "{held_up}");
    background.transact(|tx| async move { tx.set("k", "w") }).await.unwrap();
    assert_eq!(meta.begin().get(b"k").await.unwrap(), Some("w".into()));
}
