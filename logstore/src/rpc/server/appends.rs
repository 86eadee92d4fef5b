//! The append stream, as it comes in: what is read is offered at once, so that the order of the
//! stream is the order of the calls, and no log waits for another.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use interflow_meta::LogId;
use interflow_proto::log as proto;
use proto::append_request::Kind;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::answers::{Answers, Step, Ticketed};
use super::streams::{Stay, Streams, replaced};
use super::{LogServer, check_node, misuse};
use crate::rpc::{MAX_NUMBERS, charge, wire};
use crate::{AppendError, AppendTicket, LogClient};

/// The reading half of a stream.
struct Intake {
    logs: Arc<dyn LogClient>,
    steps: mpsc::UnboundedSender<Step>,
    /// Bytes that are unanswered; with the window it bounds what is in `steps` too.
    unanswered: Arc<AtomicUsize>,
    window: usize,
    numbers: HashMap<u32, LogId>,
}

impl LogServer {
    /// Takes what comes on `requests`; what is returned are the answers.
    pub(super) fn appends(&self, requests: Streaming<proto::AppendRequest>) -> Answers {
        let (steps, received) = mpsc::unbounded_channel();
        let (life, unanswered) = (self.closing.child_token(), Arc::default());
        let answers = Answers::new(received, Arc::clone(&unanswered), life.clone().drop_guard());
        let intake = Intake {
            logs: Arc::clone(&self.logs),
            steps,
            unanswered,
            window: self.options.window_bytes,
            numbers: HashMap::new(),
        };
        let begin = Begin { streams: Arc::clone(&self.streams), welcome: self.welcome() };
        let own = self.identity.node.0;
        self.tasks.spawn(async move {
            let steps = intake.steps.clone();
            if let Err(status) = intake.run(begin, own, requests, life).await {
                // Answers that nobody reads need no end.
                let _ = steps.send(Step::Failed(status));
            }
        });
        answers
    }
}

/// What a stream begins with.
struct Begin {
    streams: Arc<Streams>,
    welcome: proto::Welcome,
}

impl Intake {
    async fn run(
        mut self,
        begin: Begin,
        own: u32,
        mut requests: Streaming<proto::AppendRequest>,
        life: CancellationToken,
    ) -> Result<(), Status> {
        let first = tokio::select! {
            () = life.cancelled() => return Ok(()),
            first = requests.message() => first?,
        };
        let Some(Kind::Hello(hello)) = first.and_then(|first| first.kind) else {
            return Err(misuse("a stream begins with a Hello"));
        };
        check_node(own, &hello)?;
        let stay = begin.streams.enter(hello.client, hello.stream).await?;
        let _ = self.steps.send(Step::Welcome(begin.welcome));
        self.take_all(&stay, requests, &life).await
    }

    async fn take_all(
        &mut self,
        stay: &Stay,
        mut requests: Streaming<proto::AppendRequest>,
        life: &CancellationToken,
    ) -> Result<(), Status> {
        loop {
            let message = tokio::select! {
                biased;
                () = life.cancelled() => return Ok(()),
                () = stay.ended() => return Err(replaced()),
                message = requests.message() => message?,
            };
            match message.map(|message| message.kind) {
                None => return Ok(()),
                Some(Some(Kind::Open(open))) if open.number < MAX_NUMBERS => {
                    self.numbers.insert(open.number, LogId(open.log));
                }
                Some(Some(Kind::Put(put))) => self.put(put)?,
                Some(_) => return Err(misuse("a message that has no place here")),
            }
        }
    }

    fn put(&mut self, put: proto::Put) -> Result<(), Status> {
        let (number, id) = (put.number, put.id);
        let Some(log) = self.numbers.get(&number).copied() else {
            return Err(misuse("an append to a number without a log"));
        };
        let bytes = charge(put.batch.len());
        let before = self.unanswered.fetch_add(bytes, Ordering::AcqRel);
        if before > 0 && before.saturating_add(bytes) > self.window {
            return Err(Status::resource_exhausted("more is in flight than the window allows"));
        }
        let ticket = match wire::put(put, log) {
            Some(append) => self.logs.append(append),
            None => AppendTicket::ready(Err(AppendError::Stopped("not an append".into()))),
        };
        let _ = self.steps.send(Step::Ticket(Ticketed { number, id, bytes, ticket }));
        Ok(())
    }
}
