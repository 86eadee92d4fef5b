//! The append stream, as it is answered: in order in a log, as they come between logs.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, Stream, StreamExt};
use interflow_proto::log as proto;
use proto::append_answer::Kind;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;
use tonic::Status;

use crate::rpc::wire;
use crate::{AppendResult, AppendTicket};

/// Results in one message.
const MAX_RESULTS: usize = 4_096;

/// What the reading half has done.
pub(super) enum Step {
    Welcome(proto::Welcome),
    Ticket(Ticketed),
    Failed(Status),
}

/// An append that was offered.
pub(super) struct Ticketed {
    pub(super) number: u32,
    pub(super) id: u64,
    /// What it weighs in the window.
    pub(super) bytes: usize,
    pub(super) ticket: AppendTicket,
}

/// The oldest unanswered append of a log.
struct Front(Option<Ticketed>);

impl Future for Front {
    type Output = Option<(Ticketed, AppendResult)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticketed) = &mut self.0 else { return Poll::Ready(None) };
        match Pin::new(&mut ticketed.ticket).poll(cx) {
            Poll::Ready(result) => Poll::Ready(self.0.take().map(|ticketed| (ticketed, result))),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// The answers of a stream. Dropped, the reading half ends.
pub(super) struct Answers {
    steps: mpsc::UnboundedReceiver<Step>,
    unanswered: Arc<AtomicUsize>,
    /// Behind each front; present while there is one.
    behind: HashMap<u32, VecDeque<Ticketed>>,
    fronts: FuturesUnordered<Front>,
    has_all: bool,
    failure: Option<Status>,
    results: Vec<proto::Result>,
    _life: DropGuard,
}

impl Answers {
    pub(super) fn new(
        steps: mpsc::UnboundedReceiver<Step>,
        unanswered: Arc<AtomicUsize>,
        life: DropGuard,
    ) -> Self {
        Self {
            steps,
            unanswered,
            behind: HashMap::new(),
            fronts: FuturesUnordered::new(),
            has_all: false,
            failure: None,
            results: Vec::new(),
            _life: life,
        }
    }

    /// Takes in what was offered; a welcome goes out at once.
    fn take_in(&mut self, cx: &mut Context<'_>) -> Option<proto::Welcome> {
        while !self.has_all {
            match self.steps.poll_recv(cx) {
                Poll::Ready(Some(Step::Welcome(welcome))) => return Some(welcome),
                Poll::Ready(Some(Step::Ticket(ticketed))) => {
                    match self.behind.get_mut(&ticketed.number) {
                        Some(behind) => behind.push_back(ticketed),
                        None => {
                            self.behind.insert(ticketed.number, VecDeque::new());
                            self.fronts.push(Front(Some(ticketed)));
                        }
                    }
                }
                Poll::Ready(Some(Step::Failed(status))) => self.failure = Some(status),
                Poll::Ready(None) => self.has_all = true,
                Poll::Pending => break,
            }
        }
        None
    }

    fn settle(&mut self, cx: &mut Context<'_>) {
        while self.results.len() < MAX_RESULTS
            && let Poll::Ready(Some(Some((ticketed, result)))) = self.fronts.poll_next_unpin(cx)
        {
            let number = ticketed.number;
            self.answer(&ticketed, &result);
            // What is behind it is often answered by the same sync.
            let mut next = None;
            let mut behind = self.behind.remove(&number).unwrap_or_default();
            while let Some(mut ticketed) = behind.pop_front() {
                match (&mut ticketed.ticket).now_or_never() {
                    Some(result) => self.answer(&ticketed, &result),
                    None => {
                        next = Some(ticketed);
                        break;
                    }
                }
            }
            if let Some(next) = next {
                self.behind.insert(number, behind);
                self.fronts.push(Front(Some(next)));
            }
        }
    }

    fn answer(&mut self, ticketed: &Ticketed, result: &AppendResult) {
        self.unanswered.fetch_sub(ticketed.bytes, Ordering::AcqRel);
        self.results.push(wire::result_message(ticketed.id, result));
    }
}

impl Stream for Answers {
    type Item = Result<proto::AppendAnswer, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = |kind| Poll::Ready(Some(Ok(proto::AppendAnswer { kind: Some(kind) })));
        if let Some(welcome) = self.take_in(cx) {
            return answer(Kind::Welcome(welcome));
        }
        self.settle(cx);
        if !self.results.is_empty() {
            let results = std::mem::take(&mut self.results);
            return answer(Kind::Results(proto::Results { results }));
        }
        if let Some(status) = self.failure.take() {
            return Poll::Ready(Some(Err(status)));
        }
        if self.has_all && self.fronts.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}
