//! Shared subscriptions: a group reads the logs with its own cursors and hands each message to one
//! member, in turn.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use interflow_logstore::ReadError;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

use super::codec::{QoS, SubscriptionOptions, UserPropertiesBuf};
use super::connection::ConnShared;
use super::deliver::{FeedParts, Found, Message, Variants, is_at_or_before};
use super::publish::filter_hashes;
use super::routes::Start;
use super::session::{At, Limits, Link, Outcome, Session, Source, Tally};
use super::topic::filter_matches;

/// How long to wait before a log that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Member {
    session: Arc<Session>,
    options: SubscriptionOptions,
    subscription_id: Option<u32>,
}

#[derive(Debug, Default)]
struct Members {
    members: Vec<Member>,
    turn: usize,
    links: Vec<Link>,
    starts: Vec<Start>,
    /// Records that a member got and will not complete: they go to another.
    again: BTreeSet<(u16, u64)>,
}

/// One shared subscription: `$share/NAME/FILTER`.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) filter: Arc<str>,
    /// What its reads may skip by.
    hashes: Option<Arc<[u32]>>,
    members: Mutex<Members>,
    /// Some of the log waits for a member that can take it.
    waits: AtomicBool,
    work: Notify,
    pub(crate) stop: CancellationToken,
}

impl Group {
    /// A group that begins where the logs are now.
    pub(crate) fn new(filter: &str, starts: Vec<Start>, links: Vec<Link>) -> Arc<Self> {
        Arc::new(Self {
            filter: filter.into(),
            hashes: filter_hashes([filter].into_iter()).map(Into::into),
            members: Mutex::new(Members { links, starts, ..Members::default() }),
            waits: AtomicBool::new(false),
            work: Notify::new(),
            stop: CancellationToken::new(),
        })
    }

    /// Adds a member, or changes its options.
    pub(crate) fn join(
        &self,
        session: &Arc<Session>,
        options: SubscriptionOptions,
        subscription_id: Option<u32>,
    ) {
        let member = Member { session: session.clone(), options, subscription_id };
        let mut members = self.members.lock();
        match members.members.iter_mut().find(|it| Arc::ptr_eq(&it.session, session)) {
            Some(old) => *old = member,
            None => members.members.push(member),
        }
        drop(members);
        self.work.notify_one();
    }

    /// Takes a member out; true if it was the last one.
    pub(crate) fn leave(&self, session: &Arc<Session>) -> bool {
        let mut members = self.members.lock();
        members.members.retain(|member| !Arc::ptr_eq(&member.session, session));
        let is_empty = members.members.is_empty();
        drop(members);
        self.work.notify_one();
        is_empty
    }

    /// A record that was handed to a member goes to another.
    pub(crate) fn take_back(&self, shard: u16, offset: u64) {
        self.members.lock().again.insert((shard, offset));
        self.waits.store(true, Ordering::Release);
        self.work.notify_one();
    }

    /// Records that wait for another member.
    #[cfg(test)]
    pub(crate) fn taken_back(&self) -> usize {
        self.members.lock().again.len()
    }

    /// A member connected, or can take more.
    pub(crate) fn has_room(&self) {
        if self.waits.load(Ordering::Acquire) {
            self.work.notify_one();
        }
    }

    /// Offers a record to the group from a log's tail.
    pub(crate) fn deliver(
        self: &Arc<Self>,
        at: At,
        variants: &mut Variants<'_>,
        limits: Limits,
        tally: &mut Tally,
        wake: &mut Vec<Arc<ConnShared>>,
    ) {
        let mut members = self.members.lock();
        let shard = usize::from(at.shard);
        let Some(link) = members.links.get(shard).copied() else { return };
        let start = members.starts.get(shard).copied().unwrap_or(Start { offset: 0, early: 0 });
        if !link.is_due(at)
            || at.offset.is_some_and(|offset| offset < start.offset)
            || at.early.is_some_and(|early| early.number < start.early)
        {
            return;
        }
        let place = (at.shard, at.offset.unwrap_or(0));
        // What was taken back comes first; it would pile up if members came and went.
        let waits_for_older =
            !members.again.is_empty() && variants.message().qos != QoS::AtMostOnce;
        let outcome = if waits_for_older {
            self.work.notify_one();
            Outcome::Blocked
        } else {
            self.hand_out(&mut members, place, variants, limits, tally, wake)
        };
        if outcome == Outcome::Blocked
            && let Some(link) = members.links.get_mut(shard)
            && link.fall_behind(at)
        {
            self.waits.store(true, Ordering::Release);
        }
    }

