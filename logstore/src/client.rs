//! The log service as a gateway sees it: append, read, observe.
//!
//! ```text
//!   start            stable          committed
//!    |--- read_committed ---|            |
//!    |---------- readable ---------------|--- in flight: never seen ---
//! ```
//!
//! One trait, two transports: in this process by a call, in a cluster by gRPC.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use interflow_meta::{Epoch, LogId, NodeId, Offset};

use crate::error::{AppendError, LogError, ReadError};
use crate::ticket::AppendTicket;

/// Logs that are described at a time, of many.
const DESCRIBED_AT_ONCE: usize = 64;

/// What makes an append idempotent: a producer, its epoch and the sequence of the first record.
///
/// Sequences count records and wrap from `i32::MAX` to 0, as Kafka's do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AppendKey {
    /// The producer's id, from meta.
    pub producer_id: i64,
    /// Rises when a producer is fenced or starts again; an older one is refused.
    pub producer_epoch: i16,
    /// The sequence of the batch's first record.
    pub sequence: i32,
}

/// What an entry of a log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppendKind {
    /// Records of a producer.
    Data,
    /// A transaction's commit marker.
    Commit,
    /// A transaction's abort marker.
    Abort,
}

/// Hashes of what a batch holds, so that filtered reads can skip it. Sorted, without repeats.
///
/// A batch without a digest may match any filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyDigest(pub Arc<[u32]>);

/// One batch on its way into a log.
#[derive(Clone, Debug)]
pub struct Append {
    /// Where to.
    pub log: LogId,
    /// Records, or a marker.
    pub kind: AppendKind,
    /// Makes the append idempotent; `None` for a producer without a sequence.
    pub key: Option<AppendKey>,
    /// How many of this producer's last batches are remembered for duplicates (Kafka's is 5).
    pub window: u16,
    /// Offsets that the batch takes: its last offset delta + 1.
    pub count: u32,
    /// The largest timestamp of its records, milliseconds since 1970.
    pub max_timestamp: i64,
    /// What filtered reads skip by.
    pub digest: Option<KeyDigest>,
    /// Show it to observers before it is durable (batches of MQTT QoS 0 publishes only).
    pub early: bool,
    /// One Kafka RecordBatch v2 whose CRC was checked. Its base offset and leader epoch are
    /// patched in the journal's copy; nothing else is touched.
    pub batch: Bytes,
}

/// A committed append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of the batch's first record.
    pub base_offset: Offset,
    /// Where the log starts now.
    pub log_start: Offset,
    /// The batch was there already: this is the answer to a retry.
    pub duplicate: bool,
}

/// The offsets of a log at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that can be read.
    pub start: Offset,
    /// Everything below is committed: Kafka's high watermark.
    pub committed: Offset,
    /// Everything below belongs to no open transaction.
    pub stable: Offset,
    /// Kafka's leader epoch.
    pub leader_epoch: u32,
}

/// A read of committed batches.
#[derive(Clone, Debug)]
pub struct Read {
    /// Which log.
    pub log: LogId,
    /// From the batch that holds this offset.
    pub offset: Offset,
    /// Stop before the batch that would pass this many bytes; the first batch comes anyway.
    pub max_bytes: usize,
    /// Read only below the last stable offset.
    pub stable_only: bool,
    /// Skip batches whose digest has none of these hashes; sorted. `None` reads all.
    pub filter: Option<Arc<[u32]>>,
}

/// One stored batch.
#[derive(Clone, Debug)]
pub struct StoredBatch {
    /// The offset of its first record.
    pub base_offset: Offset,
    /// Offsets that it takes.
    pub count: u32,
    /// The largest timestamp of its records.
    pub max_timestamp: i64,
    /// Records, or a marker.
    pub kind: AppendKind,
    /// The append key, by which a batch seen early is known again.
    pub key: Option<AppendKey>,
    /// The RecordBatch v2, base offset and leader epoch set.
    pub bytes: Bytes,
}

