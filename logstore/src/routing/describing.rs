//! Descriptions of many logs: a call of each node for all of its logs.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use hashbrown::HashMap;
use interflow_meta::LogId;
use interflow_meta::grpc::Backoff;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::routes::{Client, is_same};
use super::{Inner, Misrouted, closed, not_found_in_time};
use crate::{LogDescription, LogError};

type Described = Result<LogDescription, LogError>;

/// Logs that are asked for together, until `deadline`.
struct Asking<'a> {
    inner: &'a Inner,
    deadline: Instant,
    backoff: Backoff,
    /// What is known so far: of some that they have to be asked for again.
    said: Mutex<HashMap<LogId, Described>>,
}

impl Inner {
    /// The description of each log, in their order, and what is known at the end of `patience`.
    pub(super) async fn describe_many(&self, logs: &[LogId], patience: Duration) -> Vec<Described> {
        let (deadline, backoff) = (Instant::now() + patience, Backoff::default());
        let asking = Asking { inner: self, deadline, backoff, said: Mutex::default() };
        let asked = self.closing.run_until_cancelled(asking.ask(logs.to_vec()));
        let unknown = match tokio::time::timeout_at(deadline, asked).await {
            Ok(None) => closed(),
            _ => not_found_in_time(),
        };
        let said = asking.said.into_inner();
        let of =
            |log: &LogId| said.get(log).cloned().unwrap_or_else(|| Err(unknown.clone().into()));
        logs.iter().map(of).collect()
    }
}

impl Asking<'_> {
    /// Asks for logs, each node for its own; nodes don't wait for one another.
    fn ask(&self, logs: Vec<LogId>) -> BoxFuture<'_, ()> {
        async move {
            let clients = join_all(logs.iter().map(|log| self.inner.client(*log))).await;
            let mut groups: Vec<(Client, Vec<LogId>)> = Vec::new();
            let mut again = Vec::new();
            for (log, client) in logs.into_iter().zip(clients) {
                match client {
                    Ok(client) => match groups.iter_mut().find(|(of, _)| is_same(of, &client)) {
                        Some((_, group)) => group.push(log),
                        None => groups.push((client, vec![log])),
                    },
                    Err(error) => again.extend(self.hear(log, Err(error.into()))),
                }
            }
            let groups = groups.into_iter().map(|(client, logs)| self.ask_node(client, logs));
            futures_util::join!(join_all(groups), self.ask_again(again));
        }
        .boxed()
    }

    async fn ask_node(&self, client: Client, logs: Vec<LogId>) {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let said = client.describe_many(&logs, left).await;
        let mut again = Vec::new();
        for (log, said) in logs.into_iter().zip(said) {
            if let Err(error) = &said {
                self.inner.doubt_after(error, log, &client);
            }
            again.extend(self.hear(log, said));
        }
        self.ask_again(again).await;
    }

    /// Keeps what was said of a log, and says whether it is to be asked for again.
    fn hear(&self, log: LogId, said: Described) -> Option<LogId> {
        let is_misrouted =
            said.as_ref().is_err_and(|error| error.is_wrong_node() || error.is_unreachable());
        self.said.lock().insert(log, said);
        is_misrouted.then_some(log)
    }

    async fn ask_again(&self, logs: Vec<LogId>) {
        if !logs.is_empty() {
            self.backoff.failed();
            self.backoff.ready().await;
            self.ask(logs).await;
        }
    }
}
