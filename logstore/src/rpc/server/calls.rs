//! The calls.

use std::pin::Pin;

use futures_util::Stream;
use interflow_meta::{Epoch, LogId};
use interflow_proto::log as proto;
use proto::log_server::Log;
use proto::{
    batch_response, bounds_response, describe_response, leader_epoch_response, trim_response,
};
use tonic::{Request, Response, Status, Streaming};

use super::observations::Events;
use super::reads::ReadAnswers;
use super::{LogServer, misuse};
use crate::LogError;
use crate::rpc::wire;

type Answer<T> = Result<Response<T>, Status>;

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
    ) -> Answer<proto::RecoverResponse> {
        let proto::RecoverRequest { log, epoch } = request.into_inner();
        let recovered = self.logs.recover(LogId(log), Epoch(epoch)).await;
        let error = recovered.err().map(|error| wire::log_error_message(&error));
        Ok(Response::new(proto::RecoverResponse { error }))
    }

    async fn describe(
        &self,
        request: Request<proto::LogRequest>,
    ) -> Answer<proto::DescribeResponse> {
        use describe_response::Result as Of;
        let result = match self.logs.describe(LogId(request.into_inner().log)).await {
            Ok(description) => Of::Description(wire::description_message(description)),
            Err(error) => Of::Error(wire::log_error_message(&error)),
        };
        Ok(Response::new(proto::DescribeResponse { result: Some(result) }))
    }
}
