//! A member of a group.

use bytes::Bytes;

use super::types::{Ms, Name, Protocols};

/// A member.
#[derive(Debug)]
pub(super) struct Member<R> {
    pub(super) instance: Option<Name>,
    pub(super) client_id: Name,
    pub(super) client_host: Name,
    pub(super) session_ms: Ms,
    pub(super) rebalance_ms: Ms,
    pub(super) protocols: Protocols,
    pub(super) assignment: Bytes,
    /// It waits for the next generation.
    pub(super) join: Option<R>,
    /// It waits for its assignment.
    pub(super) sync: Option<R>,
    /// It hasn't been told its id by a generation yet, so it can't send heartbeats.
    pub(super) is_new: bool,
    /// When it counts as gone, unless it waits for an answer from us.
    pub(super) expires_at: Ms,
}

impl<R> Member<R> {
    /// The time at which it counts as gone; `None` while it waits for us.
    pub(super) fn deadline(&self) -> Option<Ms> {
        let waits = self.join.is_some() || self.sync.is_some();
        (self.is_new || !waits).then_some(self.expires_at)
    }

    pub(super) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| &**name == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    pub(super) fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|(name, _)| &**name == protocol)
    }

    /// An upper estimate of the memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let text = self.client_id.len()
            + self.client_host.len()
            + self.instance.as_ref().map_or(0, |name| name.len());
        text + bytes_of(&self.protocols) + self.assignment.len() + 512
    }
}

/// An upper estimate of the memory that they take.
pub(super) fn bytes_of(protocols: &Protocols) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + 64).sum()
}
