//! The read stream, as it comes in: each read is begun when it comes, and answered when it is done.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{AbortHandle, Abortable};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, Stream, StreamExt};
use interflow_proto::log as proto;
use proto::read_answer::Kind as Answer;
use proto::read_request::Kind;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Status, Streaming};

use super::finished::{Finished, Granted};
use super::streams::{Stay, replaced};
use super::{CALL_TIMEOUT, LogServer, check_node, misuse};
use crate::rpc::wire;
use crate::{LogClient, ReadError, ReadOutcome};

pub(super) type ReadAnswers =
    Pin<Box<dyn Stream<Item = Result<proto::ReadAnswers, Status>> + Send + 'static>>;

/// A read under way; `None` was dropped.
type Reading =
    Pin<Box<dyn Future<Output = (Granted, Option<Result<ReadOutcome, ReadError>>)> + Send>>;

/// The reading half of a stream.
struct Intake {
    logs: Arc<dyn LogClient>,
    finished: Arc<Finished>,
    read_bytes: usize,
    last_id: Option<u64>,
    /// Reads that wait for something, and how to drop each.
    reading: FuturesUnordered<Reading>,
    handles: HashMap<u64, AbortHandle>,
}

impl LogServer {
    /// Takes what comes on `requests`; what is returned are the answers.
    pub(super) async fn reads(
        &self,
        hello: &proto::Hello,
        requests: Streaming<proto::ReadRequest>,
    ) -> Result<ReadAnswers, Status> {
        check_node(self.identity.node.0, hello)?;
        let stay = self.read_streams.enter(hello.client, hello.stream).await?;
        let (window_bytes, max_reads) = (self.options.read_window_bytes, self.options.max_reads);
        let welcome = proto::Welcome {
            window_bytes: u64::try_from(window_bytes).unwrap_or(u64::MAX),
            max_reads,
            ..self.welcome()
        };
        let max_reads = usize::try_from(max_reads).unwrap_or(usize::MAX);
        let finished = Arc::new(Finished::new(window_bytes, max_reads));
        let intake = Intake {
            logs: Arc::clone(&self.logs),
            finished: Arc::clone(&finished),
            read_bytes: self.read_bytes(),
            last_id: None,
            reading: FuturesUnordered::new(),
            handles: HashMap::new(),
        };
        let (failed, failure) = oneshot::channel();
        // When nobody takes the answers, nothing is done for them.
        let life = CancellationToken::new();
        let guard = life.clone().drop_guard();
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            let finished = Arc::clone(&intake.finished);
            let ended = life.run_until_cancelled(intake.run(&stay, requests, &closing)).await;
            // Answers that nobody reads need no end.
            let _ = failed.send(ended.unwrap_or(Ok(())));
            finished.end();
        });
        let kind = Some(Answer::Welcome(welcome));
        let welcome = proto::ReadAnswers { answers: vec![proto::ReadAnswer { id: 0, kind }] };
        Ok(answers(welcome, finished, failure, guard))
    }
}

/// The answers of a stream, and then why its reading half has ended. Dropped, that ends as well.
fn answers(
    welcome: proto::ReadAnswers,
    finished: Arc<Finished>,
    failure: oneshot::Receiver<Result<(), Status>>,
    guard: DropGuard,
) -> ReadAnswers {
    let first = futures_util::stream::iter([Ok(welcome)]);
    let rest = futures_util::stream::unfold(Some((finished, failure, guard)), |state| async move {
        let (finished, failure, guard) = state?;
        match finished.next().await {
            Some(answers) => Some((Ok(answers), Some((finished, failure, guard)))),
            None => match failure.await {
                Ok(Err(status)) => Some((Err(status), None)),
                Ok(Ok(())) | Err(_) => None,
            },
        }
    });
    Box::pin(first.chain(rest))
}

impl Intake {
    /// Takes reads until the client or the server has had enough, and does those that were taken.
    async fn run(
        mut self,
        stay: &Stay,
        mut requests: Streaming<proto::ReadRequest>,
        closing: &CancellationToken,
    ) -> Result<(), Status> {
        loop {
            tokio::select! {
                () = closing.cancelled() => break,
                () = stay.ended() => return Err(replaced()),
                message = requests.message() => match message?.map(|message| message.kind) {
                    None => break,
                    Some(Some(Kind::Read(read))) => self.begin(read)?,
                    Some(Some(Kind::Cancel(id))) => self.cancel(id),
                    Some(_) => return Err(misuse("a message that has no place here")),
                },
                Some((granted, result)) = self.reading.next() => self.done(granted, result),
            }
        }
        while let Some((granted, result)) = self.reading.next().await {
            self.done(granted, result);
        }
        Ok(())
    }

    fn begin(&mut self, message: proto::Read) -> Result<(), Status> {
        let id = message.id;
        if self.last_id.is_some_and(|last| id <= last) {
            return Err(misuse("the ids of reads rise"));
        }
        self.last_id = Some(id);
        let credit_bytes = usize::try_from(message.credit_bytes).unwrap_or(usize::MAX);
        let granted = Granted { id, credit_bytes };
        self.finished.take_on(granted)?;
        let timeout = Duration::from_millis(message.timeout_ms).min(CALL_TIMEOUT);
        if timeout.is_zero() {
            self.finished.dropped(granted);
            return Ok(());
        }
        let Some(read) = wire::read(message, self.read_bytes) else {
            let what = "a filter is sorted, without repeats".to_owned();
            self.finished.done(granted, Err(ReadError::Io(what)));
            return Ok(());
        };
        let logs = Arc::clone(&self.logs);
        let mut reading = Box::pin(async move { logs.read(read).await });
        // What is in memory is there at once.
        if let Some(result) = (&mut reading).now_or_never() {
            self.finished.done(granted, result);
            return Ok(());
        }
        let (handle, registration) = AbortHandle::new_pair();
        self.handles.insert(id, handle);
        let reading = Abortable::new(tokio::time::timeout(timeout, reading), registration);
        self.reading.push(Box::pin(async move {
            let result = reading.await.ok().and_then(Result::ok);
            (granted, result)
        }));
        Ok(())
    }

    /// Nobody waits for the read of this id any more, if anybody did.
    fn cancel(&mut self, id: u64) {
        match self.handles.get(&id) {
            Some(handle) => handle.abort(),
            None => self.finished.forget(id),
        }
    }

    fn done(&mut self, granted: Granted, result: Option<Result<ReadOutcome, ReadError>>) {
        self.handles.remove(&granted.id);
        match result {
            Some(result) => self.finished.done(granted, result),
            None => self.finished.dropped(granted),
        }
    }
}
