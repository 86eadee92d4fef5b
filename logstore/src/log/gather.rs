//! Questions of many logs to one place share a call: those that come while others are on their
//! way go together next.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use interflow_meta::{LogId, NodeId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::registry::{RegistryError, Roll, RollOutcome};
use super::service::Inner;
use crate::core::segment::Head;
use crate::peers::{Seal, Sealed};

/// Calls to one place at a time: one that waits for something doesn't hold up all others.
const CALLS: usize = 4;
/// Seals in one call.
const MAX_SEALS: usize = 1_000;
/// Heads that are read or written in one transaction.
const MAX_HEADS: usize = 100;

/// Questions to one place.
pub(super) struct Gather<Q, A> {
    state: Mutex<Waiting<Q, A>>,
    /// Questions in one call.
    max: usize,
}

struct Waiting<Q, A> {
    questions: VecDeque<(Q, oneshot::Sender<A>)>,
    /// Calls on their way.
    calls: usize,
    /// Questions without an answer, on their way or not.
    unanswered: usize,
}

impl<Q: Send + 'static, A: Send + 'static> Gather<Q, A> {
    fn new(max: usize) -> Arc<Self> {
        let state = Mutex::new(Waiting { questions: VecDeque::new(), calls: 0, unanswered: 0 });
        Arc::new(Self { state, max })
    }

    /// The answer to `question`, which goes with others by `call`: one answer each, in their order.
    /// `None`: the service stops.
    async fn ask<F>(
        self: &Arc<Self>,
        inner: &Inner,
        question: Q,
        call: impl Fn(Vec<Q>) -> F + Send + 'static,
    ) -> Option<A>
    where
        F: Future<Output = Vec<A>> + Send,
    {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut state = self.state.lock();
            state.questions.push_back((question, answer));
            state.unanswered += 1;
            let has_room = state.calls < CALLS;
            state.calls += usize::from(has_room);
            has_room
        };
        if is_first {
            let this = Arc::clone(self);
            inner.spawn(async move {
                while let Some((questions, askers)) = this.take() {
                    let answers = call(questions).await;
                    this.state.lock().unanswered -= askers.len();
                    for (asker, answer) in askers.into_iter().zip(answers) {
                        // It may have lost its patience.
                        let _ = asker.send(answer);
                    }
                }
            });
        }
        answered.await.ok()
    }

    /// What goes next; `None` ends the call.
    fn take(&self) -> Option<(Vec<Q>, Vec<oneshot::Sender<A>>)> {
        let mut state = self.state.lock();
        if state.questions.is_empty() {
            state.calls -= 1;
            return None;
        }
        let count = state.questions.len().min(self.max);
        Some(state.questions.drain(..count).unzip())
    }
}

type ToNode = Arc<Gather<Seal, Option<Sealed>>>;

/// The questions of recoveries and rolls.
pub(super) struct Gathers {
    seals: Mutex<HashMap<NodeId, ToNode>>,
    heads: Arc<Gather<LogId, Result<Option<Head>, RegistryError>>>,
    rolls: Arc<Gather<Roll, Result<RollOutcome, RegistryError>>>,
}

impl Default for Gathers {
    fn default() -> Self {
        Self {
            seals: Mutex::default(),
            heads: Gather::new(MAX_HEADS),
            rolls: Gather::new(MAX_HEADS),
        }
    }
}

impl Gathers {
    /// Questions to meta without an answer; each has a task that waits.
    #[cfg(test)]
    pub(super) fn unanswered(&self) -> usize {
        self.heads.state.lock().unanswered + self.rolls.state.lock().unanswered
    }
}

fn stopped() -> RegistryError {
    RegistryError("the log store is shutting down".to_owned())
}

impl Inner {
    /// Seals a segment at another node; `None` without an answer.
    pub(super) async fn seal_there(self: &Arc<Self>, node: NodeId, seal: Seal) -> Option<Sealed> {
        let to = {
            let mut seals = self.gathers.seals.lock();
            Arc::clone(seals.entry(node).or_insert_with(|| Gather::new(MAX_SEALS)))
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
        to.ask(self, seal, call).await.flatten()
    }

    /// The head of a log, read with those of others.
    pub(super) async fn head(self: &Arc<Self>, log: LogId) -> Result<Option<Head>, RegistryError> {
        let registry = Arc::clone(&self.registry);
        let call = move |logs: Vec<LogId>| {
            let registry = Arc::clone(&registry);
            async move { registry.heads(&logs).await }
        };
        self.gathers.heads.ask(self, log, call).await.unwrap_or_else(|| Err(stopped()))
    }

    /// Closes and opens, in one transaction with others.
    pub(super) async fn roll(self: &Arc<Self>, roll: Roll) -> Result<RollOutcome, RegistryError> {
        let registry = Arc::clone(&self.registry);
        let call = move |rolls: Vec<Roll>| {
            let registry = Arc::clone(&registry);
            async move { registry.roll_many(&rolls).await }
        };
        self.gathers.rolls.ask(self, roll, call).await.unwrap_or_else(|| Err(stopped()))
    }
}
