//! What operators see of a topic's logs.

use interflow_logstore::{LogDescription, LogId};
use serde::{Deserialize, Serialize};

/// One partition's log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct LogReport {
    /// The partition.
    pub partition: u32,
    /// The log's id.
    pub log: u64,
    /// The first offset that can be read.
    pub start: u64,
    /// The high watermark.
    pub committed: u64,
    /// The last stable offset.
    pub stable: u64,
    /// Kafka's leader epoch.
    pub leader_epoch: u32,
    /// Producers whose sequences are remembered.
    pub producers: usize,
    /// The segments, oldest first.
    pub segments: Vec<SegmentReport>,
}

/// One segment.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SegmentReport {
    /// Its number in the chain.
    pub epoch: u32,
    /// Its first offset.
    pub base: u64,
    /// One past its last offset; none while it is open.
    pub end: Option<u64>,
    /// Bytes of its entries on disk.
    pub bytes: u64,
    /// Damaged offsets, each range without its end.
    pub damaged: Vec<(u64, u64)>,
}

impl LogReport {
    /// The report of partition `partition`.
    pub fn new(partition: u32, log: LogId, description: LogDescription) -> Self {
        let bounds = description.bounds;
        Self {
            partition,
            log: log.0,
            start: bounds.start,
            committed: bounds.committed,
            stable: bounds.stable,
            leader_epoch: bounds.leader_epoch,
            producers: description.producers,
            segments: description
                .segments
                .into_iter()
                .map(|segment| SegmentReport {
                    epoch: segment.epoch,
                    base: segment.base,
                    end: segment.end,
                    bytes: segment.bytes,
                    damaged: segment.damaged,
                })
                .collect(),
        }
    }
}
