//! A session's own reading: retained messages of new subscriptions, and what the log holds past
//! its cursors, until the tails may push to it.

use std::future::{pending, poll_fn};
use std::ops::Range;
use std::sync::Arc;
use std::task::Poll;

use interflow_logstore::ReadError;
use smallvec::SmallVec;
use tokio::task::yield_now;

use super::dispatch::DispatchParts;
use super::matcher::Matcher;
use super::message::Message;
use super::outgoing::Variants;
use super::page::{Found, Page};
use super::scan::Scans;
use super::tail::{Tail, is_at_or_before};
use crate::mqtt::codec::{QoS, Reason, UserPropertiesBuf};
use crate::mqtt::retained::Retained;
use crate::mqtt::routes::Route;
use crate::mqtt::session::{At, Link, Mode, Outcome, Session, Source, Tally, Wish};

/// What a session is fed by.
#[derive(Clone)]
pub(crate) struct FeedParts {
    pub(crate) dispatch: DispatchParts,
    pub(crate) retained: Arc<Retained>,
    pub(crate) tails: Arc<[Arc<Tail>]>,
    pub(crate) scans: Arc<Scans>,
}

/// The connection ended, or was taken over.
struct Gone;

/// Feeds a session until it is live everywhere. Polled by the session's connection `number`, which
/// polls it again whenever the client took or acknowledged something.
pub(crate) async fn feed(parts: FeedParts, session: Arc<Session>, number: u64) {
    let mut feeder = Feeder { parts, session, number, matcher: None };
    while let Some(step) = feeder.next_step() {
        let done = match step {
            Step::Retained(wish) => feeder.retained(&wish).await,
            Step::CatchUp(shard) => feeder.catch_up(shard).await,
        };
        if done.is_err() {
            return;
        }
    }
}

enum Step {
    Retained(Wish),
    CatchUp(usize),
}

struct Feeder {
    parts: FeedParts,
    session: Arc<Session>,
    number: u64,
    /// Of the session's subscriptions, once they are to be matched.
    matcher: Option<Arc<Matcher>>,
}

