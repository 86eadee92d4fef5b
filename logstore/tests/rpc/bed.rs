//! A node on a disk in memory, and a client of it by either transport.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use interflow_logstore::clock::SystemClock;
use interflow_logstore::disk::FaultDisk;
use interflow_logstore::store::Options;
use interflow_logstore::{
    Append, AppendKey, AppendKind, Bounds, Durability, EarlyBatch, Identity, LogClient, LogConfig,
    LogId, LogObserver, LogServerOptions, LogStore, NodeId, Offset, Read, RemoteLogs,
    RemoteLogsOptions, Withheld, serve_logs,
};
use interflow_meta::logs::{Opening, Policy};
use interflow_meta::topics::{self, NewLogs, NewTopic};
use interflow_meta::{DEFAULT_TENANT, EmbeddedStore, Env, Meta};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) const NODE: NodeId = NodeId(1);

/// A log store, and what outlives it.
pub(crate) struct Node {
    pub(crate) logs: LogStore,
    pub(crate) meta: Meta,
    disk: FaultDisk,
    identity: Identity,
}

impl Node {
    pub(crate) async fn new() -> Self {
        let store = EmbeddedStore::in_memory(Env::default()).unwrap();
        let meta = Meta::new(Arc::new(store), Env::default(), "test");
        Self::start(FaultDisk::new(), meta, Identity { node: NODE, incarnation: 1 }).await
    }

    /// Another node of the same metadata.
    pub(crate) async fn beside(&self, node: NodeId) -> Self {
        let identity = Identity { node, incarnation: 1 };
        Self::start(FaultDisk::new(), self.meta.clone(), identity).await
    }

    async fn start(disk: FaultDisk, meta: Meta, identity: Identity) -> Self {
        let options = Options {
            extent_bytes: 32 << 20,
            chunk_bytes: 1 << 20,
            min_free_bytes: 0,
            min_free_percent: 0,
            ..Options::default()
        };
        let logs = LogStore::open_journal(
            Arc::new(disk.folder("journal")),
            options,
            meta.clone(),
            identity,
            LogConfig::default(),
            Arc::new(SystemClock::new()),
        )
        .await
        .unwrap();
        Self { logs, meta, disk, identity }
    }

    /// Stops in order and starts as the next incarnation.
    pub(crate) async fn restart(self) -> Self {
        self.logs.shutdown().await;
        let Self { logs, meta, disk, identity } = self;
        drop(logs);
        let incarnation = identity.incarnation + 1;
        Self::start(disk, meta, Identity { incarnation, ..identity }).await
    }

    /// A new log.
    pub(crate) async fn log(&self) -> LogId {
        // Timestamps are small numbers here: nothing is old.
        self.log_of(self.identity.node, Policy { retention_ms: None, ..Policy::default() }).await
    }

    /// A new log with its first segment on `node`.
    pub(crate) async fn log_of(&self, node: NodeId, policy: Policy) -> LogId {
        let new = &NewTopic {
            name: format!("topic-{}", self.meta.random_u64()),
            id: Uuid::from_u128(u128::from(self.meta.random_u64())),
            partitions: 1,
            config: Default::default(),
            logs: NewLogs {
                durability: Durability::Durable,
                policy,
                replication_factor: 1,
                opening: Opening {
                    base: 0,
                    leader_epoch: 0,
                    sequencer: node,
                    incarnation: self.identity.incarnation,
                    replicas: vec![node],
                    token: 1,
                    opened_ms: 0,
                },
            },
        };
        let topic = self
            .meta
            .transact(|tx| async move { topics::create(&tx, DEFAULT_TENANT, new).await })
            .await
            .unwrap();
        topic.logs[0]
    }

    /// Takes the log out of meta; the node hears of it by a refresh.
    pub(crate) async fn delete(&self, log: LogId) {
        let head = interflow_meta::logs::load_head(&self.meta.begin(), log).await;
        let name = &head.unwrap().unwrap().topic;
        self.meta
            .transact(|tx| async move { topics::delete(&tx, DEFAULT_TENANT, name, None).await })
            .await
            .unwrap();
    }
}

/// A served log store.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl Served {
    pub(crate) async fn new(logs: &LogStore, options: LogServerOptions) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), logs, options)
    }

    pub(crate) fn on(listener: TcpListener, logs: &LogStore, options: LogServerOptions) -> Self {
        let address = listener.local_addr().unwrap();
        let closing = CancellationToken::new();
        let (logs, ended) = (logs.clone(), closing.clone());
        let serving = tokio::spawn(async move {
            serve_logs(listener, &logs, options, ended).await.unwrap();
        });
        Self { address, closing, serving }
    }

    pub(crate) async fn stop(self) {
        self.closing.cancel();
        self.serving.await.unwrap();
    }
}

