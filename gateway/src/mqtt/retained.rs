//! Retained messages: in meta, written after their record's commit and before its answer.
//!
//! Updates of one topic that wait are coalesced: only the latest is written. What nobody waits for is
//! [`Upkeep`]'s.

mod upkeep;

use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use futures_util::FutureExt;
use hashbrown::HashMap;
use interflow_logstore::LogId;
use interflow_meta::retained::{
    self, Change, MatchPage, MatchQuery, RetainedMessage, RetainedVersion,
};
use interflow_meta::{DEFAULT_TENANT, Meta, MetaError, materialised};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::clock::WallClock;
use super::codec::{Reason, UserPropertiesBuf};
use super::connection::ConnShared;
use super::deliver::Message;
use super::gate::{Gate, GatePass};
use super::metrics::MqttMetrics;
use super::publish::{RetainedRecord, Waiters, complete};
use crate::records::{BatchBuilder, OpenBatch, Record};
use upkeep::Upkeep;

/// How long a clear's version is remembered: longer than any older write can be under way.
const FORGET_MS: i64 = 3600 * 1000;
/// Bytes of one transaction, well under meta's limit.
const TRANSACTION_BYTES: usize = 2 << 20;
/// Bytes of one page of a scan.
const PAGE_BYTES: usize = 64 << 10;

/// A committed batch with retained records.
#[derive(Debug)]
pub(crate) struct Committed {
    pub(crate) log: LogId,
    pub(crate) base_offset: u64,
    pub(crate) batch: Bytes,
    pub(crate) records: Vec<RetainedRecord>,
}

/// What a log's dispatcher saw of other producers' records.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) log: LogId,
    /// It saw everything below.
    pub(crate) until: u64,
    /// By topic.
    pub(crate) updates: Vec<(String, Update)>,
    pub(crate) pass: GatePass,
}

impl Seen {
    fn bytes(&self) -> usize {
        let size = |update: &Update| update.message.as_ref().map_or(0, size);
        self.updates.iter().map(|(topic, update)| 128 + topic.len() + size(update)).sum()
    }
}

/// One topic's latest update.
#[derive(Debug)]
pub(crate) struct Update {
    version: RetainedVersion,
    /// `None` clears it.
    message: Option<RetainedMessage>,
}

impl Update {
    fn change(&self, forget_ms: i64) -> Change<'_> {
        match &self.message {
            Some(message) => Change::Put(message),
            None => Change::Clear { version: self.version, forget_ms },
        }
    }
}

/// What waits to be written.
#[derive(Debug, Default)]
struct Jobs {
    committed: Vec<Committed>,
    seen: Vec<Seen>,
}

/// Batches that are queued or being written.
#[derive(Debug, Default)]
struct Backlog {
    bytes: usize,
    waiters: Waiters,
    /// Of what dispatchers saw.
    seen_bytes: usize,
}

/// Bytes of committed batches that may wait to be written, before publishers of retained messages
/// have to; and of what dispatchers saw, before they have to.
const MAX_BACKLOG_BYTES: usize = 32 << 20;

/// The retained messages.
pub(crate) struct Retained {
    meta: Meta,
    clock: Arc<dyn WallClock>,
    metrics: Arc<MqttMetrics>,
    gate: Arc<Gate>,
    upkeep: Upkeep,
    queue: Mutex<Jobs>,
    backlog: Mutex<Backlog>,
    work: Notify,
    written: Notify,
}

impl Retained {
    pub(crate) fn new(meta: Meta, clock: Arc<dyn WallClock>, metrics: Arc<MqttMetrics>) -> Self {
        Self {
            upkeep: Upkeep::new(meta.background(), clock.clone()),
            meta,
            clock,
            metrics,
            gate: Arc::default(),
            queue: Mutex::default(),
            backlog: Mutex::default(),
            work: Notify::new(),
            written: Notify::new(),
        }
    }

    /// A retained publish was accepted; it is under way until the pass is dropped.
    pub(crate) fn enter(&self) -> GatePass {
        self.gate.enter()
    }

    /// A retained publish is neither refused nor written yet.
    pub(crate) fn is_under_way(&self) -> bool {
        self.gate.is_under_way()
    }

