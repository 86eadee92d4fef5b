//! The logs of all nodes, as one client: each call goes to the node that is its log's sequencer.
//!
//! ```text
//!   Router ┬ Routes (log → node's client, appends that wait) ──► NodeClient of that node
//!          ├ Followers (observations) ────────────────────────┘      │
//!          │    ▲ moved                                              │ doubts
//!          └ looking ◄───────────────────────────────────────────────┘
//!               └── Directory: the log's head and the node's address, in meta; failover
//! ```
//!
//! Routes are remembered. When there is a doubt about a log's node — it says that it isn't the
//! sequencer, can't be reached, or keeps an append unanswered for long — its route is looked for
//! again, after other replicas were asked to recover the log if the node can't be asked. If it leads
//! elsewhere, the appends that are unanswered go there, and observations do. Calls are made again
//! within a deadline.
//!
//! In a log, appends reach a sequencer in the order of the calls. Each is answered once, at its
//! deadline at the latest. What was sent twice is known again by its append key; what has none and
//! may have been kept is never sent again.

mod describing;
mod directory;
mod following;
mod looking;
mod routes;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use interflow_meta::grpc::Backoff;
use interflow_meta::{Epoch, LogId, Offset};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::directory::{Directory, MetaDirectory, NodeAccess, NodeTimes, RouteError};
#[cfg(test)]
pub(crate) use self::directory::{Place, Placed, Places};
use self::following::{Follower, Followers};
use self::routes::{Client, Offered, Routes};
use crate::client::only;
use crate::{
    Append, AppendTicket, Bounds, Doubts, LogClient, LogDescription, LogError, LogObserver,
    LogReplicas, Observation, Read, ReadError, ReadOutcome,
};

/// How long routes are looked for, and how much waits for that.
#[derive(Clone, Debug)]
pub struct RouterOptions {
    /// A route is looked for, and a call made again, for so long.
    pub patience: Duration,
    /// Bytes of appends that wait for routes; beyond it they are refused as busy.
    pub max_waiting_bytes: usize,
    /// An append that isn't answered for so long is given up, wherever it is: as unavailable if it
    /// can't have been kept, else as unknown.
    pub append_timeout: Duration,
    /// Routes that are remembered. Beyond it those that nothing is behind are forgotten.
    pub max_routes: usize,
    /// Logs that are failed over at a time.
    pub max_failovers: usize,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(10),
            max_waiting_bytes: 64 << 20,
            append_timeout: Duration::from_secs(20),
            max_routes: 1 << 20,
            max_failovers: 1_024,
        }
    }
}

