//! A level is raised when all can work with it, and nobody slips in meanwhile.

use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::entities::nodes::Node;
use crate::{EmbeddedStore, Env, Meta};

fn levels(min: u32, max: u32) -> Levels {
    Levels::new(min, max).unwrap()
}

fn node(min: u32, max: u32) -> Node {
    Node { state: NodeState::ReadWrite, levels: levels(min, max), ..Node::default() }
}

/// A cluster of this level with nodes 1, 2, … of these levels.
async fn meta(level: u32, nodes: &[Levels]) -> Meta {
    let env = Env::default();
    let meta = Meta::new(Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap()), env, "test");
    let tx = meta.begin();
    cluster::join_or_create(&tx, Uuid::nil(), 0, levels(level, level)).await.unwrap();
    tx.commit().await.unwrap();
    for (levels, id) in nodes.iter().zip(1..) {
        register(&meta, id, &node(levels.min, levels.max)).await.unwrap();
    }
    meta
}

async fn register(meta: &Meta, id: u32, node: &Node) -> Result<Node, ClusterError> {
    meta.transact(|tx| async move { nodes::register(&tx, NodeId(id), node).await }).await
}

async fn raise(meta: &Meta, to: u32, supported: Levels) -> Result<Upgrade, UpgradeError> {
    meta.transact(|tx| async move { upgrade(&tx, Some(to), supported).await }).await
}

async fn level(meta: &Meta) -> u32 {
    cluster::get(&meta.begin()).await.unwrap().unwrap().feature_level
}

#[test]
fn a_range_is_one_and_reads_well() {
    assert_eq!(Levels::new(0, 1), None);
    assert_eq!(Levels::new(3, 2), None);
    assert_eq!(levels(2, 2).to_string(), "2");
    assert_eq!(levels(1, 3).to_string(), "1 to 3");
    assert!(Levels::SUPPORTED.contains(Levels::SUPPORTED.max()));
}

#[tokio::test]
async fn a_level_is_raised_when_every_node_can_work_with_it() {
    let meta = meta(1, &[levels(1, 3), levels(1, 2)]).await;
    let told = |done: Result<Upgrade, UpgradeError>| done.unwrap_err().to_string();

    let told_of = told(raise(&meta, 3, levels(1, 3)).await);
    assert!(told_of.contains("feature level 3: node 2 works with 1 to 2; start them"), "{told_of}");
    let told_of = told(raise(&meta, 3, levels(1, 2)).await);
    assert!(told_of.contains("works with feature level 1 to 2, not 3"), "{told_of}");
    assert_eq!(level(&meta).await, 1);

    let nodes = vec![(NodeId(1), levels(1, 3)), (NodeId(2), levels(1, 2))];
    let done = raise(&meta, 2, levels(1, 3)).await.unwrap();
    assert_eq!(done, Upgrade { from: 1, to: 2, nodes: nodes.clone() });
    assert_eq!(level(&meta).await, 2);
    let done = raise(&meta, 2, levels(1, 3)).await.unwrap();
    assert_eq!(done, Upgrade { from: 2, to: 2, nodes });

    let told_of = told(raise(&meta, 1, levels(1, 3)).await);
    assert!(told_of.contains("is 2, and is never lowered"), "{told_of}");
    let told_of = told(raise(&meta, 3, levels(3, 3)).await);
    assert!(told_of.contains("start an earlier version"), "{told_of}");
    let told_of = told(raise(&meta, 1, levels(1, 1)).await);
    assert!(told_of.contains("start the version of interflow that raised it"), "{told_of}");
    assert_eq!(level(&meta).await, 2);
}

/// Without a number it goes as far as the build can, which the nodes may not.
#[tokio::test]
async fn what_is_not_committed_is_only_shown() {
    let meta = meta(1, &[levels(1, 4)]).await;
    for _ in 0..2 {
        let shown = upgrade(&meta.begin(), None, levels(1, 4)).await.unwrap();
        assert_eq!((shown.from, shown.to), (1, 4));
    }
    let refused = upgrade(&meta.begin(), None, levels(1, 5)).await;
    assert!(matches!(refused, Err(UpgradeError::NotReady { to: 5, .. })), "{refused:?}");
    assert_eq!(level(&meta).await, 1);
}

