use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::cluster;
use crate::levels::Levels;
use crate::nodes::{self, Node, NodeState};
use crate::{EmbeddedStore, Env, Epoch, LogId, Meta, NodeId};

fn meta() -> Meta {
    let env = Env::default();
    let store = EmbeddedStore::in_memory(env.clone()).unwrap();
    Meta::new(Arc::new(store), env, "test")
}

fn new_logs() -> NewLogs {
    NewLogs {
        durability: Durability::Durable,
        policy: Policy::default(),
        replication_factor: 1,
        opening: Opening {
            base: 0,
            leader_epoch: 0,
            sequencer: NodeId(1),
            incarnation: 7,
            replicas: vec![NodeId(1)],
            token: 99,
            opened_ms: 1_000,
        },
    }
}

fn new_topic(name: &str, partitions: u32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        id: Uuid::new_v4(),
        partitions,
        config: BTreeMap::from([("cleanup.policy".to_owned(), "delete".to_owned())]),
        logs: new_logs(),
    }
}

async fn create_in(meta: &Meta, new: &NewTopic) -> Result<Topic, TopicError> {
    meta.transact(|tx| async move { create(&tx, "", new).await }).await
}

#[tokio::test]
async fn a_created_topic_is_found_with_its_open_logs() {
    let meta = meta();
    let new = new_topic("a", 3);
    let topic = create_in(&meta, &new).await.unwrap();
    assert_eq!(topic.logs, [LogId(0), LogId(1), LogId(2)]);
    let tx = meta.begin();
    assert_eq!(get(&tx, "", "a").await.unwrap(), Some(topic.clone()));
    assert_eq!(get(&tx, "other", "a").await.unwrap(), None);
    assert_eq!(get_by_id(&tx, "", new.id).await.unwrap(), Some(topic.clone()));
    let head = logs::load_head(&tx, LogId(2)).await.unwrap().unwrap();
    assert_eq!((head.partition, head.topic_id), (2, new.id));
    assert_eq!((head.open.epoch, head.open.incarnation), (Epoch(0), 7));
}

#[tokio::test]
async fn a_name_is_taken_once_and_a_repeated_attempt_succeeds() {
    let meta = meta();
    let new = new_topic("a", 1);
    let first = create_in(&meta, &new).await.unwrap();
    assert_eq!(create_in(&meta, &new).await.unwrap(), first);
    let refused = create_in(&meta, &new_topic("a", 1)).await;
    assert!(matches!(refused, Err(TopicError::AlreadyExists)));
}

#[tokio::test]
async fn bad_topics_are_refused() {
    let meta = meta();
    for (name, partitions) in [("a", 0), ("a", MAX_PARTITIONS + 1)] {
        let refused = create_in(&meta, &new_topic(name, partitions)).await;
        assert!(matches!(refused, Err(TopicError::InvalidPartitions)));
    }
    let refused = create_in(&meta, &new_topic(&"x".repeat(250), 1)).await;
    assert!(matches!(refused, Err(TopicError::InvalidName)));
    let mut new = new_topic("a", 1);
    new.config.insert("k".to_owned(), "v".repeat(MAX_CONFIG_BYTES));
    let refused = create_in(&meta, &new).await;
    assert!(matches!(refused, Err(TopicError::ConfigTooLarge(_))));
}

#[tokio::test]
async fn the_largest_topic_fits_into_a_transaction() {
    let meta = meta();
    let new = new_topic(&"n".repeat(249), MAX_PARTITIONS);
    assert_eq!(create_in(&meta, &new).await.unwrap().logs.len(), 10_000);
}

#[tokio::test]
async fn a_deleted_topic_leaves_nothing() {
    let meta = meta();
    let topic = create_in(&meta, &new_topic("a", 2)).await.unwrap();
    let gone = meta.transact(|tx| async move { delete(&tx, "", "a", None).await }).await.unwrap();
    assert_eq!(gone, topic);
    let tx = meta.begin();
    assert_eq!(get(&tx, "", "a").await.unwrap(), None);
    assert_eq!(get_by_id(&tx, "", topic.id).await.unwrap(), None);
    assert!(logs::all_logs(&tx, None, 10).await.unwrap().is_empty());
    let again = create_in(&meta, &new_topic("a", 1)).await.unwrap();
    assert_eq!(again.logs, [LogId(2)], "a log's id is never used twice");
}

