//! Nodes that serve, refuse, are down or say nothing, and a directory of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};

use super::*;
use crate::{AppendKey, AppendKind, Appended, NodeClient, NodeId, ReplicaDescription, Unanswered};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Serves,
    /// Another node is the sequencer.
    Elsewhere,
    /// Nothing can be sent.
    Down,
    /// What is sent isn't answered.
    Silent,
}

#[derive(Default)]
pub(super) struct FakeNode {
    id: u32,
    mode: Mutex<Mode>,
    taken: Mutex<Vec<Bytes>>,
    held: Mutex<VecDeque<Unanswered>>,
    sent: Notify,
    pub(super) calls: AtomicUsize,
    doubts: Mutex<Doubts>,
    pub(super) observers: Mutex<Vec<Arc<dyn LogObserver>>>,
    /// The log leaves it as soon as it is observed.
    pub(super) is_leaving: AtomicBool,
}

impl FakeNode {
    pub(super) fn set(&self, mode: Mode) {
        *self.mode.lock() = mode;
    }

    pub(super) fn taken(&self) -> Vec<Bytes> {
        self.taken.lock().clone()
    }

    /// Waits until so many appends are here and unanswered.
    pub(super) async fn was_sent(&self, count: usize) {
        loop {
            let sent = self.sent.notified();
            if self.held.lock().len() >= count {
                return;
            }
            sent.await;
        }
    }

    pub(super) fn doubt(&self, log: LogId, doubt: Doubt) {
        let doubts = self.doubts.lock().clone();
        doubts.tell(NodeId(self.id), log, doubt);
    }

    /// Not by who sends, which has locks.
    fn doubt_later(&self, log: LogId, doubt: Doubt) {
        let (doubts, id) = (self.doubts.lock().clone(), NodeId(self.id));
        tokio::spawn(async move { doubts.tell(id, log, doubt) });
    }

    fn call<T>(&self, answer: T) -> Result<T, LogError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match *self.mode.lock() {
            Mode::Down => Err(LogError::Unavailable("no answer".to_owned())),
            Mode::Elsewhere => Err(LogError::NotSequencer),
            Mode::Serves | Mode::Silent => Ok(answer),
        }
    }
}

impl NodeClient for FakeNode {
    fn node(&self) -> NodeId {
        NodeId(self.id)
    }

    fn send(&self, of: Unanswered) {
        let (log, mode) = (of.append.log, *self.mode.lock());
        let may_be_kept = mode == Mode::Silent;
        match mode {
            Mode::Serves => {
                let mut taken = self.taken.lock();
                let base_offset = taken.len() as u64;
                taken.push(of.append.batch);
                of.reply.send(Ok(Appended { base_offset, log_start: 0, duplicate: false }));
                return;
            }
            Mode::Elsewhere => self.doubt_later(log, Doubt::NotSequencer),
            Mode::Down => self.doubt_later(log, Doubt::Unreachable),
            Mode::Silent => {}
        }
        self.held.lock().push_back(Unanswered { may_be_kept, ..of });
        self.sent.notify_waiters();
    }

    fn take_back(&self, log: LogId) -> VecDeque<Unanswered> {
        let held = std::mem::take(&mut *self.held.lock());
        let goes =
            |of: &Unanswered| of.append.log == log && (of.append.key.is_some() || !of.may_be_kept);
        let (taken, kept) = held.into_iter().partition(goes);
        *self.held.lock() = kept;
        taken
    }

    fn resume(&self, log: LogId) {
        if *self.mode.lock() != Mode::Silent {
            self.take_back(log).into_iter().for_each(|of| self.send(of));
        }
    }

    fn has_unanswered(&self, log: LogId) -> bool {
        self.held.lock().iter().any(|of| of.append.log == log)
    }
}

#[async_trait]
impl LogClient for FakeNode {
    fn append(&self, _: Append) -> AppendTicket {
        panic!("a router sends")
    }

    async fn bounds(&self, _: LogId) -> Result<Bounds, LogError> {
        self.call(at(self.taken.lock().len() as u64))
    }

    async fn read(&self, _: Read) -> Result<ReadOutcome, ReadError> {
        Err(ReadError::NoSuchLog)
    }

