//! The stand-in keeps the promises of FoundationDB's C API that the store doesn't ask for itself, by
//! the client crate alone. Against a real cluster these hold too; there is nothing to test there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "tests use real files and clocks")]

mod fdb_support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fdb_support::{network, new_cluster};
use foundationdb::options::{
    ConflictRangeType, DatabaseOption, MutationType, StreamingMode, TransactionOption,
};
use foundationdb::{Database, FdbError, KeySelector, RangeOption, Transaction};
use interflow_meta::{EmbeddedStore, Env, ServeOptions, serve};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn open() -> (TempDir, Database) {
    network();
    let (folder, file) = new_cluster("stand_in");
    (folder, Database::from_path(file.to_str().unwrap()).unwrap())
}

fn code<T>(result: Result<T, impl Into<FdbError>>) -> i32 {
    match result {
        Ok(_) => 0,
        Err(error) => error.into().code(),
    }
}

async fn fill(database: &Database, keys: impl IntoIterator<Item = String>) {
    let transaction = database.create_trx().unwrap();
    for key in keys {
        transaction.set(key.as_bytes(), &[b'v'; 100]);
    }
    transaction.commit().await.unwrap();
}

async fn set(database: &Database, key: &str) {
    fill(database, [key.to_owned()]).await;
}

#[tokio::test]
async fn selectors_name_keys_by_their_place() {
    let (_folder, database) = open();
    fill(&database, ["b", "d", "f"].map(String::from)).await;
    let transaction = database.create_trx().unwrap();
    for (selector, key) in [
        (KeySelector::first_greater_or_equal(&b"d"[..]), &b"d"[..]),
        (KeySelector::first_greater_than(&b"d"[..]), b"f"),
        (KeySelector::last_less_or_equal(&b"c"[..]), b"b"),
        (KeySelector::last_less_than(&b"f"[..]), b"d"),
        (KeySelector::new((&b"a"[..]).into(), false, 3), b"f"),
        (KeySelector::new((&b"a"[..]).into(), false, 4), b"\xff"),
        (KeySelector::last_less_than(&b"b"[..]), b""),
    ] {
        assert_eq!(&transaction.get_key(&selector, true).await.unwrap()[..], key, "{selector:?}");
    }
    let option = RangeOption::from((
        KeySelector::first_greater_than(&b"b"[..]),
        KeySelector::first_greater_than(&b"f"[..]),
    ));
    let rows = transaction.get_range(&option, 1, true).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.key().to_vec()).collect::<Vec<_>>(), [b"d", b"f"]);
}

/// Each mode has its own size of an answer; all of them come to the end, in both directions.
#[tokio::test]
async fn ranges_come_in_answers_of_the_modes_sizes() {
    let (_folder, database) = open();
    fill(&database, (0..500).map(|n| format!("{n:03}"))).await;
    let transaction = database.create_trx().unwrap();
    for (mode, first) in [
        (StreamingMode::Small, 3),
        (StreamingMode::Medium, 10),
        (StreamingMode::Large, 37),
        (StreamingMode::Iterator, 37),
        (StreamingMode::Serial, 500),
        (StreamingMode::WantAll, 500),
    ] {
        for reverse in [false, true] {
            let range = || RangeOption::from((b"0".to_vec(), b"9".to_vec()));
            let mut option = RangeOption { mode, reverse, ..range() };
            let (mut keys, mut iteration) = (Vec::new(), 1);
            loop {
                let rows = transaction.get_range(&option, iteration, true).await.unwrap();
                if iteration == 1 {
                    assert_eq!((rows.len(), rows.more()), (first, first < 500), "{mode:?}");
                }
                keys.extend(rows.iter().map(|row| row.key().to_vec()));
                iteration += 1;
                match option.next_range(&rows) {
                    Some(next) => option = next,
                    None => break,
                }
            }
            let mut expected: Vec<_> = (0..500).map(|n| format!("{n:03}").into_bytes()).collect();
            if reverse {
                expected.reverse();
            }
            assert_eq!(keys, expected, "{mode:?}");
        }
    }
    let exact = RangeOption { mode: StreamingMode::Exact, ..RangeOption::default() };
    assert_eq!(code(transaction.get_range(&exact, 1, true).await), 2210);
    let limited = RangeOption {
        limit: Some(2),
        mode: StreamingMode::Exact,
        ..RangeOption::from((b"0".to_vec(), b"9".to_vec()))
    };
    let rows = transaction.get_range(&limited, 1, true).await.unwrap();
    assert_eq!((rows.len(), rows.more()), (2, true));
}