#[tokio::test]
async fn partitions_are_added_behind_the_old_ones() {
    let meta = meta();
    create_in(&meta, &new_topic("a", 1)).await.unwrap();
    create_in(&meta, &new_topic("b", 1)).await.unwrap();
    let grow = |total| {
        let meta = meta.clone();
        async move {
            meta.transact(|tx| async move {
                add_partitions(&tx, "", "a", total, &new_logs(), None).await
            })
            .await
        }
    };
    let topic = grow(3).await.unwrap();
    assert_eq!(topic.logs, [LogId(0), LogId(2), LogId(3)]);
    assert_eq!(grow(3).await.unwrap(), topic);
    assert!(matches!(grow(2).await, Err(TopicError::InvalidPartitions)));
    let tx = meta.begin();
    assert_eq!(get(&tx, "", "a").await.unwrap(), Some(topic));
    let head = logs::load_head(&tx, LogId(3)).await.unwrap().unwrap();
    assert_eq!(head.partition, 2);
}

#[tokio::test]
async fn configurations_are_set_and_unset() {
    let meta = meta();
    create_in(&meta, &new_topic("a", 1)).await.unwrap();
    let changes = BTreeMap::from([
        ("cleanup.policy".to_owned(), None),
        ("retention.ms".to_owned(), Some("5".to_owned())),
    ]);
    let changes = &changes;
    let topic =
        meta.transact(|tx| async move { alter_config(&tx, "", "a", changes).await }).await.unwrap();
    let expected = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned())]);
    assert_eq!(topic.config, expected);
}

#[tokio::test]
async fn lists_are_paged_by_name() {
    let meta = meta();
    for name in ["b", "a", "c", "a.b"] {
        create_in(&meta, &new_topic(name, 1)).await.unwrap();
    }
    let tx = meta.begin();
    let names = |topics: Vec<Topic>| topics.into_iter().map(|t| t.name).collect::<Vec<_>>();
    let page = list(&tx, "", None, 3).await.unwrap();
    assert_eq!(names(page), ["a", "a.b", "b"]);
    let page = list(&tx, "", Some("b"), 3).await.unwrap();
    assert_eq!(names(page), ["c"]);
}

#[tokio::test]
async fn a_change_is_told_once() {
    let meta = meta();
    let mut watching = meta.transact(|tx| async move { watch(&tx).await }).await.unwrap();
    assert!(!watching.has_fired());
    create_in(&meta, &new_topic("a", 1)).await.unwrap();
    watching.changed().await.unwrap();
    assert_eq!(changes(&meta.begin()).await.unwrap(), 1);
}

proptest! {
    #[test]
    fn a_topic_comes_back_as_it_was(
        name in "[a-z]{1,20}",
        logs in proptest::collection::vec(0_u64..40, 1..50),
        config in proptest::collection::btree_map("[a-z.]{1,9}", ".{0,9}", 0..5),
        created_ms: i64,
        id: u128,
    ) {
        let logs = logs.into_iter().map(LogId).collect();
        let topic = Topic { name: name.clone(), id: Uuid::from_u128(id), logs, config, created_ms };
        prop_assert_eq!(Topic::decode(&name, topic.encode()).unwrap(), topic);
    }
}

/// Log `n` on the node `n % 3 + 1` and the one behind it.
struct ByTurns;

impl Placement for ByTurns {
    fn place(&self, log: LogId) -> Option<Vec<NodeId>> {
        let turn = u32::try_from(log.0 % 3).ok()?;
        Some(vec![NodeId(turn + 1), NodeId((turn + 1) % 3 + 1)])
    }
}

