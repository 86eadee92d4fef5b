//! The values of logs and segments.

use bytes::Bytes;
use interflow_proto::meta as proto;
use uuid::Uuid;

use super::{Closing, Opening};
use crate::entities::codec::{
    corrupt, decode, durability, durability_code, encode, node_codes, node_ids, uuid,
};
use crate::error::MetaError;
use crate::ids::{Durability, Epoch, NodeId, Offset};

/// How many of a segment's replicas must have an append before it is acknowledged: a majority, or
/// `least` if that is more. Any two majorities meet, so one that seals the others sees it.
pub fn acks(replicas: usize, least: u32) -> usize {
    let least = usize::try_from(least).unwrap_or(usize::MAX);
    least.max(replicas / 2 + 1).min(replicas.max(1))
}

/// So few are a majority of any number of replicas, or all of them.
pub const PLAIN_ACKS: u32 = 2;

/// How a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Drop what is older; `None` keeps it for ever. Milliseconds.
    pub retention_ms: Option<u64>,
    /// Drop the oldest segments above this size of the log; `None` has no bound. Bytes.
    pub retention_bytes: Option<u64>,
    /// Roll the open segment at this size. Bytes.
    pub segment_bytes: u64,
    /// Roll the open segment at this age. Milliseconds.
    pub segment_ms: u64,
    /// So many replicas at least must have an append before it is acknowledged; never fewer than a
    /// majority.
    pub min_acks: u32,
}

impl Default for Policy {
    /// Kafka's defaults: 7 days, segments of 1 GiB or 7 days.
    fn default() -> Self {
        const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1000;
        Self {
            retention_ms: Some(WEEK_MS),
            retention_bytes: None,
            segment_bytes: 1 << 30,
            segment_ms: WEEK_MS,
            min_acks: 1,
        }
    }
}

/// The segment that takes appends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenSegment {
    /// Its number in the chain.
    pub epoch: Epoch,
    /// Its first offset.
    pub base: Offset,
    /// Kafka's leader epoch.
    pub leader_epoch: u32,
    /// Who gives out offsets.
    pub sequencer: NodeId,
    /// Which life of that node.
    pub incarnation: u64,
    /// Who stores it.
    pub replicas: Vec<NodeId>,
    /// Drawn by whoever opened it, so that it knows its own commit again.
    pub token: u64,
    /// Milliseconds since 1970.
    pub opened_ms: i64,
    /// How many of them must have an append before it is acknowledged.
    pub acks: u32,
}

impl OpenSegment {
    pub(crate) fn new(epoch: Epoch, opening: &Opening, policy: &Policy) -> Self {
        Self {
            epoch,
            base: opening.base,
            leader_epoch: opening.leader_epoch,
            sequencer: opening.sequencer,
            incarnation: opening.incarnation,
            replicas: opening.replicas.clone(),
            token: opening.token,
            opened_ms: opening.opened_ms,
            acks: code(acks(opening.replicas.len(), policy.min_acks)),
        }
    }

    pub(super) fn close(&self, closing: &Closing) -> ClosedSegment {
        ClosedSegment {
            epoch: self.epoch,
            leader_epoch: self.leader_epoch,
            base: self.base,
            end: closing.end,
            opened_ms: self.opened_ms,
            closed_ms: closing.closed_ms,
            replicas: self.replicas.clone(),
            token: self.token,
            max_timestamp_ms: closing.max_timestamp_ms,
            bytes: closing.bytes,
            is_short: closing.is_short,
            acks: self.acks,
        }
    }
}

fn code(acks: usize) -> u32 {
    u32::try_from(acks).unwrap_or(u32::MAX)
}

/// What is stored; segments of before say nothing, and have a majority.
fn acks_of(stored: u32, replicas: &[u32]) -> u32 {
    if stored == 0 { code(acks(replicas.len(), 0)) } else { stored }
}

/// A segment that takes no more appends. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Its number in the chain.
    pub epoch: Epoch,
    /// Kafka's leader epoch.
    pub leader_epoch: u32,
    /// Its first offset.
    pub base: Offset,
    /// One past its last offset.
    pub end: Offset,
    /// Milliseconds since 1970.
    pub opened_ms: i64,
    /// Milliseconds since 1970.
    pub closed_ms: i64,
    /// Who stores it.
    pub replicas: Vec<NodeId>,
    /// The token it was opened with.
    pub token: u64,
    /// The largest timestamp of its records, where known.
    pub max_timestamp_ms: Option<i64>,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Fewer replicas than a quorum hold all of it: it is to be repaired before anything else.
    pub is_short: bool,
    /// How many replicas had to have an append before it was acknowledged.
    pub acks: u32,
}

