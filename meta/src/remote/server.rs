//! The server: any store, given to whoever may have it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use interflow_proto::meta_remote as proto;
use prost::Message;
use proto::question::Kind;
use proto::store_server::StoreServer;
use proto::{commit_response, store_server};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use super::views::Views;
use super::wire::Said;
use super::{MAX_MESSAGE_BYTES, MAX_QUESTIONS, PROTOCOL, watching, wire};
use crate::env::Env;
use crate::error::MetaError;
use crate::grpc::{self, Gate, ServeError, ServeOptions};
use crate::store::{Commit, Committed, Snapshot, Store};
use crate::transaction::check_key;

/// Rows and bytes of one answer at most; a client asks again for what lies behind.
const MAX_ROWS: usize = 10_000;
const MAX_PAGE_BYTES: usize = 1 << 20;
/// Questions of a call that are looked into at a time.
const ANSWERED_AT_ONCE: usize = 16;
/// An answer with so much in it is sent: with pages that are longer than asked for by their last row,
/// it keeps far below the greatest message.
const ENOUGH_BYTES: usize = 4 << 20;
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
    async fn newest(&self) -> Result<proto::View, MetaError> {
        Ok(self.views.hand_out(self.store.snapshot().await?))
    }

    /// The answer to one question; all that ask for it are told of the same `newest` view.
    async fn answer(
        &self,
        question: proto::Question,
        newest: &OnceCell<proto::View>,
    ) -> Result<Said, MetaError> {
        match question.kind.ok_or(MetaError::InvalidOperation("a question of no kind"))? {
            Kind::Newest(_) => Ok(Said::View(*newest.get_or_try_init(|| self.newest()).await?)),
            Kind::Get(get) => {
                let snapshot = self.views.find(get.view.as_ref())?;
                check_key(&get.key)?;
                Ok(Said::Value(snapshot.get(&get.key).await?))
            }
            Kind::GetRange(get) => {
                let snapshot = self.views.find(get.view.as_ref())?;
                let range = wire::range(get.range)?;
                let rows = usize::try_from(get.rows).unwrap_or(usize::MAX).min(MAX_ROWS);
                let bytes = usize::try_from(get.bytes).unwrap_or(usize::MAX).min(MAX_PAGE_BYTES);
                Ok(Said::Page(snapshot.get_range(&range, rows, bytes, get.reverse).await?))
            }
        }
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

    async fn read(
        &self,
        request: Request<proto::ReadRequest>,
    ) -> Result<Response<proto::ReadResponse>, Status> {
        let questions = request.into_inner().questions;
        if !(1..=MAX_QUESTIONS).contains(&questions.len()) {
            return Err(Status::invalid_argument("a call has 1 to 1,000 questions"));
        }
        let newest = OnceCell::new();
        let answers = questions.into_iter().map(|question| self.answer(question, &newest));
        let mut answers = stream::iter(answers).buffered(ANSWERED_AT_ONCE);
        let (mut results, mut bytes) = (Vec::new(), 0);
        while bytes < ENOUGH_BYTES
            && let Some(said) = answers.next().await
        {
            let result = wire::result_message(said);
            bytes += result.encoded_len();
            results.push(result);
        }
        Ok(Response::new(proto::ReadResponse { results }))
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
