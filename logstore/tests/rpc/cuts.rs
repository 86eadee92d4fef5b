//! Connections that are cut, and servers that start again.

use std::sync::Arc;

use interflow_logstore::{
    Append, AppendError, LogClient, LogServerOptions, Read, RemoteLogs, Withheld,
};

use super::bed::{Node, Recorder, Served, Told, batch, keyed, name, read, read_all, remote};
use super::proxy::{Holds, Proxy};

const TO_SERVER: Holds = Holds { to_server: true, to_client: false };
const TO_CLIENT: Holds = Holds { to_server: false, to_client: true };

/// A node behind a proxy.
struct World {
    node: Node,
    served: Served,
    proxy: Proxy,
    client: Arc<RemoteLogs>,
}

impl World {
    async fn new() -> Self {
        let node = Node::new().await;
        let served = Served::new(&node.logs, LogServerOptions::default()).await;
        let proxy = Proxy::to(served.address).await;
        let client = Arc::new(remote(proxy.port));
        Self { node, served, proxy, client }
    }

    async fn restart(self) -> Self {
        let Self { node, served, proxy, client } = self;
        served.stop().await;
        let node = node.restart().await;
        let served = Served::new(&node.logs, LogServerOptions::default()).await;
        proxy.redirect(served.address);
        proxy.cut();
        Self { node, served, proxy, client }
    }

    /// Cuts the connections; what is held is lost. New ones are not held.
    async fn cut(&mut self) {
        self.proxy.refuse().await;
        self.proxy.hold(Holds::default());
        self.proxy.listen().await;
    }

    async fn end(self) {
        self.client.close().await;
        self.served.stop().await;
        self.node.logs.shutdown().await;
    }
}

#[tokio::test]
async fn an_append_that_never_arrived_is_made_on_the_next_connection() {
    let mut world = World::new().await;
    let log = world.node.log().await;
    world.client.append(keyed(log, 7, 0, "a")).await.unwrap();
    world.proxy.hold(TO_SERVER);
    let ticket = world.client.append(keyed(log, 7, 1, "b"));
    world.proxy.something_held().await;
    world.cut().await;
    let appended = ticket.await.unwrap();
    assert_eq!((appended.base_offset, appended.duplicate), (1, false));
    assert_eq!(read_all(&*world.client, log).await.len(), 2);
    world.end().await;
}

#[tokio::test]
async fn an_append_whose_answer_was_lost_is_not_made_twice() {
    let mut world = World::new().await;
    let log = world.node.log().await;
    world.client.append(keyed(log, 7, 0, "a")).await.unwrap();
    let recorder = Arc::new(Recorder::default());
    let _observation = world.node.logs.observe(log, recorder.clone()).await.unwrap();
    world.proxy.hold(TO_CLIENT);
    let first = world.client.append(keyed(log, 7, 1, "b"));
    let second = world.client.append(keyed(log, 7, 2, "c"));
    recorder.committed(3).await;
    world.cut().await;
    let answers = [first.await.unwrap(), second.await.unwrap()];
    assert_eq!(answers.map(|it| (it.base_offset, it.duplicate)), [(1, true), (2, true)]);
    let all = read_all(&*world.client, log).await;
    assert_eq!(all, [(0, "a".into()), (1, "b".into()), (2, "c".into())]);
    world.end().await;
}

#[tokio::test]
async fn without_a_key_the_outcome_is_unknown_and_what_waits_goes_on() {
    let mut world = World::new().await;
    let log = world.node.log().await;
    world.client.append(batch(log, 1, "a")).await.unwrap();
    let recorder = Arc::new(Recorder::default());
    let _observation = world.node.logs.observe(log, recorder.clone()).await.unwrap();
    world.proxy.hold(TO_CLIENT);
    let lost = world.client.append(batch(log, 1, "b"));
    recorder.committed(2).await;
    world.cut().await;
    assert_eq!(lost.await, Err(AppendError::Unknown));
    assert_eq!(world.client.append(batch(log, 1, "c")).await.unwrap().base_offset, 2);
    world.end().await;
}

#[tokio::test]
async fn after_a_cut_observers_hear_where_the_log_is_now() {
    let mut world = World::new().await;
    let log = world.node.log().await;
    let recorder = Arc::new(Recorder::default());
    let _observation = world.client.observe(log, recorder.clone()).await.unwrap();
    world.proxy.hold(TO_CLIENT);
    for n in 0..3 {
        world.node.logs.append(keyed(log, 7, n, "a")).await.unwrap();
    }
    world.cut().await;
    let told = recorder.committed(3).await;
    // Early batches may have been missed.
    let missed = Told::Withheld(Withheld::Below(3));
    assert_eq!(told, [Told::Advanced(0, 0), missed, Told::Advanced(0, 3)]);
    world.node.logs.append(keyed(log, 7, 3, "a")).await.unwrap();
    recorder.committed(4).await;
    world.end().await;
}

