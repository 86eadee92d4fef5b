//! Healthy metadata has no problems, and each kind of damage is found.

use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::entities::levels::Levels;
use crate::entities::logs::{Closing, Opening, Policy};
use crate::entities::nodes::{Node, NodeState};
use crate::entities::retained::{RetainedMessage, RetainedVersion};
use crate::entities::topics::{NewLogs, NewTopic};
use crate::entities::{
    cluster, groups, logs, materialised, nodes, producers, retained, topics, users,
};
use crate::ids::{Durability, Epoch, LogId, NodeId};
use crate::{EmbeddedStore, Env};

const TENANT: &str = "";

fn opening(base: u64) -> Opening {
    Opening {
        base,
        leader_epoch: 0,
        sequencer: NodeId(1),
        incarnation: 1,
        replicas: vec![NodeId(1)],
        token: base + 1,
        opened_ms: 1,
    }
}

/// Something of every entity.
async fn healthy() -> Meta {
    let env = Env::default();
    let meta = Meta::new(Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap()), env, "test");
    let tx = meta.begin();
    cluster::join_or_create(&tx, Uuid::from_u128(1), 1, Levels::SUPPORTED).await.unwrap();
    nodes::register(&tx, NodeId(1), &Node::default()).await.unwrap();
    producers::allocate(&tx, 10).await.unwrap();
    users::put(&tx, "al", &users::User { password_hash: "$".into(), changed_ms: 1 }).unwrap();
    let new = NewTopic {
        name: "orders".into(),
        id: Uuid::from_u128(2),
        partitions: 2,
        config: BTreeMap::from([("a".into(), "b".into())]),
        logs: NewLogs {
            durability: Durability::Durable,
            policy: Policy::default(),
            replication_factor: 1,
            opening: opening(0),
        },
    };
    topics::create(&tx, TENANT, &new).await.unwrap();
    for (epoch, end) in [(0, 10), (1, 25)] {
        let closing = Closing {
            expected_epoch: Epoch(epoch),
            end,
            closed_ms: 2,
            max_timestamp_ms: None,
            bytes: 1,
            is_short: false,
        };
        logs::close_and_open(&tx, LogId(0), &closing, &opening(end)).await.unwrap();
    }
    materialised::advance(&tx, LogId(0), 5).await.unwrap();
    let offsets = [("orders".to_owned(), 1, groups::CommittedOffset::default())];
    groups::commit_offsets(&tx, TENANT, "billing", &offsets).unwrap();
    let life = groups::Life { node: NodeId(1), incarnation: 1 };
    groups::claim(&tx, TENANT, "billing", life, 0, false).await.unwrap();
    let large = groups::GroupMetadata {
        members: vec![1; 200_000].into(),
        ..groups::GroupMetadata::default()
    };
    groups::put_metadata(&tx, TENANT, "large", &large).unwrap();
    for (topic, size, expires_ms) in [("a/b", 10, None), ("a/large", 200_000, Some(1_000))] {
        let message = RetainedMessage {
            version: RetainedVersion { generation: 0, log: LogId(0), offset: 3 },
            qos: 1,
            publisher: "me".into(),
            properties: Bytes::new(),
            payload: vec![1; size].into(),
            published_ms: 1,
            expires_ms,
        };
        retained::put(&tx, TENANT, topic, &message).await.unwrap();
    }
    tx.commit().await.unwrap();
    meta
}

/// The problems after `change`, in one text.
async fn problems(change: impl Fn(&crate::Transaction) -> Result<(), MetaError>) -> String {
    let meta = healthy().await;
    let tx = meta.begin();
    change(&tx).unwrap();
    tx.commit().await.unwrap();
    check(&meta).await.unwrap().problems.listed.join("\n")
}

