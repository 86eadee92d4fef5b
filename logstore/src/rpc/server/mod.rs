//! The server: any log service, given to whoever may have it.

mod answers;
mod appends;
mod calls;
mod finished;
mod observations;
mod outlet;
mod reads;
mod streams;

use std::sync::Arc;
use std::time::Duration;

use interflow_meta::ServeError;
use interflow_meta::grpc::{self, Gate, Listen, ServeOptions};
use interflow_proto::log as proto;
use proto::log_server::LogServer as Grpc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;

use self::streams::Streams;
use super::peer::PeerServer;
use super::{MAX_BATCH_BYTES, MAX_MESSAGE_BYTES, MAX_READ_BYTES, PROTOCOL};
use crate::log::Identity;
use crate::{LogClient, LogStore};

/// A call takes no longer.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Who is served, and how much of what.
#[derive(Clone, Debug)]
pub struct LogServerOptions {
    /// Who may call.
    pub access: ServeOptions,
    /// Bytes of appends that may be unanswered on one stream.
    pub window_bytes: usize,
    /// Bytes of early batches that wait for one stream's reader; what is beyond is withheld.
    pub early_bytes: usize,
    /// The same of one log.
    pub log_early_bytes: usize,
    /// Bytes of batches in the answer to one read, unless its first batch is larger.
    pub read_bytes: usize,
    /// Bytes of credit of reads that may be unanswered on one stream.
    pub read_window_bytes: usize,
    /// Reads that may be unanswered on one stream.
    pub max_reads: u32,
    /// Observations of one stream.
    pub max_observations: usize,
}

impl Default for LogServerOptions {
    fn default() -> Self {
        Self {
            access: ServeOptions::default(),
            window_bytes: 64 << 20,
            early_bytes: 8 << 20,
            log_early_bytes: 1 << 20,
            read_bytes: MAX_READ_BYTES,
            read_window_bytes: 64 << 20,
            max_reads: 1_024,
            max_observations: 100_000,
        }
    }
}

/// A log service as others see it.
pub struct LogServer {
    logs: Arc<dyn LogClient>,
    identity: Identity,
    options: LogServerOptions,
    /// The node's replicas, for the other nodes that store logs.
    replicas: Option<LogStore>,
    streams: Arc<Streams>,
    read_streams: Arc<Streams>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

impl LogServer {
    /// Serves `logs`, those of the node `identity`, until `closing`.
    pub fn new(
        logs: Arc<dyn LogClient>,
        identity: Identity,
        options: LogServerOptions,
        closing: CancellationToken,
    ) -> Self {
        Self {
            logs,
            identity,
            options,
            replicas: None,
            streams: Arc::default(),
            read_streams: Arc::default(),
            closing,
            tasks: TaskTracker::new(),
        }
    }

    /// Answers on `listener` until it is closed; streams then end with the answers that are due.
    ///
    /// # Errors
    /// [`ServeError::OpenToAnybody`] when the listener is not on loopback and nobody is
    /// authenticated; a bad certificate.
    pub async fn serve(self, listener: impl Listen) -> Result<(), ServeError> {
        let (access, closing) = (self.options.access.clone(), self.closing.clone());
        let mut server = grpc::server(&listener, &access, CALL_TIMEOUT)?;
        let tasks = self.tasks.clone();
        let peers = self.replicas.clone().map(|logs| {
            let (token, closing) = (access.token.clone(), self.closing.clone());
            PeerServer::service(logs, token, closing, tasks.clone())
        });
        let service = Grpc::new(self)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let service = InterceptedService::new(service, Gate::new(PROTOCOL, access.token));
        let router = server.add_service(service).add_optional_service(peers);
        let served = grpc::run(router, listener, closing).await;
        // Their streams are gone, and they end with them.
        tasks.close();
        tasks.wait().await;
        served
    }

    fn welcome(&self) -> proto::Welcome {
        proto::Welcome {
            node: self.identity.node.0,
            incarnation: self.identity.incarnation,
            window_bytes: u64::try_from(self.options.window_bytes).unwrap_or(u64::MAX),
            max_reads: 0,
        }
    }

    fn read_bytes(&self) -> usize {
        self.options.read_bytes.min(MAX_BATCH_BYTES)
    }
}

/// Serves a log store of this process, to gateways and to the other nodes, on `listener` until
/// `closing`. It must be closed before the
/// store is shut down: clients take the end of their observations for the end of a connection then,
/// not of their logs.
///
/// # Errors
/// Those of [`LogServer::serve`].
pub async fn serve_logs(
    listener: impl Listen,
    logs: &LogStore,
    options: LogServerOptions,
    closing: CancellationToken,
) -> Result<(), ServeError> {
    let mut server = LogServer::new(Arc::new(logs.clone()), logs.identity(), options, closing);
    server.replicas = Some(logs.clone());
    server.serve(listener).await
}

/// A stream whose client didn't keep to the protocol.
fn misuse(what: &'static str) -> Status {
    Status::invalid_argument(what)
}

/// The client means this node.
fn check_node(own: u32, hello: &proto::Hello) -> Result<(), Status> {
    if hello.node != 0 && hello.node != own {
        return Err(Status::failed_precondition(format!(
            "this is node {own}, not node {}",
            hello.node
        )));
    }
    Ok(())
}
