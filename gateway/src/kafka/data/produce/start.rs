//! From a request to appends, and from their tickets to the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interflow_logstore::{Append, AppendKey, AppendKind, AppendTicket, LogId};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ApiKey;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::request::{Named, Preamble, Visitor, walk};
use super::response::{Kept, PartitionAnswer, Refused, encode};
use crate::kafka::data::topic::{TopicKey, rules};
use crate::kafka::data::{Body, DataPlane, errors};
use crate::kafka::frame::{FrameError, check};
use crate::records::{BatchHeader, Compression, TimestampType, set_log_append_time, validate};
use crate::topics::Topic;

/// Batches whose sequences are remembered for each producer, as Kafka does.
const WINDOW: u16 = 5;
/// The first version in which a producer may use Zstandard (KIP-110).
const ZSTD_SINCE: i16 = 7;
/// The least time an append is waited for, whatever the request says: some clients send 0.
const LEAST_TIMEOUT: Duration = Duration::from_secs(1);

/// What to do about a Produce request once its appends have ended.
#[derive(Debug)]
pub enum ProduceAnswer {
    /// Send this.
    Body(Body),
    /// Send nothing: the request had acks=0 and went well (K3).
    Silent,
    /// Close the connection: the request had acks=0 and failed (K3).
    Close,
}

/// A Produce request whose appends are on their way.
#[derive(Debug)]
#[must_use = "the request is answered by `finish`"]
pub struct Produce {
    version: i16,
    acks: i16,
    deadline: Instant,
    topics: SmallVec<[(TopicKey, usize); 1]>,
    pending: SmallVec<[Pending; 1]>,
}

#[derive(Debug)]
struct Pending {
    index: i32,
    append_time_ms: i64,
    state: Result<AppendTicket, Refused>,
}

impl DataPlane {
    /// Checks a Produce request and each of its batches, and starts their appends, in the order of
    /// the request. Appends of requests that are started one after the other have that order.
    ///
    /// # Errors
    /// [`FrameError`]: the request can't be read; close the connection. Nothing was appended, but
    /// for topics that stand before one whose name isn't UTF-8.
    pub fn start_produce(&self, version: i16, body: &Bytes) -> Result<Produce, FrameError> {
        check(ApiKey::Produce, version, body)?;
        let now_ms = self.now_ms();
        let starting = walk(version, body, |preamble| Starting {
            plane: self,
            version,
            now_ms,
            acks_known: matches!(preamble.acks, -1..=1),
            topic: None,
            started: Produce::new(version, preamble),
        })?;
        Ok(starting.started)
    }
}

struct Starting<'a> {
    plane: &'a DataPlane,
    version: i16,
    now_ms: i64,
    acks_known: bool,
    topic: Option<Arc<Topic>>,
    started: Produce,
}

impl Visitor for Starting<'_> {
    fn topic(&mut self, topic: Named<'_>, partitions: usize) {
        let topics = self.plane.topics();
        let (key, topic) = match topic {
            Named::Name(name) => TopicKey::of_name(topics, name),
            Named::Id(id) => (TopicKey::Id(id), topics.by_id(id)),
        };
        self.topic = topic;
        self.started.topics.push((key, partitions));
    }

    fn partition(&mut self, index: i32, records: Option<Bytes>) {
        let mut append_time_ms = -1;
        let state = self.append(index, records, &mut append_time_ms);
        self.started.pending.push(Pending { index, append_time_ms, state });
    }
}

