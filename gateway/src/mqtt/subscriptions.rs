//! How subscriptions begin and end.

use std::sync::Arc;

use parking_lot::MutexGuard;

use super::broker::Broker;
use super::codec::{Reason, RetainHandling, SubscriptionOptions};
use super::deliver::{Position, Tail};
use super::lifecycle::Positions;
use super::routes::{Route, Start, Subscribed};
use super::session::{Link, Online, Session, State, Wish};
use super::shared::Group;
use super::sys;
use super::topic::{SharedFilter, is_wildcard};

/// A filter of a SUBSCRIBE that may be granted.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// As the client wrote it.
    pub(crate) filter: Arc<str>,
    /// The filter within a shared subscription.
    pub(crate) shared: Option<Box<str>>,
    pub(crate) options: SubscriptionOptions,
    pub(crate) subscription_id: Option<u32>,
}

/// Requests that are served while deliveries stand still.
const CHUNK: usize = 64;

/// Memory that a subscription takes, about, `$share/GROUP/` and all: with its group, if it is the
/// first there.
fn subscription_bytes(filter: &str) -> usize {
    let shared = SharedFilter::parse(filter);
    let inner = shared.map_or(filter, |shared| shared.filter);
    let levels = if is_wildcard(inner) { inner.split('/').count() } else { 0 };
    512 + 2 * filter.len() + 256 * levels + if shared.is_some() { 4096 } else { 0 }
}

/// What goes along with a few requests.
struct Granting<'a> {
    session: &'a Arc<Session>,
    number: u64,
    positions: Positions<'a>,
    starts: Arc<[Start]>,
    /// Routes that retained messages are wanted for, and whether they are new.
    wishes: Vec<(Arc<Route>, bool)>,
}

/// The connection was replaced: nobody wants an answer.
struct TakenOver;