#[tokio::test]
async fn healthy_metadata_has_no_problems() {
    let report = check(&healthy().await).await.unwrap();
    assert_eq!(report.problems.listed, [""; 0]);
    assert_eq!(report.notes.listed, [""; 0]);
    assert!(!report.has_moved);
    let families: Vec<_> = report.families.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(
        families,
        [
            ("change", 3),
            ("config", 1),
            ("counter", 2),
            ("group", 6),
            ("log", 2),
            ("materialised", 1),
            ("node", 1),
            ("retained", 2),
            ("retained_due", 1),
            ("retained_part", 3),
            ("segment", 2),
            ("topic", 1),
            ("topic_id", 1),
            ("user", 1),
        ]
    );
}

#[tokio::test]
async fn nothing_at_all_is_healthy() {
    let env = Env::default();
    let meta = Meta::new(Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap()), env, "test");
    let report = check(&meta).await.unwrap();
    assert_eq!((report.problems.count, report.families.len()), (0, 0));
}

/// Values and keys that nothing of ours would write.
#[tokio::test]
async fn what_does_not_decode_is_found() {
    let bad = || Bytes::from_static(&[0xff; 7]);
    for (key, shown) in [
        (("config", "cluster"), "(\"config\", \"cluster\")"),
        (("counter", "producer"), "(\"counter\", \"producer\")"),
        (("change", "topics"), "(\"change\", \"topics\")"),
        (("user", "al"), "(\"user\", \"al\")"),
    ] {
        let found = problems(|tx| tx.set(tx.root().pack(&key), bad())).await;
        assert!(found.contains(shown), "{found}");
    }
    for key in ["log", "node"] {
        let found = problems(|tx| tx.set(tx.root().pack(&(key, 1)), bad())).await;
        assert!(found.contains(&format!("(\"{key}\", 1)")), "{found}");
    }
    let key = ("group", TENANT, "billing", "offset", "orders", 1);
    let found = problems(|tx| tx.set(tx.root().pack(&key), bad())).await;
    assert!(found.contains("\"billing\""), "{found}");
    let found = problems(|tx| tx.set(tx.root().pack(&("retained", TENANT, "a", "b")), bad())).await;
    assert!(found.contains("(\"retained\", \"\", \"a\", \"b\")"), "{found}");
    let found = problems(|tx| {
        tx.set([tx.root().bytes(), &[0x7f, 1]].concat(), "")?;
        tx.set(tx.root().pack(&("node", "a name")), "")
    })
    .await;
    assert!(found.contains("no tuple") && found.contains("(\"node\", \"a name\")"), "{found}");
}

#[tokio::test]
async fn a_topic_and_its_logs_miss_each_other() {
    let found = problems(|tx| tx.clear(tx.root().pack(&("log", 1)))).await;
    assert!(found.contains("partition 1 is log 1, which has no head"), "{found}");

    let found = problems(|tx| tx.clear(tx.root().pack(&("topic", TENANT, "orders")))).await;
    assert!(found.contains("log 0 says that it is partition 0 of \"orders\""), "{found}");
    assert!(found.contains("leads to \"orders\", which isn't that topic"), "{found}");

    let id = Uuid::from_u128(2);
    let key = ("topic_id", TENANT, &id.as_bytes()[..]);
    let found = problems(|tx| tx.clear(tx.root().pack(&key))).await;
    assert!(found.contains("doesn't lead to it"), "{found}");

    let one = 1_u64.to_le_bytes().to_vec();
    let found = problems(|tx| tx.set(tx.root().pack(&("counter", "log")), one.clone())).await;
    assert_eq!(found, "log 1 was never given out; its id comes again");

    let found = problems(|tx| tx.clear(tx.root().pack(&("node", 1)))).await;
    assert!(found.contains("log 0 lies on node 1, which isn't known"), "{found}");
}

#[tokio::test]
async fn a_chain_with_a_hole_or_without_a_head_is_found() {
    let found = problems(|tx| tx.clear(tx.root().pack(&("segment", 0, 10)))).await;
    assert_eq!(found, "log 0: offsets 10..25 have no segment");
    let found = problems(|tx| tx.clear(tx.root().pack(&("log", 0)))).await;
    assert!(found.contains("log 0: 2 segments of a log that has no head"), "{found}");
}