#[tokio::test]
async fn plain_reads_conflict_and_snapshot_reads_do_not() {
    let (_folder, database) = open();
    fill(&database, ["b", "d"].map(String::from)).await;
    let range = RangeOption::from((b"a".to_vec(), b"c".to_vec()));
    for (is_snapshot, expected) in [(false, 1020), (true, 0)] {
        for kind in 0..3 {
            let transaction = database.create_trx().unwrap();
            match kind {
                0 => drop(transaction.get(b"b", is_snapshot).await.unwrap()),
                1 => {
                    let selector = KeySelector::first_greater_than(&b"a"[..]);
                    transaction.get_key(&selector, is_snapshot).await.unwrap();
                }
                _ => drop(transaction.get_range(&range, 1, is_snapshot).await.unwrap()),
            }
            transaction.set(b"x", b"v");
            set(&database, "b").await;
            assert_eq!(code(transaction.commit().await), expected, "{kind}");
        }
    }
}

#[tokio::test]
async fn versions_can_be_read_again_and_not_before_they_are() {
    let (_folder, database) = open();
    set(&database, "k").await;
    let first = database.create_trx().unwrap().get_read_version().await.unwrap();
    let transaction = database.create_trx().unwrap();
    transaction.clear(b"k");
    transaction.commit().await.unwrap();
    let again = database.create_trx().unwrap();
    again.set_read_version(first);
    assert!(again.get(b"k", true).await.unwrap().is_some());
    let future = database.create_trx().unwrap();
    future.set_read_version(first + 1_000_000);
    assert_eq!(code(future.get(b"k", true).await), 1009);
}

#[tokio::test]
async fn errors_of_writes_are_the_commits() {
    let (_folder, database) = open();
    let long = vec![1; 10_001];
    type Write<'a> = &'a dyn Fn(&Transaction);
    let cases: [(i32, Write<'_>); 6] = [
        (2102, &|transaction| transaction.set(&long, b"v")),
        (2103, &|transaction| transaction.set(b"k", &vec![1; 100_001])),
        (2004, &|transaction| transaction.set(b"\xff", b"v")),
        (2005, &|transaction| transaction.clear_range(b"b", b"a")),
        (2000, &|transaction| {
            let kind = MutationType::SetVersionstampedKey;
            transaction.atomic_op(b"k\x09\0\0\0", b"v", kind);
        }),
        (2101, &|transaction| {
            for n in 0..101_u8 {
                transaction.set(&[n], &vec![1; 100_000]);
            }
        }),
    ];
    for (expected, write) in cases {
        let transaction = database.create_trx().unwrap();
        write(&transaction);
        assert_eq!(code(transaction.commit().await), expected);
    }
    let transaction = database.create_trx().unwrap();
    let inverted = transaction.add_conflict_range(b"b", b"a", ConflictRangeType::Read);
    assert_eq!(code(inverted), 2005);
    let stamp = transaction.get_versionstamp();
    transaction.commit().await.unwrap();
    assert_eq!(code(stamp.await), 2021, "it wrote nothing");
}

#[tokio::test]
async fn sizes_are_counted_and_limited() {
    let (_folder, database) = open();
    database.set_option(DatabaseOption::TransactionSizeLimit(1_000)).unwrap();
    let transaction = database.create_trx().unwrap();
    transaction.set(b"k", &[1; 999]);
    assert_eq!(transaction.get_approximate_size().await.unwrap(), 1_000);
    transaction.commit().await.unwrap();
    let transaction = database.create_trx().unwrap();
    transaction.set(b"k", &[1; 1_000]);
    assert_eq!(code(transaction.commit().await), 2101);
}

#[tokio::test]
async fn on_error_waits_and_begins_anew_as_often_as_it_may() {
    let (_folder, database) = open();
    let transaction = database.create_trx().unwrap();
    transaction.set_option(TransactionOption::RetryLimit(2)).unwrap();
    transaction.set(b"k", b"v");
    let conflict = FdbError::from_code(1020);
    let transaction = transaction.on_error(conflict).await.unwrap();
    assert_eq!(transaction.get_approximate_size().await.unwrap(), 0, "it holds nothing any more");
    let transaction = transaction.on_error(conflict).await.unwrap();
    assert_eq!(code(transaction.on_error(conflict).await), 1020);
    let transaction = database.create_trx().unwrap();
    assert_eq!(code(transaction.on_error(FdbError::from_code(2101)).await), 2101);
}

#[tokio::test]
async fn time_is_limited_and_what_is_cancelled_ends() {
    let (_folder, file) = new_cluster("unreachable");
    network();
    let database = Database::from_path(file.to_str().unwrap()).unwrap();
    let transaction = database.create_trx().unwrap();
    transaction.set_option(TransactionOption::Timeout(20)).unwrap();
    assert_eq!(code(transaction.get_read_version().await), 1031);

    let transaction = database.create_trx().unwrap();
    let waiting = transaction.get_read_version();
    let cancelled = transaction.cancel();
    assert_eq!(code(waiting.await), 1025);
    let mut transaction = cancelled.reset();
    let waiting = transaction.get(b"k", true);
    transaction.reset();
    assert_eq!(code(waiting.await), 1025);
    let waiting = transaction.get(b"k", true);
    drop(transaction);
    assert_eq!(code(waiting.await), 1025);
}

#[tokio::test]
async fn watches_have_their_rules() {
    let (_folder, database) = open();
    let transaction = database.create_trx().unwrap();
    transaction.set_option(TransactionOption::ReadYourWritesDisable).unwrap();
    assert_eq!(code(transaction.watch(b"k").await), 1034);

    // A watch ends with a transaction that is not committed.
    let transaction = database.create_trx().unwrap();
    let watch = transaction.watch(b"k");
    drop(transaction);
    assert_eq!(code(watch.await), 1025);

    database.set_option(DatabaseOption::MaxWatches(1)).unwrap();
    let transaction = database.create_trx().unwrap();
    let watch = transaction.watch(b"k");
    assert_eq!(code(transaction.watch(b"k").await), 1032);
    transaction.commit().await.unwrap();
    set(&database, "other").await;
    let early = tokio::time::timeout(Duration::from_millis(20), watch).await;
    assert!(early.is_err(), "nothing has changed");

    // That one was given up, so there is room for another.
    for n in 0_u64.. {
        let transaction = database.create_trx().unwrap();
        let watch = transaction.watch(b"k");
        transaction.commit().await.unwrap();
        let transaction = database.create_trx().unwrap();
        transaction.set(b"k", &n.to_be_bytes());
        transaction.commit().await.unwrap();
        match code(watch.await) {
            1032 => tokio::task::yield_now().await,
            fired => {
                assert_eq!(fired, 0);
                break;
            }
        }
    }
}

/// The client crate's own retry loop, on conflicts.
#[tokio::test]
async fn of_many_increments_none_is_lost() {
    let (_folder, database) = open();
    increment(&[database], 8).await;
}

/// Increments a number `each` times by each of `databases` at once, and sees it at all of them.
async fn increment(databases: &[Database], each: u8) {
    let one = async |database: &Database| {
        let increment = |transaction: foundationdb::RetryableTransaction, _| async move {
            let old = transaction.get(b"n", false).await?.map_or(0, |value| value[0]);
            transaction.set(b"n", &[old + 1]);
            Ok(())
        };
        database.run(increment).await.unwrap();
    };
    let all = databases.iter().flat_map(|database| (0..each).map(move |_| database));
    futures_util::future::join_all(all.map(one)).await;
    let sum = each * u8::try_from(databases.len()).unwrap();
    for database in databases {
        let transaction = database.create_trx().unwrap();
        assert_eq!(&transaction.get(b"n", true).await.unwrap().unwrap()[..], [sum]);
    }
}

/// A server of a store in memory at `address`; it ends when what it gives back is cancelled.
async fn serve_at(address: &str) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let store = Arc::new(EmbeddedStore::in_memory(Env::default()).unwrap());
    let closing = CancellationToken::new();
    let serving = serve(listener, store, Env::default(), ServeOptions::default(), closing.clone());
    let ended = tokio::spawn(async move { serving.await.unwrap() });
    (address, closing, ended)
}

