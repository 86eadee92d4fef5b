//! What was acknowledged survives a power cut, whatever part of the unsynced writes is lost; and
//! what survives is a state that the store was in.

#![allow(clippy::disallowed_methods, reason = "tests use real files and clocks")]

use std::collections::BTreeMap;
use std::sync::Arc;

use interflow_meta::{
    Backend, EmbeddedOptions, EmbeddedStore, Env, FaultDisk, KeyRange, MemoryBackend, Meta,
    MetaError, OpenError,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const WRITERS: u8 = 6;
const LIVES: u32 = 3;

/// Transactions by writer: acknowledged for sure, and begun.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    acked: u64,
    begun: u64,
}

fn open(disk: &FaultDisk) -> Result<Meta, String> {
    let env = Env::default();
    let options = EmbeddedOptions { cache_bytes: 1 << 20 };
    let store = EmbeddedStore::open_on(Arc::new(disk.start()), &options, env.clone())
        .map_err(|error| format!("open: {error}"))?;
    Ok(Meta::new(Arc::new(store), env, "test"))
}

fn counter_key(writer: u8) -> Vec<u8> {
    vec![b'c', writer]
}

fn row_key(writer: u8, n: u64) -> Vec<u8> {
    let mut key = vec![b'r', writer];
    key.extend(n.to_be_bytes());
    key
}

/// Transaction `n` of a writer: a row, its own counter, everybody's counter, a stamped row; and the
/// row before the last loses its padding.
async fn write(meta: &Meta, writer: u8, n: u64, padding: usize) -> Result<(), MetaError> {
    let tx = meta.begin();
    tx.set(row_key(writer, n), vec![7; padding])?;
    if let Some(before) = n.checked_sub(2) {
        tx.set(row_key(writer, before), "")?;
    }
    tx.set(counter_key(writer), (n + 1).to_le_bytes().to_vec())?;
    tx.add("total", 1)?;
    tx.set_versionstamped_key([b's'; 11].to_vec(), 1, vec![writer])?;
    tx.commit().await?;
    Ok(())
}

async fn number(meta: &Meta, key: &[u8]) -> Result<u64, String> {
    let value = meta.begin().get(key).await.map_err(|e| e.to_string())?;
    let Some(value) = value else { return Ok(0) };
    let bytes = <[u8; 8]>::try_from(&value[..]).map_err(|e| e.to_string())?;
    Ok(u64::from_le_bytes(bytes))
}

/// Compares what is there with what was promised, and takes it as the new truth.
async fn check(meta: &Meta, progress: &mut BTreeMap<u8, Progress>) -> Result<(), String> {
    let mut total = 0;
    for (writer, progress) in progress.iter_mut() {
        let have = number(meta, &counter_key(*writer)).await?;
        if have < progress.acked || have > progress.begun {
            return Err(format!("writer {writer} has {have} of {progress:?}"));
        }
        let rows = meta
            .begin()
            .get_all(&KeyRange::prefix(&[b'r', *writer]))
            .await
            .map_err(|e| e.to_string())?;
        let expected: Vec<_> = (0..have).map(|n| row_key(*writer, n)).collect();
        if !rows.iter().map(|(key, _)| &key[..]).eq(expected.iter()) {
            return Err(format!("writer {writer}: rows differ from the counter"));
        }
        for (_, value) in rows.iter().rev().skip(2) {
            if !value.is_empty() {
                return Err(format!("writer {writer}: half a transaction"));
            }
        }
        total += have;
        *progress = Progress { acked: have, begun: have };
    }
    let stamped = meta.begin().get_all(&KeyRange::prefix(b"s")).await;
    let stamped = stamped.map_err(|e| e.to_string())?.len();
    if number(meta, b"total").await? != total || u64::try_from(stamped) != Ok(total) {
        return Err(format!("{total} transactions, {stamped} stamps"));
    }
    Ok(())
}

