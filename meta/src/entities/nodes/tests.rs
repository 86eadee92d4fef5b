use std::time::Duration;

use bytes::Bytes;
use interflow_proto::meta as proto;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::entities::codec::encode;
use crate::entities::levels::Levels;
use crate::testing::TestBed;

#[tokio::test]
async fn each_life_of_a_node_has_its_own_number() {
    let bed = TestBed::new();
    let refused = register(&bed.meta.begin(), NodeId(7), &Node::default()).await;
    assert!(matches!(refused, Err(ClusterError::NoCluster)), "{refused:?}");
    bed.meta
        .transact(|tx| async move {
            cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await
        })
        .await
        .unwrap();
    let node =
        Node { state: NodeState::ReadWrite, address: "localhost:1".to_owned(), ..Node::default() };
    let node = &node;
    for incarnation in 1..4 {
        let registered = bed
            .meta
            .transact(|tx| async move { register(&tx, NodeId(7), node).await })
            .await
            .unwrap();
        assert_eq!(registered.incarnation, incarnation);
    }
    let changed = bed
        .meta
        .transact(|tx| async move { set_state(&tx, NodeId(7), NodeState::Gone).await })
        .await
        .unwrap();
    assert!(changed);
    let tx = bed.meta.begin();
    assert!(!set_state(&tx, NodeId(8), NodeState::Gone).await.unwrap());
    let nodes = list(&tx).await.unwrap();
    let [(NodeId(7), node)] = &nodes[..] else {
        panic!("{nodes:?}");
    };
    assert_eq!((node.incarnation, node.state), (3, NodeState::Gone));
    // It comes back by its process only.
    assert!(!set_state(&tx, NodeId(7), NodeState::ReadWrite).await.unwrap());
    assert_eq!(get(&tx, NodeId(7)).await.unwrap().unwrap().state, NodeState::Gone);
    register(&tx, NodeId(7), &Node { state: NodeState::ReadWrite, ..Node::default() })
        .await
        .unwrap();
    assert!(set_state(&tx, NodeId(7), NodeState::ReadOnly).await.unwrap());
}

#[tokio::test]
async fn a_lease_rises_while_its_life_goes_on() {
    let bed = TestBed::new();
    let (tx, id) = (bed.meta.begin(), NodeId(7));
    assert_eq!(bump_lease(&tx, id, 1).await.unwrap(), None);
    cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await.unwrap();
    let first = register(&tx, id, &Node::default()).await.unwrap();
    let mut last = first.lease;
    for _ in 0..3 {
        let lease = bump_lease(&tx, id, first.incarnation).await.unwrap().unwrap();
        assert!(lease > last);
        last = lease;
    }
    // Nothing else of the node changes.
    assert_eq!(get(&tx, id).await.unwrap(), Some(Node { lease: last, ..first.clone() }));
    // The next life has risen above the last, which can't go on.
    let next = register(&tx, id, &Node::default()).await.unwrap();
    assert!(next.lease > last);
    assert_eq!(bump_lease(&tx, id, first.incarnation).await.unwrap(), None);
    assert!(bump_lease(&tx, id, next.incarnation).await.unwrap().is_some());
    assert!(set_state(&tx, id, NodeState::Gone).await.unwrap());
    assert_eq!(bump_lease(&tx, id, next.incarnation).await.unwrap(), None);
}

/// A bump and the transaction of one who takes the node for dead: one of them wins.
#[tokio::test]
async fn a_late_bump_is_in_conflict_with_who_saw_no_bump() {
    let bed = TestBed::new();
    let id = NodeId(7);
    let node = bed
        .meta
        .transact(|tx| async move {
            cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await?;
            register(&tx, id, &Node::default()).await
        })
        .await
        .unwrap();
    let (bump, takeover) = (bed.meta.begin(), bed.meta.begin());
    assert_eq!(get(&takeover, id).await.unwrap().unwrap().lease, node.lease);
    takeover.set(b"taken".to_vec(), Bytes::new()).unwrap();
    bump_lease(&bump, id, node.incarnation).await.unwrap().unwrap();
    bump.commit().await.unwrap();
    assert!(takeover.commit().await.is_err());
}

/// A value as it was written before nodes said which feature levels they work with.
#[test]
fn a_node_that_does_not_say_works_with_the_first_level() {
    let old = b"\x08\x05\x10\x01\x1a\x01a\x22\x01r\x28\x07\x32\x10AAAAAAAAAAAAAAAA";
    let node = Node::decode(Bytes::from_static(old)).unwrap();
    let expected = Node {
        incarnation: 5,
        state: NodeState::ReadWrite,
        address: "a".to_owned(),
        rack: "r".to_owned(),
        started_ms: 7,
        disk: Some(Uuid::from_bytes([b'A'; 16])),
        levels: Levels::new(1, 1).unwrap(),
        ..Node::default()
    };
    assert_eq!((node.lease_time, node.kind), (DEFAULT_LEASE, NodeKind::Both));
    assert_eq!(node, expected);
}

#[test]
fn levels_that_are_no_range_are_damage() {
    for (min_level, max_level) in [(0, 1), (2, 1), (1, 0)] {
        let value = encode(&proto::Node { min_level, max_level, ..proto::Node::default() });
        let refused = Node::decode(value);
        assert!(matches!(refused, Err(MetaError::Corrupt(_))), "{refused:?}");
    }
}