/// What a read found.
#[derive(Clone, Debug)]
pub struct ReadOutcome {
    /// Batches in offset order. The first may begin below the offset asked for.
    pub batches: Vec<StoredBatch>,
    /// Where to read next: past the last batch and past all that was skipped.
    pub next_offset: Offset,
    /// The log's offsets when the read was made.
    pub bounds: Bounds,
}

impl ReadOutcome {
    /// Bytes of its batches.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.batches.iter().map(|batch| batch.bytes.len()).sum()
    }
}

/// A batch that is not yet durable, shown early (see [`Append::early`]).
#[derive(Clone, Debug)]
pub struct EarlyBatch {
    /// Its identity: the committed batch carries the same key. Never rely on an offset.
    pub key: AppendKey,
    /// The RecordBatch v2, its base offset not yet set.
    pub bytes: Bytes,
}

/// Early batches that an observer is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// Some, the newest of them with this key.
    UpTo(AppendKey),
    /// Those below this offset.
    Below(Offset),
}

/// Is told of a log's progress, on the thread that made it: must neither block nor wait.
pub trait LogObserver: Send + Sync {
    /// The log's offsets changed: more is committed, or the start moved. Offsets between two calls
    /// may be left out.
    fn advanced(&self, log: LogId, bounds: Bounds);

    /// An early batch was taken. Called in append order, before the `advanced` that covers it.
    fn early(&self, log: LogId, batch: &EarlyBatch) {
        let _ = (log, batch);
    }

    /// Early batches were taken that this observer is not shown: they were in flight when it began,
    /// or a connection had no room for them. Called in their place among the others, before the
    /// `advanced` that covers them. Who shows early batches on, and keeps their order, shows none
    /// until these are committed.
    fn withheld(&self, log: LogId, until: Withheld) {
        let _ = (log, until);
    }

    /// Another node is the log's sequencer now: nothing more will come from here. An observation
    /// that follows its log, as a [`Router`](crate::Router)'s does, goes on there, and its observer
    /// isn't told.
    fn moved(&self, log: LogId) {
        let _ = log;
    }

    /// The log was deleted or its node stopped serving: nothing more will come.
    fn ended(&self, log: LogId) {
        let _ = log;
    }
}

/// Ends the observation when dropped.
#[must_use = "dropping it ends the observation"]
pub struct Observation {
    end: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl Observation {
    /// An observation that runs `end` when it is dropped.
    pub fn new(end: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { end: Some(Box::new(end)) }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            end();
        }
    }
}

/// A segment of a log as operators see it.
#[derive(Clone, Debug)]
pub struct SegmentDescription {
    /// Its number in the chain.
    pub epoch: u32,
    /// Kafka's leader epoch during it.
    pub leader_epoch: u32,
    /// Its first offset.
    pub base: Offset,
    /// One past its last offset; `None` while it is open.
    pub end: Option<Offset>,
    /// Bytes of its entries on this node's disk.
    pub bytes: u64,
    /// Offset ranges that are damaged and without another replica: reads there fail.
    pub damaged: Vec<(Offset, Offset)>,
}

/// How a replica of a log's open segment keeps up with the sequencer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaDescription {
    /// The node.
    pub node: NodeId,
    /// Records up to the sequencer's next that it isn't known to have durable.
    pub lag: u64,
    /// It is connected, and neither slow nor left behind.
    pub is_in_sync: bool,
}

/// Where a log is kept at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReplicas {
    /// Kafka's leader epoch.
    pub leader_epoch: u32,
    /// The replicas of the open segment, its sequencer first; none where nobody says.
    pub replicas: Vec<ReplicaDescription>,
    /// How many there are to be; 0 where nobody says.
    pub replication_factor: u32,
}

/// A log as operators see it.
#[derive(Clone, Debug)]
pub struct LogDescription {
    /// Its offsets.
    pub bounds: Bounds,
    /// Its segments, oldest first.
    pub segments: Vec<SegmentDescription>,
    /// The replicas of the open segment, its sequencer first; none where nobody gives out offsets.
    pub replicas: Vec<ReplicaDescription>,
    /// Producers whose sequences are remembered.
    pub producers: usize,
}