    /// Hands a message to the next member that can take it. It is dropped if none can: QoS 0 now,
    /// others ever, as far as is known of those who are connected.
    fn hand_out(
        self: &Arc<Self>,
        members: &mut Members,
        (shard, offset): (u16, u64),
        variants: &mut Variants<'_>,
        limits: Limits,
        tally: &mut Tally,
        wake: &mut Vec<Arc<ConnShared>>,
    ) -> Outcome {
        let message = variants.message();
        let count = members.members.len();
        let (mut is_wanted, mut is_wanted_later, mut is_too_large) = (false, false, false);
        // First those who can send at once, then those who let it wait.
        for may_wait in [false, true] {
            for step in 0..count {
                let index = (members.turn + step) % count;
                let Some(member) = members.members.get(index) else { continue };
                let qos = message.qos.min(member.options.qos);
                let retain = message.retain && member.options.retain_as_published;
                let ids = member.subscription_id.into_iter().collect();
                let mut state = member.session.lock();
                let is_away = state.online.is_none();
                let may_try = state.has_buffer(limits)
                    && (may_wait || qos == QoS::AtMostOnce || state.has_space(limits));
                let source = Source::Group { group: self.clone(), shard, offset };
                let outcome = if may_try {
                    state.try_offer(qos, retain, ids, source, variants, limits, tally)
                } else {
                    Outcome::Blocked
                };
                match outcome {
                    Outcome::Taken => {
                        wake.extend(state.take_wake());
                        drop(state);
                        members.turn = index + 1;
                        return Outcome::Taken;
                    }
                    Outcome::TooLarge => is_too_large = true,
                    Outcome::Blocked if !may_wait || qos == QoS::AtMostOnce => {}
                    Outcome::Blocked if is_away => is_wanted_later = true,
                    Outcome::Blocked => is_wanted = true,
                }
            }
        }
        // What those who are here can't hold doesn't hold up the group for those who are away.
        if is_wanted || (is_wanted_later && !is_too_large) {
            return Outcome::Blocked;
        }
        if count > 0 {
            tally.drop(if is_too_large { message.qos } else { QoS::AtMostOnce });
        }
        Outcome::Taken
    }

