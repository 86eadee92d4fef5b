//! Calls, made again when a connection is lost: all of them may be made twice.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use interflow_meta::grpc::{Backoff, told};
use interflow_meta::{LogId, NodeId, Offset};
use interflow_proto::log as proto;
use proto::{batch_response, bounds_response, info_result, leader_epoch_response, trim_response};
use tokio::time::Instant;
use tonic::{Response, Status};

use super::Grpc;
use super::node::{Doubt, Doubts, is_final};
use crate::rpc::{MAX_LOGS, wire};
use crate::{Bounds, LogDescription, LogError};

/// Calls about many logs at a time.
const DESCRIBING_AT_ONCE: usize = 4;

/// A node that could not be asked, and why.
pub(super) struct Unreachable {
    why: String,
    /// It can be reached, and lets nobody in.
    is_refusal: bool,
}

impl Unreachable {
    fn silent() -> Self {
        Self { why: "it doesn't answer".to_owned(), is_refusal: false }
    }
}

impl From<Unreachable> for LogError {
    fn from(unreachable: Unreachable) -> Self {
        Self::Unavailable(unreachable.why)
    }
}

/// Makes calls of one node.
#[derive(Debug)]
pub(super) struct Calls {
    grpc: Grpc,
    backoff: Backoff,
    timeout: Duration,
    patience: Duration,
    /// Told when the node can't be reached.
    doubts: (NodeId, Doubts),
}

impl Calls {
    pub(super) fn new(
        grpc: Grpc,
        timeout: Duration,
        patience: Duration,
        doubts: (NodeId, Doubts),
    ) -> Self {
        Self { grpc, backoff: Backoff::default(), timeout, patience, doubts }
    }

