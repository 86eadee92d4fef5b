//! The reads of a client, on one stream; on the next one when that ends.

use std::sync::Arc;
use std::time::Duration;

use interflow_meta::NodeId;
use interflow_meta::grpc::{Backoff, told};
use interflow_proto::log as proto;
use parking_lot::Mutex;
use proto::read_answer::Kind as Answer;
use proto::read_request::Kind;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Grpc;
use super::asked::{Reads, Window};
use super::node::{Doubt, Doubts, is_final};
use super::stream::{Next, Outgoing, connect, requests};
use crate::{Read, ReadError, ReadOutcome};

/// How long is waited, and how much is asked for at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadLimits {
    /// A read is given up after this time …
    pub(super) timeout: Duration,
    /// … and after this one if the node can't be reached.
    pub(super) patience: Duration,
    /// A stream that isn't welcomed after so long is none.
    pub(super) connect_timeout: Duration,
    /// Bytes that are asked for, or answered and not taken.
    pub(super) window_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    reads: Reads,
    stream: u64,
    closed: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Reading {
    state: Mutex<State>,
    changed: Notify,
    limits: ReadLimits,
    node: NodeId,
    doubts: Doubts,
}

/// A read that its caller waits for. Dropped, it is over: it holds nothing any more.
struct Waiting<'a> {
    reading: &'a Reading,
    key: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.reading.change(|state| state.reads.done(self.key));
    }
}

impl Reading {
    pub(super) fn new(limits: ReadLimits, node: NodeId, doubts: Doubts) -> Self {
        let (state, changed) = (Mutex::default(), Notify::new());
        Self { state, changed, limits, node, doubts }
    }

    /// Makes a change after which there may be something to send.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (changed, is_ready) = {
            let mut state = self.state.lock();
            let changed = change(&mut state);
            (changed, state.reads.is_ready())
        };
        if is_ready {
            self.changed.notify_waiters();
        }
        changed
    }

    /// Reads; what it brings counts as taken when this returns.
    pub(super) async fn read(&self, read: Read) -> Result<ReadOutcome, ReadError> {
        let (reply, answer) = oneshot::channel();
        let (log, now) = (read.log, Instant::now());
        let deadline = now + self.limits.timeout;
        let asked = self
            .change(|state| (!state.closed).then(|| state.reads.ask(read, reply, now, deadline)));
        let Some(key) = asked else { return Err(closed()) };
        let _waiting = Waiting { reading: self, key };
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(closed()),
            Err(_) => {
                self.doubts.tell(self.node, log, Doubt::Unreachable);
                Err(ReadError::Unavailable("it doesn't answer".to_owned()))
            }
        }
    }

    /// Keeps a stream for the reads until `closing`; then they end.
    pub(super) async fn run(
        self: Arc<Self>,
        grpc: Grpc,
        hello: proto::Hello,
        closing: CancellationToken,
    ) {
        closing.run_until_cancelled(self.keep(grpc, hello)).await;
        let given_up = {
            let mut state = self.state.lock();
            state.closed = true;
            state.reads.cut();
            state.reads.give_up(Instant::now(), true, Duration::ZERO)
        };
        self.changed.notify_waiters();
        for (_, reply) in given_up {
            // Who doesn't wait any more needs no answer, here as below.
            let _ = reply.send(Err(closed()));
        }
    }

    async fn keep(self: &Arc<Self>, mut grpc: Grpc, hello: proto::Hello) {
        let backoff = Backoff::default();
        loop {
            self.wait_for_reads().await;
            backoff.ready().await;
            let stream = {
                let mut state = self.state.lock();
                state.stream += 1;
                state.stream
            };
            let hello = proto::Hello { stream, ..hello };
            let ended = self.one_stream(&mut grpc, hello, &backoff).await;
            let status =
                ended.err().unwrap_or_else(|| Status::unavailable("the node has ended the stream"));
            tracing::debug!(%status, "the reads of a node go on with a new stream");
            let is_final = is_final(&status, &self.doubts);
            let given_up = {
                let mut state = self.state.lock();
                state.reads.cut();
                state.reads.give_up(Instant::now(), is_final, self.limits.patience)
            };
            backoff.failed();
            for (log, reply) in given_up {
                if !is_final {
                    self.doubts.tell(self.node, log, Doubt::Unreachable);
                }
                let _ = reply.send(Err(ReadError::Unavailable(told(&status))));
            }
        }
    }

    async fn wait_for_reads(&self) {
        loop {
            let changed = self.changed.notified();
            if self.state.lock().reads.has_waiting() {
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
        let first = proto::ReadRequest { kind: Some(Kind::Hello(hello)) };
        let requests = requests(Arc::clone(self), hello.stream, first);
        let connecting = connect(self.limits.connect_timeout, grpc.read(requests));
        let (mut messages, mut next) = connecting.await?;
        while let Some(message) = next {
            backoff.worked();
            self.answered(message)
                .ok_or_else(|| Status::internal("an answer that isn't understood"))?;
            next = messages.message().await?;
        }
        Ok(())
    }

    fn answered(&self, message: proto::ReadAnswers) -> Option<()> {
        let mut replies = Vec::new();
        let understood = self.change(|state| {
            message.answers.into_iter().try_for_each(|answer| {
                if let Some(Answer::Welcome(welcome)) = &answer.kind {
                    let bytes = usize::try_from(welcome.window_bytes).unwrap_or(usize::MAX);
                    let reads = usize::try_from(welcome.max_reads).unwrap_or(usize::MAX);
                    let bytes = bytes.min(self.limits.window_bytes);
                    state.reads.welcomed(Window { bytes, reads });
                    return Some(());
                }
                replies.extend(state.reads.answered(answer)?);
                Some(())
            })
        });
        for (reply, result) in replies {
            let _ = reply.send(result);
        }
        understood
    }
}

fn closed() -> ReadError {
    ReadError::Unavailable("the client is closed".to_owned())
}

impl Outgoing for Reading {
    type Request = proto::ReadRequest;

    fn changed(&self) -> &Notify {
        &self.changed
    }

    fn next(&self, stream: u64) -> Next<proto::ReadRequest> {
        let mut state = self.state.lock();
        if state.closed || state.stream != stream {
            return Next::Over;
        }
        state.reads.next(Instant::now()).map_or(Next::Wait, Next::Request)
    }
}
