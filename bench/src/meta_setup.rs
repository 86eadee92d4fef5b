//! What a load of the metadata stands on: its sizes, its logs, its retained topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;
use clap::Args;
use interflow_meta::cluster;
use interflow_meta::levels::Levels;
use interflow_meta::logs::{Opening, Policy};
use interflow_meta::nodes::{self, Node, NodeState};
use interflow_meta::retained::{self, Change, RetainedMessage, RetainedVersion};
use interflow_meta::topics::{self, MAX_PARTITIONS, NewLogs, NewTopic};
use interflow_meta::{
    DEFAULT_TENANT, Durability, EmbeddedStore, Env, KeyRange, LogId, Meta, MetaError, NodeId,
    Transaction, dump, restore,
};
use uuid::Uuid;

use crate::meta_load::{Cursor, Outcome, Until, run};
use crate::meta_mixes::Mix;

/// Keys of the mix without an entity begin with this.
pub const BARE_PREFIX: &[u8] = b"interflow-bench/";
/// Topics of one transaction of a gateway's writer of retained messages.
pub const BATCH_TOPICS: u64 = 100;
/// Topics below one first level: 100 × 10 × 10 below that.
pub const REGION_TOPICS: u64 = 10_000;
/// Topics of one transaction of the load.
const LOAD_TOPICS: u64 = 500;
/// Transactions of the load that are under way.
const LOADERS: u64 = 4;
const PAYLOAD: Bytes = Bytes::from_static(&[b'7'; 50]);

/// How much of everything.
#[derive(Args, Clone, Copy, Debug)]
pub struct Sizes {
    /// Transactions under way at a time
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub committers: u64,
    /// Consumer groups that commit offsets
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub groups: u64,
    /// Partitions of one commit
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// Logs whose segments roll
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub logs: u64,
    /// Nodes that hold leases
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub nodes: u64,
    /// Retained topics; a multiple of 10,000
    #[arg(long, default_value_t = 1_000_000, value_parser = whole_regions)]
    pub retained_topics: u64,
}

fn whole_regions(text: &str) -> Result<u64, String> {
    let count: u64 = text.parse().map_err(|error| format!("{error}"))?;
    if count == 0 || !count.is_multiple_of(REGION_TOPICS) {
        return Err(format!("not a multiple of {REGION_TOPICS}"));
    }
    Ok(count)
}

/// The levels of topic number `n`.
fn levels(n: u64) -> [String; 4] {
    let (region, site, device, sensor) = (n / REGION_TOPICS, n / 100 % 100, n / 10 % 10, n % 10);
    [
        format!("region-{region:04}"),
        format!("site-{site:02}"),
        format!("device-{device}"),
        format!("sensor-{sensor}"),
    ]
}

/// Topic number `n`, in the order of keys.
pub fn topic(n: u64) -> String {
    levels(n).join("/")
}

/// The filter of `mix` that matches topic number `n` of `topics`, and how many it matches.
pub fn filter(mix: Mix, n: u64, topics: u64) -> (String, u64) {
    let [region, site, device, sensor] = levels(n);
    match mix {
        Mix::Middle => (format!("{region}/+/{device}/{sensor}"), 100),
        Mix::Front => (format!("+/{site}/{device}/{sensor}"), topics / REGION_TOPICS),
        _ => (format!("{region}/{site}/#"), 100),
    }
}

/// A retained message of `generation`, for the time number `pass`.
pub fn message(generation: u64, pass: u64) -> RetainedMessage {
    RetainedMessage {
        version: RetainedVersion { generation, log: LogId(0), offset: pass },
        qos: 1,
        publisher: "bench".to_owned(),
        properties: Bytes::new(),
        payload: PAYLOAD,
        published_ms: 1,
        expires_ms: None,
    }
}

