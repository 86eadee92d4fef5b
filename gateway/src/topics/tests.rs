//! The directory over the embedded store.

use std::sync::Arc;

use async_trait::async_trait;
use interflow_logstore::{
    Append, AppendTicket, Bounds, LogClient, LogDescription, LogError, LogObserver, Observation,
    Read, ReadError, ReadOutcome,
};
use interflow_meta::levels::{self, Levels};
use interflow_meta::members::{Members, MembersOptions, Registration};
use interflow_meta::nodes::{self, NodeKind, NodeState};
use interflow_meta::{
    DEFAULT_TENANT, Durability, EmbeddedStore, Env, LogId, Meta, NodeId, Offset, cluster, logs,
    topics,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;

/// Notes which logs were refreshed.
#[derive(Default)]
struct Refreshed(Mutex<Vec<LogId>>);

#[async_trait]
impl LogClient for Refreshed {
    fn append(&self, _: Append) -> AppendTicket {
        unreachable!("topics append nothing")
    }
    async fn bounds(&self, _: LogId) -> Result<Bounds, LogError> {
        Err(LogError::NoSuchLog)
    }
    async fn read(&self, _: Read) -> Result<ReadOutcome, ReadError> {
        Err(ReadError::NoSuchLog)
    }
    async fn observe(&self, _: LogId, _: Arc<dyn LogObserver>) -> Result<Observation, LogError> {
        Err(LogError::NoSuchLog)
    }
    async fn batch_at_time(&self, _: LogId, _: i64) -> Result<Option<(Offset, i64)>, LogError> {
        Err(LogError::NoSuchLog)
    }
    async fn batch_of_max_time(&self, _: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        Err(LogError::NoSuchLog)
    }
    async fn end_of_leader_epoch(
        &self,
        _: LogId,
        _: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        Err(LogError::NoSuchLog)
    }
    async fn trim(&self, _: LogId, _: Offset) -> Result<Offset, LogError> {
        Err(LogError::NoSuchLog)
    }
    async fn refresh(&self, log: LogId) -> Result<(), LogError> {
        self.0.lock().push(log);
        Ok(())
    }
    async fn describe(&self, _: LogId) -> Result<LogDescription, LogError> {
        Err(LogError::NoSuchLog)
    }
}

struct Bench {
    meta: Meta,
    logs: Arc<Refreshed>,
    topics: Arc<Topics>,
    shutdown: CancellationToken,
}

async fn bench(options: TopicsOptions) -> Bench {
    let env = Env::default();
    let store = EmbeddedStore::in_memory(env.clone()).expect("opens");
    let meta = Meta::new(Arc::new(store), env, "test");
    let logs = Arc::new(Refreshed::default());
    let shutdown = CancellationToken::new();
    let (topics, _) =
        Topics::start(meta.clone(), logs.clone(), options, shutdown.clone()).await.expect("starts");
    Bench { meta, logs, topics, shutdown }
}

fn new(name: &str, partitions: u32) -> NewTopic {
    NewTopic { name: name.into(), partitions, replication_factor: -1, config: Overrides::new() }
}

#[tokio::test]
async fn a_created_topic_is_there_at_once_and_its_logs_are_told() {
    let bench = bench(TopicsOptions::default()).await;
    let mut wanted = new("a", 3);
    wanted.config.insert("retention.ms".into(), "5".into());
    wanted.config.insert("interflow.durability".into(), "replicated".into());
    let topic = bench.topics.create(wanted).await.expect("created");
    let found = bench.topics.get("a").expect("found");
    assert_eq!((found.id, found.partitions.len()), (topic.id, 3));
    assert_eq!(bench.topics.by_id(topic.id).expect("by id").name, topic.name);
    assert_eq!(*bench.logs.0.lock(), topic.partitions.to_vec());
    let head = logs::load_head(&bench.meta.begin(), topic.partitions[0]).await.expect("reads");
    let head = head.expect("a head");
    assert_eq!(head.policy.retention_ms, Some(5));
    assert_eq!(head.durability, Durability::Replicated);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn k13_k14a_refusals() {
    let options = TopicsOptions { max_partitions: 5, ..TopicsOptions::default() };
    let bench = bench(options).await;
    bench.topics.create(new("a.b", 2)).await.expect("created");
    let refused = |new: NewTopic| {
        let topics = bench.topics.clone();
        async move { topics.create(new).await.expect_err("refused") }
    };
    assert!(matches!(refused(new("a.b", 1)).await, TopicError::Exists(_)));
    assert!(matches!(refused(new("a_b", 1)).await, TopicError::Collision(_)));
    assert!(matches!(refused(new("a/b", 1)).await, TopicError::Name(_)));
    assert!(matches!(refused(new("c", 0)).await, TopicError::Partitions { .. }));
    assert!(matches!(refused(new("c", 4)).await, TopicError::TooManyPartitions { .. }));
    let replicated = NewTopic { replication_factor: 3, ..new("c", 1) };
    assert!(matches!(refused(replicated).await, TopicError::ReplicationFactor(_)));
    let mut compacted = new("c", 1);
    compacted.config.insert("cleanup.policy".into(), "compact".into());
    assert!(matches!(refused(compacted).await, TopicError::Config(_)));
    assert_eq!(bench.topics.all().len(), 1);
}

#[tokio::test]
async fn an_altered_config_reaches_the_logs() {
    let bench = bench(TopicsOptions::default()).await;
    let topic = bench.topics.create(new("a", 2)).await.expect("created");
    let changes = [("segment.ms".to_owned(), ConfigChange::Set("1000".into()))];
    bench.topics.alter_config("a", &changes).await.expect("altered");
    assert_eq!(bench.topics.get("a").expect("found").config.segment_ms, 1_000);
    for log in &*topic.partitions {
        let head = logs::load_head(&bench.meta.begin(), *log).await.expect("reads");
        assert_eq!(head.expect("a head").policy.segment_ms, 1_000);
    }
    let missing = bench.topics.alter_config("b", &changes).await;
    assert!(matches!(missing, Err(TopicError::NotFound)));
}

#[tokio::test]
async fn a_deleted_topic_is_gone_and_its_name_free() {
    let bench = bench(TopicsOptions::default()).await;
    let first = bench.topics.create(new("a", 1)).await.expect("created");
    let other = uuid::Uuid::new_v4();
    let refused = bench.topics.delete("a", Some(other)).await;
    assert!(matches!(refused, Err(TopicError::NotFound)));
    assert_eq!(bench.topics.delete("a", Some(first.id)).await.expect("deleted").id, first.id);
    assert!(bench.topics.get("a").is_none());
    assert!(bench.topics.by_id(first.id).is_none());
    let second = bench.topics.create(new("a", 1)).await.expect("created again");
    assert_ne!(second.id, first.id);
    assert_ne!(second.partitions, first.partitions);
}

#[tokio::test]
async fn what_others_change_shows_by_the_watch() {
    let bench = bench(TopicsOptions::default()).await;
    let (other, _) = Topics::start(
        bench.meta.clone(),
        bench.logs.clone(),
        TopicsOptions::default(),
        bench.shutdown.clone(),
    )
    .await
    .expect("starts");
    let mut changes = other.changes();
    bench.topics.create(new("a", 1)).await.expect("created");
    changes.wait_for(|_| other.get("a").is_some()).await.expect("told");
    bench.topics.delete("a", None).await.expect("deleted");
    changes.wait_for(|_| other.get("a").is_none()).await.expect("told");
    let listed = topics::list(&bench.meta.begin(), DEFAULT_TENANT, None, 10).await;
    assert!(listed.expect("reads").is_empty());
}

#[tokio::test]
async fn a_restart_finds_all_topics() {
    let bench = bench(TopicsOptions::default()).await;
    for at in 0..20 {
        bench.topics.create(new(&format!("t{at}"), 1)).await.expect("created");
    }
    let (again, _) = Topics::start(
        bench.meta.clone(),
        bench.logs.clone(),
        TopicsOptions::default(),
        bench.shutdown.clone(),
    )
    .await
    .expect("starts");
    assert_eq!(again.all().len(), 20);
}

/// A gateway among log stores 1 to `stores`, each in a rack of its own.
async fn cluster(stores: u32, default_replication_factor: u32) -> (Bench, Vec<Arc<Members>>) {
    cluster_in_sync(stores, default_replication_factor, 1).await
}

/// The same, with so many replicas in sync of topics that don't say.
async fn cluster_in_sync(
    stores: u32,
    default_replication_factor: u32,
    min_insync_replicas: u32,
) -> (Bench, Vec<Arc<Members>>) {
    cluster_at(Levels::SUPPORTED, stores, default_replication_factor, min_insync_replicas).await
}

/// The same, set up by a version that works with `levels`.
async fn cluster_at(
    levels: Levels,
    stores: u32,
    default_replication_factor: u32,
    min_insync_replicas: u32,
) -> (Bench, Vec<Arc<Members>>) {
    let env = Env::default();
    let store = EmbeddedStore::in_memory(env.clone()).expect("opens");
    let meta = Meta::new(Arc::new(store), env, "test");
    meta.transact(|tx| async move { cluster::join_or_create(&tx, Uuid::nil(), 0, levels).await })
        .await
        .expect("a cluster");
    let shutdown = CancellationToken::new();
    let mut all = Vec::new();
    for id in 1..=stores + 1 {
        let is_store = id <= stores;
        let registration = Registration {
            id: Some(NodeId(id)),
            kind: if is_store { NodeKind::LogStore } else { NodeKind::Gateway },
            address: if is_store { "localhost:1".into() } else { String::new() },
            endpoints: Vec::new(),
            rack: format!("rack-{id}"),
            disk: None,
            disk_bytes: 0,
            started_ms: 0,
        };
        // Views change when they are told to.
        let options = MembersOptions::lease(std::time::Duration::from_secs(600));
        let members =
            Members::start(meta.clone(), registration, options, &shutdown).await.expect("joins");
        members.ready().await.expect("ready");
        all.push(members);
    }
    let members = all.last().expect("the gateway").clone();
    let logs = Arc::new(Refreshed::default());
    let options = TopicsOptions {
        placement: Placement::Members { members, default_replication_factor, min_insync_replicas },
        ..TopicsOptions::default()
    };
    let (topics, _) =
        Topics::start(meta.clone(), logs.clone(), options, shutdown.clone()).await.expect("starts");
    (Bench { meta, logs, topics, shutdown }, all)
}

impl Bench {
    async fn replicas(&self, log: LogId) -> (u32, Vec<u32>) {
        let head = logs::load_head(&self.meta.begin(), log).await.expect("reads").expect("a head");
        assert_eq!(head.open.sequencer, head.open.replicas[0]);
        assert_eq!(head.open.incarnation, 1);
        (head.replication_factor, head.open.replicas.iter().map(|node| node.0).collect())
    }
}

#[tokio::test]
async fn logs_are_placed_on_as_many_live_log_stores_as_asked() {
    let (bench, members) = cluster(4, 3).await;
    let asked = |name: &str, replication_factor| NewTopic { replication_factor, ..new(name, 20) };
    for (asked, count) in [
        (asked("one", 1), 1),
        (asked("two", 2), 2),
        (asked("default", -1), 3),
        (asked("four", 4), 4),
    ] {
        let topic = bench.topics.create(asked).await.expect("created");
        let mut sequencers = std::collections::BTreeSet::new();
        for log in topic.partitions.iter() {
            let (wanted, mut replicas) = bench.replicas(*log).await;
            sequencers.insert(replicas[0]);
            replicas.sort_unstable();
            replicas.dedup();
            assert_eq!((wanted as usize, replicas.len()), (count, count));
            assert!(replicas.iter().all(|node| (1..=4).contains(node)), "{replicas:?}");
        }
        // Twenty logs over four nodes.
        assert!(sequencers.len() > 2, "{sequencers:?}");
    }
    for wrong in [0, -2, 5] {
        let refused = bench.topics.create(asked("wrong", wrong)).await.expect_err("refused");
        let TopicError::ReplicationFactor(why) = refused else { panic!("{refused:?}") };
        assert_eq!(why, Unplaceable { asked: wrong, default: 3, nodes: 4 });
    }
    drop(members);
    bench.shutdown.cancel();
}

#[tokio::test]
async fn two_log_stores_are_enough_for_a_default_of_three_and_one_is_not() {
    let (bench, _members) = cluster(2, 3).await;
    let topic = bench.topics.create(new("a", 1)).await.expect("created");
    let (wanted, replicas) = bench.replicas(topic.partitions[0]).await;
    assert_eq!((wanted, replicas.len()), (3, 2));
    let (bench, _members) = cluster(1, 3).await;
    let refused = bench.topics.create(new("a", 1)).await;
    assert!(matches!(refused, Err(TopicError::ReplicationFactor(_))), "{refused:?}");
    let single = NewTopic { replication_factor: 1, ..new("a", 1) };
    bench.topics.create(single).await.expect("created");
}

/// The replicas that acknowledge: a majority, what the topic says, or what the setting says.
#[tokio::test]
async fn k21_min_insync_replicas_is_what_is_shown_and_what_holds() {
    let name = "min.insync.replicas";
    let asked = |topic: &str, replication_factor, least: Option<&str>| {
        let config = least.map(|least| (name.to_owned(), least.to_owned())).into_iter().collect();
        NewTopic { replication_factor, config, ..new(topic, 1) }
    };
    for (setting, new, shown, acks) in [
        (1, asked("a", 3, None), Some("2"), 2),
        (1, asked("a", 3, Some("1")), Some("1"), 2),
        (1, asked("a", 3, Some("3")), Some("3"), 3),
        (1, asked("a", 1, None), None, 1),
        (3, asked("a", -1, None), Some("3"), 3),
        (3, asked("a", 2, None), Some("2"), 2),
        (3, asked("a", 3, Some("2")), Some("2"), 2),
    ] {
        let (bench, _members) = cluster_in_sync(3, 3, setting).await;
        let topic = bench.topics.create(new).await.expect("created");
        assert_eq!(topic.config.overrides().get(name).map(String::as_str), shown);
        let head = logs::load_head(&bench.meta.begin(), topic.partitions[0]).await.expect("reads");
        assert_eq!(head.expect("a head").open.acks, acks, "{setting} {shown:?}");
        bench.shutdown.cancel();
    }
    let (bench, _members) = cluster_in_sync(2, 3, 1).await;
    let refused = bench.topics.create(asked("a", 2, Some("3"))).await;
    assert!(matches!(refused, Err(TopicError::Config(_))), "{refused:?}");
    // Two log stores would do for a default of three, but not for three in sync.
    let refused = bench.topics.create(asked("a", -1, Some("3"))).await;
    assert!(refused.is_err(), "{refused:?}");
    bench.topics.create(asked("a", 2, None)).await.expect("created");
    let set = |value: &str| vec![(name.to_owned(), ConfigChange::Set(value.to_owned()))];
    let refused = bench.topics.alter_config("a", &set("3")).await;
    assert!(matches!(refused, Err(TopicError::Config(_))), "{refused:?}");
    bench.topics.alter_config("a", &set("1")).await.expect("altered");
    bench.shutdown.cancel();
}

/// Versions before that level would write segments' rows without it.
#[tokio::test]
async fn k21_more_than_a_majority_comes_with_its_feature_level() {
    let name = "min.insync.replicas";
    let (bench, _members) = cluster_at(Levels::new(1, 1).expect("levels"), 3, 3, 1).await;
    let three: Overrides = [(name.to_owned(), "3".to_owned())].into();
    let asked = |topic: &str| NewTopic { config: three.clone(), ..in_three(topic) };
    let set = [(name.to_owned(), ConfigChange::Set("3".into()))];
    let told = |refused: TopicError| refused.to_string();
    let refused = told(bench.topics.check_new(&asked("a")).await.expect_err("refused"));
    assert!(refused.contains("interflow meta upgrade"), "{refused}");
    assert_eq!(told(bench.topics.create(asked("a")).await.expect_err("refused")), refused);
    // A majority, which is what older versions take.
    bench.topics.create(in_three("a")).await.expect("created");
    assert_eq!(told(bench.topics.check_alter("a", &set).await.expect_err("refused")), refused);
    assert_eq!(told(bench.topics.alter_config("a", &set).await.expect_err("refused")), refused);
    let raise = |tx| async move { levels::upgrade(&tx, None, Levels::SUPPORTED).await };
    bench.meta.transact(raise).await.expect("raised");
    bench.topics.check_alter("a", &set).await.expect("taken");
    let unchanged = bench.topics.get("a").expect("found").config.min_insync_replicas;
    assert_eq!(unchanged, 2);
    bench.topics.alter_config("a", &set).await.expect("altered");
    bench.topics.create(asked("b")).await.expect("created");
    bench.shutdown.cancel();
}

fn in_three(topic: &str) -> NewTopic {
    NewTopic { replication_factor: 3, ..new(topic, 1) }
}

/// The gateway's view is older than the drain.
#[tokio::test]
async fn a_node_that_was_just_drained_gets_no_log() {
    let (bench, members) = cluster(3, 2).await;
    bench
        .meta
        .transact(|tx| async move { nodes::set_state(&tx, NodeId(2), NodeState::ReadOnly).await })
        .await
        .expect("drained");
    assert_eq!(members.last().expect("the gateway").view().candidates().count(), 3);
    let topic = bench.topics.create(new("a", 20)).await.expect("created");
    for log in topic.partitions.iter() {
        let (_, mut replicas) = bench.replicas(*log).await;
        replicas.sort_unstable();
        assert_eq!(replicas, [1, 3]);
    }
}