#[tokio::test]
async fn a_node_that_is_gone_holds_nobody_up_and_must_register_to_come_back() {
    let meta = meta(1, &[levels(1, 2), levels(1, 1)]).await;
    meta.transact(|tx| async move { nodes::set_state(&tx, NodeId(2), NodeState::Gone).await })
        .await
        .unwrap();
    let done = raise(&meta, 2, levels(1, 2)).await.unwrap();
    assert_eq!(done.nodes, [(NodeId(1), levels(1, 2))]);
    let refused = register(&meta, 2, &node(1, 1)).await.unwrap_err();
    assert!(matches!(refused, ClusterError::NewerLevel { found: 2, .. }), "{refused}");
    register(&meta, 2, &node(1, 2)).await.unwrap();
    // One that has forgotten the level in use is no better.
    let refused = register(&meta, 3, &node(3, 4)).await.unwrap_err();
    assert!(matches!(refused, ClusterError::OlderLevel { found: 2, .. }), "{refused}");
}

#[tokio::test]
async fn what_came_with_a_level_may_be_written_when_that_is_in_use() {
    let meta = meta(1, &[]).await;
    let are_in_use = async || {
        let tx = meta.begin();
        [is_in_use(&tx, 1).await.unwrap(), is_in_use(&tx, ACKS).await.unwrap()]
    };
    assert_eq!(are_in_use().await, [true, false]);
    raise(&meta, ACKS, Levels::SUPPORTED).await.unwrap();
    assert_eq!(are_in_use().await, [true, true]);
}

#[tokio::test]
async fn without_a_cluster_there_is_nothing_to_raise() {
    let env = Env::default();
    let meta = Meta::new(Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap()), env, "test");
    let refused = raise(&meta, 1, levels(1, 1)).await.unwrap_err();
    assert_eq!(refused.to_string(), "there is no cluster in this metadata");
}

/// The upgrade has looked at the nodes when another registers.
#[tokio::test]
async fn an_upgrade_conflicts_with_a_registration_before_its_commit() {
    let meta = meta(1, &[levels(1, 2)]).await;
    let tx = meta.begin();
    upgrade(&tx, Some(2), levels(1, 2)).await.unwrap();
    register(&meta, 2, &node(1, 1)).await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err(), MetaError::Conflict);
    let refused = raise(&meta, 2, levels(1, 2)).await.unwrap_err();
    assert!(matches!(refused, UpgradeError::NotReady { .. }), "{refused}");
}

/// A registration has looked at the level when it is raised.
#[tokio::test]
async fn a_registration_conflicts_with_an_upgrade_before_its_commit() {
    let meta = meta(1, &[levels(1, 2)]).await;
    let tx = meta.begin();
    nodes::register(&tx, NodeId(2), &node(1, 1)).await.unwrap();
    raise(&meta, 2, levels(1, 2)).await.unwrap();
    assert_eq!(tx.commit().await.unwrap_err(), MetaError::Conflict);
    let refused = register(&meta, 2, &node(1, 1)).await.unwrap_err();
    assert!(matches!(refused, ClusterError::NewerLevel { .. }), "{refused}");
}

/// Whoever comes first, at the end every node can work with the level in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_and_registrations_side_by_side_leave_nobody_behind() {
    for round in 0..100 {
        let meta = &meta(1, &[levels(1, 2)]).await;
        let upgrading = async { raise(meta, 2, levels(1, 2)).await.is_ok() };
        let registering = async {
            // Both orders come, whichever begins.
            for _ in 0..round % 4 {
                tokio::task::yield_now().await;
            }
            register(meta, 2, &node(1, 1)).await.is_ok()
        };
        let (is_raised, is_registered) = if round % 2 == 0 {
            tokio::join!(upgrading, registering)
        } else {
            let (is_registered, is_raised) = tokio::join!(registering, upgrading);
            (is_raised, is_registered)
        };
        assert!(is_raised != is_registered, "one of them, and one only");
        let level = level(meta).await;
        assert_eq!(level, if is_raised { 2 } else { 1 });
        for (id, node) in nodes::list(&meta.begin()).await.unwrap() {
            assert!(node.levels.contains(level), "node {id} is left behind");
        }
    }
}
