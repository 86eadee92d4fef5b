//! The calls.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{BoxStream, FuturesUnordered};
use futures_util::{Stream, StreamExt};
use interflow_meta::{Epoch, LogId};
use interflow_proto::log as proto;
use proto::log_server::Log;
use proto::{batch_response, bounds_response, leader_epoch_response, trim_response};
use tonic::{Request, Response, Status, Streaming};

use super::observations::Events;
use super::reads::ReadAnswers;
use super::{LogServer, misuse};
use crate::LogError;
use crate::rpc::{MAX_LOGS, MAX_MESSAGE_BYTES, wire};

/// Logs are waited for no longer, whatever a client wants.
const MAX_PATIENCE: Duration = Duration::from_secs(20);

type Answer<T> = Result<Response<T>, Status>;

fn check_count(logs: usize) -> Result<(), Status> {
    let is_right = (1..=MAX_LOGS).contains(&logs);
    if is_right { Ok(()) } else { Err(misuse("a call is about 1 to 1,000 logs")) }
}

/// The answer about one batch.
fn batch(found: Result<Option<(u64, i64)>, LogError>) -> Answer<proto::BatchResponse> {
    use batch_response::Result as Of;
    let result = match found {
        Ok(Some((offset, max_timestamp))) => Of::Batch(proto::TimedBatch { offset, max_timestamp }),
        Ok(None) => Of::Nothing(proto::Nothing {}),
        Err(error) => Of::Error(wire::log_error_message(&error)),
    };
    Ok(Response::new(proto::BatchResponse { result: Some(result) }))
}

#[tonic::async_trait]
impl Log for LogServer {
    type AppendStream =
        Pin<Box<dyn Stream<Item = Result<proto::AppendAnswer, Status>> + Send + 'static>>;
    type ObserveStream = Events;
    type ReadStream = ReadAnswers;
    type RecoverStream = BoxStream<'static, Result<proto::RecoverResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<proto::AppendRequest>>,
    ) -> Answer<Self::AppendStream> {
        Ok(Response::new(Box::pin(self.appends(request.into_inner()))))
    }

    async fn observe(
        &self,
        request: Request<Streaming<proto::ObserveRequest>>,
    ) -> Answer<Self::ObserveStream> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.kind);
        let Some(proto::observe_request::Kind::Hello(hello)) = first else {
            return Err(misuse("a stream begins with a Hello"));
        };
        self.observations(&hello, requests).map(Response::new)
    }

    async fn read(
        &self,
        request: Request<Streaming<proto::ReadRequest>>,
    ) -> Answer<Self::ReadStream> {
        let mut requests = request.into_inner();
        let first = requests.message().await?.and_then(|first| first.kind);
        let Some(proto::read_request::Kind::Hello(hello)) = first else {
            return Err(misuse("a stream begins with a Hello"));
        };
        self.reads(&hello, requests).await.map(Response::new)
    }

    async fn bounds(&self, request: Request<proto::LogRequest>) -> Answer<proto::BoundsResponse> {
        use bounds_response::Result as Of;
        let result = match self.logs.bounds(LogId(request.into_inner().log)).await {
            Ok(bounds) => Of::Bounds(wire::bounds_message(&bounds)),
            Err(error) => Of::Error(wire::log_error_message(&error)),
        };
        Ok(Response::new(proto::BoundsResponse { result: Some(result) }))
    }

    async fn replicas(
        &self,
        request: Request<proto::ReplicasRequest>,
    ) -> Answer<proto::ReplicasResponse> {
        let logs = request.into_inner().logs;
        check_count(logs.len())?;
        let asked = logs.into_iter().map(|log| self.logs.replicas(LogId(log)));
        let results = join_all(asked).await.iter().map(wire::replicas_message).collect();
        Ok(Response::new(proto::ReplicasResponse { results }))
    }

    async fn batch_at_time(
        &self,
        request: Request<proto::TimeRequest>,
    ) -> Answer<proto::BatchResponse> {
        let proto::TimeRequest { log, timestamp } = request.into_inner();
        batch(self.logs.batch_at_time(LogId(log), timestamp).await)
    }

    async fn batch_of_max_time(
        &self,
        request: Request<proto::LogRequest>,
    ) -> Answer<proto::BatchResponse> {
        batch(self.logs.batch_of_max_time(LogId(request.into_inner().log)).await)
    }

    async fn end_of_leader_epoch(
        &self,
        request: Request<proto::LeaderEpochRequest>,
    ) -> Answer<proto::LeaderEpochResponse> {
        use leader_epoch_response::Result as Of;
        let proto::LeaderEpochRequest { log, leader_epoch } = request.into_inner();
        let result = match self.logs.end_of_leader_epoch(LogId(log), leader_epoch).await {
            Ok(Some((leader_epoch, end))) => Of::End(proto::LeaderEpochEnd { leader_epoch, end }),
            Ok(None) => Of::Nothing(proto::Nothing {}),
            Err(error) => Of::Error(wire::log_error_message(&error)),
        };
        Ok(Response::new(proto::LeaderEpochResponse { result: Some(result) }))
    }

    async fn trim(&self, request: Request<proto::TrimRequest>) -> Answer<proto::TrimResponse> {
        use trim_response::Result as Of;
        let proto::TrimRequest { log, before } = request.into_inner();
        let result = match self.logs.trim(LogId(log), before).await {
            Ok(start) => Of::Start(start),
            Err(error) => Of::Error(wire::log_error_message(&error)),
        };
        Ok(Response::new(proto::TrimResponse { result: Some(result) }))
    }

    async fn refresh(&self, request: Request<proto::LogRequest>) -> Answer<proto::RefreshResponse> {
        let refreshed = self.logs.refresh(LogId(request.into_inner().log)).await;
        let error = refreshed.err().map(|error| wire::log_error_message(&error));
        Ok(Response::new(proto::RefreshResponse { error }))
    }

    async fn recover(
        &self,
        request: Request<proto::RecoverRequest>,
    ) -> Answer<Self::RecoverStream> {
        let recoveries = request.into_inner().recoveries;
        check_count(recoveries.len())?;
        let recover = |(place, recovery): (u32, proto::Recovery)| {
            let logs = Arc::clone(&self.logs);
            async move {
                let recovered = logs.recover(LogId(recovery.log), Epoch(recovery.epoch)).await;
                let error = recovered.err().map(|error| wire::log_error_message(&error));
                proto::Recovered { place, error }
            }
        };
        let recovering: FuturesUnordered<_> = (0..).zip(recoveries).map(recover).collect();
        // What is done at the same time is told together.
        let told = recovering.ready_chunks(MAX_LOGS);
        let told = told.map(|recovered| Ok(proto::RecoverResponse { recovered }));
        Ok(Response::new(told.boxed()))
    }

    async fn info(&self, request: Request<proto::InfoRequest>) -> Answer<proto::InfoResponse> {
        let proto::InfoRequest { logs, patience_ms } = request.into_inner();
        check_count(logs.len())?;
        let logs: Vec<_> = logs.into_iter().map(LogId).collect();
        let patience = Duration::from_millis(patience_ms.into()).min(MAX_PATIENCE);
        let said = self.logs.describe_many(&logs, patience).await;
        Ok(Response::new(wire::info(said, MAX_MESSAGE_BYTES)))
    }
}