impl Broker {
    /// Subscribes a session, and has `answer` write SUBACK. Everything committed from here on is
    /// delivered; what is retained follows.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        session: &Arc<Session>,
        number: u64,
        requests: &[Result<Request, Reason>],
        answer: impl FnOnce(&mut Online, &[Reason]),
    ) {
        let mut reasons = Vec::with_capacity(requests.len());
        let mut asked = Vec::new();
        for requests in requests.chunks(CHUNK) {
            if self.grant_some(session, number, requests, &mut reasons, &mut asked).is_err() {
                return;
            }
        }
        {
            let mut state = session.lock();
            let Some(online) = state.online_of(number) else { return };
            answer(online, &reasons);
        }
        for route in asked {
            self.send_sys(session, &route);
        }
    }

    fn grant_some(
        self: &Arc<Self>,
        session: &Arc<Session>,
        number: u64,
        requests: &[Result<Request, Reason>],
        reasons: &mut Vec<Reason>,
        asked: &mut Vec<Arc<Route>>,
    ) -> Result<(), TakenOver> {
        // No delivery is under way from here on.
        let mut positions = self.positions();
        let start = |(tail, position): (&Arc<Tail>, &MutexGuard<'_, Position>)| Start {
            offset: tail.committed().max(position.next),
            early: position.next_early,
        };
        let starts = self.feed.tails.iter().zip(positions.iter()).map(start).collect();
        {
            let mut state = session.lock();
            state.online_of(number).ok_or(TakenOver)?;
            if state.links.is_empty() {
                state.links = positions.iter_mut().map(|position| Link::fresh(position)).collect();
            }
        }
        let mut granting = Granting { session, number, positions, starts, wishes: Vec::new() };
        for request in requests {
            reasons.push(match request {
                Ok(request) => self.grant(request, &mut granting)?,
                Err(reason) => *reason,
            });
        }
        let Granting { positions, starts, wishes, .. } = granting;
        if wishes.is_empty() {
            return Ok(());
        }
        let mut state = session.lock();
        // Retained messages come first, then what the log got since: no topic goes back.
        for (link, position) in state.links.iter_mut().zip(&positions) {
            *link = position.behind(*link);
        }
        let place = |link: &Link| match link {
            Link::Behind { cursor, .. } => *cursor,
            Link::Live { .. } => u64::MAX,
        };
        let places: Arc<[u64]> = state.links.iter().map(place).collect();
        let fresh: Arc<[u64]> = starts.iter().map(|start| start.offset).collect();
        let online = state.online_of(number).ok_or(TakenOver)?;
        for (route, is_new) in wishes {
            if sys::is_asked_by(&route.filter) {
                asked.push(route.clone());
            }
            let below = if is_new { fresh.clone() } else { places.clone() };
            online.wishes.push_back(Wish { route, below });
        }
        Ok(())
    }

    fn grant(
        self: &Arc<Self>,
        request: &Request,
        granting: &mut Granting<'_>,
    ) -> Result<Reason, TakenOver> {
        let (session, number) = (granting.session, granting.number);
        let old = {
            let state = session.lock();
            let old = state.subscriptions.get(&request.filter).cloned();
            let is_over = |state: &State| {
                let bytes = state.subscription_bytes + subscription_bytes(&request.filter);
                state.subscriptions.len() >= self.config.max_subscriptions
                    || bytes > self.config.max_subscription_bytes
            };
            if old.is_none() && is_over(&state) {
                return Ok(Reason::QuotaExceeded);
            }
            // Subscribed again and again, with nothing taken of what is retained.
            let wishes = state.online.as_ref().map_or(0, |online| online.wishes.len());
            if wishes + granting.wishes.len() >= self.config.max_subscriptions {
                return Ok(Reason::QuotaExceeded);
            }
            old
        };
        let is_new = old.is_none();
        let subscribed = match &request.shared {
            Some(filter) => Subscribed::Shared(self.join(request, filter, granting)),
            None => {
                let starts = match old {
                    Some(Subscribed::Own(old)) => old.starts.clone(),
                    _ => granting.starts.clone(),
                };
                let route = Arc::new(Route {
                    session: session.clone(),
                    filter: request.filter.clone(),
                    options: request.options,
                    subscription_id: request.subscription_id,
                    starts,
                });
                self.routes.insert(route.clone(), is_new);
                if sys::is_asked_by(&route.filter) {
                    self.sys_asked.notify_one();
                }
                let wants_retained = match request.options.retain_handling {
                    RetainHandling::Always => true,
                    RetainHandling::IfNew => is_new,
                    RetainHandling::Never => false,
                };
                if wants_retained {
                    granting.wishes.push((route.clone(), is_new));
                }
                Subscribed::Own(route)
            }
        };
        let mut state = session.lock();
        if state.online_of(number).is_none() {
            // Replaced meanwhile: what is new here is nobody's.
            let is_unknown = !state.subscriptions.contains_key(&request.filter);
            drop(state);
            match subscribed {
                Subscribed::Own(route) if is_unknown => self.routes.remove(&route),
                Subscribed::Shared(group) if is_unknown => {
                    self.leave_group(&request.filter, &group, session);
                }
                _ => {}
            }
            return Err(TakenOver);
        }
        if let Subscribed::Shared(group) = &subscribed
            && is_new
        {
            state.groups.push(group.clone());
        }
        if state.subscriptions.insert(request.filter.clone(), subscribed).is_none() {
            state.subscription_bytes += subscription_bytes(&request.filter);
        }
        state.subscriptions_version += 1;
        self.metrics.subscriptions.add(u64::from(is_new));
        Ok(Reason::from(request.options.qos))
    }

    fn join(
        self: &Arc<Self>,
        request: &Request,
        filter: &str,
        granting: &mut Granting<'_>,
    ) -> Arc<Group> {
        let Granting { session, positions, starts, .. } = granting;
        let mut groups = self.groups.lock();
        let group = groups
            .entry(request.filter.clone())
            .or_insert_with(|| {
                let links = positions.iter_mut().map(|position| Link::fresh(position)).collect();
                let group = Group::new(filter, starts.to_vec(), links);
                self.routes.insert_group(group.clone());
                self.tasks.spawn(group.clone().run(self.feed.clone()));
                group
            })
            .clone();
        group.join(session, request.options, request.subscription_id);
        group
    }

    /// A member leaves a shared subscription; the last one ends it.
    pub(crate) fn leave_group(&self, filter: &str, group: &Arc<Group>, session: &Arc<Session>) {
        let mut groups = self.groups.lock();
        if group.leave(session) {
            groups.remove(filter);
            self.routes.remove_group(group);
            group.stop.cancel();
        }
    }

    /// Ends a subscription; false if there was none. What was sent is completed.
    pub(crate) fn unsubscribe(&self, session: &Arc<Session>, filter: &str) -> bool {
        let removed = {
            let mut state = session.lock();
            let removed = state.subscriptions.remove(filter);
            if removed.is_some() {
                let bytes = subscription_bytes(filter);
                state.subscription_bytes = state.subscription_bytes.saturating_sub(bytes);
                state.subscriptions_version += 1;
            }
            if let Some(Subscribed::Shared(group)) = &removed {
                state.groups.retain(|other| !Arc::ptr_eq(other, group));
            }
            removed
        };
        match &removed {
            Some(Subscribed::Own(route)) => self.routes.remove(route),
            Some(Subscribed::Shared(group)) => self.leave_group(filter, group, session),
            None => return false,
        }
        self.metrics.subscriptions.sub(1);
        true
    }
}
