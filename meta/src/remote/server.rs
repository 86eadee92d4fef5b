//! The server: any store, given to whoever may have it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use interflow_proto::meta_remote as proto;
use proto::store_server::StoreServer;
use proto::{commit_response, get_range_response, get_response, snapshot_response, store_server};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use super::views::Views;
use super::{MAX_MESSAGE_BYTES, PROTOCOL, watching, wire};
use crate::env::Env;
use crate::error::MetaError;
use crate::grpc::{self, Gate, ServeError, ServeOptions};
use crate::store::{Commit, Committed, Page, Snapshot, Store};
use crate::transaction::check_key;

/// Rows and bytes of one answer at most; a client asks again for what lies behind.
const MAX_ROWS: usize = 10_000;
const MAX_PAGE_BYTES: usize = 1 << 20;
/// A call that takes longer is given up; its commit may be made all the same.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `store` on `listener` until `closing`; then tells clients and waits a little. The store
/// stays open.
///
/// # Errors
/// [`ServeError::OpenToAnybody`] when the listener is not on loopback and nobody is authenticated;
/// a bad certificate.
pub async fn serve(
    listener: TcpListener,
    store: Arc<dyn Store>,
    env: Env,
    options: ServeOptions,
    closing: CancellationToken,
) -> Result<(), ServeError> {
    let mut server = grpc::server(&listener, &options, CALL_TIMEOUT)?;
    let service = Service { store, views: Arc::new(Views::new(env)), closing: closing.clone() };
    let service = StoreServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let service = InterceptedService::new(service, Gate::new(PROTOCOL, options.token));
    grpc::run(server.add_service(service), listener, closing).await
}

#[derive(Debug)]
struct Service {
    store: Arc<dyn Store>,
    views: Arc<Views>,
    closing: CancellationToken,
}

impl Service {
    async fn read(&self, request: proto::GetRequest) -> Result<proto::Value, MetaError> {
        let snapshot = self.views.find(request.view.as_ref())?;
        check_key(&request.key)?;
        Ok(proto::Value { value: snapshot.get(&request.key).await? })
    }

    async fn read_range(&self, request: proto::GetRangeRequest) -> Result<Page, MetaError> {
        let snapshot = self.views.find(request.view.as_ref())?;
        let range = wire::range(request.range)?;
        let rows = usize::try_from(request.rows).unwrap_or(usize::MAX).min(MAX_ROWS);
        let bytes = usize::try_from(request.bytes).unwrap_or(usize::MAX).min(MAX_PAGE_BYTES);
        snapshot.get_range(&range, rows, bytes, request.reverse).await
    }

    async fn make(&self, mut request: proto::CommitRequest) -> Result<Committed, MetaError> {
        let view = request.view.take();
        let commit = wire::commit(request)?;
        self.snapshot_of(view.as_ref(), &commit).await?.commit(commit).await
    }

    /// What `commit` is checked against; what read nothing may be as old as it likes.
    async fn snapshot_of(
        &self,
        view: Option<&proto::View>,
        commit: &Commit,
    ) -> Result<Arc<dyn Snapshot>, MetaError> {
        match self.views.find(view) {
            Err(MetaError::TooOld) if commit.reads.is_empty() => self.store.snapshot().await,
            found => found,
        }
    }
}

#[tonic::async_trait]
impl store_server::Store for Service {
    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<proto::WatchEvent, Status>> + Send + 'static>>;

    async fn snapshot(
        &self,
        _: Request<proto::SnapshotRequest>,
    ) -> Result<Response<proto::SnapshotResponse>, Status> {
        use snapshot_response::Result as Answer;
        let result = match self.store.snapshot().await {
            Ok(snapshot) => Answer::View(self.views.hand_out(snapshot)),
            Err(error) => Answer::Error(wire::error_message(&error)),
        };
        Ok(Response::new(proto::SnapshotResponse { result: Some(result) }))
    }

    async fn get(
        &self,
        request: Request<proto::GetRequest>,
    ) -> Result<Response<proto::GetResponse>, Status> {
        use get_response::Result as Answer;
        let result = match self.read(request.into_inner()).await {
            Ok(value) => Answer::Value(value),
            Err(error) => Answer::Error(wire::error_message(&error)),
        };
        Ok(Response::new(proto::GetResponse { result: Some(result) }))
    }

    async fn get_range(
        &self,
        request: Request<proto::GetRangeRequest>,
    ) -> Result<Response<proto::GetRangeResponse>, Status> {
        use get_range_response::Result as Answer;
        let result = match self.read_range(request.into_inner()).await {
            Ok(page) => Answer::Page(wire::page_message(page)),
            Err(error) => Answer::Error(wire::error_message(&error)),
        };
        Ok(Response::new(proto::GetRangeResponse { result: Some(result) }))
    }

    async fn commit(
        &self,
        request: Request<proto::CommitRequest>,
    ) -> Result<Response<proto::CommitResponse>, Status> {
        use commit_response::Result as Answer;
        let result = match self.make(request.into_inner()).await {
            Ok(committed) => Answer::Committed(wire::committed_message(committed)),
            Err(error) => Answer::Error(wire::error_message(&error)),
        };
        Ok(Response::new(proto::CommitResponse { result: Some(result) }))
    }

    async fn watch(
        &self,
        request: Request<Streaming<proto::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (store, closing) = (Arc::clone(&self.store), self.closing.clone());
        Ok(Response::new(Box::pin(watching::events(store, closing, request.into_inner()))))
    }
}