/// Who depends on a node's life is in conflict with a change of it, and with no bump.
#[tokio::test]
async fn a_bump_is_no_change_of_a_life() {
    let bed = TestBed::new();
    let id = NodeId(7);
    let node = bed
        .meta
        .transact(|tx| async move {
            cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await?;
            register(&tx, id, &Node::default()).await
        })
        .await
        .unwrap();
    for (change, is_conflict) in [(0, false), (1, true), (2, true), (3, true), (4, true)] {
        let depends = bed.meta.begin();
        let seen = get_life(&depends, id).await.unwrap().unwrap();
        depends.set(b"depends".to_vec(), Bytes::new()).unwrap();
        let other = bed.meta.begin();
        match change {
            0 => assert!(bump_lease(&other, id, node.incarnation).await.unwrap().is_some()),
            1 => assert!(set_state(&other, id, NodeState::ReadOnly).await.unwrap()),
            2 => assert!(leave(&other, id, node.incarnation).await.unwrap()),
            3 => assert!(bury(&other, id, seen.lease).await.unwrap()),
            _ => assert_eq!(register(&other, id, &node).await.unwrap().incarnation, 2),
        }
        other.commit().await.unwrap();
        assert_eq!(depends.commit().await.is_err(), is_conflict, "{change}");
    }
}

#[tokio::test]
async fn who_stopped_is_stopped_until_the_next_bump_or_life() {
    let bed = TestBed::new();
    let (tx, id) = (bed.meta.begin(), NodeId(7));
    cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await.unwrap();
    let first = register(&tx, id, &Node::default()).await.unwrap();
    assert!(!leave(&tx, id, 0).await.unwrap());
    assert!(leave(&tx, id, first.incarnation).await.unwrap());
    assert!(get(&tx, id).await.unwrap().unwrap().is_stopped);
    // It was only slow.
    let lease = bump_lease(&tx, id, first.incarnation).await.unwrap().unwrap();
    assert!(!get(&tx, id).await.unwrap().unwrap().is_stopped);
    assert!(!bury(&tx, id, first.lease).await.unwrap());
    assert!(bury(&tx, id, lease).await.unwrap());
    assert!(get(&tx, id).await.unwrap().unwrap().is_stopped);
    assert!(!register(&tx, id, &Node::default()).await.unwrap().is_stopped);
    assert!(!get(&tx, id).await.unwrap().unwrap().is_stopped);
}

#[tokio::test]
async fn gateways_get_the_lowest_number_that_nobody_has() {
    let bed = TestBed::new();
    let tx = bed.meta.begin();
    cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await.unwrap();
    register(&tx, NodeId(1), &Node::default()).await.unwrap();
    let first = FIRST_ALLOCATED.0;
    for expected in first..first + 4 {
        let id = allocate(&tx).await.unwrap();
        assert_eq!(id, NodeId(expected));
        register(&tx, id, &Node::default()).await.unwrap();
    }
    leave(&tx, NodeId(first + 2), 1).await.unwrap();
    assert_eq!(allocate(&tx).await.unwrap(), NodeId(first + 2));
    set_state(&tx, NodeId(first + 1), NodeState::Gone).await.unwrap();
    let id = allocate(&tx).await.unwrap();
    assert_eq!(id, NodeId(first + 1));
    assert_eq!(register(&tx, id, &Node::default()).await.unwrap().incarnation, 2);
}

/// Two at once: one of them tries again, and gets another number.
#[tokio::test]
async fn a_number_is_given_once() {
    let bed = TestBed::new();
    bed.meta
        .transact(|tx| async move {
            cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await
        })
        .await
        .unwrap();
    let attempts = [bed.meta.begin(), bed.meta.begin()];
    for tx in &attempts {
        let id = allocate(tx).await.unwrap();
        register(tx, id, &Node::default()).await.unwrap();
    }
    let [first, second] = attempts;
    first.commit().await.unwrap();
    assert!(second.commit().await.is_err());
}

proptest! {
    #[test]
    fn a_node_comes_back_as_it_was(
        incarnation: u64, state in 0_u32..5, kind in 0_u32..3, names in [".{0,9}", ".{0,9}", ".{0,9}"],
        numbers: [u64; 3], ports in proptest::collection::vec(any::<u16>(), 0..3), started_ms: i64,
        disk in proptest::option::of(0..u128::MAX), min_level in 1..u32::MAX, more: u32,
        lease_ms in 1..u64::MAX, is_stopped: bool, is_full: bool,
    ) {
        let [address, rack, host] = names;
        let [lease, disk_bytes, _] = numbers;
        let endpoints = ports.iter().map(|port| KafkaEndpoint {
            listener: format!("kafka-{port}"), host: host.clone(), port: *port,
        });
        let node = Node {
            incarnation,
            state: NodeState::from_code(state).unwrap(),
            kind: NodeKind::from_code(kind).unwrap(),
            address,
            endpoints: endpoints.collect(),
            rack,
            started_ms,
            disk: disk.map(Uuid::from_u128),
            disk_bytes,
            levels: Levels::new(min_level, min_level.saturating_add(more)).unwrap(),
            lease,
            lease_time: Duration::from_millis(lease_ms),
            is_stopped,
            is_full,
        };
        prop_assert_eq!(Node::decode(node.encode()).unwrap(), node);
    }
}
