//! Follows one log and pushes its messages to the sessions that are live.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interflow_logstore::{AppendKind, EarlyBatch, LogClient, Read, ReadError, StoredBatch};
use interflow_meta::retained::RetainedVersion;
use smallvec::SmallVec;
use tokio_util::sync::CancellationToken;

use super::message::Message;
use super::outgoing::Variants;
use super::tail::{Early, Tail};
use crate::mqtt::clock::WallClock;
use crate::mqtt::codec::{QoS, UserPropertiesBuf};
use crate::mqtt::connection::ConnShared;
use crate::mqtt::gate::GatePass;
use crate::mqtt::metrics::MqttMetrics;
use crate::mqtt::retained::{Retained, Seen, Update, update};
use crate::mqtt::routes::{Route, Routes};
use crate::mqtt::session::{At, Limits, Mode, Tally};
use crate::mqtt::shared::Group;
use crate::records::{OpenBatch, Record};

/// What deliveries work with.
#[derive(Clone)]
pub(crate) struct DispatchParts {
    pub(crate) client: Arc<dyn LogClient>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) metrics: Arc<MqttMetrics>,
    pub(crate) clock: Arc<dyn WallClock>,
    pub(crate) limits: Limits,
    /// Whose retained publishes need not be looked for: their writers see to them.
    pub(crate) own_producers: [i64; 2],
    pub(crate) read_bytes: usize,
    pub(crate) max_decompressed_bytes: usize,
}