#[tokio::test]
async fn a_server_that_starts_again_is_gone_on_with() {
    let mut world = World::new().await;
    let log = world.node.log().await;
    let recorder = Arc::new(Recorder::default());
    let _observation = world.client.observe(log, recorder.clone()).await.unwrap();
    let mut sequence = 0;
    for round in 1..4 {
        for _ in 0..20 {
            let append = keyed(log, 7, sequence, &sequence.to_string());
            world.client.append(append).await.unwrap();
            sequence += 1;
        }
        recorder.committed(round * 20).await;
        world = world.restart().await;
    }
    let all = read_all(&*world.client, log).await;
    let names: Vec<_> = (0..60).map(|n: u64| (n, n.to_string())).collect();
    assert_eq!(all, names);
    world.node.delete(log).await;
    world.client.refresh(log).await.unwrap();
    recorder.until(|told| *told == Told::Ended).await;
    world.end().await;
}

#[tokio::test]
async fn a_refused_connection_is_waited_for() {
    let mut world = World::new().await;
    let log = world.node.log().await;
    world.client.append(keyed(log, 7, 0, "a")).await.unwrap();
    world.proxy.refuse().await;
    let appends: Vec<_> = (1..5).map(|n| world.client.append(keyed(log, 7, n, "b"))).collect();
    let client = world.client.clone();
    let bounds = tokio::spawn(async move { client.bounds(log).await });
    world.proxy.listen().await;
    for (offset, append) in (1..).zip(appends) {
        assert_eq!(append.await.unwrap().base_offset, offset);
    }
    assert!(bounds.await.unwrap().unwrap().committed >= 1);
    world.end().await;
}

#[tokio::test]
async fn reads_of_a_lost_connection_are_asked_again() {
    for holds in [TO_SERVER, TO_CLIENT] {
        let mut world = World::new().await;
        let logs = [world.node.log().await, world.node.log().await];
        for log in logs {
            world.client.append(keyed(log, 7, 0, "a")).await.unwrap();
            world.client.read(read(log, 0)).await.unwrap();
        }
        world.proxy.hold(holds);
        let reads: Vec<_> = logs
            .iter()
            .flat_map(|log| std::iter::repeat_n(*log, 20))
            .map(|log| {
                let client = world.client.clone();
                tokio::spawn(async move { client.read(read(log, 0)).await })
            })
            .collect();
        world.proxy.something_held().await;
        world.cut().await;
        for reading in reads {
            assert_eq!(name(&reading.await.unwrap().unwrap().batches[0].bytes), "a");
        }
        world.end().await;
    }
}

#[tokio::test]
async fn wherever_connections_end_each_read_brings_what_it_is_of() {
    for seed in 0..3 {
        let world = World::new().await;
        let mut logs = Vec::new();
        for n in 0..4 {
            let log = world.node.log().await;
            for m in 0..10 {
                world.node.logs.append(batch(log, 1, &format!("{n}-{m}"))).await.unwrap();
            }
            logs.push(log);
        }
        world.proxy.cut_at_random(Some(seed));
        let tasks: Vec<_> = (0..)
            .zip(logs)
            .map(|(n, log)| {
                let client = world.client.clone();
                tokio::spawn(async move {
                    for m in (0..10).cycle().take(100) {
                        let read = Read { max_bytes: 1, ..read(log, m) };
                        let outcome = client.read(read).await.unwrap();
                        assert_eq!(name(&outcome.batches[0].bytes), format!("{n}-{m}"));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(world.proxy.cuts() > 0);
        world.proxy.cut_at_random(None);
        world.end().await;
    }
}

/// Connections end after a few thousand bytes, wherever that is: each append is made once, in the
/// order of the calls of its producer, in every log.
#[tokio::test]
async fn wherever_connections_end_each_keyed_append_is_made_once_and_in_order() {
    for seed in 0..3 {
        let world = World::new().await;
        let mut logs = Vec::new();
        for _ in 0..3 {
            logs.push(world.node.log().await);
        }
        world.proxy.cut_at_random(Some(seed));
        let tasks = logs.iter().flat_map(|log| (0..2).map(|producer| (*log, producer)));
        let tasks: Vec<_> = tasks
            .map(|(log, producer)| {
                let client = world.client.clone();
                tokio::spawn(async move {
                    for from in (0..60).step_by(5) {
                        let name = |n: i32| format!("{producer}-{n}");
                        let append =
                            |n| Append { early: true, ..keyed(log, producer, n, &name(n)) };
                        let five: Vec<_> =
                            (from..from + 5).map(|n| client.append(append(n))).collect();
                        for ticket in five {
                            ticket.await.unwrap();
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(world.proxy.cuts() > 0);
        world.proxy.cut_at_random(None);
        for log in logs {
            let all = read_all(&world.node.logs, log).await;
            assert_eq!(all.len(), 120);
            for producer in 0..2 {
                let prefix = format!("{producer}-");
                let own: Vec<_> =
                    all.iter().filter_map(|(_, name)| name.strip_prefix(&prefix)).collect();
                let wanted: Vec<_> = (0..60).map(|n: i32| n.to_string()).collect();
                assert_eq!(own, wanted, "seed {seed}");
            }
        }
        world.end().await;
    }
}
