//! Several nodes behind one client: found by meta, and found again when logs or nodes move.

use std::sync::Arc;

use interflow_logstore::{
    LogClient, LogError, LogId, LogServerOptions, LogStore, MetaDirectory, NodeAccess, NodeId,
    NodeTimes, Router, RouterOptions,
};
use interflow_meta::Meta;
use interflow_meta::cluster;
use interflow_meta::levels::Levels;
use interflow_meta::logs::{self, Closing, Opening, Policy};
use interflow_meta::nodes::{self, NodeState};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::bed::{NODE, Node, Recorder, Served, batch, keyed, read_all};

const SECOND: NodeId = NodeId(2);

async fn register(meta: &Meta, id: NodeId, served: &Served) {
    register_at(meta, id, &served.address.to_string()).await;
}

/// Says in meta where a node is.
pub(crate) async fn register_at(meta: &Meta, id: NodeId, address: &str) {
    let node = &nodes::Node {
        address: address.to_owned(),
        state: NodeState::ReadWrite,
        levels: Levels::SUPPORTED,
        ..nodes::Node::default()
    };
    meta.transact(|tx| async move {
        cluster::join_or_create(&tx, Uuid::from_u128(1), 0, Levels::SUPPORTED).await?;
        nodes::register(&tx, id, node).await
    })
    .await
    .unwrap();
}

fn router(meta: &Meta) -> Router {
    let directory = MetaDirectory::new(meta.clone(), NodeAccess::default(), NodeTimes::default());
    Router::new(Arc::new(directory), RouterOptions::default())
}

async fn serve(logs: &LogStore) -> Served {
    Served::new(logs, LogServerOptions::default()).await
}

/// Two nodes, served and registered.
struct Pair {
    nodes: [Node; 2],
    served: [Served; 2],
}

impl Pair {
    async fn new() -> Self {
        let first = Node::new().await;
        let second = first.beside(SECOND).await;
        let served = [serve(&first.logs).await, serve(&second.logs).await];
        register(&first.meta, NODE, &served[0]).await;
        register(&first.meta, SECOND, &served[1]).await;
        Self { nodes: [first, second], served }
    }

    async fn end(self) {
        for served in self.served {
            served.stop().await;
        }
        for node in self.nodes {
            node.logs.shutdown().await;
        }
    }
}

#[tokio::test]
async fn each_log_is_served_by_its_node() {
    let pair = Pair::new().await;
    let router = router(&pair.nodes[0].meta);
    for (node, other) in [(0, 1), (1, 0)] {
        let log = pair.nodes[node].log().await;
        let seen = Arc::new(Recorder::default());
        let observation = router.observe(log, seen.clone()).await.unwrap();
        let tickets: Vec<_> =
            (0..5).map(|n| router.append(keyed(log, 1, n, &format!("{node}-{n}")))).collect();
        for (n, ticket) in tickets.into_iter().enumerate() {
            assert_eq!(ticket.await.unwrap().base_offset, n as u64);
        }
        seen.committed(5).await;
        let expected: Vec<_> = (0..5).map(|n| (n, format!("{node}-{n}"))).collect();
        assert_eq!(read_all(&router, log).await, expected);
        assert_eq!(read_all(&pair.nodes[node].logs, log).await, expected);
        assert_eq!(pair.nodes[other].logs.bounds(log).await, Err(LogError::NotSequencer));
        drop(observation);
    }
    assert_eq!(router.bounds(LogId(9_999)).await, Err(LogError::NoSuchLog));
    router.close().await;
    pair.end().await;
}

/// The head of an empty log says another node from now on.
async fn give(meta: &Meta, log: LogId, to: NodeId) {
    meta.transact(|tx| async move {
        let head = logs::load_head(&tx, log).await?.unwrap();
        let closing = Closing {
            expected_epoch: head.open.epoch,
            end: 0,
            closed_ms: 0,
            max_timestamp_ms: None,
            bytes: 0,
            is_short: false,
        };
        let opening = Opening {
            base: 0,
            leader_epoch: 1,
            sequencer: to,
            incarnation: 1,
            replicas: vec![to],
            token: 2,
            opened_ms: 0,
        };
        logs::close_and_open(&tx, log, &closing, &opening).await
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_log_that_moved_is_found_at_its_new_node() {
    let Pair { nodes: [first, second], served: [first_served, second_served] } = Pair::new().await;
    let router = router(&first.meta);
    let policy = Policy { retention_ms: None, ..Policy::default() };
    let (appended, read) = (first.log_of(NODE, policy).await, first.log_of(NODE, policy).await);
    for log in [appended, read] {
        assert_eq!(router.bounds(log).await.unwrap().committed, 0);
    }
    // While the node is away its logs are given to the other one; it comes back where it was.
    let address = first_served.address;
    first_served.stop().await;
    for log in [appended, read] {
        give(&first.meta, log, SECOND).await;
    }
    let first = first.restart().await;
    let listener = TcpListener::bind(address).await.unwrap();
    let first_served = Served::on(listener, &first.logs, LogServerOptions::default());

    // Where it is now, without its producer hearing of the refusal.
    assert_eq!(router.append(batch(appended, 1, "a")).await.unwrap().base_offset, 0);
    assert_eq!(read_all(&second.logs, appended).await, [(0, "a".to_owned())]);
    // A call is.
    let bounds = router.bounds(read).await.unwrap();
    assert_eq!((bounds.committed, bounds.leader_epoch), (0, 1));
    router.close().await;
    Pair { nodes: [first, second], served: [first_served, second_served] }.end().await;
}

#[tokio::test]
async fn a_node_that_moved_is_found_at_its_new_address() {
    let Pair { nodes: [first, second], served: [first_served, second_served] } = Pair::new().await;
    let router = router(&first.meta);
    let log = first.log().await;
    router.append(batch(log, 1, "a")).await.unwrap();
    first_served.stop().await;
    let first = first.restart().await;
    let first_served = serve(&first.logs).await;
    register(&first.meta, NODE, &first_served).await;
    // The old address is tried first, as long as a call may take.
    let all = read_all(&router, log).await;
    assert_eq!(all, [(0, "a".to_owned())]);
    assert_eq!(router.append(batch(log, 1, "b")).await.unwrap().base_offset, 1);
    router.close().await;
    Pair { nodes: [first, second], served: [first_served, second_served] }.end().await;
}

#[tokio::test]
async fn where_a_log_is_kept_is_known_though_its_node_is_silent() {
    let node = Node::new().await;
    let log = node.log().await;
    // Connections come about; nobody ever says anything on them.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    register_at(&node.meta, NODE, &silent.local_addr().unwrap().to_string()).await;
    let router = router(&node.meta);
    let told = router.replicas(log).await.unwrap();
    let replicas: Vec<_> = told.replicas.iter().map(|at| (at.node, at.is_in_sync)).collect();
    assert_eq!((replicas, told.replication_factor), (vec![(NODE, false)], 1));
    assert_eq!(router.replicas(LogId(9_999)).await, Err(LogError::NoSuchLog));
    router.close().await;
    node.logs.shutdown().await;
}
