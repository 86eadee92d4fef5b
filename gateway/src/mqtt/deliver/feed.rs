//! A session's own reading: retained messages of new subscriptions, and what the log holds past
//! its cursors, until the tails may push to it.

use std::future::{pending, poll_fn};
use std::sync::Arc;
use std::task::Poll;

use interflow_logstore::{AppendKind, Read, ReadError, StoredBatch};
use smallvec::SmallVec;

use super::dispatch::DispatchParts;
use super::message::Message;
use super::outgoing::Variants;
use super::tail::{Tail, is_at_or_before};
use crate::mqtt::codec::{QoS, Reason, UserPropertiesBuf};
use crate::mqtt::publish::filter_hashes;
use crate::mqtt::retained::Retained;
use crate::mqtt::routes::{Route, Subscribed};
use crate::mqtt::session::{At, Link, Mode, Outcome, Scan, Session, Source, Tally};
use crate::mqtt::topic::filter_matches;

/// What a session is fed by.
#[derive(Clone)]
pub(crate) struct FeedParts {
    pub(crate) dispatch: DispatchParts,
    pub(crate) retained: Arc<Retained>,
    pub(crate) tails: Arc<[Arc<Tail>]>,
}

/// The connection ended, or was taken over.
struct Gone;

/// Feeds a session until it is live everywhere. Polled by the session's connection `number`, which
/// polls it again whenever the client took or acknowledged something.
pub(crate) async fn feed(parts: FeedParts, session: Arc<Session>, number: u64) {
    let feeder = Feeder { parts, session, number };
    while let Some(step) = feeder.next_step() {
        let done = match step {
            Step::Scan(scan) => feeder.scan(&scan).await,
            Step::CatchUp(shard) => feeder.catch_up(shard).await,
        };
        if done.is_err() {
            return;
        }
    }
}

enum Step {
    Scan(Scan),
    CatchUp(usize),
}

struct Feeder {
    parts: FeedParts,
    session: Arc<Session>,
    number: u64,
}

impl Feeder {
    fn next_step(&self) -> Option<Step> {
        let mut state = self.session.lock();
        if let Some(scan) = state.online_of(self.number)?.scans.front() {
            return Some(Step::Scan(scan.clone()));
        }
        state.links.iter().position(|link| link.is_behind()).map(Step::CatchUp)
    }

    /// Waits until the client can take another QoS 1 or 2 message.
    async fn space(&self) -> Result<(), Gone> {
        let limits = self.parts.dispatch.limits;
        poll_fn(|_| {
            let mut state = self.session.lock();
            if state.online_of(self.number).is_none() {
                return Poll::Ready(Err(Gone));
            }
            if state.has_space(limits) { Poll::Ready(Ok(())) } else { Poll::Pending }
        })
        .await
    }

