//! The first segments of new logs.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{NewLogs, Topic, TopicError};
use crate::entities::codec::counter;
use crate::entities::logs::{self, LogHead, OpenSegment, Opening};
use crate::entities::nodes::{self, NodeState};
use crate::ids::{Epoch, LogId, NodeId};
use crate::transaction::Transaction;

/// Chooses the nodes of a new log's first segment.
pub trait Placement: Sync {
    /// Those of `log`, its sequencer first; `None` if there are too few. Chooses alike each time
    /// that it is asked.
    fn place(&self, log: LogId) -> Option<Vec<NodeId>>;
}

fn log_counter_key(tx: &Transaction) -> Vec<u8> {
    tx.root().pack(&("counter", "log"))
}

/// Appends `count` new logs to `topic`.
pub(super) async fn open_logs(
    tx: &Transaction,
    tenant: &str,
    topic: &mut Topic,
    count: u32,
    new: &NewLogs,
    placement: Option<&dyn Placement>,
) -> Result<(), TopicError> {
    let key = log_counter_key(tx);
    let mut next = counter(tx.get(&key).await?, "log counter")?;
    let mut opening = Opening { base: 0, leader_epoch: 0, ..new.opening.clone() };
    let mut lives = Lives::new();
    for _ in 0..count {
        if let Some(placement) = placement {
            let replicas = placement.place(LogId(next)).ok_or(TopicError::TooFewNodes)?;
            let sequencer = *replicas.first().ok_or(TopicError::TooFewNodes)?;
            for node in &replicas {
                lives.look_up(tx, *node).await?;
            }
            opening.incarnation = lives.look_up(tx, sequencer).await?;
            (opening.sequencer, opening.replicas) = (sequencer, replicas);
        }
        let partition =
            u32::try_from(topic.logs.len()).map_err(|_| TopicError::InvalidPartitions)?;
        let head = LogHead {
            open: OpenSegment::new(Epoch(0), &opening, &new.policy),
            trim: 0,
            durability: new.durability,
            policy: new.policy,
            tenant: tenant.to_owned(),
            topic: topic.name.clone(),
            topic_id: topic.id,
            partition,
            replication_factor: new.replication_factor.max(1),
        };
        logs::create(tx, LogId(next), &head)?;
        topic.logs.push(LogId(next));
        next += 1;
    }
    tx.set(key, Bytes::copy_from_slice(&next.to_le_bytes()))?;
    Ok(())
}

/// The incarnations of nodes that take segments.
struct Lives(BTreeMap<NodeId, u64>);

impl Lives {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// The incarnation of `node`, which the transaction depends on from then on.
    async fn look_up(&mut self, tx: &Transaction, node: NodeId) -> Result<u64, TopicError> {
        if let Some(known) = self.0.get(&node) {
            return Ok(*known);
        }
        match nodes::get_life(tx, node).await? {
            Some(life)
                if life.state == NodeState::ReadWrite && !life.is_stopped && !life.is_full =>
            {
                self.0.insert(node, life.incarnation);
                Ok(life.incarnation)
            }
            _ => Err(TopicError::NotWritable(node)),
        }
    }
}
