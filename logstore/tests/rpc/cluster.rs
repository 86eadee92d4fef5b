//! Log services without disks behind real servers: nodes of one cluster that share what their logs
//! hold, go silent, die, come back, and recover one another's logs in meta.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use interflow_logstore::{
    Append, AppendError, AppendKey, AppendReply, AppendTicket, Appended, Bounds, Epoch, Identity,
    LogClient, LogDescription, LogError, LogId, LogObserver, LogServer, LogServerOptions,
    MetaDirectory, NodeAccess, NodeId, NodeTimes, Observation, Offset, Read, ReadError,
    ReadOutcome, Router, RouterOptions,
};
use interflow_meta::logs::{self, Closing, Opening, Policy};
use interflow_meta::topics::{self, NewLogs, NewTopic};
use interflow_meta::{DEFAULT_TENANT, Durability, EmbeddedStore, Env, Meta};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bed::name;
use super::proxy::Proxy;
use super::routing::register_at;

type Observers = Mutex<Vec<(LogId, Arc<dyn LogObserver>)>>;

/// What a log holds: all replicas have it.
struct Content {
    sequencer: NodeId,
    batches: Vec<(Option<AppendKey>, String)>,
}

/// What all nodes know.
pub(crate) struct World {
    pub(crate) meta: Meta,
    logs: Mutex<BTreeMap<LogId, Content>>,
    /// One log moves at a time.
    moving: tokio::sync::Mutex<()>,
    /// Appends that came to any node.
    pub(crate) arrivals: watch::Sender<usize>,
}

impl World {
    pub(crate) fn names(&self, log: LogId) -> Vec<String> {
        self.logs.lock()[&log].batches.iter().map(|(_, name)| name.clone()).collect()
    }

    /// Closes the log's open segment and opens the next on `node`.
    pub(crate) async fn give(&self, log: LogId, node: NodeId) {
        self.close_and_open(log, None, node).await;
    }

    /// The same, if `epoch` is the one that is open.
    async fn close_and_open(&self, log: LogId, epoch: Option<Epoch>, node: NodeId) {
        let _alone = self.moving.lock().await;
        let head = logs::load_head(&self.meta.begin(), log).await.unwrap().unwrap();
        if epoch.is_some_and(|epoch| epoch != head.open.epoch) {
            return;
        }
        let opened = self
            .meta
            .transact(|tx| async move {
                let head = logs::load_head(&tx, log).await?.unwrap();
                let closing = Closing {
                    expected_epoch: head.open.epoch,
                    end: head.open.base,
                    closed_ms: 0,
                    max_timestamp_ms: None,
                    bytes: 0,
                    is_short: false,
                };
                let opening = Opening {
                    base: head.open.base,
                    leader_epoch: 0,
                    sequencer: node,
                    incarnation: 1,
                    replicas: head.open.replicas,
                    token: u64::from(head.open.epoch.0) + 2,
                    opened_ms: 0,
                };
                logs::close_and_open(&tx, log, &closing, &opening).await
            })
            .await;
        opened.unwrap();
        self.logs.lock().get_mut(&log).unwrap().sequencer = node;
    }
}

/// A node's log service.
pub(crate) struct Replica {
    id: NodeId,
    world: Arc<World>,
    /// It keeps what it gets and answers nothing.
    is_silent: AtomicBool,
    /// What it hasn't answered.
    held: Mutex<Vec<AppendReply>>,
    observers: Observers,
    pub(crate) recoveries: watch::Sender<usize>,
    /// The tasks that made them: each call of a server has one.
    recovering: Mutex<HashSet<tokio::task::Id>>,
    pub(crate) appends: watch::Sender<usize>,
}

impl Replica {
    pub(crate) fn silence(&self, is_silent: bool) {
        self.is_silent.store(is_silent, Ordering::SeqCst);
    }

    /// The log isn't here any more: its observers hear that.
    pub(crate) fn tell_moved(&self, log: LogId) {
        let mut all = self.observers.lock();
        let (left, stay): (Vec<_>, Vec<_>) = all.drain(..).partition(|(of, _)| *of == log);
        *all = stay;
        drop(all);
        left.into_iter().for_each(|(log, observer)| observer.moved(log));
    }

    /// How many calls asked for recoveries.
    pub(crate) fn recovering_calls(&self) -> usize {
        self.recovering.lock().len()
    }

    fn take(&self, append: &Append) -> Result<Appended, AppendError> {
        let mut logs = self.world.logs.lock();
        let content = logs.get_mut(&append.log).ok_or(AppendError::NoSuchLog)?;
        if content.sequencer != self.id {
            return Err(AppendError::NotSequencer);
        }
        let known = |(key, _): &(Option<AppendKey>, String)| key.is_some() && *key == append.key;
        let found = content.batches.iter().position(known);
        let base_offset = found.unwrap_or(content.batches.len()) as u64;
        if found.is_none() {
            content.batches.push((append.key, name(&append.batch)));
        }
        Ok(Appended { base_offset, log_start: 0, duplicate: found.is_some() })
    }

    fn here(&self, log: LogId) -> Result<Bounds, LogError> {
        let logs = self.world.logs.lock();
        let content = logs.get(&log).ok_or(LogError::NoSuchLog)?;
        if content.sequencer != self.id {
            return Err(LogError::NotSequencer);
        }
        let committed = content.batches.len() as u64;
        Ok(Bounds { start: 0, committed, stable: committed, leader_epoch: 0 })
    }
}