/// Removes what a load before has left in a store that others share.
pub async fn clear(meta: &Meta) -> anyhow::Result<()> {
    // A dump of nothing, in the place of everything below the root.
    let (env, mut nothing) = (Env::default(), Vec::new());
    let empty = Meta::new(Arc::new(EmbeddedStore::in_memory(env.clone())?), env, "");
    dump(&empty, &mut nothing).await?;
    restore(meta, || Ok(&nothing[..]), true).await?;
    meta.transact(|tx| async move { tx.clear_range(KeyRange::prefix(BARE_PREFIX)) }).await?;
    Ok(())
}

/// Creates the logs, as partitions of as few topics as can have them.
pub async fn create_logs(meta: &Meta, count: u64) -> anyhow::Result<Vec<LogId>> {
    let mut logs = Vec::new();
    while (logs.len() as u64) < count {
        let left = count - logs.len() as u64;
        let new = &NewTopic {
            name: format!("bench-{}", logs.len()),
            id: Uuid::from_u64_pair(meta.random_u64(), meta.random_u64()),
            partitions: u32::try_from(left).unwrap_or(u32::MAX).min(MAX_PARTITIONS),
            config: BTreeMap::new(),
            logs: NewLogs {
                durability: Durability::Durable,
                policy: Policy::default(),
                replication_factor: 1,
                opening: Opening {
                    base: 0,
                    leader_epoch: 0,
                    sequencer: NodeId(0),
                    incarnation: 1,
                    replicas: vec![NodeId(0), NodeId(1), NodeId(2)],
                    token: 0,
                    opened_ms: 1,
                },
            },
        };
        let created = meta
            .transact(|tx| async move { topics::create(&tx, DEFAULT_TENANT, new).await })
            .await?;
        logs.extend(created.logs);
    }
    Ok(logs)
}

/// The incarnation of nodes that are registered for the first time.
pub const FIRST_LIFE: u64 = 1;

/// The id of a node.
///
/// # Errors
/// There can't be so many.
pub fn node_id(node: u64) -> anyhow::Result<NodeId> {
    Ok(NodeId(u32::try_from(node)?))
}

/// Makes the metadata a cluster's, and registers its nodes.
pub async fn create_nodes(meta: &Meta, count: u64) -> anyhow::Result<()> {
    let cluster = Uuid::from_u128(1);
    meta.transact(|tx| async move {
        cluster::join_or_create(&tx, cluster, 1, Levels::SUPPORTED).await.map(drop)
    })
    .await?;
    for node in 0..count {
        let id = node_id(node)?;
        let registered = &Node {
            state: NodeState::ReadWrite,
            address: format!("node-{node}.example:9000"),
            rack: format!("rack-{}", node % 3),
            started_ms: 1,
            levels: Levels::SUPPORTED,
            ..Node::default()
        };
        let life = meta.transact(|tx| async move { nodes::register(&tx, id, registered).await });
        ensure!(life.await?.incarnation == FIRST_LIFE, "{id:?} had a life before");
    }
    Ok(())
}

/// Retains a message for each topic, in large transactions.
pub async fn load_topics(meta: &Meta, count: u64) -> anyhow::Result<Outcome> {
    let mut cursors = Cursor::spread(count / LOAD_TOPICS, LOADERS);
    let meta = meta.clone();
    run(&mut cursors, Until::OnePass, move |chunk, _| load_chunk(meta.clone(), chunk)).await
}

async fn load_chunk(meta: Meta, chunk: u64) -> anyhow::Result<u64> {
    let (first, message) = (chunk * LOAD_TOPICS, &message(0, 0));
    let topics = &(first..first + LOAD_TOPICS).map(topic).collect::<Vec<_>>();
    meta.transact(|tx| async move { retain_all(&tx, topics, message).await }).await?;
    Ok(LOAD_TOPICS)
}

/// Retains `message` for each of `topics`, as a gateway's writer does.
pub async fn retain_all(
    tx: &Transaction,
    topics: &[String],
    message: &RetainedMessage,
) -> Result<(), MetaError> {
    let changes: Vec<_> =
        topics.iter().map(|topic| (topic.as_str(), Change::Put(message))).collect();
    retained::change_all(tx, DEFAULT_TENANT, &changes).await.map(drop)
}