    /// Waits until all retained publishes accepted so far are committed and retained (or refused);
    /// `None` if there are none.
    pub(crate) fn settled(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let round = self.gate.close_round()?;
        let gate = self.gate.clone();
        Some(async move { gate.reached(round).await }.boxed())
    }

    /// Records were committed that set or clear retained messages.
    pub(crate) fn committed(&self, committed: Committed) {
        self.backlog.lock().bytes += committed.batch.len();
        self.queue.lock().committed.push(committed);
        self.work.notify_one();
    }

    /// Whether a publisher of retained messages must wait: commits are faster than meta. It is woken
    /// when some are written.
    pub(crate) fn must_wait(&self, connection: &Arc<ConnShared>) -> bool {
        let mut backlog = self.backlog.lock();
        let must_wait = backlog.bytes > MAX_BACKLOG_BYTES;
        if must_wait {
            backlog.waiters.add(connection);
        }
        must_wait
    }

    /// A dispatcher saw records that others than this broker wrote.
    pub(crate) fn seen(&self, seen: Seen) {
        self.backlog.lock().seen_bytes += seen.bytes();
        self.queue.lock().seen.push(seen);
        self.work.notify_one();
    }

    /// Waits until what dispatchers saw is within its bound: nobody follows a log faster than meta
    /// takes the retained messages that others write there.
    pub(crate) async fn has_room(&self) {
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            written.as_mut().enable();
            if self.backlog.lock().seen_bytes <= MAX_BACKLOG_BYTES {
                return;
            }
            written.await;
        }
    }

    /// From where a log's records are to be looked at; nothing before `committed` if it was never
    /// looked at.
    pub(crate) async fn position(&self, log: LogId, committed: u64) -> Result<u64, MetaError> {
        self.meta
            .transact(|tx| async move {
                match materialised::get(&tx, log).await? {
                    Some(position) => Ok(position.min(committed)),
                    None => {
                        materialised::advance(&tx, log, committed).await?;
                        Ok(committed)
                    }
                }
            })
            .await
    }

    /// Everything below these offsets of their logs was looked at: the next start begins there, unless
    /// something of it isn't written.
    pub(crate) async fn save(&self, positions: &[(LogId, u64)]) -> Result<(), MetaError> {
        let unwritten: Vec<LogId> = self.queue.lock().seen.iter().map(|seen| seen.log).collect();
        let written = positions.iter().copied().filter(|(log, _)| !unwritten.contains(log));
        upkeep::save(&self.meta, &self.upkeep.good(written)).await
    }

    /// One page of the messages that match `filter`.
    pub(crate) async fn page(
        &self,
        filter: &str,
        from: Option<Bytes>,
        now_ms: i64,
    ) -> Result<MatchPage, MetaError> {
        let tx = self.meta.begin();
        let query =
            MatchQuery { tenant: DEFAULT_TENANT, filter, from, now_ms, max_bytes: PAGE_BYTES };
        retained::matching(&tx, &query).await
    }

    /// Writes what is committed, until `stop`.
    pub(crate) async fn run(&self, stop: CancellationToken) {
        tokio::select! {
            () = self.run_writes(stop) => {}
            () = self.upkeep.run() => {}
        }
    }

    async fn run_writes(&self, stop: CancellationToken) {
        loop {
            let jobs = std::mem::take(&mut *self.queue.lock());
            if jobs.committed.is_empty() && jobs.seen.is_empty() {
                tokio::select! {
                    () = self.work.notified() => continue,
                    () = stop.cancelled() => return,
                }
            }
            let bytes: usize = jobs.committed.iter().map(|job| job.batch.len()).sum();
            let seen_bytes: usize = jobs.seen.iter().map(Seen::bytes).sum();
            self.write(jobs).await;
            let waiters = {
                let mut backlog = self.backlog.lock();
                backlog.bytes = backlog.bytes.saturating_sub(bytes);
                backlog.seen_bytes = backlog.seen_bytes.saturating_sub(seen_bytes);
                std::mem::take(&mut backlog.waiters)
            };
            waiters.wake();
            self.written.notify_waiters();
        }
    }

    async fn write(&self, mut jobs: Jobs) {
        let mut updates: HashMap<String, Update, RandomState> = HashMap::default();
        for job in &jobs.committed {
            collect(job, &mut updates);
        }
        for (topic, update) in
            jobs.seen.iter_mut().flat_map(|seen| std::mem::take(&mut seen.updates))
        {
            add(&mut updates, topic, update);
        }
        let mut reason = Reason::Success;
        let mut updates: Vec<_> = updates.into_iter().collect();
        while !updates.is_empty() {
            let mut bytes = 0;
            let fit = updates.iter().take_while(|(topic, update)| {
                let before = bytes;
                bytes += topic.len() + 256 + update.message.as_ref().map_or(0, size);
                before < TRANSACTION_BYTES
            });
            let rest = updates.split_off(fit.count());
            if let Err(error) = self.store(&updates).await {
                tracing::error!(%error, "retained messages could not be written");
                reason = match error {
                    MetaError::DiskFull | MetaError::StoreFailed(_) => Reason::QuotaExceeded,
                    _ => Reason::ImplementationSpecificError,
                };
            }
            self.metrics.retained_writes.add(updates.len() as u64);
            updates = rest;
        }
        let positions = jobs.seen.iter().map(|seen| (seen.log, seen.until));
        if reason == Reason::Success {
            self.upkeep.advance(positions);
        } else {
            self.upkeep.lost(positions);
        }
        jobs.seen.into_iter().for_each(|seen| drop(seen.pass));
        for job in jobs.committed {
            let (completions, passes): (Vec<_>, Vec<_>) =
                job.records.into_iter().map(|record| (record.completion, record.pass)).unzip();
            drop(passes);
            complete(completions, reason);
        }
    }

    async fn store(&self, updates: &[(String, Update)]) -> Result<(), MetaError> {
        let forget_ms = self.clock.now_ms().saturating_add(FORGET_MS);
        let changes: Vec<_> = updates
            .iter()
            .map(|(topic, update)| (topic.as_str(), update.change(forget_ms)))
            .collect();
        let changes = &changes;
        self.meta
            .transact(|tx| async move {
                retained::change_all(&tx, DEFAULT_TENANT, changes).await.map(drop)
            })
            .await
    }
}

