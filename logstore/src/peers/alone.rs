//! A node without others.

use std::sync::Arc;

use async_trait::async_trait;
use interflow_meta::{NodeId, Offset};

use super::{
    Checked, Checking, Fetch, Fetched, Link, LinkEvents, LogNode, PeerError, Peers, Pull, Seal,
    Sealed, ToReplica,
};

/// The only node there is.
pub(crate) struct Alone(pub(crate) NodeId);

struct Nowhere;

impl Link for Nowhere {
    fn send(&self, _: ToReplica) {}
}

impl Alone {
    fn nobody<T>(to: NodeId) -> Result<T, PeerError> {
        Err(PeerError::Unreachable(to, "this node is alone".to_owned()))
    }
}

#[async_trait]
impl Peers for Alone {
    fn candidates(&self) -> Vec<LogNode> {
        vec![LogNode { node: self.0, rack: String::new() }]
    }

    fn is_gone(&self, _: NodeId) -> bool {
        false
    }

    fn link(&self, _: NodeId, _: Arc<dyn LinkEvents>) -> Arc<dyn Link> {
        Arc::new(Nowhere)
    }

    async fn seal(&self, to: NodeId, _: Vec<Seal>) -> Result<Vec<Sealed>, PeerError> {
        Self::nobody(to)
    }

    async fn fetch(&self, to: NodeId, _: Fetch) -> Result<Fetched, PeerError> {
        Self::nobody(to)
    }

    async fn pull(&self, to: NodeId, _: Pull) -> Result<Offset, PeerError> {
        Self::nobody(to)
    }

    async fn check(&self, to: NodeId, _: Checking) -> Result<Checked, PeerError> {
        Self::nobody(to)
    }

    async fn changed(&self) {
        std::future::pending().await
    }
}
