//! The logs of all nodes, as one client: each call goes to the node that is its log's sequencer.
//!
//! ```text
//!   Router ── Routes (log → node's client, appends that wait) ──► RemoteLogs of that node
//!      └───── Directory: the log's head and the node's address, in meta
//! ```
//!
//! Routes are remembered. A node that isn't the sequencer (any more) says so: then meta is asked
//! again, and calls are made again within a deadline. An append that was sent is not: its producer
//! hears [`NotSequencer`](crate::AppendError::NotSequencer), and its retry goes to the right node.

mod directory;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use interflow_meta::grpc::Backoff;
use interflow_meta::{LogId, Offset};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::directory::{Directory, MetaDirectory, NodeAccess, RouteError};
use self::routes::{Offered, Routes};
use crate::{
    Append, AppendTicket, Bounds, LogClient, LogDescription, LogError, LogObserver, Observation,
    Read, ReadError, ReadOutcome, WrongNode,
};

/// How long routes are looked for, and how much waits for that.
#[derive(Clone, Debug)]
pub struct RouterOptions {
    /// A route is looked for, and a call made again, for so long.
    pub patience: Duration,
    /// Bytes of appends that wait for routes; beyond it they are refused as busy.
    pub max_waiting_bytes: usize,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self { patience: Duration::from_secs(10), max_waiting_bytes: 64 << 20 }
    }
}

/// See the module. It must be ended with [`Router::close`].
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Arc<dyn Directory>,
    routes: Routes,
    patience: Duration,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// An error that says that a call went to the wrong node, or that it couldn't be asked.
trait Misrouted: From<RouteError> {
    fn is_wrong_node(&self) -> bool;
    fn is_unreachable(&self) -> bool;
}

impl Misrouted for LogError {
    fn is_wrong_node(&self) -> bool {
        *self == Self::NotSequencer
    }

    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Misrouted for ReadError {
    fn is_wrong_node(&self) -> bool {
        *self == Self::NotSequencer
    }

    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl Router {
    /// Routes by `directory`. Belongs to the runtime that it is called on.
    pub fn new(directory: Arc<dyn Directory>, options: RouterOptions) -> Self {
        let inner = Arc::new(Inner {
            directory,
            routes: Routes::new(options.max_waiting_bytes),
            patience: options.patience,
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let weak = Arc::downgrade(&inner);
        inner.directory.on_wrong_node(WrongNode::new(move |log| {
            if let Some(inner) = weak.upgrade() {
                inner.routes.forget(log);
            }
        }));
        Self { inner }
    }

    /// Gives up what waits for a route, and closes the clients of all nodes.
    pub async fn close(&self) {
        let inner = &self.inner;
        inner.closing.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
        inner.directory.close().await;
    }
}

impl Inner {
    /// The client of the log's node: a remembered one, or by meta.
    async fn client(&self, log: LogId) -> Result<Arc<dyn LogClient>, RouteError> {
        if let Some(client) = self.routes.client(log) {
            return Ok(client);
        }
        let client = self.directory.client(log).await?;
        self.routes.remember(log, Arc::clone(&client));
        Ok(client)
    }

    /// Makes a call of the log's node, again while that isn't the right one.
    async fn call<T, E, F>(
        &self,
        log: LogId,
        call: impl Fn(Arc<dyn LogClient>) -> F,
    ) -> Result<T, E>
    where
        E: Misrouted,
        F: Future<Output = Result<T, E>>,
    {
        let (deadline, backoff) = (Instant::now() + self.patience, Backoff::default());
        let calling = async {
            loop {
                let error: E = match self.client(log).await {
                    Ok(client) => match call(client).await {
                        Ok(answer) => return Ok(answer),
                        Err(error) => error,
                    },
                    Err(RouteError::NoSuchLog) => return Err(RouteError::NoSuchLog.into()),
                    Err(error) => error.into(),
                };
                if !error.is_wrong_node() && !error.is_unreachable() {
                    return Err(error);
                }
                self.routes.forget(log);
                if Instant::now() >= deadline {
                    return Err(error);
                }
                backoff.failed();
                backoff.ready().await;
            }
        };
        let called = self.closing.run_until_cancelled(calling).await;
        called.unwrap_or_else(|| Err(closed().into()))
    }

    /// Finds the route of a log for the appends that wait, in a task.
    fn look(self: &Arc<Self>, log: LogId) {
        let inner = Arc::clone(self);
        let looking = async move {
            let found = inner.closing.run_until_cancelled(inner.find(log)).await;
            inner.routes.found(log, found.unwrap_or_else(|| Err(closed())));
        };
        self.tasks.spawn(looking);
    }

    async fn find(&self, log: LogId) -> Result<Arc<dyn LogClient>, RouteError> {
        let (deadline, backoff) = (Instant::now() + self.patience, Backoff::default());
        loop {
            match self.directory.client(log).await {
                Err(RouteError::Unavailable(_)) if Instant::now() < deadline => {}
                found => return found,
            }
            backoff.failed();
            backoff.ready().await;
        }
    }
}

fn closed() -> RouteError {
    RouteError::Unavailable("the client of the logs is closed".to_owned())
}

#[async_trait]
impl LogClient for Router {
    fn append(&self, append: Append) -> AppendTicket {
        let log = append.log;
        match self.inner.routes.offer(append) {
            Offered::Done(ticket) => ticket,
            Offered::Look(ticket) => {
                self.inner.look(log);
                ticket
            }
        }
    }

    async fn bounds(&self, log: LogId) -> Result<Bounds, LogError> {
        self.inner.call(log, |client| async move { client.bounds(log).await }).await
    }

    async fn read(&self, read: Read) -> Result<ReadOutcome, ReadError> {
        let call = |client: Arc<dyn LogClient>| {
            let read = read.clone();
            async move { client.read(read).await }
        };
        self.inner.call(read.log, call).await
    }

    async fn observe(
        &self,
        log: LogId,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Observation, LogError> {
        let call = |client: Arc<dyn LogClient>| {
            let observer = Arc::clone(&observer);
            async move { client.observe(log, observer).await }
        };
        self.inner.call(log, call).await
    }

    async fn batch_at_time(
        &self,
        log: LogId,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        let call =
            |client: Arc<dyn LogClient>| async move { client.batch_at_time(log, timestamp).await };
        self.inner.call(log, call).await
    }

    async fn batch_of_max_time(&self, log: LogId) -> Result<Option<(Offset, i64)>, LogError> {
        self.inner.call(log, |client| async move { client.batch_of_max_time(log).await }).await
    }

    async fn end_of_leader_epoch(
        &self,
        log: LogId,
        leader_epoch: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        let call = |client: Arc<dyn LogClient>| async move {
            client.end_of_leader_epoch(log, leader_epoch).await
        };
        self.inner.call(log, call).await
    }

    async fn trim(&self, log: LogId, before: Offset) -> Result<Offset, LogError> {
        self.inner.call(log, |client| async move { client.trim(log, before).await }).await
    }

    async fn refresh(&self, log: LogId) -> Result<(), LogError> {
        self.inner.call(log, |client| async move { client.refresh(log).await }).await
    }

    async fn describe(&self, log: LogId) -> Result<LogDescription, LogError> {
        self.inner.call(log, |client| async move { client.describe(log).await }).await
    }
}