/// The description of the one log that was asked for.
pub(crate) fn only(
    mut described: Vec<Result<LogDescription, LogError>>,
) -> Result<LogDescription, LogError> {
    let none = || Err(LogError::Unavailable("nothing was said of the log".to_owned()));
    described.pop().unwrap_or_else(none)
}

/// The log service.
#[async_trait]
pub trait LogClient: Send + Sync + 'static {
    /// Starts an append. Appends to one log are ordered as the calls were made; the ticket
    /// resolves when the batch is committed under the log's durability class.
    ///
    /// Dropping the ticket doesn't take the append back.
    fn append(&self, append: Append) -> AppendTicket;

    /// The log's offsets.
    async fn bounds(&self, log: LogId) -> Result<Bounds, LogError>;

    /// Where the log is kept, and how its replicas keep up: as it was a moment ago, for nothing is
    /// recovered or waited for to say so.
    async fn replicas(&self, log: LogId) -> Result<LogReplicas, LogError> {
        let leader_epoch = self.bounds(log).await?.leader_epoch;
        Ok(LogReplicas { leader_epoch, replicas: Vec::new(), replication_factor: 0 })
    }

    /// Reads committed batches, never waiting for more to come: at the end the outcome is empty.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] below the start or past the committed end;
    /// [`ReadError::Damaged`] where the only copy is damaged.
    async fn read(&self, read: Read) -> Result<ReadOutcome, ReadError>;

    /// Tells `observer` of every change from now on, beginning with one `advanced` that states
    /// the present offsets, until the returned guard is dropped.
    async fn observe(
        &self,
        log: LogId,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Observation, LogError>;

    /// The first batch whose largest timestamp is at or after `timestamp`, with its largest
    /// timestamp: the record itself is in there. `None` past the newest.
    async fn batch_at_time(
        &self,
        log: LogId,
        timestamp: i64,
    ) -> Result<Option<(Offset, i64)>, LogError>;

    /// The batch that holds the largest timestamp of the log, and that timestamp.
    async fn batch_of_max_time(&self, log: LogId) -> Result<Option<(Offset, i64)>, LogError>;

    /// The largest leader epoch at or below `leader_epoch` that has records, and where it ends
    /// (OffsetForLeaderEpoch). `None` if `leader_epoch` is older than the log.
    async fn end_of_leader_epoch(
        &self,
        log: LogId,
        leader_epoch: u32,
    ) -> Result<Option<(u32, Offset)>, LogError>;

    /// Moves the log's start up to `before` (never past the committed end); returns the start.
    async fn trim(&self, log: LogId, before: Offset) -> Result<Offset, LogError>;

    /// Reads the log's policy and chain from meta again, after a topic was altered or deleted.
    async fn refresh(&self, log: LogId) -> Result<(), LogError>;

    /// The log's chain and state.
    async fn describe(&self, log: LogId) -> Result<LogDescription, LogError>;

    /// Chain and state of each of many logs, in their order. What isn't known of one after
    /// `patience` is [`LogError::Unavailable`], whatever is known of others.
    async fn describe_many(
        &self,
        logs: &[LogId],
        patience: Duration,
    ) -> Vec<Result<LogDescription, LogError>> {
        let late = || LogError::Unavailable("the log isn't ready in time".to_owned());
        let deadline = tokio::time::Instant::now() + patience;
        let asked = logs.iter().copied().map(|log| async move {
            let described = tokio::time::timeout_at(deadline, self.describe(log)).await;
            described.unwrap_or_else(|_| Err(late()))
        });
        futures_util::stream::iter(asked).buffered(DESCRIBED_AT_ONCE).collect().await
    }

    /// The log's sequencer of epoch `epoch` doesn't answer: closes its open segment with the other
    /// replicas and opens the next elsewhere; Ok also when another has done so.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when this node can't: ask another replica.
    async fn recover(&self, log: LogId, epoch: Epoch) -> Result<(), LogError> {
        let _ = (log, epoch);
        Err(LogError::Unavailable("this log service recovers no logs".to_owned()))
    }
}

/// The answer of a finished append.
pub type AppendResult = Result<Appended, AppendError>;
