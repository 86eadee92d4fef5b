//! ListOffsets: the ends of a partition, and look-ups by time.

use interflow_logstore::{Bounds, LogId, Read};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

use super::topic::TopicKey;
use super::{DataPlane, errors};
use crate::records::{BatchHeader, OpenBatch, Record};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// The first version whose response has a leader epoch.
const EPOCH_SINCE: i16 = 4;

/// The first version in which a client may ask for what isn't a time; `None`: there is none.
fn since(timestamp: i64) -> Option<i16> {
    match timestamp {
        0.. | LATEST | EARLIEST => Some(0),
        MAX_TIMESTAMP => Some(7),
        EARLIEST_LOCAL => Some(8),
        LATEST_TIERED => Some(9),
        _ => None,
    }
}

/// An answer for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
}

/// No record is like that.
const NOTHING: Found = Found { offset: -1, timestamp: -1, leader_epoch: -1 };

impl DataPlane {
    /// Answers ListOffsets: earliest, latest (the last stable offset for read_committed), the
    /// largest timestamp, and the first record at or after a time, also within a compressed batch
    /// (K11).
    pub async fn list_offsets(
        &self,
        version: i16,
        request: ListOffsetsRequest,
    ) -> ListOffsetsResponse {
        let read_committed = request.isolation_level == 1;
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in request.topics {
            let (key, found) = TopicKey::of_name(self.topics(), &topic.name);
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for wanted in &topic.partitions {
                let is_served = since(wanted.timestamp).is_some_and(|since| version >= since);
                let result = match key.log(found.as_deref(), wanted.partition_index) {
                    _ if !is_served => Err(ResponseError::UnsupportedVersion),
                    Ok(log) => self.find_offset(log, wanted, read_committed).await,
                    Err(error) => Err(error),
                };
                let answer = ListOffsetsPartitionResponse::default()
                    .with_partition_index(wanted.partition_index);
                partitions.push(match result {
                    Ok(found) => {
                        let epoch = if version >= EPOCH_SINCE { found.leader_epoch } else { -1 };
                        answer
                            .with_offset(found.offset)
                            .with_timestamp(found.timestamp)
                            .with_leader_epoch(epoch)
                    }
                    Err(error) => answer.with_error_code(error.code()),
                });
            }
            topics.push(
                ListOffsetsTopicResponse::default()
                    .with_name(topic.name)
                    .with_partitions(partitions),
            );
        }
        ListOffsetsResponse::default().with_topics(topics)
    }

    async fn find_offset(
        &self,
        log: LogId,
        wanted: &ListOffsetsPartition,
        read_committed: bool,
    ) -> Result<Found, ResponseError> {
        let bounds = self.log().bounds(log).await.map_err(|error| errors::of_log(&error))?;
        let leader_epoch = i32::try_from(bounds.leader_epoch).unwrap_or(i32::MAX);
        if wanted.current_leader_epoch > leader_epoch {
            return Err(ResponseError::UnknownLeaderEpoch);
        }
        let end = if read_committed { bounds.stable } else { bounds.committed };
        let at = |offset, leader_epoch| Found { offset, timestamp: -1, leader_epoch };
        match wanted.timestamp {
            LATEST => Ok(at(signed(end), leader_epoch)),
            // What epoch the earliest record has isn't known without reading it, except where
            // there was only ever one.
            EARLIEST | EARLIEST_LOCAL => {
                Ok(at(signed(bounds.start), if leader_epoch == 0 { 0 } else { -1 }))
            }
            // Nothing is tiered.
            LATEST_TIERED => Ok(NOTHING),
            MAX_TIMESTAMP => {
                let batch = self.log().batch_of_max_time(log).await;
                let batch = batch.map_err(|error| errors::of_log(&error))?;
                let Some((offset, max)) = batch else { return Ok(NOTHING) };
                self.record_at(log, offset, max, bounds, end).await
            }
            timestamp => {
                let batch = self.log().batch_at_time(log, timestamp).await;
                let batch = batch.map_err(|error| errors::of_log(&error))?;
                let Some((offset, _)) = batch else { return Ok(NOTHING) };
                self.record_at(log, offset, timestamp, bounds, end).await
            }
        }
    }

    /// The first record at or after `timestamp` in the batch that holds `offset`, below `end`.
    ///
    /// A batch whose records don't bear out its header, or are larger than the bound when
    /// decompressed, counts as a whole: a reader that begins there misses nothing.
    async fn record_at(
        &self,
        log: LogId,
        offset: u64,
        timestamp: i64,
        bounds: Bounds,
        end: u64,
    ) -> Result<Found, ResponseError> {
        let from = offset.max(bounds.start);
        if from >= end {
            return Ok(NOTHING);
        }
        let read = Read { log, offset: from, max_bytes: 1, stable_only: false, filter: None };
        let outcome = self.log().read(read).await.map_err(|error| errors::of_read(&error))?;
        let Some(batch) = outcome.batches.into_iter().next() else { return Ok(NOTHING) };
        let header = BatchHeader::parse(&batch.bytes).map_err(|_| ResponseError::CorruptMessage)?;
        let as_a_whole = (batch.base_offset.max(from), header.max_timestamp);
        let (offset, found_timestamp) =
            match OpenBatch::open(&batch.bytes, self.limits().decompressed_max_bytes) {
                Ok(open) => {
                    let is_it = |record: &Record<'_>| {
                        record.timestamp >= timestamp
                            && batch.base_offset + u64::from(record.offset_delta) >= bounds.start
                    };
                    let found = open.records().map_while(Result::ok).find(is_it);
                    found.map_or(as_a_whole, |record| {
                        (batch.base_offset + u64::from(record.offset_delta), record.timestamp)
                    })
                }
                Err(error) => {
                    tracing::debug!(%error, %log, "a look-up by time could not open a batch");
                    as_a_whole
                }
            };
        if offset >= end {
            return Ok(NOTHING);
        }
        Ok(Found {
            offset: signed(offset),
            timestamp: found_timestamp,
            leader_epoch: header.leader_epoch,
        })
    }
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