    async fn observe(
        &self,
        log: LogId,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Observation, LogError> {
        self.call(())?;
        observer.advanced(log, at(self.taken.lock().len() as u64));
        if self.is_leaving.load(Ordering::Relaxed) {
            self.set(Mode::Elsewhere);
            observer.moved(log);
        }
        self.observers.lock().push(observer);
        Ok(Observation::new(|| ()))
    }

    async fn batch_at_time(&self, _: LogId, _: i64) -> Result<Option<(Offset, i64)>, LogError> {
        self.call(None)
    }

    async fn batch_of_max_time(&self, _: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        self.call(None)
    }

    async fn end_of_leader_epoch(
        &self,
        _: LogId,
        _: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        self.call(None)
    }

    async fn trim(&self, _: LogId, before: Offset) -> Result<Offset, LogError> {
        self.call(before)
    }

    async fn refresh(&self, _: LogId) -> Result<(), LogError> {
        self.call(())
    }

    async fn describe(&self, log: LogId) -> Result<LogDescription, LogError> {
        only(self.describe_many(&[log], Duration::MAX).await)
    }

    /// Of as many producers as its number says.
    async fn describe_many(
        &self,
        logs: &[LogId],
        _: Duration,
    ) -> Vec<Result<LogDescription, LogError>> {
        let of = |log: &LogId| LogDescription {
            bounds: at(0),
            segments: Vec::new(),
            replicas: Vec::new(),
            producers: usize::try_from(log.0).unwrap(),
        };
        if *self.mode.lock() == Mode::Silent {
            std::future::pending::<()>().await;
        }
        match self.call(()) {
            Ok(()) => logs.iter().map(|log| Ok(of(log))).collect(),
            Err(error) => vec![Err(error); logs.len()],
        }
    }
}

pub(super) fn at(committed: Offset) -> Bounds {
    Bounds { start: 0, committed, stable: committed, leader_epoch: 0 }
}

/// Two nodes, and where logs are.
pub(super) struct FakeDirectory {
    pub(super) nodes: [Arc<FakeNode>; 2],
    at: Mutex<BTreeMap<LogId, Result<usize, RouteError>>>,
    looks: Semaphore,
    looked: AtomicUsize,
    /// Where logs are failed over to.
    spare: Mutex<Option<usize>>,
    failovers: Mutex<BTreeMap<LogId, usize>>,
    /// Failovers that may end; all, unless they are held.
    pub(super) may_end: Semaphore,
    pub(super) running: AtomicUsize,
    pub(super) most_running: AtomicUsize,
}

impl FakeDirectory {
    pub(super) fn new(at: &[(LogId, usize)]) -> Arc<Self> {
        let at = at.iter().map(|(log, node)| (*log, Ok(*node))).collect();
        let node = |id| Arc::new(FakeNode { id, ..FakeNode::default() });
        Arc::new(Self {
            nodes: [node(1), node(2)],
            at: Mutex::new(at),
            looks: Semaphore::new(1_000_000),
            looked: AtomicUsize::default(),
            spare: Mutex::default(),
            failovers: Mutex::default(),
            may_end: Semaphore::new(1_000_000),
            running: AtomicUsize::default(),
            most_running: AtomicUsize::default(),
        })
    }

    pub(super) fn put(&self, log: LogId, at: Result<usize, RouteError>) {
        self.at.lock().insert(log, at);
    }

    /// From now on others can recover logs.
    pub(super) fn fails_over_to(&self, node: usize) {
        *self.spare.lock() = Some(node);
    }

    pub(super) fn failovers(&self, log: LogId) -> usize {
        self.failovers.lock().get(&log).copied().unwrap_or(0)
    }

    pub(super) fn hold(&self) {
        self.looks.forget_permits(usize::MAX);
    }

    pub(super) fn release(&self) {
        self.looks.add_permits(1_000_000);
    }

    pub(super) fn looked(&self) -> usize {
        self.looked.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Directory for FakeDirectory {
    async fn client(&self, log: LogId) -> Result<Arc<dyn NodeClient>, RouteError> {
        self.looks.acquire().await.unwrap().forget();
        self.looked.fetch_add(1, Ordering::Relaxed);
        let node = self.at.lock().get(&log).cloned().unwrap_or(Err(RouteError::NoSuchLog))?;
        Ok(self.nodes[node].clone())
    }

    /// On both nodes.
    async fn replicas(&self, log: LogId) -> Result<LogReplicas, RouteError> {
        self.at.lock().get(&log).cloned().unwrap_or(Err(RouteError::NoSuchLog))?;
        let replica = |node| ReplicaDescription { node: NodeId(node), lag: 0, is_in_sync: true };
        let replicas = vec![replica(1), replica(2)];
        Ok(LogReplicas { leader_epoch: 7, replicas, replication_factor: 0 })
    }

    async fn fail_over(&self, log: LogId, suspect: NodeId) -> Result<(), RouteError> {
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_running.fetch_max(running, Ordering::Relaxed);
        self.may_end.acquire().await.unwrap().forget();
        *self.failovers.lock().entry(log).or_default() += 1;
        let spare = *self.spare.lock();
        let mut at = self.at.lock();
        if let (Some(spare), Some(Ok(node))) = (spare, at.get_mut(&log))
            && self.nodes[*node].id == suspect.0
        {
            *node = spare;
        }
        self.running.fetch_sub(1, Ordering::Relaxed);
        Ok(())
    }

    fn on_doubt(&self, doubts: Doubts) {
        for node in &self.nodes {
            *node.doubts.lock() = doubts.clone();
        }
    }

    async fn close(&self) {}
}

pub(super) fn append(log: LogId, name: &'static str) -> Append {
    Append {
        log,
        kind: AppendKind::Data,
        key: None,
        window: 5,
        count: 1,
        max_timestamp: 0,
        digest: None,
        early: false,
        batch: Bytes::from_static(name.as_bytes()),
    }
}

pub(super) fn key(sequence: i32) -> AppendKey {
    AppendKey { producer_id: 1, producer_epoch: 0, sequence }
}

pub(super) fn keyed(log: LogId, sequence: i32, name: &'static str) -> Append {
    Append { key: Some(key(sequence)), ..append(log, name) }
}

pub(super) fn router(directory: &Arc<FakeDirectory>) -> Router {
    Router::new(directory.clone(), RouterOptions::default())
}
