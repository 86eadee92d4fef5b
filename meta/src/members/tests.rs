//! Members over the embedded store; time moves by hand.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::*;
use crate::levels::Levels;
use crate::nodes::{self, FIRST_ALLOCATED, KafkaEndpoint, NodeKind, NodeState};
use crate::{
    Clock, Durability, EmbeddedStore, Env, LogId, Meta, NodeId, SystemRandom, cluster, logs, topics,
};

const LEASE: Duration = Duration::from_secs(6);

/// A clock that moves by hand.
#[derive(Debug, Default)]
struct HandClock(Mutex<Duration>);

impl Clock for HandClock {
    fn now(&self) -> Duration {
        *self.0.lock()
    }
}

struct Bed {
    meta: Meta,
    clock: Arc<HandClock>,
}

impl Bed {
    async fn new() -> Self {
        let clock = Arc::new(HandClock::default());
        let env =
            Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, random: Arc::new(SystemRandom) };
        let store = EmbeddedStore::in_memory(env.clone()).unwrap();
        let meta = Meta::new(Arc::new(store), env, "test");
        meta.transact(|tx| async move {
            cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await
        })
        .await
        .unwrap();
        Self { meta, clock }
    }

    fn pass(&self, seconds: u64) {
        *self.clock.0.lock() += Duration::from_secs(seconds);
    }

    async fn try_join(
        &self,
        id: Option<u32>,
        kind: NodeKind,
    ) -> Result<Arc<Members>, RegisterError> {
        let registration = Registration {
            id: id.map(NodeId),
            kind,
            address: if kind.has_logs() { "localhost:1".to_owned() } else { String::new() },
            endpoints: Vec::new(),
            rack: "r".to_owned(),
            disk: None,
            disk_bytes: 7,
            started_ms: 0,
        };
        let options = MembersOptions::lease(LEASE);
        Members::register(self.meta.clone(), registration, options, CancellationToken::new()).await
    }

    async fn join(&self, id: u32, kind: NodeKind) -> Arc<Members> {
        self.try_join(Some(id), kind).await.unwrap()
    }

    async fn state(&self, id: u32) -> NodeState {
        nodes::get(&self.meta.begin(), NodeId(id)).await.unwrap().unwrap().state
    }
}

fn live(members: &Members) -> Vec<u32> {
    let view = members.view();
    view.all().iter().filter(|member| member.is_live).map(|member| member.id.0).collect()
}

fn candidates(members: &Members) -> Vec<u32> {
    members.view().candidates().map(|member| member.id.0).collect()
}

#[tokio::test]
async fn a_member_dies_when_its_lease_lapses_and_returns_with_a_bump() {
    let bed = Bed::new().await;
    let (one, two) = (bed.join(1, NodeKind::LogStore).await, bed.join(2, NodeKind::LogStore).await);
    let mut changes = one.changes();
    let wait = one.round().await.unwrap();
    assert_eq!((live(&one), live(&two), wait), (vec![1, 2], vec![1, 2], LEASE / 3));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    for _ in 0..2 {
        bed.pass(2);
        one.round().await.unwrap();
        assert_eq!(live(&one), [1, 2]);
        assert!(!changes.has_changed().unwrap());
    }
    bed.pass(1);
    // The next round is due when the lease lapses.
    assert_eq!(one.round().await.unwrap(), Duration::from_secs(1));
    bed.pass(1);
    one.round().await.unwrap();
    assert_eq!(live(&one), [1]);
    assert!(changes.has_changed().unwrap());
    assert!(one.view().is_live(NodeId(1), 1) && !one.view().is_live(NodeId(2), 1));
    changes.mark_unchanged();
    two.round().await.unwrap();
    one.round().await.unwrap();
    assert_eq!(live(&one), [1, 2]);
    assert!(changes.has_changed().unwrap());
}

#[tokio::test]
async fn the_own_lease_lapses_before_others_see_it_and_comes_back() {
    let bed = Bed::new().await;
    let (one, two) = (bed.join(1, NodeKind::Gateway).await, bed.join(2, NodeKind::Gateway).await);
    bed.pass(2);
    two.round().await.unwrap();
    bed.pass(2);
    two.round().await.unwrap();
    assert!(one.lease_holds());
    bed.pass(1);
    // A margin of a second before.
    assert!(!one.lease_holds());
    two.round().await.unwrap();
    assert_eq!(live(&two), [1, 2]);
    bed.pass(1);
    two.round().await.unwrap();
    assert_eq!(live(&two), [2]);
    one.round().await.unwrap();
    assert!(one.lease_holds());
    two.round().await.unwrap();
    assert_eq!(live(&two), [1, 2]);
}

