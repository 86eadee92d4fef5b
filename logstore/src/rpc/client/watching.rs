//! The observations of a client, on one stream; on the next one when that ends.

use std::sync::Arc;
use std::time::Duration;

use interflow_meta::grpc::{Backoff, told};
use interflow_meta::{LogId, NodeId};
use interflow_proto::log as proto;
use parking_lot::Mutex;
use proto::observe_event::Kind as Event;
use proto::observe_request::Kind;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Grpc;
use super::node::{Doubt, Doubts, is_final};
use super::observed::{State, Unsent, Watched};
use super::stream::{Next, Outgoing, connect, requests};
use crate::rpc::wire;
use crate::{LogError, LogObserver, Observation, Withheld};

/// An observation that the node can't make again now is tried after so long.
const RETRY: Duration = Duration::from_millis(250);

/// See the module.
pub(super) struct Watching {
    state: Mutex<State>,
    changed: Notify,
    /// A stream that isn't welcomed after so long is none.
    connect_timeout: Duration,
    node: NodeId,
    doubts: Doubts,
}

impl std::fmt::Debug for Watching {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watching").finish_non_exhaustive()
    }
}

impl Watching {
    pub(super) fn new(connect_timeout: Duration, node: NodeId, doubts: Doubts) -> Self {
        let (state, changed) = (Mutex::default(), Notify::new());
        Self { state, changed, connect_timeout, node, doubts }
    }

    /// Begins an observation; it has heard the present offsets when this returns.
    pub(super) async fn observe(
        self: &Arc<Self>,
        log: LogId,
        observer: Arc<dyn LogObserver>,
        timeout: Duration,
    ) -> Result<Observation, LogError> {
        let (began, begun) = oneshot::channel();
        let key = {
            let mut state = self.state.lock();
            if state.closed {
                return Err(LogError::Unavailable("the client is closed".to_owned()));
            }
            let key = state.next_key;
            state.next_key += 1;
            let began = Some(began);
            let watched = Watched { log, observer, began, id: None, has_missed: false };
            state.watched.insert(key, watched);
            state.note(Unsent::Observe(key));
            key
        };
        self.changed.notify_waiters();
        // Dropped on the way, it ends as well.
        let watching = Arc::downgrade(self);
        let observation = Observation::new(move || {
            if let Some(watching) = watching.upgrade() {
                watching.end(key);
            }
        });
        match tokio::time::timeout(timeout, begun).await {
            Ok(Ok(Ok(()))) => Ok(observation),
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(LogError::Unavailable("the client is closed".to_owned())),
            Err(_) => Err(LogError::Unavailable(self.state.lock().reason.clone())),
        }
    }

    fn end(&self, key: u64) {
        let ended = {
            let mut state = self.state.lock();
            let ended = state.watched.remove(&key);
            if let Some(id) = ended.as_ref().and_then(|watched| watched.id) {
                state.of.remove(&id);
                state.note(Unsent::Unobserve(id));
            }
            ended
        };
        self.changed.notify_waiters();
        // The observer's own drop may do anything: outside of the lock.
        drop(ended);
    }

    /// Keeps a stream for the observations until `closing`; then they end.
    pub(super) async fn run(
        self: Arc<Self>,
        grpc: Grpc,
        hello: proto::Hello,
        closing: CancellationToken,
    ) {
        closing.run_until_cancelled(self.keep(grpc, hello)).await;
        let ended = {
            let mut state = self.state.lock();
            state.closed = true;
            state.unsent.clear();
            std::mem::take(&mut state.watched)
        };
        self.changed.notify_waiters();
        for watched in ended.into_values().filter(|watched| watched.began.is_none()) {
            watched.observer.ended(watched.log);
        }
    }

    async fn keep(self: &Arc<Self>, mut grpc: Grpc, hello: proto::Hello) {
        let backoff = Backoff::default();
        loop {
            self.wait_for_observations().await;
            backoff.ready().await;
            let stream = {
                let mut state = self.state.lock();
                state.begin_stream()
            };
            let hello = proto::Hello { stream, ..hello };
            let mut was_welcome = false;
            let ended = self.one_stream(&mut grpc, hello, &backoff, &mut was_welcome).await;
            let status =
                ended.err().unwrap_or_else(|| Status::unavailable("the node has ended the stream"));
            tracing::debug!(%status, "the observations of a node are taken up anew");
            let mut state = self.state.lock();
            state.is_live = false;
            state.unsent.clear();
            state.reason = told(&status);
            drop(state);
            backoff.failed();
            if !was_welcome && self.doubts.is_heard() && !is_final(&status, &self.doubts) {
                self.doubt(&told(&status));
            }
        }
    }

