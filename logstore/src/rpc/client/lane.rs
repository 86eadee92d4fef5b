//! The appends of a client, on one stream; on the next one when that ends.

use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use interflow_meta::grpc::{Backoff, is_refusal, told};
use interflow_proto::log as proto;
use parking_lot::Mutex;
use proto::append_answer::Kind as Answer;
use proto::append_request::Kind;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::queues::{QueueLimits, Queues};
use super::{Grpc, WrongNode};
use crate::rpc::wire;
use crate::{Append, AppendError, AppendResult, AppendTicket};

/// Late appends are looked for no more often.
const MIN_LOOK: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct State {
    queues: Queues,
    /// Which stream is the one of now: an older one sends nothing more.
    stream: u64,
    closed: bool,
    /// Why there is no stream.
    reason: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    state: Mutex<State>,
    /// There may be something to send, or the end.
    changed: Notify,
    /// There is something that can be late.
    filled: Notify,
    on_wrong_node: WrongNode,
}

impl Lane {
    pub(super) fn new(limits: QueueLimits, on_wrong_node: WrongNode) -> Self {
        Self {
            state: Mutex::new(State {
                queues: Queues::new(limits),
                stream: 0,
                closed: false,
                reason: "it doesn't answer".to_owned(),
            }),
            changed: Notify::new(),
            filled: Notify::new(),
            on_wrong_node,
        }
    }

    /// Starts an append, behind those that came before it.
    pub(super) fn append(&self, append: Append) -> AppendTicket {
        let (reply, ticket) = AppendTicket::pair();
        let was_empty = {
            let mut state = self.state.lock();
            if state.closed {
                return AppendTicket::ready(Err(closed()));
            }
            let was_empty = state.queues.is_empty();
            state.queues.offer(append, reply, Instant::now());
            was_empty
        };
        self.changed.notify_waiters();
        if was_empty {
            self.filled.notify_one();
        }
        ticket
    }

    /// Keeps a stream for the appends until `closing`, and then gives up all that are unanswered.
    pub(super) async fn run(
        self: Arc<Self>,
        grpc: Grpc,
        hello: proto::Hello,
        closing: CancellationToken,
    ) {
        closing.run_until_cancelled(self.keep(grpc, hello)).await;
        {
            let mut state = self.state.lock();
            state.closed = true;
            state.queues.cut();
            let end = Instant::now() + Duration::from_secs(86_400);
            state.queues.give_up(end, "the client is closed");
        }
        self.changed.notify_waiters();
    }

    async fn keep(self: &Arc<Self>, mut grpc: Grpc, hello: proto::Hello) {
        let backoff = Backoff::default();
        loop {
            self.wait_for_appends().await;
            backoff.ready().await;
            let stream = {
                let mut state = self.state.lock();
                state.stream += 1;
                state.stream
            };
            let hello = proto::Hello { stream, ..hello };
            let status = match self.one_stream(&mut grpc, hello, &backoff).await {
                Ok(()) => Status::unavailable("the node has ended the stream"),
                Err(status) => status,
            };
            tracing::debug!(%status, "the appends to a node go on with a new stream");
            {
                let mut state = self.state.lock();
                state.reason = told(&status);
                state.queues.cut();
                if is_refusal(&status) {
                    // Nobody knows when it will be otherwise.
                    let State { queues, reason, .. } = &mut *state;
                    queues.give_up(Instant::now() + Duration::from_secs(86_400), reason);
                }
            }
            backoff.failed();
        }
    }

    async fn wait_for_appends(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.state.lock().queues.is_empty() {
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
    ) -> Result<(), Status> {
        let requests = requests(Arc::clone(self), hello);
        let mut answers = grpc.append(requests).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            let understood = match answer.kind {
                Some(Answer::Welcome(welcome)) => {
                    backoff.worked();
                    let window = usize::try_from(welcome.window_bytes).unwrap_or(usize::MAX);
                    self.state.lock().queues.welcomed(window);
                    Some(())
                }
                Some(Answer::Results(results)) => self.answered(results.results),
                None => None,
            };
            self.changed.notify_waiters();
            understood.ok_or_else(|| Status::internal("an answer that isn't understood"))?;
        }
        Ok(())
    }

    fn answered(&self, results: Vec<proto::Result>) -> Option<()> {
        let results: Option<Vec<_>> =
            results.into_iter().map(|message| Some((message.id, wire::result(message)?))).collect();
        let results = results?;
        self.tell_of_wrong_node(&results);
        let mut state = self.state.lock();
        for (id, result) in results {
            state.queues.answered(id, result)?;
        }
        Some(())
    }

    /// Before the appends are answered, so that what is appended after that goes elsewhere; outside
    /// of the lock, for who is told has locks too.
    fn tell_of_wrong_node(&self, results: &[(u64, AppendResult)]) {
        let refused =
            results.iter().filter(|(_, result)| *result == Err(AppendError::NotSequencer));
        for (id, _) in refused {
            let log = self.state.lock().queues.log_of(*id);
            if let Some(log) = log {
                self.on_wrong_node.tell(log);
            }
        }
    }

    /// Gives up appends that are late, until `closing`.
    pub(super) async fn give_up_late(self: Arc<Self>, closing: CancellationToken) {
        let looking = async {
            loop {
                let deadline = self.state.lock().queues.next_deadline();
                match deadline {
                    None => self.filled.notified().await,
                    Some(deadline) => {
                        tokio::time::sleep_until(deadline.max(Instant::now() + MIN_LOOK)).await;
                        let mut state = self.state.lock();
                        let State { queues, reason, .. } = &mut *state;
                        queues.give_up(Instant::now(), reason);
                    }
                }
            }
        };
        closing.run_until_cancelled(looking).await;
    }
}

fn closed() -> AppendError {
    AppendError::Stopped("the client of the log's node is closed".into())
}

/// What is to be sent on the stream of `hello`, as it comes up.
fn requests(
    lane: Arc<Lane>,
    hello: proto::Hello,
) -> impl Stream<Item = proto::AppendRequest> + Send + 'static {
    let first = Some(proto::AppendRequest { kind: Some(Kind::Hello(hello)) });
    futures_util::stream::unfold((lane, first), move |(lane, first)| async move {
        if let Some(first) = first {
            return Some((first, (lane, None)));
        }
        loop {
            let changed = lane.changed.notified();
            {
                let mut state = lane.state.lock();
                if state.closed || state.stream != hello.stream {
                    return None;
                }
                if let Some(request) = state.queues.next() {
                    drop(state);
                    drop(changed);
                    return Some((request, (lane, None)));
                }
            }
            changed.await;
        }
    })
}