#[tokio::test]
async fn a_second_process_ends_the_first() {
    let bed = Bed::new().await;
    let first = bed.join(1, NodeKind::LogStore).await;
    let second = bed.join(1, NodeKind::LogStore).await;
    assert_eq!((first.me().incarnation, second.me().incarnation), (1, 2));
    first.round().await.unwrap();
    assert!(!first.lease_holds());
    let over = first.over().await;
    assert_eq!(over, LifeOver::Replaced { id: 1, incarnation: 2 });
    assert!(over.to_string().contains("--node-id"), "{over}");
    // It takes nothing from the second one.
    first.leave().await;
    second.round().await.unwrap();
    assert!(second.lease_holds());
    assert_eq!(live(&second), [1]);
}

#[tokio::test]
async fn a_removed_node_ends() {
    let bed = Bed::new().await;
    let one = bed.join(1, NodeKind::LogStore).await;
    bed.meta
        .transact(|tx| async move { nodes::set_state(&tx, NodeId(1), NodeState::Gone).await })
        .await
        .unwrap();
    one.round().await.unwrap();
    assert_eq!(one.over().await, LifeOver::Removed { id: 1 });
    assert_eq!(live(&one), [0; 0]);
}

#[tokio::test]
async fn who_leaves_is_gone_at_the_next_read() {
    let bed = Bed::new().await;
    let (one, two) = (bed.join(1, NodeKind::LogStore).await, bed.join(2, NodeKind::LogStore).await);
    one.round().await.unwrap();
    two.leave().await;
    one.round().await.unwrap();
    assert_eq!(live(&one), [1]);
    let two = bed.join(2, NodeKind::LogStore).await;
    one.round().await.unwrap();
    assert_eq!((live(&one), two.me().incarnation), (vec![1, 2], 2));
}

#[tokio::test]
async fn a_log_store_with_a_full_disk_takes_no_segments_until_it_says_so_or_starts_anew() {
    let bed = Bed::new().await;
    let one = bed.join(1, NodeKind::LogStore).await;
    one.ready().await.unwrap();
    one.set_full(true).await.unwrap();
    let other = bed.join(2, NodeKind::LogStore).await;
    assert_eq!((candidates(&one), candidates(&other)), (vec![], vec![]));
    assert!(other.view().get(NodeId(1)).unwrap().serves_segments());
    one.set_full(false).await.unwrap();
    assert_eq!(candidates(&one), vec![1]);
    one.set_full(true).await.unwrap();
    let again = bed.join(1, NodeKind::LogStore).await;
    again.ready().await.unwrap();
    assert_eq!(candidates(&again), vec![1]);
    // An earlier life says nothing any more.
    one.set_full(true).await.unwrap();
    let node = nodes::get(&bed.meta.begin(), NodeId(1)).await.unwrap().unwrap();
    assert!(!node.is_full);
}

#[tokio::test]
async fn a_log_store_takes_segments_when_it_is_ready_unless_it_was_drained() {
    let bed = Bed::new().await;
    let one = bed.join(1, NodeKind::LogStore).await;
    let gateway = bed.join(2, NodeKind::Gateway).await;
    assert_eq!((live(&gateway), candidates(&gateway)), (vec![1, 2], vec![]));
    assert_eq!(gateway.view().gateways().count(), 0);
    one.ready().await.unwrap();
    gateway.ready().await.unwrap();
    assert_eq!((candidates(&one), candidates(&gateway)), (vec![1], vec![1]));
    assert_eq!(gateway.view().gateways().map(|member| member.id.0).collect::<Vec<_>>(), [2]);
    bed.meta
        .transact(|tx| async move { nodes::set_state(&tx, NodeId(1), NodeState::ReadOnly).await })
        .await
        .unwrap();
    let again = bed.join(1, NodeKind::LogStore).await;
    again.ready().await.unwrap();
    assert_eq!((bed.state(1).await, candidates(&again)), (NodeState::ReadOnly, vec![]));
    assert!(again.view().get(NodeId(1)).unwrap().serves_segments());
    // An earlier life is ready for nothing.
    bed.meta
        .transact(
            |tx| async move { nodes::set_state(&tx, NodeId(1), NodeState::Provisioning).await },
        )
        .await
        .unwrap();
    one.ready().await.unwrap();
    assert_eq!(bed.state(1).await, NodeState::Provisioning);
    again.ready().await.unwrap();
    assert_eq!(bed.state(1).await, NodeState::ReadWrite);
}