struct Nowhere;

impl Placement for Nowhere {
    fn place(&self, _: LogId) -> Option<Vec<NodeId>> {
        None
    }
}

async fn place_in(
    meta: &Meta,
    new: &NewTopic,
    placement: &dyn Placement,
) -> Result<Topic, TopicError> {
    meta.transact(|tx| async move { create_placed(&tx, "", new, Some(placement)).await }).await
}

async fn with_nodes(count: u32) -> Meta {
    let meta = meta();
    meta.transact(|tx| async move {
        cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await?;
        for id in 1..=count {
            let node = Node { state: NodeState::ReadWrite, ..Node::default() };
            for _ in 0..id {
                nodes::register(&tx, NodeId(id), &node).await?;
            }
        }
        Ok::<_, cluster::ClusterError>(())
    })
    .await
    .unwrap();
    meta
}

#[tokio::test]
async fn each_log_is_opened_where_it_was_placed_by_the_present_life() {
    let meta = with_nodes(3).await;
    let mut new = new_topic("a", 4);
    new.logs.replication_factor = 2;
    let topic = place_in(&meta, &new, &ByTurns).await.unwrap();
    let grown = meta
        .transact(
            |tx| async move { add_partitions(&tx, "", "a", 5, &new_logs(), Some(&ByTurns)).await },
        )
        .await
        .unwrap();
    assert_eq!(grown.logs.len(), 5);
    let tx = meta.begin();
    for (log, (sequencer, other)) in grown.logs.iter().zip([(1, 2), (2, 3), (3, 1), (1, 2), (2, 3)])
    {
        let head = logs::load_head(&tx, *log).await.unwrap().unwrap();
        assert_eq!(head.open.sequencer, NodeId(sequencer));
        // Node n is in its n-th life.
        assert_eq!(head.open.incarnation, u64::from(sequencer));
        assert_eq!(head.open.replicas, [NodeId(sequencer), NodeId(other)]);
    }
    assert_eq!(topic.logs, grown.logs[..4]);
}

#[tokio::test]
async fn a_node_that_takes_no_segments_is_named() {
    let meta = with_nodes(2).await;
    let refused = place_in(&meta, &new_topic("a", 3), &ByTurns).await;
    assert!(matches!(refused, Err(TopicError::NotWritable(NodeId(3)))), "{refused:?}");
    let refused = place_in(&meta, &new_topic("a", 1), &Nowhere).await;
    assert!(matches!(refused, Err(TopicError::TooFewNodes)), "{refused:?}");
    for state in [NodeState::ReadOnly, NodeState::Provisioning, NodeState::DataLoss] {
        let tx = meta.begin();
        nodes::set_state(&tx, NodeId(2), state).await.unwrap();
        let refused = create_placed(&tx, "", &new_topic("a", 1), Some(&ByTurns)).await;
        assert!(matches!(refused, Err(TopicError::NotWritable(NodeId(2)))), "{refused:?}");
    }
    assert_eq!(get(&meta.begin(), "", "a").await.unwrap(), None);
}

/// A node that is drained, or starts anew, while a log is placed on it: the placement runs again. A
/// bump of its lease is no reason.
#[tokio::test]
async fn a_placement_depends_on_the_lives_of_its_nodes() {
    for (change, is_conflict) in [(0, false), (1, true), (2, true)] {
        let meta = with_nodes(3).await;
        let tx = meta.begin();
        create_placed(&tx, "", &new_topic("a", 1), Some(&ByTurns)).await.unwrap();
        meta.transact(|tx| async move {
            match change {
                0 => nodes::bump_lease(&tx, NodeId(2), 2).await.map(|lease| lease.is_some()),
                1 => nodes::set_state(&tx, NodeId(2), NodeState::ReadOnly).await,
                _ => nodes::leave(&tx, NodeId(2), 2).await,
            }
        })
        .await
        .unwrap();
        assert_eq!(tx.commit().await.is_err(), is_conflict, "{change}");
    }
}