/// Some lives of a store, each ended by a power cut.
async fn live_and_die(seed: u64, is_mutant: bool) -> Result<(), String> {
    let disk = FaultDisk::new(seed);
    if is_mutant {
        disk.ignore_syncs();
    }
    let mut random = StdRng::seed_from_u64(seed);
    let mut progress: BTreeMap<u8, Progress> =
        (0..WRITERS).map(|w| (w, Progress::default())).collect();
    for life in 0..LIVES {
        // Also in the middle of creating or recovering.
        disk.cut_after(random.random_range(1..200));
        if let Ok(meta) = open(&disk) {
            if life > 0 {
                // The power may go while it is checked; only the last check must get through.
                let mut copy = progress.clone();
                if check(&meta, &mut copy).await.is_ok() {
                    progress = copy;
                }
            }
            let mut writers = tokio::task::JoinSet::new();
            for (writer, start) in progress.clone() {
                let meta = meta.clone();
                let mut random = StdRng::seed_from_u64(seed ^ u64::from(writer));
                writers.spawn(async move {
                    let mut progress = start;
                    loop {
                        progress.begun += 1;
                        let padding = random.random_range(0..3_000);
                        if write(&meta, writer, progress.acked, padding).await.is_err() {
                            return (writer, progress);
                        }
                        progress.acked += 1;
                    }
                });
            }
            while let Some(ended) = writers.join_next().await {
                let (writer, ended) = ended.map_err(|e| e.to_string())?;
                progress.insert(writer, ended);
            }
            meta.close().await;
        }
        disk.crash();
    }
    let meta = open(&disk)?;
    check(&meta, &mut progress).await?;
    write(&meta, 0, progress.get(&0).map_or(0, |p| p.acked), 10)
        .await
        .map_err(|error| format!("writing on: {error}"))
}

#[tokio::test]
async fn what_was_acknowledged_survives_power_cuts() {
    for seed in 0..200 {
        if let Err(error) = live_and_die(seed, false).await {
            panic!("seed {seed}: {error}");
        }
    }
}

#[tokio::test]
async fn a_store_that_does_not_sync_is_caught() {
    let mut caught = 0;
    for seed in 0..20 {
        // redb may also panic over what it finds: noticed as well.
        let run = tokio::spawn(live_and_die(seed, true)).await;
        caught += u32::from(!matches!(run, Ok(Ok(()))));
    }
    assert!(caught > 10, "only {caught} of 20 runs noticed lost syncs");
}

#[tokio::test]
async fn a_failed_sync_ends_writing_but_not_reading() {
    let disk = FaultDisk::new(1);
    let meta = open(&disk).unwrap();
    write(&meta, 0, 0, 10).await.unwrap();
    disk.fail_syncs_after(0);
    let failed = write(&meta, 0, 1, 10).await;
    assert!(matches!(failed, Err(MetaError::StoreFailed(_))), "{failed:?}");
    // The device recovers; the store must not.
    disk.fail_syncs_after(1_000);
    let failed = write(&meta, 0, 1, 10).await;
    assert!(matches!(failed, Err(MetaError::StoreFailed(_))), "{failed:?}");
    assert_eq!(number(&meta, b"total").await.unwrap(), 1);
    meta.close().await;
    drop(meta);
    disk.crash();
    let meta = open(&disk).unwrap();
    let mut progress = BTreeMap::from([(0, Progress { acked: 1, begun: 2 })]);
    check(&meta, &mut progress).await.unwrap();
}

/// A flipped bit is told when the store is opened; what opens is complete.
#[tokio::test]
async fn damage_is_told_and_never_served() {
    const ROWS: u64 = 300;
    let env = Env::default();
    let options = EmbeddedOptions::default();
    let backend = Arc::new(MemoryBackend::default());
    let open = || {
        let store = EmbeddedStore::open_on(
            Arc::clone(&backend) as Arc<dyn Backend>,
            &options,
            env.clone(),
        )?;
        Ok::<_, OpenError>(Meta::new(Arc::new(store), env.clone(), "test"))
    };
    let meta = open().unwrap();
    for n in 0..ROWS {
        write(&meta, 0, n, 500).await.unwrap();
    }
    meta.close().await;
    drop(meta);
    let mut random = StdRng::seed_from_u64(7);
    let clean = backend.contents();
    let mut told = 0;
    for round in 0..200 {
        // Round 0 is the control: nothing flipped, everything there.
        if round > 0 {
            let place = random.random_range(0..u64::try_from(clean.len()).unwrap());
            let mut byte = [0];
            backend.read(place, &mut byte).unwrap();
            byte[0] ^= 1 << random.random_range(0..8);
            backend.write(place, &byte).unwrap();
        }
        match open() {
            Err(OpenError::Corrupt(_)) => told += 1,
            Err(other) => panic!("round {round}: {other}"),
            Ok(meta) => {
                let mut progress = BTreeMap::from([(0, Progress { acked: ROWS, begun: ROWS })]);
                check(&meta, &mut progress).await.unwrap();
                meta.close().await;
            }
        }
        backend.restore(&clean);
    }
    assert!(told > 20, "only {told} of 199 flips were noticed");
}
