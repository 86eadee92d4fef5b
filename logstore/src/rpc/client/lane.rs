//! The appends of a client, on one stream; on the next one when that ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use interflow_meta::grpc::{Backoff, told};
use interflow_meta::{LogId, NodeId};
use interflow_proto::log as proto;
use parking_lot::Mutex;
use proto::append_answer::Kind as Answer;
use proto::append_request::Kind;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Grpc;
use super::node::{Doubt, Doubts, Unanswered, is_final};
use super::queues::{Answered, QueueLimits, Queues};
use super::stream::{Next, Outgoing, connect, requests};
use crate::rpc::wire;
use crate::{Append, AppendError, AppendTicket};

/// Late appends are looked for no more often.
const MIN_LOOK: Duration = Duration::from_millis(20);
/// With nothing unanswered, so long.
const NO_LOOK: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
struct State {
    queues: Queues,
    /// Which stream is the one of now: an older one sends nothing more.
    stream: u64,
    closed: bool,
    /// Why there is no stream.
    reason: String,
    /// When late and silent appends are looked for next.
    looks_at: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    state: Mutex<State>,
    /// There may be something to send, or the end.
    changed: Notify,
    /// Something can be late or silent before that is looked for.
    sooner: Notify,
    /// A stream that isn't welcomed after so long is none.
    connect_timeout: Duration,
    node: NodeId,
    doubts: Doubts,
}

impl Lane {
    pub(super) fn new(
        limits: QueueLimits,
        connect_timeout: Duration,
        node: NodeId,
        doubts: Doubts,
    ) -> Self {
        Self {
            state: Mutex::new(State {
                queues: Queues::new(limits),
                stream: 0,
                closed: false,
                reason: "it doesn't answer".to_owned(),
                looks_at: None,
            }),
            changed: Notify::new(),
            sooner: Notify::new(),
            connect_timeout,
            node,
            doubts,
        }
    }

    /// Starts an append, behind those that came before it.
    pub(super) fn append(&self, append: Append) -> AppendTicket {
        let (reply, ticket) = AppendTicket::pair();
        let is_sooner = {
            let mut state = self.state.lock();
            if state.closed {
                return AppendTicket::ready(Err(closed()));
            }
            let now = Instant::now();
            let deadline = state.queues.offer(append, reply, now);
            self.is_sooner(&state, now, deadline)
        };
        self.wake(is_sooner);
        ticket
    }

    /// The same for one that a router has.
    pub(super) fn send(&self, append: Unanswered) {
        let is_sooner = {
            let mut state = self.state.lock();
            if state.closed {
                return append.give_up(closed());
            }
            let (now, deadline) = (Instant::now(), append.deadline);
            state.queues.put(append, now);
            self.is_sooner(&state, now, deadline)
        };
        self.wake(is_sooner);
    }

    /// An append that came at `now` is late or silent before somebody looks.
    fn is_sooner(&self, state: &State, now: Instant, deadline: Instant) -> bool {
        let due = state.queues.due(now, deadline);
        state.looks_at.is_some_and(|at| due < at)
    }

    fn wake(&self, is_sooner: bool) {
        self.changed.notify_waiters();
        if is_sooner {
            self.sooner.notify_one();
        }
    }

    pub(super) fn take_back(&self, log: LogId) -> VecDeque<Unanswered> {
        self.state.lock().queues.take_back(log)
    }

    pub(super) fn resume(&self, log: LogId) {
        self.state.lock().queues.resume(log);
        self.changed.notify_waiters();
    }

    pub(super) fn has_unanswered(&self, log: LogId) -> bool {
        self.state.lock().queues.has_unanswered(log)
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
        // Logs that were told of since no stream could be made.
        let mut doubted = None;
        loop {
            self.wait_for_appends().await;
            match &mut doubted {
                Some(doubted) => self.pause(&backoff, doubted).await,
                None => backoff.ready().await,
            }
            let stream = {
                let mut state = self.state.lock();
                state.stream += 1;
                state.stream
            };
            let hello = proto::Hello { stream, ..hello };
            let mut was_welcome = false;
            let streaming = self.one_stream(&mut grpc, hello, &backoff, &mut was_welcome);
            let status = match streaming.await {
                Ok(()) => Status::unavailable("the node has ended the stream"),
                Err(status) => status,
            };
            tracing::debug!(%status, "the appends to a node go on with a new stream");
            let unanswered = {
                let mut state = self.state.lock();
                state.reason = told(&status);
                state.queues.cut();
                if is_final(&status, &self.doubts) {
                    // Nobody knows when it will be otherwise.
                    let State { queues, reason, .. } = &mut *state;
                    queues.give_up(Instant::now() + Duration::from_secs(86_400), reason);
                }
                if was_welcome { Vec::new() } else { state.queues.unanswered() }
            };
            backoff.failed();
            // One that was lost is made again at once; one that can't be made is a node's that is down.
            for log in &unanswered {
                self.doubts.tell(self.node, *log, Doubt::Unreachable);
            }
            doubted = (!was_welcome).then(|| unanswered.into_iter().collect());
        }
    }