/// See the module. It must be ended with [`Router::close`].
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    directory: Arc<dyn Directory>,
    routes: Routes,
    followers: Followers,
    failovers: Semaphore,
    patience: Duration,
    append_timeout: Duration,
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
            routes: Routes::new(options.max_waiting_bytes, options.max_routes),
            followers: Followers::default(),
            failovers: Semaphore::new(options.max_failovers.max(1)),
            patience: options.patience,
            append_timeout: options.append_timeout,
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let weak = Arc::downgrade(&inner);
        inner.directory.on_doubt(Doubts::new(move |node, log, doubt| {
            if let Some(inner) = weak.upgrade() {
                inner.doubt(node, log, doubt);
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
    async fn client(&self, log: LogId) -> Result<Client, RouteError> {
        if let Some(client) = self.routes.client(log) {
            return Ok(client);
        }
        let client = self.directory.client(log).await?;
        if self.routes.remember(log, &client) {
            self.followers.moved(log);
        }
        Ok(client)
    }

    /// What the log's node says, or meta if that one can't say.
    async fn replicas(&self, log: LogId) -> Result<LogReplicas, LogError> {
        let client = self.client(log).await?;
        match client.replicas(log).await {
            Err(LogError::Unavailable(why)) => {
                tracing::debug!(%log, node = %client.node(), why, "a log's node doesn't say");
                let mut told = self.directory.replicas(log).await?;
                for silent in told.replicas.iter_mut().filter(|at| at.node == client.node()) {
                    silent.is_in_sync = false;
                }
                Ok(told)
            }
            told => told,
        }
    }

    /// Makes a call of the log's node, again while that isn't the right one.
    async fn call<T, E, F>(&self, log: LogId, call: impl Fn(Client) -> F) -> Result<T, E>
    where
        E: Misrouted,
        F: Future<Output = Result<T, E>>,
    {
        let (deadline, backoff) = (Instant::now() + self.patience, Backoff::default());
        let calling = async {
            loop {
                // What looks for the log comes to its end first.
                let settled = tokio::time::timeout_at(deadline, self.routes.settled(log)).await;
                if settled.is_err() {
                    return Err(not_found_in_time().into());
                }
                let error: E = match self.client(log).await {
                    Ok(client) => match call(Arc::clone(&client)).await {
                        Ok(answer) => return Ok(answer),
                        Err(error) => {
                            self.doubt_after(&error, log, &client);
                            error
                        }
                    },
                    Err(RouteError::NoSuchLog) => return Err(RouteError::NoSuchLog.into()),
                    Err(error) => error.into(),
                };
                if !error.is_wrong_node() && !error.is_unreachable() {
                    return Err(error);
                }
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

    /// A call went wrong: the route is looked for when it is used next.
    fn doubt_after<E: Misrouted>(&self, error: &E, log: LogId, client: &Client) {
        if error.is_wrong_node() || error.is_unreachable() {
            self.routes.forget(log, client);
        }
    }
}

fn not_found_in_time() -> RouteError {
    RouteError::Unavailable("the log's node isn't found in time".to_owned())
}

fn closed() -> RouteError {
    RouteError::Unavailable("the client of the logs is closed".to_owned())
}

#[async_trait]
impl LogClient for Router {
    fn append(&self, append: Append) -> AppendTicket {
        let log = append.log;
        let deadline = Instant::now() + self.inner.append_timeout;
        match self.inner.routes.offer(append, deadline) {
            Offered::Done(ticket) => ticket,
            Offered::Look(ticket) => {
                self.inner.look(log, None);
                ticket
            }
        }
    }

    async fn bounds(&self, log: LogId) -> Result<Bounds, LogError> {
        self.inner.call(log, |client| async move { client.bounds(log).await }).await
    }

    async fn replicas(&self, log: LogId) -> Result<LogReplicas, LogError> {
        let told = self.inner.closing.run_until_cancelled(self.inner.replicas(log)).await;
        told.unwrap_or_else(|| Err(closed().into()))
    }

    async fn read(&self, read: Read) -> Result<ReadOutcome, ReadError> {
        let call = |client: Client| {
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
        Follower::begin(&self.inner, log, observer).await
    }

    async fn batch_at_time(
        &self,
        log: LogId,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        let call = |client: Client| async move { client.batch_at_time(log, timestamp).await };
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
        let call =
            |client: Client| async move { client.end_of_leader_epoch(log, leader_epoch).await };
        self.inner.call(log, call).await
    }

    async fn trim(&self, log: LogId, before: Offset) -> Result<Offset, LogError> {
        self.inner.call(log, |client| async move { client.trim(log, before).await }).await
    }

    async fn refresh(&self, log: LogId) -> Result<(), LogError> {
        self.inner.call(log, |client| async move { client.refresh(log).await }).await
    }

    async fn describe(&self, log: LogId) -> Result<LogDescription, LogError> {
        only(self.inner.describe_many(&[log], self.inner.patience).await)
    }

    async fn describe_many(
        &self,
        logs: &[LogId],
        patience: Duration,
    ) -> Vec<Result<LogDescription, LogError>> {
        self.inner.describe_many(logs, patience).await
    }

    /// Asks the log's node; a router fails logs over by itself.
    async fn recover(&self, log: LogId, epoch: Epoch) -> Result<(), LogError> {
        self.inner.call(log, |client| async move { client.recover(log, epoch).await }).await
    }
}