    /// The node is down: who hears of that looks where the logs are.
    fn doubt(&self, why: &str) {
        let (logs, beginning) = self.state.lock().give_up_beginning();
        for began in beginning.into_iter().filter_map(|watched| watched.began) {
            // Nobody waits any more: nobody was told anything.
            drop(began.send(Err(LogError::Unavailable(why.to_owned()))));
        }
        for log in logs {
            self.doubts.tell(self.node, log, Doubt::Unreachable);
        }
    }

    async fn wait_for_observations(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.state.lock().watched.is_empty() {
                return;
            }
            changed.await;
        }
    }

    async fn one_stream(
        self: &Arc<Self>,
        grpc: &mut Grpc,
        hello: proto::Hello,
        backoff: &Backoff,
        was_welcome: &mut bool,
    ) -> Result<(), Status> {
        let first = proto::ObserveRequest { kind: Some(Kind::Hello(hello)) };
        let requests = requests(Arc::clone(self), hello.stream, first);
        let (mut messages, mut next) =
            connect(self.connect_timeout, grpc.observe(requests)).await?;
        while let Some(message) = next {
            *was_welcome = true;
            backoff.worked();
            for event in message.events {
                self.hear(event)
                    .ok_or_else(|| Status::internal("an event that isn't understood"))?;
            }
            next = messages.message().await?;
        }
        Ok(())
    }

    /// Tells an observer. `None` for an event that says nothing.
    fn hear(self: &Arc<Self>, event: proto::ObserveEvent) -> Option<()> {
        let id = event.id;
        match event.kind? {
            Event::Welcome(_) => {}
            Event::Advanced(bounds) => {
                let bounds = wire::bounds(&bounds)?;
                let Some((heard, has_missed)) = self.state.lock().heard(id, true) else {
                    return Some(());
                };
                if has_missed {
                    heard.observer.withheld(heard.log, Withheld::Below(bounds.committed));
                }
                heard.observer.advanced(heard.log, bounds);
                heard.begin(Ok(()));
            }
            Event::Early(batch) => {
                let batch = wire::early(batch)?;
                let heard = self.state.lock().heard(id, false);
                if let Some((heard, _)) = heard {
                    heard.observer.early(heard.log, &batch);
                }
            }
            Event::Withheld(key) => self.withheld(id, Withheld::UpTo(wire::key(&key)?)),
            Event::WithheldBelow(offset) => self.withheld(id, Withheld::Below(offset)),
            Event::Ended(_) => self.over(id, LogError::NoSuchLog),
            Event::Moved(_) => self.over(id, LogError::NotSequencer),
            Event::Failed(error) => self.over(id, wire::log_error(error)?),
        }
        Some(())
    }

    fn withheld(&self, id: u64, until: Withheld) {
        let heard = self.state.lock().heard(id, false);
        if let Some((heard, _)) = heard {
            heard.observer.withheld(heard.log, until);
        }
    }

    /// The node's observation `id` is over. One that had begun goes on if it can.
    fn over(self: &Arc<Self>, id: u64, error: LogError) {
        let mut state = self.state.lock();
        let Some(key) = state.of.remove(&id) else { return };
        let Some(watched) = state.watched.get_mut(&key) else { return };
        watched.id = None;
        let is_final = matches!(error, LogError::NoSuchLog | LogError::NotSequencer);
        if watched.began.is_none() && !is_final {
            tracing::debug!(log = %watched.log, %error, "an observation is tried again");
            watched.has_missed = true;
            drop(state);
            let watching = Arc::downgrade(self);
            tokio::spawn(async move {
                tokio::time::sleep(RETRY).await;
                if let Some(watching) = watching.upgrade() {
                    watching.state.lock().note(Unsent::Observe(key));
                    watching.changed.notify_waiters();
                }
            });
            return;
        }
        let Some(watched) = state.watched.remove(&key) else { return };
        state.note(Unsent::Unobserve(id));
        drop(state);
        self.changed.notify_waiters();
        match watched.began {
            // Nobody waits any more: nobody was told anything.
            Some(began) => drop(began.send(Err(error))),
            None if error == LogError::NotSequencer => watched.observer.moved(watched.log),
            None => watched.observer.ended(watched.log),
        }
    }
}

impl Outgoing for Watching {
    type Request = proto::ObserveRequest;

    fn changed(&self) -> &Notify {
        &self.changed
    }

    fn next(&self, stream: u64) -> Next<proto::ObserveRequest> {
        let mut state = self.state.lock();
        if state.closed || !state.is_live || state.stream != stream {
            return Next::Over;
        }
        state.next().map_or(Next::Wait, Next::Request)
    }
}