fn size(message: &RetainedMessage) -> usize {
    message.payload.len() + message.properties.len() + message.publisher.len()
}

/// Adds the retained records of a batch to `updates`; a later one of a topic wins.
fn collect(job: &Committed, updates: &mut HashMap<String, Update, RandomState>) {
    // It was built here: uncompressed.
    let Ok(open) = OpenBatch::open(&job.batch, 0) else { return };
    let mut wanted = job.records.iter().map(|record| record.delta).peekable();
    let mut user = UserPropertiesBuf::default();
    for record in open.records().map_while(Result::ok) {
        if wanted.next_if_eq(&record.offset_delta).is_none() {
            continue;
        }
        let version = RetainedVersion {
            generation: 0,
            log: job.log,
            offset: job.base_offset + u64::from(record.offset_delta),
        };
        let updated = Message::decode(&record, &mut user)
            .and_then(|message| update(&record, &message, version));
        if let Some((topic, update)) = updated {
            add(updates, topic, update);
        }
    }
}

/// The later version of a topic stays.
fn add(updates: &mut HashMap<String, Update, RandomState>, topic: String, update: Update) {
    if updates.get(&topic).is_none_or(|known| known.version < update.version) {
        updates.insert(topic, update);
    }
}

/// What a record does to the retained message of its topic.
pub(crate) fn update(
    record: &Record<'_>,
    message: &Message<'_>,
    version: RetainedVersion,
) -> Option<(String, Update)> {
    let topic = message.topic.to_owned();
    if message.payload.is_empty() {
        return Some((topic, Update { version, message: None }));
    }
    let mut builder = BatchBuilder::new();
    // The properties are kept as they are in the log: a record without its value.
    builder.append(record.key, None, record.headers, record.timestamp).ok()?;
    let retained = RetainedMessage {
        version,
        qos: message.qos.bits(),
        publisher: message.client_id.unwrap_or_default().to_owned(),
        properties: builder.finish()?.bytes,
        payload: Bytes::copy_from_slice(message.payload),
        published_ms: record.timestamp,
        expires_ms: message.expires_at_ms,
    };
    Some((topic, Update { version, message: Some(retained) }))
}

#[cfg(test)]
mod tests;
