//! All members at one moment.

use crate::ids::NodeId;
use crate::nodes::{Node, NodeState};

/// A node, and whether it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: NodeId,
    /// What it says of itself. Its lease counter is that of the last read.
    pub node: Node,
    /// Its lease rose within its time, by this process's clock; or it hasn't been known for so
    /// long.
    pub is_live: bool,
}

impl Member {
    /// New segments may be opened on it.
    #[must_use]
    pub fn takes_segments(&self) -> bool {
        self.is_live
            && self.node.kind.has_logs()
            && self.node.state == NodeState::ReadWrite
            && !self.node.is_full
            && !self.node.address.is_empty()
    }

    /// It stores and serves segments that it has: a log store that lives and has lost nothing.
    #[must_use]
    pub fn serves_segments(&self) -> bool {
        self.is_live
            && self.node.kind.has_logs()
            && matches!(self.node.state, NodeState::ReadWrite | NodeState::ReadOnly)
            && !self.node.address.is_empty()
    }

    /// It serves clients.
    #[must_use]
    pub fn serves_clients(&self) -> bool {
        self.is_live
            && self.node.kind.has_gateway()
            && matches!(self.node.state, NodeState::ReadWrite | NodeState::ReadOnly)
    }
}

/// All members, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    members: Vec<Member>,
}

impl View {
    /// `members` are in the order of their ids.
    pub(super) fn new(members: Vec<Member>) -> Self {
        Self { members }
    }

    /// All of them, dead ones too.
    #[must_use]
    pub fn all(&self) -> &[Member] {
        &self.members
    }

    /// The member `id`.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        let at = self.members.binary_search_by_key(&id, |member| member.id).ok()?;
        self.members.get(at)
    }

    /// The life `incarnation` of node `id` goes on.
    #[must_use]
    pub fn is_live(&self, id: NodeId, incarnation: u64) -> bool {
        self.get(id).is_some_and(|member| member.is_live && member.node.incarnation == incarnation)
    }

    /// The log stores that new segments may be opened on.
    pub fn candidates(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.takes_segments())
    }

    /// The gateways that serve clients.
    pub fn gateways(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.serves_clients())
    }
}
