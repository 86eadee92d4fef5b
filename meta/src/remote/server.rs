//! The server: any store, given to whoever may have it.

use std::net::SocketAddr;
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
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

use super::access::{Gate, Token};
use super::incoming::connections;
use super::views::Views;
use super::{MAX_MESSAGE_BYTES, watching, wire};
use crate::env::Env;
use crate::error::MetaError;
use crate::store::{Commit, Committed, Page, Snapshot, Store};
use crate::transaction::check_key;

/// Rows and bytes of one answer at most; a client asks again for what lies behind.
const MAX_ROWS: usize = 10_000;
const MAX_PAGE_BYTES: usize = 1 << 20;
/// A call that takes longer is given up; its commit may be made all the same.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that doesn't answer a ping for this long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long clients get at shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// A certificate and who must show one, in PEM.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// The certificate chain.
    pub cert_pem: Vec<u8>,
    /// Its private key.
    pub key_pem: Vec<u8>,
    /// CAs of which every client must show a certificate; `None` asks for none.
    pub client_ca_pem: Option<Vec<u8>>,
}

/// Who is served.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Every client must know it.
    pub token: Option<Token>,
    /// Speak TLS.
    pub tls: Option<ServerTls>,
}

/// Why a store isn't served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anybody could read and change everything.
    #[error(
        "serving metadata on {0} needs a token, or TLS with a CA of client certificates: anybody \
         there could change everything"
    )]
    OpenToAnybody(SocketAddr),
    /// The listener's own.
    #[error("the listener failed: {0}")]
    Io(#[from] std::io::Error),
    /// A bad certificate, or the transport's own.
    #[error("cannot serve: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl ServeOptions {
    /// A server on `address` may start: it is on loopback, or everybody who gets in is
    /// authenticated.
    ///
    /// # Errors
    /// [`ServeError::OpenToAnybody`].
    pub fn check(&self, address: SocketAddr) -> Result<(), ServeError> {
        let asks = self.tls.as_ref().is_some_and(|tls| tls.client_ca_pem.is_some());
        if address.ip().is_loopback() || self.token.is_some() || asks {
            return Ok(());
        }
        Err(ServeError::OpenToAnybody(address))
    }
}

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
    options.check(listener.local_addr()?)?;
    let mut server = Server::builder()
        .timeout(CALL_TIMEOUT)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(32 << 20)
        .max_frame_size(256 << 10)
        .max_concurrent_streams(1_024)
        .http2_max_header_list_size(16 << 10)
        .http2_keepalive_interval(Some(PING_TIMEOUT))
        .http2_keepalive_timeout(Some(PING_TIMEOUT));
    if let Some(tls) = &options.tls {
        let mut config = ServerTlsConfig::new()
            .identity(Identity::from_pem(&tls.cert_pem, &tls.key_pem))
            .timeout(CALL_TIMEOUT);
        if let Some(ca) = &tls.client_ca_pem {
            config = config.client_ca_root(Certificate::from_pem(ca));
        }
        server = server.tls_config(config)?;
    }
    let service = Service { store, views: Arc::new(Views::new(env)), closing: closing.clone() };
    let service = StoreServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let service = InterceptedService::new(service, Gate::new(options.token));
    let ended = closing.clone();
    let serving = server.add_service(service).serve_with_incoming_shutdown(
        connections(listener),
        async move { ended.cancelled().await },
    );
    tokio::select! {
        served = serving => served?,
        () = async { closing.cancelled().await; tokio::time::sleep(GRACE).await } => {
            tracing::warn!("clients of the metadata store did not leave in time");
        }
    }
    Ok(())
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