impl Starting<'_> {
    fn append(
        &self,
        index: i32,
        records: Option<Bytes>,
        append_time_ms: &mut i64,
    ) -> Result<AppendTicket, Refused> {
        if !self.acks_known {
            return Err(ResponseError::InvalidRequiredAcks.into());
        }
        let (key, _) = self.started.topics.last().ok_or(ResponseError::InvalidRequest)?;
        let log = key.log(self.topic.as_deref(), index)?;
        let topic = self.topic.as_deref().ok_or(ResponseError::UnknownTopicOrPartition)?;
        let records = records.ok_or(ResponseError::InvalidRecord)?;
        let rules = rules(&topic.config);
        let header = validate(&records, &rules, self.now_ms).map_err(|error| Refused {
            error: errors::of_batch(&error),
            message: Some(error.to_string()),
        })?;
        self.refuse_unserved(&header)?;
        let batch = if rules.timestamp_type == TimestampType::LogAppendTime {
            *append_time_ms = self.now_ms;
            set_log_append_time(records, self.now_ms).map_err(|_| ResponseError::CorruptMessage)?
        } else {
            records
        };
        let max_timestamp = if *append_time_ms >= 0 { self.now_ms } else { header.max_timestamp };
        Ok(self.plane.log().append(append(log, &header, max_timestamp, batch)?))
    }

    fn refuse_unserved(&self, header: &BatchHeader) -> Result<(), Refused> {
        if header.is_transactional() {
            return Err(Refused {
                error: ResponseError::InvalidTxnState,
                message: Some("transactions are not served".to_owned()),
            });
        }
        if header.compression == Compression::Zstd && self.version < ZSTD_SINCE {
            return Err(ResponseError::UnsupportedCompressionType.into());
        }
        Ok(())
    }
}

fn append(
    log: LogId,
    header: &BatchHeader,
    max_timestamp: i64,
    batch: Bytes,
) -> Result<Append, Refused> {
    let key = header.has_producer().then_some(AppendKey {
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        sequence: header.base_sequence,
    });
    Ok(Append {
        log,
        kind: AppendKind::Data,
        key,
        window: WINDOW,
        count: u32::try_from(header.count).map_err(|_| ResponseError::InvalidRecord)?,
        max_timestamp,
        digest: None,
        early: false,
        batch,
    })
}

impl Produce {
    fn new(version: i16, preamble: Preamble) -> Self {
        let timeout = u64::try_from(preamble.timeout_ms)
            .map_or(LEAST_TIMEOUT, |ms| Duration::from_millis(ms).max(LEAST_TIMEOUT));
        Self {
            version,
            acks: preamble.acks,
            deadline: Instant::now() + timeout,
            topics: SmallVec::new(),
            pending: SmallVec::new(),
        }
    }

    /// The client waits for an answer.
    pub fn is_answered(&self) -> bool {
        self.acks != 0
    }

    /// Waits until every append has ended, or the request's time is up: what is then undecided is
    /// answered REQUEST_TIMED_OUT. Dropping this takes no append back.
    pub async fn finish(self) -> ProduceAnswer {
        let Self { version, acks, deadline, topics, pending } = self;
        let mut time_up = std::pin::pin!(tokio::time::sleep_until(deadline));
        let mut answers = SmallVec::<[PartitionAnswer; 1]>::with_capacity(pending.len());
        for Pending { index, append_time_ms, state } in pending {
            let outcome = match state {
                Err(refused) => Err(refused),
                Ok(mut ticket) => tokio::select! {
                    biased;
                    result = &mut ticket => match result {
                        Ok(kept) => Ok(Kept {
                            base_offset: offset(kept.base_offset),
                            append_time_ms: if kept.duplicate { -1 } else { append_time_ms },
                            log_start: offset(kept.log_start),
                        }),
                        Err(error) => Err(Refused {
                            error: errors::of_append(&error),
                            message: Some(error.to_string()),
                        }),
                    },
                    () = &mut time_up => Err(ResponseError::RequestTimedOut.into()),
                },
            };
            answers.push(PartitionAnswer { index, outcome });
        }
        if acks != 0 {
            return ProduceAnswer::Body(encode(version, &topics, &answers).into());
        }
        if answers.iter().all(|answer| answer.outcome.is_ok()) {
            ProduceAnswer::Silent
        } else {
            ProduceAnswer::Close
        }
    }
}

fn offset(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
