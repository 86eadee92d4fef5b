//! The whole, with threads, on a real folder.

use super::*;
use crate::clock::SystemClock;
use crate::disk::RealDisk;
use crate::store::Options;

async fn open(folder: &std::path::Path, meta: &Meta, incarnation: u64) -> LogStore {
    let options = Options {
        extent_bytes: 1 << 20,
        min_free_bytes: 0,
        min_free_percent: 0,
        ..Options::default()
    };
    LogStore::open_journal(
        Arc::new(RealDisk::open(folder).unwrap()),
        options,
        meta.clone(),
        Identity { node: NODE, incarnation },
        LogConfig::default(),
        Arc::new(SystemClock::new()),
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::new();
    let policy = Policy { segment_bytes: 200_000, retention_ms: None, ..Policy::default() };
    let log = node.create(Durability::Durable, policy).await;
    let mut next = 0;
    for incarnation in 1..4 {
        let logs = open(folder.path(), &node.gate.meta, incarnation).await;
        assert_eq!(logs.bounds(log).await.unwrap().committed, next);
        let tickets: Vec<_> = (0..1000)
            .map(|n| {
                let sequence = i32::try_from(next).unwrap() + n;
                logs.append(keyed(log, 7, sequence, &"x".repeat(1000)))
            })
            .collect();
        for ticket in tickets {
            assert_eq!(ticket.await.unwrap().base_offset, next);
            next += 1;
        }
        let mut offset = 0;
        let mut batches = 0;
        while offset < next {
            let outcome = logs.read(read(log, offset)).await.unwrap();
            batches += outcome.batches.len() as u64;
            offset = outcome.next_offset;
        }
        assert_eq!(batches, next);
        logs.shutdown().await;
    }
}