#[tokio::test]
async fn log_stores_and_gateways_share_their_numbers() {
    let bed = Bed::new().await;
    bed.join(1, NodeKind::LogStore).await;
    bed.join(2, NodeKind::Gateway).await;
    for (id, kind, told) in [
        (1, NodeKind::Gateway, "node 1 of this cluster is a log store"),
        (2, NodeKind::LogStore, "node 2 of this cluster is a gateway"),
        (2, NodeKind::Both, "node 2 of this cluster is a gateway"),
    ] {
        let refused = bed.try_join(Some(id), kind).await.unwrap_err();
        assert!(refused.to_string().starts_with(told), "{refused}");
    }
    assert_eq!(bed.join(1, NodeKind::Both).await.me().incarnation, 2);
    let [one, two] = [
        bed.try_join(None, NodeKind::Gateway).await.unwrap(),
        bed.try_join(None, NodeKind::Gateway).await.unwrap(),
    ];
    assert_eq!((one.me().id, two.me().id), (FIRST_ALLOCATED, NodeId(FIRST_ALLOCATED.0 + 1)));
}

#[tokio::test]
async fn the_number_of_a_gateway_that_died_is_given_again_after_ten_leases() {
    let bed = Bed::new().await;
    let dead = bed.try_join(None, NodeKind::Gateway).await.unwrap();
    let other = bed.join(1, NodeKind::LogStore).await;
    for _ in 0..30 {
        other.round().await.unwrap();
        let next = bed.try_join(None, NodeKind::Gateway).await.unwrap();
        assert_ne!(next.me().id, dead.me().id);
        next.leave().await;
        bed.pass(2);
    }
    other.round().await.unwrap();
    let heir = bed.try_join(None, NodeKind::Gateway).await.unwrap();
    assert_eq!(heir.me(), Me { id: dead.me().id, incarnation: 2 });
    // It was only asleep.
    dead.round().await.unwrap();
    assert!(matches!(dead.over().await, LifeOver::Replaced { .. }));
}

/// The task itself, in real time.
#[tokio::test]
async fn leases_are_bumped_as_long_as_a_process_runs() {
    let env = Env::default();
    let store = Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap());
    let meta = Meta::new(store, env, "test");
    meta.transact(|tx| async move {
        cluster::join_or_create(&tx, Uuid::nil(), 0, Levels::SUPPORTED).await
    })
    .await
    .unwrap();
    let (shutdown, crash) = (CancellationToken::new(), CancellationToken::new());
    let join = async |id: u32, ends: &CancellationToken| {
        let endpoint =
            KafkaEndpoint { listener: "kafka".to_owned(), host: "h".to_owned(), port: 9 };
        let registration = Registration {
            id: Some(NodeId(id)),
            kind: NodeKind::Gateway,
            address: String::new(),
            endpoints: vec![endpoint],
            rack: String::new(),
            disk: None,
            disk_bytes: 0,
            started_ms: 0,
        };
        let options = MembersOptions::lease(Duration::from_millis(900));
        let members = Members::start(meta.clone(), registration, options, ends).await.unwrap();
        members.ready().await.unwrap();
        members
    };
    let (one, two) = (join(1, &shutdown).await, join(2, &crash).await);
    let mut changes = one.changes();
    let mut seen = async |wanted: &[u32]| {
        changes.wait_for(|_| live(&one) == wanted).await.unwrap();
    };
    seen(&[1, 2]).await;
    let bumped = async |id: u32| {
        let tx = meta.begin();
        let lease = nodes::get(&tx, NodeId(id)).await.unwrap().unwrap().lease;
        let watch = nodes::watch(&tx, NodeId(id)).await.unwrap();
        tx.commit().await.unwrap();
        watch.changed().await.unwrap();
        let after = nodes::get(&meta.begin(), NodeId(id)).await.unwrap().unwrap().lease;
        assert!(after > lease);
    };
    for id in [1, 2, 1, 2] {
        bumped(id).await;
    }
    let gateways: Vec<_> =
        one.view().gateways().map(|member| member.node.endpoints.clone()).collect();
    assert_eq!(gateways[1][0].port, 9);
    crash.cancel();
    seen(&[1]).await;
    assert!(one.lease_holds());
    let again = join(2, &shutdown).await;
    seen(&[1, 2]).await;
    again.leave().await;
    one.refresh();
    seen(&[1]).await;
    drop(two);
    shutdown.cancel();
    one.leave().await;
}

