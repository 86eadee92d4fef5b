//! Questions of many logs to one place share a call.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hashbrown::HashMap;
use interflow_meta::grpc::Gather;
use interflow_meta::{LogId, NodeId};
use parking_lot::Mutex;

use super::registry::{HEADS, LogRecord, RegistryError, Roll, RollOutcome};
use super::service::Inner;
use crate::core::segment::Head;
use crate::peers::{Seal, Sealed};

/// Calls to one place at a time.
const CALLS: usize = 4;
/// Seals in one call.
const MAX_SEALS: usize = 1_000;

type ToNode = Arc<Gather<Seal, Option<Sealed>>>;

/// The questions of recoveries and rolls.
pub(super) struct Gathers {
    seals: Mutex<HashMap<NodeId, ToNode>>,
    heads: Arc<Gather<LogId, Result<Option<Head>, RegistryError>>>,
    records: Arc<Gather<LogId, Result<Option<LogRecord>, RegistryError>>>,
    rolls: Arc<Gather<Roll, Result<RollOutcome, RegistryError>>>,
}

impl Default for Gathers {
    fn default() -> Self {
        Self {
            seals: Mutex::default(),
            heads: Gather::new(HEADS, CALLS),
            records: Gather::new(HEADS, CALLS),
            rolls: Gather::new(HEADS, CALLS),
        }
    }
}

impl Gathers {
    /// Questions to meta without an answer; each has a task that waits.
    #[cfg(test)]
    pub(super) fn unanswered(&self) -> usize {
        self.heads.unanswered() + self.records.unanswered() + self.rolls.unanswered()
    }
}

fn stopped() -> RegistryError {
    RegistryError("the log store is shutting down".to_owned())
}

impl Inner {
    fn spawner(&self) -> impl FnOnce(BoxFuture<'static, ()>) {
        |calls| self.spawn(calls)
    }

    /// Seals a segment at another node; `None` without an answer.
    pub(super) async fn seal_there(self: &Arc<Self>, node: NodeId, seal: Seal) -> Option<Sealed> {
        let to = {
            let mut seals = self.gathers.seals.lock();
            Arc::clone(seals.entry(node).or_insert_with(|| Gather::new(MAX_SEALS, CALLS)))
        };
        let inner = Arc::clone(self);
        let call = move |seals: Vec<Seal>| {
            let inner = Arc::clone(&inner);
            async move {
                let sealed = match inner.peers.seal(node, seals.clone()).await {
                    Ok(sealed) => sealed,
                    Err(error) => {
                        tracing::debug!(%error, "replicas could not be sealed");
                        Vec::new()
                    }
                };
                let sealed: HashMap<_, _> = sealed.into_iter().map(|one| (one.id, one)).collect();
                seals.iter().map(|seal| sealed.get(&seal.id).copied()).collect()
            }
        };
        to.ask(self.spawner(), seal, call).await.flatten()
    }

    /// The head of a log, read with those of others.
    pub(super) async fn head(self: &Arc<Self>, log: LogId) -> Result<Option<Head>, RegistryError> {
        let registry = Arc::clone(&self.registry);
        let call = move |logs: Vec<LogId>| {
            let registry = Arc::clone(&registry);
            async move { registry.heads(&logs).await }
        };
        self.gathers.heads.ask(self.spawner(), log, call).await.unwrap_or_else(|| Err(stopped()))
    }

    /// What meta knows of a log, read with others.
    pub(super) async fn record(
        self: &Arc<Self>,
        log: LogId,
    ) -> Result<Option<LogRecord>, RegistryError> {
        let registry = Arc::clone(&self.registry);
        let call = move |logs: Vec<LogId>| {
            let registry = Arc::clone(&registry);
            async move { registry.load_many(&logs).await }
        };
        let asked = self.gathers.records.ask(self.spawner(), log, call).await;
        asked.unwrap_or_else(|| Err(stopped()))
    }

    /// Closes and opens, in one transaction with others.
    pub(super) async fn roll(self: &Arc<Self>, roll: Roll) -> Result<RollOutcome, RegistryError> {
        let registry = Arc::clone(&self.registry);
        let call = move |rolls: Vec<Roll>| {
            let registry = Arc::clone(&registry);
            async move { registry.roll_many(&rolls).await }
        };
        self.gathers.rolls.ask(self.spawner(), roll, call).await.unwrap_or_else(|| Err(stopped()))
    }
}
