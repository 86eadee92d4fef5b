//! The other nodes, by gRPC.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use hashbrown::HashMap;
use interflow_meta::grpc::{Credentials, told};
use interflow_meta::{NodeId, Offset};
use interflow_proto::peer as proto;
use parking_lot::Mutex;
use proto::peer_client::PeerClient;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::link::PeerLink;
use super::{PROTOCOL, wire};
use crate::core::segment::Life;
use crate::log::Identity;
use crate::peers::{
    Checked, Checking, Fetch, Fetched, Link, LinkEvents, LogNode, PeerError, Peers, Pull, Seal,
    Sealed,
};
use crate::routing::NodeAccess;
use crate::rpc::MAX_MESSAGE_BYTES;

/// A node that doesn't answer a call for so long is taken for unreachable.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Of a call that may have to copy much.
const PULL_TIMEOUT: Duration = Duration::from_secs(30);

type Grpc = PeerClient<InterceptedService<Channel, Credentials>>;

/// Who the nodes that store logs are.
#[async_trait]
pub trait ClusterView: Send + Sync + 'static {
    /// The nodes that can take segments now: alive and writable, this one among them if it is.
    fn candidates(&self) -> Vec<LogNode>;

    /// Whether a node never comes back with what it had: removed, or its disk is lost.
    fn is_gone(&self, node: NodeId) -> bool;

    /// Where a node is reached, as `host:port`.
    fn address(&self, node: NodeId) -> Option<String>;

    /// Resolves after a change of the above.
    async fn changed(&self);
}

/// A node's connections.
#[derive(Clone)]
pub(super) struct Known {
    address: String,
    /// For entries.
    pub(super) entries: Grpc,
    calls: Grpc,
}

/// The other nodes, reached at the addresses that a [`ClusterView`] has. It must be ended with
/// [`GrpcPeers::close`].
pub struct GrpcPeers {
    me: Life,
    view: Arc<dyn ClusterView>,
    access: NodeAccess,
    nodes: Mutex<HashMap<NodeId, Known>>,
    closing: CancellationToken,
    tasks: TaskTracker,
    this: Weak<Self>,
}

impl std::fmt::Debug for GrpcPeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrpcPeers").field("me", &self.me).finish_non_exhaustive()
    }
}

impl GrpcPeers {
    /// The nodes of `view`, for the life `identity`. Belongs to the runtime that it is used on.
    pub fn new(identity: Identity, view: Arc<dyn ClusterView>, access: NodeAccess) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            me: Life { node: identity.node, incarnation: identity.incarnation },
            view,
            access,
            nodes: Mutex::default(),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
            this: this.clone(),
        })
    }

    pub(super) fn me(&self) -> Life {
        self.me
    }

    /// Ends all links.
    pub async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// The connections to a node, made when they are used.
    pub(super) fn known(&self, node: NodeId) -> Result<Known, PeerError> {
        let unreachable = |why: String| PeerError::Unreachable(node, why);
        let address = self.view.address(node);
        let address = address.ok_or_else(|| unreachable("its address isn't known".to_owned()))?;
        let mut nodes = self.nodes.lock();
        if let Some(known) = nodes.get(&node)
            && known.address == address
        {
            return Ok(known.clone());
        }
        let (host, port) = address
            .rsplit_once(':')
            .and_then(|(host, port)| Some((host, port.parse().ok()?)))
            .ok_or_else(|| unreachable(format!("`{address}` is no address")))?;
        let remote = self.access.clone().remote(host, port);
        let credentials = Credentials::new(PROTOCOL, remote.token.as_ref());
        let grpc = || -> Result<Grpc, PeerError> {
            let channel = remote.channel().map_err(|error| unreachable(told(&error)))?;
            Ok(PeerClient::with_interceptor(channel, credentials.clone())
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES))
        };
        let known = Known { address, entries: grpc()?, calls: grpc()? };
        nodes.insert(node, known.clone());
        Ok(known)
    }

    async fn call<T, F>(
        &self,
        node: NodeId,
        timeout: Duration,
        call: impl FnOnce(Grpc) -> F,
    ) -> Result<T, PeerError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let known = self.known(node)?;
        match tokio::time::timeout(timeout, call(known.calls)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if status.code() == tonic::Code::Internal => {
                Err(PeerError::Refused(node, told(&status)))
            }
            Ok(Err(status)) => Err(PeerError::Unreachable(node, told(&status))),
            Err(_) => Err(PeerError::Unreachable(node, "it doesn't answer".to_owned())),
        }
    }
}

fn not_understood(node: NodeId) -> PeerError {
    PeerError::Refused(node, "an answer that isn't understood".to_owned())
}

#[async_trait]
impl Peers for GrpcPeers {
    fn candidates(&self) -> Vec<LogNode> {
        self.view.candidates()
    }

    fn is_gone(&self, node: NodeId) -> bool {
        self.view.is_gone(node)
    }

    fn link(&self, to: NodeId, events: Arc<dyn LinkEvents>) -> Arc<dyn Link> {
        let link = PeerLink::new();
        if let Some(this) = self.this.upgrade() {
            let closing = self.closing.clone();
            self.tasks.spawn(Arc::clone(&link).run(this, to, events, closing));
        }
        link
    }

    async fn seal(&self, to: NodeId, seals: Vec<Seal>) -> Result<Vec<Sealed>, PeerError> {
        let request = proto::SealRequest {
            by: self.me.node.0,
            seals: seals.iter().map(wire::seal_message).collect(),
        };
        let call = |mut grpc: Grpc| async move { grpc.seal(request).await };
        let answer = self.call(to, CALL_TIMEOUT, call).await?;
        let sealed: Option<_> = answer.sealed.iter().map(wire::sealed).collect();
        sealed.ok_or_else(|| not_understood(to))
    }

    async fn fetch(&self, to: NodeId, fetch: Fetch) -> Result<Fetched, PeerError> {
        let request = wire::fetch_message(&fetch);
        let call = |mut grpc: Grpc| async move { grpc.fetch(request).await };
        let answer = self.call(to, CALL_TIMEOUT, call).await?;
        wire::fetched(&fetch, answer).ok_or_else(|| not_understood(to))
    }

    async fn pull(&self, to: NodeId, pull: Pull) -> Result<Offset, PeerError> {
        let request = wire::pull_message(&pull);
        let call = |mut grpc: Grpc| async move { grpc.pull(request).await };
        Ok(self.call(to, PULL_TIMEOUT, call).await?.end)
    }

    async fn check(&self, to: NodeId, ask: Checking) -> Result<Checked, PeerError> {
        let request = wire::checking_message(&ask);
        let call = |mut grpc: Grpc| async move { grpc.check(request).await };
        let proto::CheckResponse { crc, next, bytes } = self.call(to, CALL_TIMEOUT, call).await?;
        Ok(Checked { crc, next, bytes })
    }

    async fn changed(&self) {
        self.view.changed().await;
    }
}