/// What is known of a log besides its closed segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// The segment that takes appends.
    pub open: OpenSegment,
    /// Nothing below can be read.
    pub trim: Offset,
    /// When appends are acknowledged.
    pub durability: Durability,
    /// How it is kept.
    pub policy: Policy,
    /// Whose topic.
    pub tenant: String,
    /// Its topic's name.
    pub topic: String,
    /// Its topic's id.
    pub topic_id: Uuid,
    /// Its place in the topic.
    pub partition: u32,
    /// How many replicas its segments are to have; at least 1.
    pub replication_factor: u32,
}

/// A log's segments: closed ones in offset order, and the open one in the head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The head.
    pub head: LogHead,
    /// Apart from the open one.
    pub closed: Vec<ClosedSegment>,
}

impl ClosedSegment {
    pub(super) fn encode(&self) -> Bytes {
        encode(&proto::ClosedSegment {
            epoch: self.epoch.0,
            leader_epoch: self.leader_epoch,
            end: self.end,
            opened_ms: self.opened_ms,
            closed_ms: self.closed_ms,
            replicas: node_codes(&self.replicas),
            token: self.token,
            max_timestamp_ms: self.max_timestamp_ms,
            bytes: self.bytes,
            is_short: self.is_short,
            acks: self.acks,
        })
    }

    pub(in crate::entities) fn decode(base: Offset, value: Bytes) -> Result<Self, MetaError> {
        let message: proto::ClosedSegment = decode(value, "segment")?;
        Ok(Self {
            epoch: Epoch(message.epoch),
            leader_epoch: message.leader_epoch,
            base,
            end: message.end,
            opened_ms: message.opened_ms,
            closed_ms: message.closed_ms,
            replicas: node_ids(&message.replicas),
            token: message.token,
            max_timestamp_ms: message.max_timestamp_ms,
            bytes: message.bytes,
            is_short: message.is_short,
            acks: acks_of(message.acks, &message.replicas),
        })
    }
}

impl LogHead {
    pub(super) fn to_message(&self) -> proto::LogHead {
        proto::LogHead {
            open: Some(proto::OpenSegment {
                epoch: self.open.epoch.0,
                base: self.open.base,
                leader_epoch: self.open.leader_epoch,
                sequencer: self.open.sequencer.0,
                incarnation: self.open.incarnation,
                replicas: node_codes(&self.open.replicas),
                token: self.open.token,
                opened_ms: self.open.opened_ms,
                acks: self.open.acks,
            }),
            trim: self.trim,
            durability: durability_code(self.durability),
            policy: Some(proto::LogPolicy {
                retention_ms: self.policy.retention_ms,
                retention_bytes: self.policy.retention_bytes,
                segment_bytes: self.policy.segment_bytes,
                segment_ms: self.policy.segment_ms,
                min_acks: self.policy.min_acks,
            }),
            tenant: self.tenant.clone(),
            topic: self.topic.clone(),
            topic_id: Bytes::copy_from_slice(self.topic_id.as_bytes()),
            partition: self.partition,
            replication_factor: self.replication_factor,
        }
    }

    pub(super) fn encode(&self) -> Bytes {
        encode(&self.to_message())
    }

    pub(in crate::entities) fn decode(value: Bytes) -> Result<Self, MetaError> {
        let message: proto::LogHead = decode(value, "log")?;
        let (Some(open), Some(policy)) = (message.open, message.policy) else {
            return Err(corrupt("log", "a head without open segment or policy"));
        };
        Ok(Self {
            open: OpenSegment {
                epoch: Epoch(open.epoch),
                base: open.base,
                leader_epoch: open.leader_epoch,
                sequencer: NodeId(open.sequencer),
                incarnation: open.incarnation,
                replicas: node_ids(&open.replicas),
                token: open.token,
                opened_ms: open.opened_ms,
                acks: acks_of(open.acks, &open.replicas),
            },
            trim: message.trim,
            durability: durability(message.durability)?,
            policy: Policy {
                retention_ms: policy.retention_ms,
                retention_bytes: policy.retention_bytes,
                segment_bytes: policy.segment_bytes,
                segment_ms: policy.segment_ms,
                min_acks: policy.min_acks.max(1),
            },
            tenant: message.tenant,
            topic: message.topic,
            topic_id: uuid(&message.topic_id, "log")?,
            partition: message.partition,
            replication_factor: message.replication_factor.max(1),
        })
    }
}
