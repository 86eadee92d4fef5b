//! The value of a topic.

use std::collections::BTreeMap;

use bytes::Bytes;
use interflow_proto::meta as proto;
use uuid::Uuid;

use super::MAX_PARTITIONS;
use crate::entities::codec::{corrupt, decode, encode, uuid};
use crate::error::MetaError;
use crate::ids::LogId;

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its id: another topic of the same name has another one.
    pub id: Uuid,
    /// Its partitions' logs, in partition order.
    pub logs: Vec<LogId>,
    /// What was set explicitly; everything else has its default.
    pub config: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
}

impl Topic {
    pub(super) fn encode(&self) -> Bytes {
        let mut runs: Vec<proto::LogRun> = Vec::new();
        for log in &self.logs {
            match runs.last_mut() {
                Some(run) if run.first.checked_add(u64::from(run.count)) == Some(log.0) => {
                    run.count += 1;
                }
                _ => runs.push(proto::LogRun { first: log.0, count: 1 }),
            }
        }
        encode(&proto::Topic {
            id: Bytes::copy_from_slice(self.id.as_bytes()),
            logs: runs,
            config: self.config.clone(),
            created_ms: self.created_ms,
        })
    }

    pub(in crate::entities) fn decode(name: &str, value: Bytes) -> Result<Self, MetaError> {
        let message: proto::Topic = decode(value, "topic")?;
        let count: u64 = message.logs.iter().map(|run| u64::from(run.count)).sum();
        if count > u64::from(MAX_PARTITIONS) {
            return Err(corrupt("topic", "too many partitions"));
        }
        let logs = message.logs.iter().flat_map(|run| {
            (0..u64::from(run.count)).map(|place| LogId(run.first.wrapping_add(place)))
        });
        Ok(Self {
            name: name.to_owned(),
            id: uuid(&message.id, "topic")?,
            logs: logs.collect(),
            config: message.config,
            created_ms: message.created_ms,
        })
    }
}