#[tokio::test]
async fn one_that_is_alone_lives_without_a_lease() {
    let node = nodes::Node { incarnation: 3, ..nodes::Node::default() };
    let members = Members::alone(NodeId(1), node);
    assert!(members.lease_holds());
    assert_eq!(members.me(), Me { id: NodeId(1), incarnation: 3 });
    assert_eq!(live(&members), [1]);
    members.ready().await.unwrap();
    members.leave().await;
    assert!(members.lease_holds());
}

/// A log whose open segment is on node `id`.
async fn log_on(meta: &Meta, id: u32) {
    let new = &topics::NewTopic {
        name: "t".to_owned(),
        id: Uuid::from_u128(1),
        partitions: 2,
        config: Default::default(),
        logs: topics::NewLogs {
            durability: Durability::Durable,
            policy: logs::Policy::default(),
            replication_factor: 1,
            opening: logs::Opening {
                base: 0,
                leader_epoch: 0,
                sequencer: NodeId(id),
                incarnation: 1,
                replicas: vec![NodeId(id)],
                token: 1,
                opened_ms: 0,
            },
        },
    };
    meta.transact(|tx| async move { topics::create(&tx, "", new).await }).await.unwrap();
}

#[tokio::test]
async fn a_drained_log_store_takes_no_segments_until_that_is_undone() {
    let bed = Bed::new().await;
    let one = bed.join(1, NodeKind::LogStore).await;
    bed.join(2, NodeKind::Gateway).await;
    one.ready().await.unwrap();
    drain(&bed.meta, NodeId(1), false).await.unwrap();
    one.round().await.unwrap();
    assert_eq!((bed.state(1).await, candidates(&one)), (NodeState::ReadOnly, vec![]));
    drain(&bed.meta, NodeId(1), true).await.unwrap();
    one.round().await.unwrap();
    assert_eq!((bed.state(1).await, candidates(&one)), (NodeState::ReadWrite, vec![1]));
    let refused = drain(&bed.meta, NodeId(2), false).await;
    assert!(matches!(refused, Err(OperateError::Gateway(NodeId(2)))), "{refused:?}");
    let refused = drain(&bed.meta, NodeId(3), false).await;
    assert!(matches!(refused, Err(OperateError::NotFound(NodeId(3)))), "{refused:?}");
    remove(&bed.meta, &one, NodeId(1), true).await.unwrap();
    let refused = drain(&bed.meta, NodeId(1), true).await;
    assert!(matches!(refused, Err(OperateError::State { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_node_is_removed_when_it_is_dead_and_keeps_nothing_or_by_force() {
    let bed = Bed::new().await;
    let (one, two) = (bed.join(1, NodeKind::LogStore).await, bed.join(2, NodeKind::LogStore).await);
    two.ready().await.unwrap();
    one.round().await.unwrap();
    log_on(&bed.meta, 2).await;
    let refused = remove(&bed.meta, &one, NodeId(2), false).await;
    assert!(matches!(refused, Err(OperateError::Live(NodeId(2)))), "{refused:?}");
    assert_eq!(bed.state(2).await, NodeState::ReadWrite);
    two.leave().await;
    one.round().await.unwrap();
    let refused = remove(&bed.meta, &one, NodeId(2), false).await;
    assert!(matches!(refused, Err(OperateError::HasLogs { count: 2, first: LogId(0), .. })));
    // Nothing new comes to it.
    assert_eq!(bed.state(2).await, NodeState::ReadOnly);
    bed.meta.transact(|tx| async move { topics::delete(&tx, "", "t", None).await }).await.unwrap();
    remove(&bed.meta, &one, NodeId(2), false).await.unwrap();
    assert_eq!(bed.state(2).await, NodeState::Gone);
    let refused = remove(&bed.meta, &one, NodeId(3), false).await;
    assert!(matches!(refused, Err(OperateError::NotFound(NodeId(3)))), "{refused:?}");

    let two = bed.join(2, NodeKind::LogStore).await;
    two.ready().await.unwrap();
    log_on(&bed.meta, 2).await;
    one.round().await.unwrap();
    remove(&bed.meta, &one, NodeId(2), true).await.unwrap();
    two.round().await.unwrap();
    assert_eq!(two.over().await, LifeOver::Removed { id: 2 });
}