    /// Waits until the node, which is down, is tried again. Appends to other logs that come meanwhile
    /// needn't wait for that.
    async fn pause(&self, backoff: &Backoff, doubted: &mut HashSet<LogId>) {
        let ready = backoff.ready();
        tokio::pin!(ready);
        loop {
            let changed = self.changed.notified();
            let mut unanswered = self.state.lock().queues.unanswered();
            unanswered.retain(|log| doubted.insert(*log));
            for log in unanswered {
                self.doubts.tell(self.node, log, Doubt::Unreachable);
            }
            tokio::select! {
                () = &mut ready => return,
                () = changed => {}
            }
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
        was_welcome: &mut bool,
    ) -> Result<(), Status> {
        let first = proto::AppendRequest { kind: Some(Kind::Hello(hello)) };
        let requests = requests(Arc::clone(self), hello.stream, first);
        let (mut answers, mut next) = connect(self.connect_timeout, grpc.append(requests)).await?;
        while let Some(answer) = next {
            let understood = match answer.kind {
                Some(Answer::Welcome(welcome)) => {
                    *was_welcome = true;
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
            next = answers.message().await?;
        }
        Ok(())
    }

    fn answered(&self, results: Vec<proto::Result>) -> Option<()> {
        let results: Option<Vec<_>> =
            results.into_iter().map(|message| Some((message.id, wire::result(message)?))).collect();
        let mut refused = Vec::new();
        let understood = {
            let mut state = self.state.lock();
            results?.into_iter().try_for_each(|(id, result)| {
                if let Answered::Refused(log) = state.queues.answered(id, result)? {
                    refused.push(log);
                }
                Some(())
            })
        };
        // Outside of the lock, for who is told has locks too.
        for log in refused {
            self.doubts.tell(self.node, log, Doubt::NotSequencer);
        }
        understood
    }

    /// Gives up appends that are late, and tells of logs that are silent, until `closing`.
    pub(super) async fn look_for_late(self: Arc<Self>, closing: CancellationToken) {
        let looking = async {
            loop {
                let at = {
                    let mut state = self.state.lock();
                    let at = state.queues.next_look().unwrap_or_else(|| Instant::now() + NO_LOOK);
                    state.looks_at = Some(at);
                    at.max(Instant::now() + MIN_LOOK)
                };
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = self.sooner.notified() => continue,
                }
                let silent = {
                    let mut state = self.state.lock();
                    let (State { queues, reason, .. }, now) = (&mut *state, Instant::now());
                    queues.give_up(now, reason);
                    queues.silent(now)
                };
                for log in silent {
                    self.doubts.tell(self.node, log, Doubt::Silent);
                }
            }
        };
        closing.run_until_cancelled(looking).await;
    }
}

fn closed() -> AppendError {
    AppendError::Stopped("the client of the log's node is closed".into())
}

impl Outgoing for Lane {
    type Request = proto::AppendRequest;

    fn changed(&self) -> &Notify {
        &self.changed
    }

    fn next(&self, stream: u64) -> Next<proto::AppendRequest> {
        let mut state = self.state.lock();
        if state.closed || state.stream != stream {
            return Next::Over;
        }
        state.queues.next(Instant::now()).map_or(Next::Wait, Next::Request)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::mpsc;

    use crate::{Append, AppendKind, Doubts, LogClient, LogId, RemoteLogs, RemoteLogsOptions};

    fn append(log: LogId) -> Append {
        Append {
            log,
            kind: AppendKind::Data,
            key: None,
            window: 5,
            count: 1,
            max_timestamp: 0,
            digest: None,
            early: false,
            batch: Bytes::from_static(b"a"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_append_to_a_node_that_is_down_makes_a_doubt_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (told, mut doubts) = mpsc::unbounded_channel();
        let hear = move |_, log, _| told.send((log, tokio::time::Instant::now())).unwrap();
        let options = RemoteLogsOptions {
            doubts: Doubts::new(hear),
            ..RemoteLogsOptions::new("127.0.0.1", port, 1)
        };
        let logs = RemoteLogs::open(options).unwrap();
        let first = logs.append(append(LogId(1)));
        // It is tried again and again, after pauses that become longer.
        for _ in 0..8 {
            assert_eq!(doubts.recv().await.unwrap().0, LogId(1));
        }
        let now = tokio::time::Instant::now();
        let second = logs.append(append(LogId(2)));
        assert_eq!(doubts.recv().await, Some((LogId(2), now)));
        // With the next attempt both.
        let mut next = [doubts.recv().await.unwrap(), doubts.recv().await.unwrap()];
        next.sort_unstable();
        assert_eq!(next.map(|(log, _)| log), [LogId(1), LogId(2)]);
        assert!(next[0].1 > now);
        logs.close().await;
        assert!(first.await.is_err() && second.await.is_err());
    }
}