impl DispatchParts {
    pub(crate) fn count(&self, tally: &Tally) {
        for (index, qos) in
            [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate()
        {
            let count = |counts: &[u64; 3]| counts.get(index).copied().unwrap_or_default();
            self.metrics.publishes_delivered.at(qos).add(count(&tally.delivered));
            self.metrics.publishes_dropped.at(qos).add(count(&tally.dropped));
        }
        self.metrics.in_flight.add(tally.in_flight);
        self.metrics.in_flight.sub(tally.ended);
    }

    /// Opens a batch for reading; `None` (and a count) if it can't be read.
    pub(crate) fn open(&self, bytes: &Bytes) -> Option<OpenBatch> {
        OpenBatch::open(bytes, self.max_decompressed_bytes)
            .inspect_err(|error| {
                self.metrics.skipped_records.inc();
                tracing::warn!(%error, "a batch of the log can't be read: MQTT skips it");
            })
            .ok()
    }
}

/// The position is saved after so many bytes at the latest.
const SAVE_BYTES: usize = 8 << 20;

/// A node that couldn't be asked is asked again after so long.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// Records that are dispatched under one lock.
const ROUND: usize = 128;

/// Dispatches everything that is appended to the log, until `stop` or the log's end.
///
/// Records below the end of `replay` were there before this broker: of these, retained messages are
/// looked for in all.
pub(crate) async fn dispatch(
    parts: DispatchParts,
    tail: Arc<Tail>,
    retained: Arc<Retained>,
    replay: Option<(u64, GatePass)>,
    stop: CancellationToken,
) {
    follow(parts, &tail, retained, replay, stop).await;
    tail.end();
}

async fn follow(
    parts: DispatchParts,
    tail: &Arc<Tail>,
    retained: Arc<Retained>,
    mut replay: Option<(u64, GatePass)>,
    stop: CancellationToken,
) {
    let mut round = Round::new(parts, tail.clone(), retained);
    round.replay_until = replay.as_ref().map_or(0, |(until, _)| *until);
    loop {
        if replay.as_ref().is_some_and(|(until, _)| tail.position().next >= *until) {
            round.report(true);
            replay = None;
        }
        round.early();
        let next = tail.position().next;
        if next < tail.heard() {
            tokio::select! {
                () = round.retained.has_room() => {}
                () = stop.cancelled() => return,
            }
            match round.parts.client.read(round.request(next)).await {
                Ok(outcome) => {
                    // Reads may be ahead of the observer: what it has not heard of can still be
                    // shown early, and that comes first.
                    let heard = tail.heard();
                    round.early();
                    let end = |batch: &StoredBatch| batch.base_offset + u64::from(batch.count);
                    let is_heard = |batch: &&StoredBatch| end(batch) <= heard;
                    outcome.batches.iter().take_while(is_heard).for_each(|it| round.committed(it));
                    let moved_to = {
                        let mut position = tail.position();
                        position.next = position.next.max(outcome.next_offset.min(heard));
                        position.next
                    };
                    tail.note_moved();
                    if moved_to > next {
                        continue;
                    }
                }
                Err(ReadError::OutOfRange { start, .. }) if start > next => {
                    tail.position().next = start;
                    continue;
                }
                Err(ReadError::Damaged { from, to }) => {
                    tracing::error!(log = %tail.log, from, to, "damaged offsets are not delivered");
                    tail.position().next = to.max(next + 1);
                    continue;
                }
                Err(ReadError::NoSuchLog) => return,
                Err(error @ (ReadError::Unavailable(_) | ReadError::NotSequencer)) => {
                    tracing::warn!(log = %tail.log, %error, "the log can't be read now");
                    tokio::select! {
                        () = tokio::time::sleep(READ_AGAIN) => continue,
                        () = stop.cancelled() => return,
                    }
                }
                Err(error) => tracing::error!(log = %tail.log, %error, "the log can't be read"),
            }
        }
        if tail.has_ended() {
            return;
        }
        tokio::select! {
            () = tail.work.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One dispatcher's working memory.
struct Round {
    parts: DispatchParts,
    tail: Arc<Tail>,
    user: UserPropertiesBuf,
    tally: Tally,
    wake: Vec<Arc<ConnShared>>,
    retained: Arc<Retained>,
    replay_until: u64,
    /// Updates of retained messages by others than this broker.
    updates: Vec<(String, Update)>,
    /// Bytes since the position was last saved.
    unsaved: usize,
}

impl Round {
    fn new(parts: DispatchParts, tail: Arc<Tail>, retained: Arc<Retained>) -> Self {
        Self {
            parts,
            tail,
            user: UserPropertiesBuf::default(),
            tally: Tally::default(),
            wake: Vec::new(),
            retained,
            replay_until: 0,
            updates: Vec::new(),
            unsaved: 0,
        }
    }

    /// Hands over the updates so far, with the position; without any now and then, so that a start
    /// has little to look at again.
    fn report(&mut self, now: bool) {
        if self.updates.is_empty() && !now && self.unsaved < SAVE_BYTES {
            return;
        }
        self.unsaved = 0;
        self.retained.seen(Seen {
            log: self.tail.log,
            until: self.tail.position().next,
            updates: std::mem::take(&mut self.updates),
            pass: self.retained.enter(),
        });
    }

    /// A retained message by somebody else.
    fn retain(&mut self, record: &Record<'_>, offset: u64) {
        let version = RetainedVersion { generation: 0, log: self.tail.log, offset };
        let update = Message::decode(record, &mut self.user)
            .filter(|message| message.retain)
            .and_then(|message| update(record, &message, version));
        self.updates.extend(update);
    }

    fn request(&self, offset: u64) -> Read {
        Read {
            log: self.tail.log,
            offset,
            max_bytes: self.parts.read_bytes,
            stable_only: true,
            filter: None,
        }
    }

    /// Dispatches what was shown early.
    fn early(&mut self) {
        while let Some(EarlyBatch { key, bytes }) = self.tail.pop_early() {
            let tail = self.tail.clone();
            let early = {
                let mut position = tail.position();
                let early = position.remember(key);
                if let Some(batch) = self.parts.open(&bytes) {
                    let now_ms = self.parts.clock.now_ms();
                    for record in batch.records().flatten() {
                        let at = At {
                            shard: tail.shard,
                            offset: None,
                            early: Some(early),
                            key: Some(key),
                            newest_early: None,
                        };
                        self.record(&record, at, now_ms);
                    }
                }
                early
            };
            tracing::trace!(log = %tail.log, number = early.number, "early batch");
            self.finish();
        }
    }

    /// Dispatches a committed batch.
    fn committed(&mut self, batch: &StoredBatch) {
        let tail = self.tail.clone();
        let end = batch.base_offset + u64::from(batch.count);
        let mut position = tail.position();
        let early: Option<Early> = batch.key.and_then(|key| position.recall(key));
        let from = position.next;
        let is_old = end <= self.replay_until;
        let is_own =
            batch.key.is_some_and(|key| self.parts.own_producers.contains(&key.producer_id));
        let is_wanted = !is_old
            && !early.is_some_and(|early| position.all_had(early))
            && !self.parts.routes.read().is_empty();
        self.unsaved += batch.bytes.len();
        if batch.kind == AppendKind::Data
            && end > from
            && (is_wanted || !is_own)
            && let Some(open) = self.parts.open(&batch.bytes)
        {
            let now_ms = self.parts.clock.now_ms();
            let mut done = 0;
            for record in open.records() {
                let Ok(record) = record else {
                    self.parts.metrics.skipped_records.inc();
                    break;
                };
                let offset = batch.base_offset + u64::from(record.offset_delta);
                if offset < from {
                    continue;
                }
                if done == ROUND {
                    // Others wait for the position: subscribers that come and go.
                    done = 0;
                    parking_lot::MutexGuard::bump(&mut position);
                }
                done += 1;
                if !is_own {
                    self.retain(&record, offset);
                }
                if !is_wanted {
                    continue;
                }
                let newest_early = position.newest_early();
                let at = At {
                    shard: tail.shard,
                    offset: Some(offset),
                    early,
                    key: batch.key,
                    newest_early,
                };
                self.record(&record, at, now_ms);
                position.next = offset + 1;
            }
        }
        position.next = position.next.max(end);
        drop(position);
        if let Some(key) = batch.key {
            tail.note_dispatched(key);
        }
        self.finish();
        self.report(false);
    }

    /// Offers one record to everybody who matches it.
    fn record(&mut self, record: &Record<'_>, at: At, now_ms: i64) {
        let Some(message) = Message::decode(record, &mut self.user) else {
            if at.offset.is_some() {
                self.parts.metrics.skipped_records.inc();
            }
            return;
        };
        let index = self.parts.routes.read();
        let mut routes: SmallVec<[&Arc<Route>; 32]> = SmallVec::new();
        let mut groups: SmallVec<[&Arc<Group>; 4]> = SmallVec::new();
        let mut matched = 0;
        index.matches(message.topic, &mut |targets| {
            matched += usize::from(!targets.routes.is_empty());
            routes.extend(&targets.routes);
            groups.extend(&targets.groups);
        });
        if matched > 1 {
            routes.sort_by_key(|route| route.session.key);
        }
        if (routes.is_empty() && groups.is_empty()) || message.is_expired(now_ms) {
            return;
        }
        let mut variants = Variants::new(&message, now_ms);
        let limits = self.parts.limits;
        for routes in routes.chunk_by(|a, b| a.session.key == b.session.key) {
            let Some(first) = routes.first() else { continue };
            let mut state = first.session.lock();
            state.deliver(routes, at, Mode::Live, &mut variants, limits, &mut self.tally);
            self.wake.extend(state.take_wake());
        }
        for group in groups {
            group.deliver(at, &mut variants, limits, &mut self.tally, &mut self.wake);
        }
    }

    /// The end of a batch: each connection is woken once.
    fn finish(&mut self) {
        self.parts.count(&std::mem::take(&mut self.tally));
        self.wake.drain(..).for_each(|connection| connection.wake());
    }
}
