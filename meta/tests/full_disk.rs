//! A full disk: commits are refused, reads go on, and commits are made again once there is room,
//! in the same process and with everything that was acknowledged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;

use interflow_meta::{EmbeddedOptions, EmbeddedStore, Env, FaultDisk, KeyRange, Meta, MetaError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

fn open(disk: &FaultDisk) -> Meta {
    let env = Env::default();
    // Smaller than what is written, so that reads need the disk.
    let options = EmbeddedOptions { cache_bytes: 64 << 10 };
    let store = EmbeddedStore::open_on(Arc::new(disk.start()), &options, env.clone()).unwrap();
    Meta::new(Arc::new(store), env, "test")
}

async fn set(meta: &Meta, key: u16, value: u64) -> Result<(), MetaError> {
    let tx = meta.begin();
    let mut bytes = vec![7; 500];
    bytes.extend(value.to_be_bytes());
    tx.set(key.to_be_bytes().to_vec(), bytes)?;
    tx.commit().await.map(drop)
}

/// Everything that is there, by key.
async fn all(meta: &Meta) -> BTreeMap<u16, u64> {
    let rows = meta.begin().get_all(&KeyRange::new("", vec![0xF0])).await.unwrap();
    rows.into_iter()
        .map(|(key, value)| {
            let (padding, number) = value.split_at(500);
            assert!(padding.iter().all(|byte| *byte == 7));
            (
                u16::from_be_bytes((&key[..]).try_into().unwrap()),
                u64::from_be_bytes(number.try_into().unwrap()),
            )
        })
        .collect()
}

#[tokio::test]
async fn commits_are_refused_while_the_disk_is_full_and_made_again_afterwards() {
    for seed in 0..60 {
        let disk = FaultDisk::new(seed);
        let mut random = StdRng::seed_from_u64(seed);
        let mut meta = open(&disk);
        let mut expected = BTreeMap::new();
        let mut refused = 0;
        for round in 0..8_u64 {
            disk.full_after(Some(random.random_range(0..40)));
            let old = meta.begin();
            let seen = old.get(&[0_u8, 0]).await.unwrap();
            for n in 0..60 {
                let key = random.random_range(0..400);
                let value = round * 1_000 + n;
                match set(&meta, key, value).await {
                    Ok(()) => drop(expected.insert(key, value)),
                    Err(MetaError::DiskFull) => refused += 1,
                    Err(other) => panic!("seed {seed}: {other}"),
                }
            }
            assert_eq!(all(&meta).await, expected, "seed {seed}: reads go on");
            // What waits for a change isn't told that it waits in vain.
            let tx = meta.begin();
            let watch = tx.watch(vec![0_u8, 1]).await.unwrap();
            tx.commit().await.unwrap();
            disk.full_after(None);
            set(&meta, 1, round).await.unwrap();
            expected.insert(1, round);
            watch.changed().await.unwrap();
            assert_eq!(all(&meta).await, expected, "seed {seed}: there is room again");
            // A transaction from before sees what it saw, or nothing any more.
            match old.get(&[0_u8, 0]).await {
                Ok(value) => assert_eq!(value, seen),
                Err(error) => assert_eq!(error, MetaError::TooOld),
            }
            if random.random_bool(0.4) {
                if random.random_bool(0.5) {
                    disk.full_after(Some(random.random_range(0..20)));
                    let _ = set(&meta, 2, round).await.map(|()| expected.insert(2, round));
                }
                disk.crash();
                meta.close().await;
                meta = open(&disk);
                assert_eq!(all(&meta).await, expected, "seed {seed}: after a power cut");
            }
        }
        assert!(refused > 0, "seed {seed} never met a full disk");
    }
}

#[tokio::test]
async fn a_store_with_a_failed_sync_reads_all_that_it_held() {
    let disk = FaultDisk::new(3);
    let meta = open(&disk);
    let mut expected = BTreeMap::new();
    for key in 0..400 {
        set(&meta, key, 1).await.unwrap();
        expected.insert(key, 1);
    }
    disk.fail_syncs_after(0);
    for _ in 0..3 {
        assert!(matches!(set(&meta, 7, 2).await, Err(MetaError::StoreFailed(_))));
        // Far more than the cache holds.
        assert_eq!(all(&meta).await, expected);
        let read = meta.transact(|tx| async move { tx.get(&[0_u8, 7]).await }).await;
        assert!(read.unwrap().is_some());
    }
}