#[async_trait]
impl LogClient for Replica {
    fn append(&self, append: Append) -> AppendTicket {
        let result = self.take(&append);
        self.appends.send_modify(|appends| *appends += 1);
        self.world.arrivals.send_modify(|arrivals| *arrivals += 1);
        if self.is_silent.load(Ordering::SeqCst) {
            let (reply, ticket) = AppendTicket::pair();
            self.held.lock().push(reply);
            return ticket;
        }
        if let Ok(bounds) = self.here(append.log) {
            let observers = self.observers.lock();
            let of_log = observers.iter().filter(|(log, _)| *log == append.log);
            of_log.for_each(|(log, observer)| observer.advanced(*log, bounds));
        }
        AppendTicket::ready(result)
    }

    async fn bounds(&self, log: LogId) -> Result<Bounds, LogError> {
        self.here(log)
    }

    async fn read(&self, _: Read) -> Result<ReadOutcome, ReadError> {
        Err(ReadError::NoSuchLog)
    }

    async fn observe(
        &self,
        log: LogId,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Observation, LogError> {
        observer.advanced(log, self.here(log)?);
        self.observers.lock().push((log, observer));
        Ok(Observation::new(|| ()))
    }

    async fn batch_at_time(&self, _: LogId, _: i64) -> Result<Option<(Offset, i64)>, LogError> {
        Ok(None)
    }

    async fn batch_of_max_time(&self, _: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        Ok(None)
    }

    async fn end_of_leader_epoch(
        &self,
        _: LogId,
        _: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        Ok(None)
    }

    async fn trim(&self, _: LogId, _: Offset) -> Result<Offset, LogError> {
        Ok(0)
    }

    async fn refresh(&self, _: LogId) -> Result<(), LogError> {
        Ok(())
    }

    async fn describe(&self, _: LogId) -> Result<LogDescription, LogError> {
        Err(LogError::NoSuchLog)
    }

    async fn recover(&self, log: LogId, epoch: Epoch) -> Result<(), LogError> {
        self.recovering.lock().extend(tokio::task::try_id());
        self.world.close_and_open(log, Some(epoch), self.id).await;
        self.recoveries.send_modify(|recoveries| *recoveries += 1);
        Ok(())
    }
}

/// A node: its log service, and its server behind a proxy.
pub(crate) struct Member {
    pub(crate) replica: Arc<Replica>,
    pub(crate) proxy: Proxy,
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

/// Three nodes, of which the first is the sequencer of each log.
pub(crate) struct Cluster {
    pub(crate) world: Arc<World>,
    pub(crate) members: Vec<Member>,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        let store = EmbeddedStore::in_memory(Env::default()).unwrap();
        let meta = Meta::new(Arc::new(store), Env::default(), "test");
        let world = Arc::new(World {
            meta,
            logs: Mutex::default(),
            moving: tokio::sync::Mutex::default(),
            arrivals: watch::Sender::default(),
        });
        let mut members = Vec::new();
        for id in (1..=3).map(NodeId) {
            let replica = Arc::new(Replica {
                id,
                world: world.clone(),
                is_silent: AtomicBool::new(false),
                held: Mutex::default(),
                observers: Mutex::default(),
                recoveries: watch::Sender::default(),
                recovering: Mutex::default(),
                appends: watch::Sender::default(),
            });
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (closing, identity) =
                (CancellationToken::new(), Identity { node: id, incarnation: 1 });
            let options = LogServerOptions::default();
            let server = LogServer::new(replica.clone(), identity, options, closing.clone());
            let serving = tokio::spawn(async move { server.serve(listener).await.unwrap() });
            let proxy = Proxy::to(address).await;
            register_at(&world.meta, id, &format!("127.0.0.1:{}", proxy.port)).await;
            members.push(Member { replica, proxy, closing, serving });
        }
        Self { world, members }
    }

    /// A new log on `replicas` nodes.
    pub(crate) async fn log(&self, replicas: u32) -> LogId {
        let meta = &self.world.meta;
        let new = &NewTopic {
            name: format!("topic-{}", meta.random_u64()),
            id: Uuid::from_u128(u128::from(meta.random_u64())),
            partitions: 1,
            config: Default::default(),
            logs: NewLogs {
                durability: Durability::Durable,
                policy: Policy::default(),
                replication_factor: replicas,
                opening: Opening {
                    base: 0,
                    leader_epoch: 0,
                    sequencer: NodeId(1),
                    incarnation: 1,
                    replicas: (1..=replicas).map(NodeId).collect(),
                    token: 1,
                    opened_ms: 0,
                },
            },
        };
        let topic = meta
            .transact(|tx| async move { topics::create(&tx, DEFAULT_TENANT, new).await })
            .await
            .unwrap();
        let content = Content { sequencer: NodeId(1), batches: Vec::new() };
        self.world.logs.lock().insert(topic.logs[0], content);
        topic.logs[0]
    }

    pub(crate) async fn delete(&self, log: LogId) {
        let head = logs::load_head(&self.world.meta.begin(), log).await.unwrap().unwrap();
        let name = &head.topic;
        let meta = &self.world.meta;
        meta.transact(|tx| async move { topics::delete(&tx, DEFAULT_TENANT, name, None).await })
            .await
            .unwrap();
        self.world.logs.lock().remove(&log);
    }

    /// With times that are short.
    pub(crate) fn router(&self, options: RouterOptions) -> Router {
        let times = NodeTimes {
            connect: Duration::from_millis(300),
            silence: Duration::from_millis(300),
            call: Duration::from_secs(2),
            recover: Duration::from_millis(300),
        };
        self.router_with(options, times)
    }

    pub(crate) fn router_with(&self, options: RouterOptions, times: NodeTimes) -> Router {
        let directory = MetaDirectory::new(self.world.meta.clone(), NodeAccess::default(), times);
        Router::new(Arc::new(directory), options)
    }

    pub(crate) async fn end(self, router: Router) {
        router.close().await;
        for member in self.members {
            member.closing.cancel();
            member.serving.await.unwrap();
        }
    }
}