    /// Sends the retained messages of a subscription.
    async fn scan(&self, scan: &Scan) -> Result<(), Gone> {
        let parts = &self.parts.dispatch;
        // A record below the subscription's start may be committed and its retained message not
        // yet written; the log won't bring it, so it has to be found here (R6).
        if let Some(settled) = self.parts.retained.settled() {
            settled.await;
        }
        let mut from = None;
        loop {
            let page =
                self.parts.retained.page(&scan.route.filter, from, parts.clock.now_ms()).await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "retained messages can't be read");
                    break;
                }
            };
            for (topic, retained) in &page.messages {
                let shard = self.parts.tails.iter().find(|it| it.log == retained.version.log);
                let below = shard.and_then(|tail| scan.below.get(usize::from(tail.shard)));
                if below.is_some_and(|below| retained.version.offset >= *below) {
                    continue; // the log brings it
                }
                self.send_retained(&scan.route, topic, retained).await?;
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let mut state = self.session.lock();
        state.online_of(self.number).ok_or(Gone)?.scans.pop_front();
        Ok(())
    }

    async fn send_retained(
        &self,
        route: &Arc<Route>,
        topic: &str,
        retained: &interflow_meta::retained::RetainedMessage,
    ) -> Result<(), Gone> {
        let parts = &self.parts.dispatch;
        if route.options.no_local && retained.publisher == *route.session.client_id {
            return Ok(());
        }
        loop {
            let outcome = {
                let mut user = UserPropertiesBuf::default();
                let Some(opened) = parts.open(&retained.properties) else { return Ok(()) };
                let Some(Ok(mut record)) = opened.records().next() else { return Ok(()) };
                record.value = Some(&retained.payload);
                let Some(message) = Message::decode(&record, &mut user) else { return Ok(()) };
                debug_assert_eq!(message.topic, topic);
                let mut tally = Tally::default();
                let now_ms = parts.clock.now_ms();
                let mut variants = Variants::new(&message, now_ms);
                let mut state = self.session.lock();
                state.online_of(self.number).ok_or(Gone)?;
                let qos = message.qos.min(route.options.qos);
                let ids = route.subscription_id.into_iter().collect();
                let source = Source::Retained;
                // The buffer bounds these too, although QoS 0 would be dropped past it.
                let outcome = if qos == QoS::AtMostOnce && !state.has_buffer(parts.limits) {
                    Outcome::Blocked
                } else {
                    state.offer(qos, true, ids, source, &mut variants, parts.limits, &mut tally)
                };
                drop(state);
                parts.count(&tally);
                outcome
            };
            match outcome {
                Outcome::Taken => return Ok(()),
                Outcome::Blocked => self.space().await?,
            }
        }
    }

    /// Brings the session forward in one log; live if it has caught up.
    async fn catch_up(&self, shard: usize) -> Result<(), Gone> {
        let Some(tail) = self.parts.tails.get(shard) else { return Err(Gone) };
        let parts = &self.parts.dispatch;
        self.space().await?;
        let (cursor, until, filter) = {
            let mut position = tail.position();
            let mut state = self.session.lock();
            state.online_of(self.number).ok_or(Gone)?;
            let routes = state.routes();
            let Some(link) = state.links.get_mut(shard) else { return Err(Gone) };
            let Link::Behind { cursor, early_seen, .. } = link else { return Ok(()) };
            if *cursor >= position.next || routes.is_empty() {
                *link = position.live(*early_seen);
                return Ok(());
            }
            let filters = routes.iter().map(|route| &*route.filter);
            (*cursor, position.next, filter_hashes(filters))
        };
        parts.metrics.catch_up_reads.inc();
        let read = Read {
            log: tail.log,
            offset: cursor,
            max_bytes: parts.read_bytes,
            stable_only: true,
            filter: filter.map(Into::into),
        };
        let outcome = match parts.client.read(read).await {
            Ok(outcome) => outcome,
            Err(ReadError::OutOfRange { start, .. }) if start > cursor => {
                return self.advance(shard, start);
            }
            Err(ReadError::Damaged { to, .. }) => return self.advance(shard, to.max(cursor + 1)),
            Err(ReadError::OutOfRange { .. } | ReadError::NoSuchLog) => {
                return self.advance(shard, until);
            }
            Err(error @ ReadError::Io(_)) => {
                tracing::error!(log = %tail.log, %error, "a session can't read the log");
                // What the log holds isn't lost: the client may come again for it.
                {
                    let mut state = self.session.lock();
                    let online = state.online_of(self.number).ok_or(Gone)?;
                    online.connection.close(Reason::ImplementationSpecificError);
                }
                return pending().await;
            }
        };
        for batch in &outcome.batches {
            if batch.base_offset >= until {
                break;
            }
            self.batch(shard, batch, until).await?;
        }
        self.advance(shard, outcome.next_offset.min(until))
    }

    fn advance(&self, shard: usize, to: u64) -> Result<(), Gone> {
        let mut state = self.session.lock();
        state.online_of(self.number).ok_or(Gone)?;
        if let Some(Link::Behind { cursor, .. }) = state.links.get_mut(shard) {
            *cursor = to.max(*cursor);
        }
        Ok(())
    }

    async fn batch(&self, shard: usize, batch: &StoredBatch, until: u64) -> Result<(), Gone> {
        let parts = &self.parts.dispatch;
        let mut done = batch.base_offset;
        let (AppendKind::Data, Some(open)) = (batch.kind, parts.open(&batch.bytes)) else {
            return Ok(());
        };
        'again: loop {
            let mut user = UserPropertiesBuf::default();
            for record in open.records().map_while(Result::ok) {
                let offset = batch.base_offset + u64::from(record.offset_delta);
                if offset < done || offset >= until {
                    continue;
                }
                match self.record(shard, batch, offset, &record, &mut user)? {
                    Outcome::Taken => done = offset + 1,
                    Outcome::Blocked => {
                        self.space().await?;
                        continue 'again;
                    }
                }
            }
            return Ok(());
        }
    }

    fn record(
        &self,
        shard: usize,
        batch: &StoredBatch,
        offset: u64,
        record: &crate::records::Record<'_>,
        user: &mut UserPropertiesBuf,
    ) -> Result<Outcome, Gone> {
        let parts = &self.parts.dispatch;
        let now_ms = parts.clock.now_ms();
        let mut state = self.session.lock();
        state.online_of(self.number).ok_or(Gone)?;
        let Some(Link::Behind { cursor, qos0_from, early_seen }) = state.links.get(shard).copied()
        else {
            return Ok(Outcome::Taken);
        };
        let was_pushed =
            batch.key.zip(early_seen).is_some_and(|(key, seen)| is_at_or_before(key, seen));
        let mut outcome = Outcome::Taken;
        if offset >= cursor
            && !was_pushed
            && let Some(message) = Message::decode(record, user)
            && !message.is_expired(now_ms)
        {
            let matching: SmallVec<[Arc<Route>; 8]> = state
                .subscriptions
                .values()
                .filter_map(|subscribed| match subscribed {
                    Subscribed::Own(route) if filter_matches(&route.filter, message.topic) => {
                        Some(route.clone())
                    }
                    _ => None,
                })
                .collect();
            let routes: SmallVec<[&Arc<Route>; 8]> = matching.iter().collect();
            if !routes.is_empty() {
                let mut tally = Tally::default();
                let mut variants = Variants::new(&message, now_ms);
                let at = At {
                    shard: u16::try_from(shard).unwrap_or(u16::MAX),
                    offset: Some(offset),
                    early: None,
                    key: batch.key,
                    newest_early: None,
                };
                let mode = Mode::CatchUp { qos0_from };
                outcome = state.deliver(&routes, at, mode, &mut variants, parts.limits, &mut tally);
                parts.count(&tally);
            }
        }
        if outcome == Outcome::Taken
            && let Some(Link::Behind { cursor, .. }) = state.links.get_mut(shard)
        {
            *cursor = (*cursor).max(offset + 1);
        }
        Ok(outcome)
    }
}