/// A client of the server at `port`.
pub(crate) fn remote(port: u16) -> RemoteLogs {
    RemoteLogs::open(options(port)).unwrap()
}

pub(crate) fn options(port: u16) -> RemoteLogsOptions {
    RemoteLogsOptions::new("127.0.0.1", port, u64::from(port))
}

/// A node and a client.
pub(crate) struct Bed {
    pub(crate) node: Node,
    pub(crate) client: Arc<dyn LogClient>,
    remote: Option<(Served, Arc<RemoteLogs>)>,
}

impl Bed {
    pub(crate) async fn in_process() -> Self {
        let node = Node::new().await;
        Self { client: Arc::new(node.logs.clone()), node, remote: None }
    }

    pub(crate) async fn remote() -> Self {
        let node = Node::new().await;
        let served = Served::new(&node.logs, LogServerOptions::default()).await;
        let logs = Arc::new(remote(served.address.port()));
        Self { node, client: logs.clone(), remote: Some((served, logs)) }
    }

    pub(crate) async fn end(self) {
        if let Some((served, logs)) = self.remote {
            logs.close().await;
            served.stop().await;
        }
        self.node.logs.shutdown().await;
    }

    /// All that is committed: offsets and names.
    pub(crate) async fn read_all(&self, log: LogId) -> Vec<(Offset, String)> {
        read_all(&*self.client, log).await
    }
}

pub(crate) async fn read_all(client: &dyn LogClient, log: LogId) -> Vec<(Offset, String)> {
    let mut offset = client.bounds(log).await.unwrap().start;
    let mut all = Vec::new();
    loop {
        let outcome = client.read(read(log, offset)).await.unwrap();
        for batch in &outcome.batches {
            all.push((batch.base_offset, name(&batch.bytes)));
        }
        if outcome.batches.is_empty() && outcome.next_offset == offset {
            return all;
        }
        offset = outcome.next_offset;
    }
}

pub(crate) fn read(log: LogId, offset: Offset) -> Read {
    Read { log, offset, max_bytes: 1 << 20, stable_only: false, filter: None }
}

/// A batch of `count` records that is known again by `name`.
pub(crate) fn batch(log: LogId, count: u32, name: &str) -> Append {
    let mut bytes = vec![0xaa; 16];
    bytes.extend_from_slice(name.as_bytes());
    Append {
        log,
        kind: AppendKind::Data,
        key: None,
        window: 5,
        count,
        max_timestamp: 1_000,
        digest: None,
        early: false,
        batch: Bytes::from(bytes),
    }
}

pub(crate) fn key(producer: i64, sequence: i32) -> AppendKey {
    AppendKey { producer_id: producer, producer_epoch: 0, sequence }
}

/// A batch of one record under an append key of `producer`.
pub(crate) fn keyed(log: LogId, producer: i64, sequence: i32, name: &str) -> Append {
    Append { key: Some(key(producer, sequence)), ..batch(log, 1, name) }
}

pub(crate) fn name(bytes: &Bytes) -> String {
    String::from_utf8_lossy(&bytes[16..]).into_owned()
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(crate) enum Told {
    Advanced(Offset, Offset),
    Early(i32),
    Withheld(Withheld),
    Ended,
}

/// Remembers what it is told.
#[derive(Default)]
pub(crate) struct Recorder {
    told: Mutex<Vec<Told>>,
    changed: Notify,
}

impl Recorder {
    fn push(&self, told: Told) {
        self.told.lock().push(told);
        self.changed.notify_waiters();
    }

    pub(crate) fn told(&self) -> Vec<Told> {
        self.told.lock().clone()
    }

    /// Waits until the last that was told is as wanted; all that was told.
    pub(crate) async fn until(&self, is_wanted: impl Fn(&Told) -> bool) -> Vec<Told> {
        loop {
            let changed = self.changed.notified();
            let told = self.told();
            if told.last().is_some_and(&is_wanted) {
                return told;
            }
            changed.await;
        }
    }

    pub(crate) async fn committed(&self, offset: Offset) -> Vec<Told> {
        self.until(|told| matches!(told, Told::Advanced(_, committed) if *committed == offset))
            .await
    }
}

impl LogObserver for Recorder {
    fn advanced(&self, _: LogId, bounds: Bounds) {
        self.push(Told::Advanced(bounds.start, bounds.committed));
    }

    fn early(&self, _: LogId, batch: &EarlyBatch) {
        self.push(Told::Early(batch.key.sequence));
    }

    fn withheld(&self, _: LogId, until: Withheld) {
        self.push(Told::Withheld(until));
    }

    fn ended(&self, _: LogId) {
        self.push(Told::Ended);
    }
}