#[tokio::test]
async fn a_large_group_misses_a_part() {
    let part = ("group", TENANT, "large", "part", 1);
    let found = problems(|tx| tx.clear(tx.root().pack(&part))).await;
    assert_eq!(found, "group \"large\": 2 parts instead of 3");
    let found = problems(|tx| tx.set(tx.root().pack(&part), vec![0xff; 90])).await;
    assert!(found.contains("(\"group\", \"\", \"large\", \"part\", 2): damaged"), "{found}");
    let found = problems(|tx| tx.clear(tx.root().pack(&("group", TENANT, "large", "meta")))).await;
    assert_eq!(found, "group \"large\": 3 parts instead of 0");
}

#[tokio::test]
async fn a_retained_message_misses_its_other_rows() {
    let part = ("retained_part", TENANT, "a/large", 1);
    let found = problems(|tx| tx.clear(tx.root().pack(&part))).await;
    assert_eq!(found, "retained \"a/large\": 2 parts instead of 3");
    let due = ("retained_due", TENANT, 1_000, "a/large");
    let found = problems(|tx| tx.clear(tx.root().pack(&due))).await;
    assert_eq!(found, "retained \"a/large\": nothing ends it at its time");
    let found = problems(|tx| tx.clear(tx.root().pack(&("retained", TENANT, "a", "large")))).await;
    assert!(found.contains("parts of a message that isn't there"), "{found}");
    assert!(found.contains("a time of another message, 1000"), "{found}");
}

#[tokio::test]
async fn leftovers_and_unknown_families_are_notes() {
    let meta = healthy().await;
    let tx = meta.begin();
    let offset = groups::CommittedOffset::default;
    let offsets = [("gone".to_owned(), 0, offset()), ("orders".to_owned(), 7, offset())];
    groups::commit_offsets(&tx, TENANT, "old", &offsets).unwrap();
    materialised::advance(&tx, LogId(9), 5).await.unwrap();
    for n in 0..3 {
        tx.set(tx.root().pack(&("newer", n)), "what this build doesn't know").unwrap();
    }
    tx.commit().await.unwrap();
    let report = check(&meta).await.unwrap();
    assert_eq!(report.problems.listed, [""; 0]);
    let notes = report.notes.listed.join("\n");
    assert_eq!(report.notes.count, 4, "{notes}");
    for part in ["`newer`", "\"gone\", which is gone", "partition 7 of \"orders\"", "log 9"] {
        assert!(notes.contains(part), "{notes}");
    }
}

#[tokio::test]
async fn another_feature_level_is_told() {
    let level = interflow_proto::meta::Cluster {
        id: Bytes::from_static(&[7; 16]),
        feature_level: 99,
        created_ms: 1,
    };
    let level = Bytes::from(prost::Message::encode_to_vec(&level));
    let found = problems(|tx| tx.set(tx.root().pack(&("config", "cluster")), level.clone())).await;
    let expected = format!(
        "feature level 99 is not known to this build\n\
         node 1 works with feature level {}, and 99 is in use",
        Levels::SUPPORTED
    );
    assert_eq!(found, expected);
    let found = problems(|tx| tx.clear(tx.root().pack(&("config", "cluster")))).await;
    assert_eq!(found, "there is no cluster");
}

#[tokio::test]
async fn nodes_that_work_with_different_feature_levels_are_told() {
    let meta = healthy().await;
    let node = |max| Node { levels: Levels::new(1, max).unwrap(), ..Node::default() };
    let tx = meta.begin();
    let later = Levels::SUPPORTED.max() + 1;
    for (id, max) in [(2, later), (3, later), (4, later + 5)] {
        nodes::register(&tx, NodeId(id), &node(max)).await.unwrap();
    }
    nodes::set_state(&tx, NodeId(4), NodeState::Gone).await.unwrap();
    tx.commit().await.unwrap();
    let report = check(&meta).await.unwrap();
    assert_eq!(report.problems.listed, [""; 0]);
    let expected = format!(
        "nodes work with different feature levels: {} (node 1), {} (2 nodes)",
        Levels::SUPPORTED,
        Levels::new(1, later).unwrap()
    );
    assert_eq!(report.notes.listed, [expected]);
}