    /// Makes a call about `log`.
    async fn call<T, F>(&self, log: LogId, call: impl Fn(Grpc) -> F) -> Result<T, Unreachable>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = self.attempt(call).await;
        if let Err(unreachable) = &answer {
            self.doubt(log, unreachable);
        }
        answer
    }

    fn doubt(&self, log: LogId, unreachable: &Unreachable) {
        if !unreachable.is_refusal {
            let (node, doubts) = &self.doubts;
            doubts.tell(*node, log, Doubt::Unreachable);
        }
    }

    /// The node could not be reached, and it isn't time yet to try again.
    pub(super) fn is_pausing(&self) -> bool {
        self.backoff.is_pausing()
    }

    pub(super) async fn attempt<T, F>(&self, call: impl Fn(Grpc) -> F) -> Result<T, Unreachable>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let began = Instant::now();
        let attempts = async {
            // A connection that was lost is made anew at least once.
            for attempt in 0_u32.. {
                self.backoff.ready().await;
                let status = match call(self.grpc.clone()).await {
                    Ok(answer) => {
                        self.backoff.worked();
                        return Ok(answer.into_inner());
                    }
                    Err(status) => status,
                };
                let is_over = attempt > 0 && began.elapsed() >= self.patience;
                self.backoff.failed();
                let is_refusal = is_final(&status, &self.doubts.1);
                if is_refusal || is_over {
                    return Err(Unreachable { why: told(&status), is_refusal });
                }
                tracing::debug!(%status, "a call of a log's node is made again");
            }
            Err(Unreachable::silent())
        };
        let answer = tokio::time::timeout(self.timeout, attempts).await;
        answer.unwrap_or_else(|_| Err(Unreachable::silent()))
    }

    pub(super) async fn bounds(&self, log: LogId) -> Result<Bounds, LogError> {
        use bounds_response::Result as Of;
        let request = proto::LogRequest { log: log.0 };
        let call = |mut grpc: Grpc| async move { grpc.bounds(request).await };
        match self.call(log, call).await?.result {
            Some(Of::Bounds(bounds)) => wire::bounds(&bounds).ok_or_else(not_understood),
            Some(Of::Error(error)) => Err(refusal(error)),
            None => Err(not_understood()),
        }
    }

    pub(super) async fn batch_at_time(
        &self,
        log: LogId,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        let request = proto::TimeRequest { log: log.0, timestamp };
        let call = |mut grpc: Grpc| async move { grpc.batch_at_time(request).await };
        batch(self.call(log, call).await?)
    }

    pub(super) async fn batch_of_max_time(
        &self,
        log: LogId,
    ) -> Result<Option<(Offset, i64)>, LogError> {
        let request = proto::LogRequest { log: log.0 };
        let call = |mut grpc: Grpc| async move { grpc.batch_of_max_time(request).await };
        batch(self.call(log, call).await?)
    }

    pub(super) async fn end_of_leader_epoch(
        &self,
        log: LogId,
        leader_epoch: u32,
    ) -> Result<Option<(u32, Offset)>, LogError> {
        use leader_epoch_response::Result as Of;
        let request = proto::LeaderEpochRequest { log: log.0, leader_epoch };
        let call = |mut grpc: Grpc| async move { grpc.end_of_leader_epoch(request).await };
        match self.call(log, call).await?.result {
            Some(Of::End(end)) => Ok(Some((end.leader_epoch, end.end))),
            Some(Of::Nothing(_)) => Ok(None),
            Some(Of::Error(error)) => Err(refusal(error)),
            None => Err(not_understood()),
        }
    }

    pub(super) async fn trim(&self, log: LogId, before: Offset) -> Result<Offset, LogError> {
        use trim_response::Result as Of;
        let request = proto::TrimRequest { log: log.0, before };
        let call = |mut grpc: Grpc| async move { grpc.trim(request).await };
        match self.call(log, call).await?.result {
            Some(Of::Start(start)) => Ok(start),
            Some(Of::Error(error)) => Err(refusal(error)),
            None => Err(not_understood()),
        }
    }

    pub(super) async fn refresh(&self, log: LogId) -> Result<(), LogError> {
        let request = proto::LogRequest { log: log.0 };
        let call = |mut grpc: Grpc| async move { grpc.refresh(request).await };
        self.call(log, call).await?.error.map_or(Ok(()), |error| Err(refusal(error)))
    }

    /// What the node says of each log, in their order, within `patience`.
    pub(super) async fn describe_many(
        &self,
        logs: &[LogId],
        patience: Duration,
    ) -> Vec<Result<LogDescription, LogError>> {
        let deadline = Instant::now() + patience.min(self.timeout);
        let asked = logs.chunks(MAX_LOGS).map(|logs| self.describe_some(logs, deadline).boxed());
        let asked: Vec<_> = asked.collect();
        let said: Vec<_> = stream::iter(asked).buffered(DESCRIBING_AT_ONCE).collect().await;
        said.concat()
    }

    async fn describe_some(
        &self,
        logs: &[LogId],
        deadline: Instant,
    ) -> Vec<Result<LogDescription, LogError>> {
        let mut said = Vec::with_capacity(logs.len());
        while let Some(rest) = logs.get(said.len()..).filter(|rest| !rest.is_empty()) {
            let left = deadline.saturating_duration_since(Instant::now());
            // What the node knows by then arrives in time.
            let patience_ms = u32::try_from((left / 4 * 3).as_millis()).unwrap_or(u32::MAX);
            let request =
                proto::InfoRequest { logs: rest.iter().map(|log| log.0).collect(), patience_ms };
            let call = |mut grpc: Grpc| {
                let request = request.clone();
                async move { grpc.info(request).await }
            };
            let answer = tokio::time::timeout_at(deadline, self.attempt(call)).await;
            let unsaid = match answer.unwrap_or_else(|_| Err(Unreachable::silent())) {
                Ok(answer) if (1..=rest.len()).contains(&answer.results.len()) => {
                    said.extend(answer.results.into_iter().map(described));
                    continue;
                }
                Ok(_) => not_understood(),
                Err(unreachable) => {
                    rest.iter().for_each(|log| self.doubt(*log, &unreachable));
                    unreachable.into()
                }
            };
            said.resize(logs.len(), Err(unsaid));
        }
        said
    }
}

const NOT_UNDERSTOOD: &str = "its answer is not understood";

pub(super) fn not_understood() -> LogError {
    LogError::Unavailable(NOT_UNDERSTOOD.to_owned())
}

pub(super) fn refusal(error: proto::Error) -> LogError {
    wire::log_error(error).unwrap_or_else(not_understood)
}

fn described(result: proto::InfoResult) -> Result<LogDescription, LogError> {
    use info_result::Result as Of;
    match result.result {
        Some(Of::Description(description)) => {
            wire::description(description).ok_or_else(not_understood)
        }
        Some(Of::Error(error)) => Err(refusal(error)),
        None => Err(not_understood()),
    }
}

fn batch(response: proto::BatchResponse) -> Result<Option<(Offset, i64)>, LogError> {
    use batch_response::Result as Of;
    match response.result {
        Some(Of::Batch(batch)) => Ok(Some((batch.offset, batch.max_timestamp))),
        Some(Of::Nothing(_)) => Ok(None),
        Some(Of::Error(error)) => Err(refusal(error)),
        None => Err(not_understood()),
    }
}