    /// Reads what the tails could not hand out, whenever members can take more; until the group
    /// ends.
    pub(crate) async fn run(self: Arc<Self>, parts: FeedParts) {
        loop {
            tokio::select! {
                () = self.work.notified() => {}
                () = self.stop.cancelled() => return,
            }
            self.waits.store(false, Ordering::Release);
            let mut is_done = self.hand_out_again(&parts).await;
            if is_done {
                for shard in 0..parts.tails.len() {
                    is_done &= self.catch_up(&parts, shard).await;
                }
            }
            if !is_done {
                self.waits.store(true, Ordering::Release);
                // A member may have got room before the flag was set.
                if self
                    .members
                    .lock()
                    .members
                    .iter()
                    .any(|member| member.session.lock().has_space(parts.dispatch.limits))
                {
                    self.work.notify_one();
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Brings the group forward in one log; true if it is live there.
    async fn catch_up(self: &Arc<Self>, parts: &FeedParts, shard: usize) -> bool {
        let (Some(tail), Some(scan)) = (parts.tails.get(shard), parts.scans.get(shard)) else {
            return true;
        };
        loop {
            let (cursor, until, early_seen) = {
                let mut position = tail.position();
                let mut members = self.members.lock();
                let Some(link) = members.links.get_mut(shard) else { return true };
                let Link::Behind { cursor, early_seen, .. } = *link else { return true };
                if cursor >= position.next {
                    *link = position.live(early_seen);
                    return true;
                }
                (cursor, position.next, early_seen)
            };
            let page = match scan.page(&parts.dispatch, cursor, &self.hashes).await {
                Ok(page) => page,
                Err(ReadError::OutOfRange { start, .. }) if start > cursor => {
                    self.advance(shard, start);
                    continue;
                }
                Err(ReadError::Damaged { from, to }) => {
                    tracing::error!(log = %tail.log, from, to, "damaged offsets are not delivered");
                    self.advance(shard, to.max(cursor + 1));
                    continue;
                }
                Err(ReadError::OutOfRange { .. } | ReadError::NoSuchLog) => {
                    self.advance(shard, until);
                    continue;
                }
                Err(error) => {
                    tracing::error!(log = %tail.log, %error, "a group can't read the log");
                    if self.pause().await.is_break() {
                        return false;
                    }
                    continue;
                }
            };
            for number in page.select(&self.filter, cursor..until) {
                let Some(Found { offset, key, record }) = page.record(number) else { continue };
                if key.zip(early_seen).is_some_and(|(key, seen)| is_at_or_before(key, seen)) {
                    continue;
                }
                if self.record(parts, tail.shard, offset, &record) == Outcome::Blocked {
                    self.advance(shard, offset);
                    return false;
                }
            }
            self.advance(shard, page.next().min(until));
            drop(page);
            // A page may be there at once: others of this thread come in between.
            yield_now().await;
        }
    }

    /// Nobody tells when a disk can be read again: waits a while, or until the group ends.
    async fn pause(&self) -> ControlFlow<()> {
        tokio::select! {
            () = tokio::time::sleep(READ_AGAIN) => ControlFlow::Continue(()),
            () = self.stop.cancelled() => ControlFlow::Break(()),
        }
    }

    fn advance(&self, shard: usize, to: u64) {
        if let Some(Link::Behind { cursor, .. }) = self.members.lock().links.get_mut(shard) {
            *cursor = to.max(*cursor);
        }
    }

    fn record(
        self: &Arc<Self>,
        parts: &FeedParts,
        shard: u16,
        offset: u64,
        record: &crate::records::Record<'_>,
    ) -> Outcome {
        let mut user = UserPropertiesBuf::default();
        let now_ms = parts.dispatch.clock.now_ms();
        let Some(message) = Message::decode(record, &mut user) else { return Outcome::Taken };
        if message.is_expired(now_ms) || !filter_matches(&self.filter, message.topic) {
            return Outcome::Taken;
        }
        let mut variants = Variants::new(&message, now_ms);
        let (mut tally, mut wake) = (Tally::default(), Vec::new());
        let outcome = self.hand_out(
            &mut self.members.lock(),
            (shard, offset),
            &mut variants,
            parts.dispatch.limits,
            &mut tally,
            &mut wake,
        );
        parts.dispatch.count(&tally);
        wake.iter().for_each(|connection| connection.wake());
        outcome
    }

    /// Hands out records that were taken back; true if none is left.
    async fn hand_out_again(self: &Arc<Self>, parts: &FeedParts) -> bool {
        loop {
            let Some((shard, offset)) = self.members.lock().again.first().copied() else {
                return true;
            };
            let Some(scan) = parts.scans.get(usize::from(shard)) else { return true };
            let page = match scan.page(&parts.dispatch, offset, &self.hashes).await {
                Ok(page) => Some(page),
                Err(
                    error
                    @ (ReadError::Io(_) | ReadError::NotSequencer | ReadError::Unavailable(_)),
                ) => {
                    tracing::error!(shard, %error, "a group can't read the log");
                    if self.pause().await.is_break() {
                        return false;
                    }
                    continue;
                }
                Err(error) => {
                    tracing::warn!(shard, offset, %error, "a record is gone");
                    None
                }
            };
            let found = page.as_ref().and_then(|page| page.record(page.first_from(offset)));
            if let Some(found) = found.filter(|found| found.offset == offset)
                && self.record(parts, shard, offset, &found.record) == Outcome::Blocked
            {
                return false;
            }
            self.members.lock().again.remove(&(shard, offset));
        }
    }
}