impl Feeder {
    fn next_step(&self) -> Option<Step> {
        let mut state = self.session.lock();
        if let Some(wish) = state.online_of(self.number)?.wishes.front() {
            return Some(Step::Retained(wish.clone()));
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
    async fn retained(&self, wish: &Wish) -> Result<(), Gone> {
        let parts = &self.parts.dispatch;
        // A record below the subscription's start may be committed and its retained message not
        // yet written; the log won't bring it, so it has to be found here (R6).
        if let Some(settled) = self.parts.retained.settled() {
            settled.await;
        }
        let mut from = None;
        loop {
            let page =
                self.parts.retained.page(&wish.route.filter, from, parts.clock.now_ms()).await;
            let page = match page {
                Ok(page) => page,
                Err(error) => {
                    tracing::error!(%error, "retained messages can't be read");
                    break;
                }
            };
            for (topic, retained) in &page.messages {
                let shard = self.parts.tails.iter().find(|it| it.log == retained.version.log);
                let below = shard.and_then(|tail| wish.below.get(usize::from(tail.shard)));
                if below.is_some_and(|below| retained.version.offset >= *below) {
                    continue; // the log brings it
                }
                self.send_retained(&wish.route, topic, retained).await?;
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        let mut state = self.session.lock();
        state.online_of(self.number).ok_or(Gone)?.wishes.pop_front();
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
                Outcome::Taken | Outcome::TooLarge => return Ok(()),
                Outcome::Blocked => self.space().await?,
            }
        }
    }

    /// Brings the session forward in one log; live if it has caught up.
    async fn catch_up(&mut self, shard: usize) -> Result<(), Gone> {
        self.space().await?;
        let parts = &self.parts.dispatch;
        let (Some(tail), Some(scan)) = (self.parts.tails.get(shard), self.parts.scans.get(shard))
        else {
            return Err(Gone);
        };
        let (cursor, until, matcher) = {
            let mut position = tail.position();
            let mut state = self.session.lock();
            state.online_of(self.number).ok_or(Gone)?;
            if !self.matcher.as_ref().is_some_and(|matcher| matcher.is_current(&state)) {
                self.matcher = Some(Arc::new(Matcher::new(&state)));
            }
            let Some(matcher) = self.matcher.clone() else { return Err(Gone) };
            let Some(link) = state.links.get_mut(shard) else { return Err(Gone) };
            let Link::Behind { cursor, early_seen, .. } = link else { return Ok(()) };
            if *cursor >= position.next || matcher.is_empty() {
                *link = position.live(*early_seen);
                return Ok(());
            }
            (*cursor, position.next, matcher)
        };
        let page = match scan.page(parts, cursor, matcher.filter()).await {
            Ok(page) => page,
            Err(ReadError::OutOfRange { start, .. }) if start > cursor => {
                return self.advance(shard, start);
            }
            Err(ReadError::Damaged { to, .. }) => return self.advance(shard, to.max(cursor + 1)),
            Err(ReadError::OutOfRange { .. } | ReadError::NoSuchLog) => {
                return self.advance(shard, until);
            }
            Err(error) => {
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
        if self.records(shard, &page, &matcher, cursor..until)? == Outcome::Taken {
            self.advance(shard, page.next().min(until))?;
        }
        drop(page);
        // A page may be there at once: other connections of this thread come in between.
        yield_now().await;
        Ok(())
    }

    fn advance(&self, shard: usize, to: u64) -> Result<(), Gone> {
        let mut state = self.session.lock();
        state.online_of(self.number).ok_or(Gone)?;
        if let Some(Link::Behind { cursor, .. }) = state.links.get_mut(shard) {
            *cursor = to.max(*cursor);
        }
        Ok(())
    }

    /// Offers what matches, up to the first that the session can't take now.
    fn records(
        &self,
        shard: usize,
        page: &Page,
        matcher: &Matcher,
        offsets: Range<u64>,
    ) -> Result<Outcome, Gone> {
        let numbers = page.first_from(offsets.start)..page.first_from(offsets.end);
        let matches = matcher.matches(page, numbers);
        let parts = &self.parts.dispatch;
        parts.metrics.catch_up_matches.add(matches.steps);
        let mut user = UserPropertiesBuf::default();
        for (number, routes) in matches.iter() {
            let Some(found) = page.record(number) else { continue };
            if self.record(shard, &found, routes, &mut user)? == Outcome::Blocked {
                return Ok(Outcome::Blocked);
            }
        }
        Ok(Outcome::Taken)
    }

    fn record(
        &self,
        shard: usize,
        found: &Found<'_>,
        routes: &[Arc<Route>],
        user: &mut UserPropertiesBuf,
    ) -> Result<Outcome, Gone> {
        let Found { offset, key, record } = found;
        let parts = &self.parts.dispatch;
        let now_ms = parts.clock.now_ms();
        let Some(message) = Message::decode(record, user) else { return Ok(Outcome::Taken) };
        let mut state = self.session.lock();
        state.online_of(self.number).ok_or(Gone)?;
        let Some(Link::Behind { cursor, qos0_from, early_seen }) = state.links.get(shard).copied()
        else {
            return Ok(Outcome::Taken);
        };
        let was_pushed = key.zip(early_seen).is_some_and(|(key, seen)| is_at_or_before(key, seen));
        let mut outcome = Outcome::Taken;
        if *offset >= cursor && !was_pushed && !message.is_expired(now_ms) {
            let routes: SmallVec<[&Arc<Route>; 8]> = routes.iter().collect();
            let mut tally = Tally::default();
            let mut variants = Variants::new(&message, now_ms);
            let at = At {
                shard: u16::try_from(shard).unwrap_or(u16::MAX),
                offset: Some(*offset),
                early: None,
                key: *key,
                newest_early: None,
            };
            let mode = Mode::CatchUp { qos0_from };
            outcome = state.deliver(&routes, at, mode, &mut variants, parts.limits, &mut tally);
            parts.count(&tally);
        }
        if outcome == Outcome::Taken
            && let Some(Link::Behind { cursor, .. }) = state.links.get_mut(shard)
        {
            *cursor = (*cursor).max(offset + 1);
        }
        Ok(outcome)
    }
}
