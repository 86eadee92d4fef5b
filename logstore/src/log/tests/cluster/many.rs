//! Many logs at once.

use std::time::Duration;

use futures_util::future::join_all;

use super::super::keyed;
use super::*;
use crate::Epoch;

const LOGS: u64 = 1_000;

#[tokio::test(start_paused = true)]
async fn the_logs_of_a_dead_sequencer_are_recovered_with_few_calls() {
    // Calls and transactions take some time, as they do.
    let net = Net::new(1, 2, 0);
    let chains = Chains::new(1, 2, 0);
    let mut cluster = Cluster::with(3, net, chains, LogConfig::default()).await;
    let logs: Vec<_> = (1..=LOGS).map(|log| cluster.create(log, &[1, 2, 3])).collect();
    let acked = join_all(logs.iter().map(|log| cluster.append(1, keyed(*log, 7, 0, "a")))).await;
    assert!(acked.iter().all(Result::is_ok));
    let _disk = cluster.kill(1, 0);
    // Gateways ask either of the two that are left.
    let recover = |log: &LogId| {
        let at = 2 + u32::try_from(log.0 % 2).expect("a small number");
        let (logs, log) = (cluster.at(at).logs.clone(), *log);
        async move { logs.recover(log, Epoch(0)).await }
    };
    let before = (cluster.net.seals(), cluster.chains.transactions());
    let recovered = join_all(logs.iter().map(recover)).await;
    assert!(recovered.iter().all(Result::is_ok));
    let seals = cluster.net.seals() - before.0;
    let transactions = cluster.chains.transactions() - before.1;
    println!("{LOGS} logs: {seals} calls that seal, {transactions} transactions");
    for log in &logs {
        let record = cluster.chains.record(*log);
        assert_eq!((record.head.epoch, record.closed[0].end), (Epoch(1), 1));
    }
    // The dead one is asked as well, and nobody waits for it.
    assert!(seals <= LOGS / 20, "{seals} calls");
    assert!(transactions <= LOGS / 10, "{transactions} transactions");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let next = join_all(logs.iter().map(|log| {
        let at = cluster.sequencer(*log).0;
        cluster.append(at, keyed(*log, 7, 1, "b"))
    }));
    assert!(next.await.iter().all(|appended| appended.as_ref().is_ok_and(|a| a.base_offset == 1)));
}
