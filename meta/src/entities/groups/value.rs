//! The values of a group.

use bytes::Bytes;
use interflow_proto::meta as proto;

use crate::entities::codec::{decode, encode};
use crate::error::MetaError;
use crate::ids::Offset;

/// An offset that a group has committed for a partition: where its next member goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to be read.
    pub offset: Offset,
    /// Kafka's leader epoch of the last record read; -1 when the client didn't say.
    pub leader_epoch: i32,
    /// The client's own words.
    pub metadata: String,
    /// Milliseconds since 1970.
    pub committed_ms: i64,
    /// When it expires, for clients that set it; milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

/// What a group's coordinator must find again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMetadata {
    /// Rises with each rebalance.
    pub generation: u32,
    /// "consumer" for consumers.
    pub protocol_type: String,
    /// The assignor that was chosen.
    pub protocol: String,
    /// The leader's member id.
    pub leader: String,
    /// Members and assignments, encoded by the coordinator.
    pub members: Bytes,
    /// Milliseconds since 1970.
    pub changed_ms: i64,
    /// The epoch of the [coordinator](super::Coordinator) that wrote it.
    pub coordinator_epoch: u32,
}

impl CommittedOffset {
    pub(super) fn encode(&self) -> Bytes {
        encode(&proto::CommittedOffset {
            offset: self.offset,
            leader_epoch: self.leader_epoch,
            metadata: self.metadata.clone(),
            committed_ms: self.committed_ms,
            expires_ms: self.expires_ms,
        })
    }

    pub(in crate::entities) fn decode(value: Bytes) -> Result<Self, MetaError> {
        let message: proto::CommittedOffset = decode(value, "committed offset")?;
        Ok(Self {
            offset: message.offset,
            leader_epoch: message.leader_epoch,
            metadata: message.metadata,
            committed_ms: message.committed_ms,
            expires_ms: message.expires_ms,
        })
    }
}

impl GroupMetadata {
    pub(super) fn encode(&self) -> Bytes {
        encode(&proto::Group {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.clone(),
            changed_ms: self.changed_ms,
            coordinator_epoch: self.coordinator_epoch,
            parts: 0,
        })
    }

    /// The row that stands for metadata in so many parts.
    pub(super) fn in_parts(parts: u32) -> Bytes {
        encode(&proto::Group { parts, ..proto::Group::default() })
    }

    /// In how many parts the metadata of a row lies; 0: it is in the row.
    pub(super) fn parts(row: &Bytes) -> Result<u32, MetaError> {
        let message: proto::Group = decode(row.clone(), "group")?;
        Ok(message.parts)
    }

    pub(in crate::entities) fn decode(value: Bytes) -> Result<Self, MetaError> {
        let message: proto::Group = decode(value, "group")?;
        Ok(Self {
            generation: message.generation,
            protocol_type: message.protocol_type,
            protocol: message.protocol,
            leader: message.leader,
            members: message.members,
            changed_ms: message.changed_ms,
            coordinator_epoch: message.coordinator_epoch,
        })
    }
}
