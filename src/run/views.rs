//! What the parts of a process see of the other nodes.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use interflow_gateway::cluster::{Endpoint, Gateway, Gateways};
use interflow_logstore::{ClusterView, LogNode};
use interflow_meta::NodeId;
use interflow_meta::members::{Members, View};
use interflow_meta::nodes::NodeState;
use parking_lot::Mutex;
use tokio::sync::watch;

/// The gateways among the members.
pub(super) struct MemberGateways {
    members: Arc<Members>,
    /// The gateways of a view, and which.
    known: ArcSwap<(Arc<View>, Arc<[Gateway]>)>,
}

impl MemberGateways {
    pub(super) fn new(members: Arc<Members>) -> Arc<Self> {
        let view = members.view();
        let known = ArcSwap::from_pointee((Arc::clone(&view), gateways(&view)));
        Arc::new(Self { members, known })
    }
}

impl fmt::Debug for MemberGateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemberGateways").field("known", &self.known).finish_non_exhaustive()
    }
}

fn gateways(view: &View) -> Arc<[Gateway]> {
    view.gateways()
        .filter(|member| member.node.state == NodeState::ReadWrite)
        .map(|member| Gateway {
            id: member.id,
            incarnation: member.node.incarnation,
            rack: member.node.rack.clone(),
            kafka: member
                .node
                .endpoints
                .iter()
                .map(|endpoint| {
                    let at = Endpoint { host: endpoint.host.as_str().into(), port: endpoint.port };
                    (endpoint.listener.as_str().into(), at)
                })
                .collect(),
        })
        .collect()
}

impl Gateways for MemberGateways {
    fn me(&self) -> NodeId {
        self.members.me().id
    }

    fn incarnation(&self) -> u64 {
        self.members.me().incarnation
    }

    fn live(&self) -> Arc<[Gateway]> {
        let view = self.members.view();
        let known = self.known.load();
        if Arc::ptr_eq(&known.0, &view) {
            return Arc::clone(&known.1);
        }
        let live = gateways(&view);
        self.known.store(Arc::new((view, Arc::clone(&live))));
        live
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.members.changes()
    }

    fn lease_holds(&self) -> bool {
        self.members.lease_holds()
    }
}

/// The log stores among the members.
pub(super) struct MemberLogNodes {
    members: Arc<Members>,
    changes: Mutex<watch::Receiver<u64>>,
}

impl MemberLogNodes {
    pub(super) fn new(members: Arc<Members>) -> Arc<Self> {
        let changes = Mutex::new(members.changes());
        Arc::new(Self { members, changes })
    }
}

#[async_trait]
impl ClusterView for MemberLogNodes {
    fn candidates(&self) -> Vec<LogNode> {
        let view = self.members.view();
        let nodes = view.candidates();
        nodes.map(|member| LogNode { node: member.id, rack: member.node.rack.clone() }).collect()
    }

    fn is_gone(&self, node: NodeId) -> bool {
        let view = self.members.view();
        view.get(node).is_some_and(|member| {
            matches!(member.node.state, NodeState::Gone | NodeState::DataLoss)
        })
    }

    fn address(&self, node: NodeId) -> Option<String> {
        let view = self.members.view();
        let address = view.get(node).map(|member| member.node.address.clone());
        address.filter(|address| !address.is_empty())
    }

    async fn changed(&self) {
        // A call that is given up has seen nothing.
        let mut changes = self.changes.lock().clone();
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.changes.lock() = changes;
    }
}