/// A database of the shared cluster at `address`, by a file of its own.
fn open_shared(address: SocketAddr) -> (TempDir, Database) {
    network();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fdb.cluster");
    std::fs::write(&file, format!("shared:id@{address}\n")).unwrap();
    let database = Database::from_path(file.to_str().unwrap()).unwrap();
    (folder, database)
}

/// Files are told apart as processes are: nothing but the server is common to them.
#[tokio::test]
async fn a_shared_cluster_is_one_for_all_of_its_files() {
    let (address, _closing, _) = serve_at("127.0.0.1:0").await;
    let (folders, databases): (Vec<_>, Vec<_>) = (0..3).map(|_| open_shared(address)).unzip();
    increment(&databases, 5).await;

    let [one, other, _] = &databases[..] else { panic!() };
    let transaction = one.create_trx().unwrap();
    let watch = transaction.watch(b"k");
    transaction.commit().await.unwrap();
    set(other, "k").await;
    watch.await.unwrap();

    // A fault is of the process that planned it.
    let transaction = one.create_trx().unwrap();
    transaction.set(b"\xff\xff/stand-in/faults", b"commit:1021");
    transaction.commit().await.unwrap();
    set(other, "k").await;
    let transaction = one.create_trx().unwrap();
    transaction.set(b"k", b"v");
    assert_eq!(code(transaction.commit().await), 1021);
    drop(folders);
}

/// As FoundationDB's client: a cluster that is away is waited for, until the transaction's time is up.
#[tokio::test]
async fn a_shared_cluster_that_is_away_is_waited_for() {
    let (address, closing, ended) = serve_at("127.0.0.1:0").await;
    let (_folder, database) = open_shared(address);
    set(&database, "k").await;
    closing.cancel();
    ended.await.unwrap();
    let transaction = database.create_trx().unwrap();
    transaction.set_option(TransactionOption::Timeout(50)).unwrap();
    assert_eq!(code(transaction.get(b"k", true).await), 1031);

    let transaction = database.create_trx().unwrap();
    let reading = transaction.get(b"k", true);
    let (_, _closing, _) = serve_at(&address.to_string()).await;
    assert_eq!(reading.await.unwrap().as_deref(), None, "it is a new store");
}
