//! How subscriptions begin and end.

use std::sync::Arc;

use super::broker::Broker;
use super::codec::{Reason, RetainHandling, SubscriptionOptions};
use super::routes::{Route, Start, Subscribed};
use super::session::{Link, Online, Scan, Session};
use super::shared::Group;
use super::sys;

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

impl Broker {
    /// Subscribes a session, and has `answer` write SUBACK. Everything committed from here on is
    /// delivered; what is retained follows.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        session: &Arc<Session>,
        number: u64,
        requests: Vec<Result<Request, Reason>>,
        answer: impl FnOnce(&mut Online, &[Reason]),
    ) {
        // No delivery is under way from here on.
        let mut positions = self.positions();
        let starts: Arc<[Start]> = self
            .feed
            .tails
            .iter()
            .zip(positions.iter())
            .map(|(tail, position)| Start {
                offset: tail.committed().max(position.next),
                early: position.next_early,
            })
            .collect();
        let (olds, mut count) = {
            let mut state = session.lock();
            if state.online_of(number).is_none() {
                return;
            }
            if state.links.is_empty() {
                state.links = positions.iter_mut().map(|position| Link::fresh(position)).collect();
            }
            let old = |request: &Result<Request, Reason>| {
                request.as_ref().ok().and_then(|it| state.subscriptions.get(&it.filter).cloned())
            };
            let olds: Vec<Option<Subscribed>> = requests.iter().map(old).collect();
            (olds, state.subscriptions.len())
        };
        let mut granted: Vec<(Arc<str>, Subscribed)> = Vec::with_capacity(requests.len());
        let mut reasons = Vec::with_capacity(requests.len());
        let mut scans = Vec::new();
        let mut groups = Vec::new();
        for (request, old) in requests.into_iter().zip(olds) {
            let reason = request.and_then(|request| {
                let twice = granted.iter().find(|(filter, _)| *filter == request.filter);
                let old = twice.map(|(_, subscribed)| subscribed.clone()).or(old);
                let is_new = old.is_none();
                if is_new && count >= self.config.max_subscriptions {
                    return Err(Reason::QuotaExceeded);
                }
                count += usize::from(is_new);
                let qos = request.options.qos;
                let subscribed = match &request.shared {
                    Some(filter) => {
                        let group = self.join(&request, filter, session, &mut positions, &starts);
                        groups.push(group.clone());
                        Subscribed::Shared(group)
                    }
                    None => {
                        let old = match old {
                            Some(Subscribed::Own(old)) => Some(old.starts.clone()),
                            _ => None,
                        };
                        let route = Arc::new(Route {
                            session: session.clone(),
                            filter: request.filter.clone(),
                            options: request.options,
                            subscription_id: request.subscription_id,
                            starts: old.unwrap_or_else(|| starts.clone()),
                        });
                        self.routes.insert(route.clone());
                        if sys::is_asked_by(&route.filter) {
                            self.sys_asked.notify_one();
                        }
                        let wants_retained = match request.options.retain_handling {
                            RetainHandling::Always => true,
                            RetainHandling::IfNew => is_new,
                            RetainHandling::Never => false,
                        };
                        if wants_retained {
                            scans.push((route.clone(), is_new));
                        }
                        Subscribed::Own(route)
                    }
                };
                self.metrics.subscriptions.add(u64::from(is_new));
                granted.push((request.filter, subscribed));
                Ok(Reason::from(qos))
            });
            reasons.push(reason.unwrap_or_else(|reason| reason));
        }
        let mut state = session.lock();
        if state.online_of(number).is_none() {
            drop(state);
            // Taken over meanwhile: the new owner doesn't know of these.
            drop(positions);
            self.forget_unknown(session, granted);
            return;
        }
        state.subscriptions.extend(granted);
        for group in groups {
            if !state.groups.iter().any(|other| Arc::ptr_eq(other, &group)) {
                state.groups.push(group);
            }
        }
        if !scans.is_empty() {
            // Retained messages come first, then what the log got since: no topic goes back.
            for (link, position) in state.links.iter_mut().zip(&positions) {
                *link = position.behind(*link);
            }
        }
        let places: Arc<[u64]> = state
            .links
            .iter()
            .map(|link| match link {
                Link::Behind { cursor, .. } => *cursor,
                Link::Live { .. } => u64::MAX,
            })
            .collect();
        let fresh: Arc<[u64]> = starts.iter().map(|start| start.offset).collect();
        let Some(online) = state.online_of(number) else { return };
        answer(online, &reasons);
        let mut asked = Vec::new();
        for (route, is_new) in scans {
            if sys::is_asked_by(&route.filter) {
                asked.push(route.clone());
            }
            let below = if is_new { fresh.clone() } else { places.clone() };
            online.scans.push_back(Scan { route, below });
        }
        drop(state);
        drop(positions);
        for route in asked {
            self.send_sys(session, &route);
        }
    }

    /// Takes subscriptions out of the routes that their session doesn't have.
    fn forget_unknown(&self, session: &Arc<Session>, granted: Vec<(Arc<str>, Subscribed)>) {
        for (filter, subscribed) in granted {
            let kept = session.lock().subscriptions.get(&filter).cloned();
            if kept.is_none() {
                self.metrics.subscriptions.sub(1);
            }
            match (subscribed, kept) {
                (Subscribed::Own(_), Some(Subscribed::Own(kept))) => self.routes.insert(kept),
                (Subscribed::Own(route), _) => self.routes.remove(&route),
                (Subscribed::Shared(group), None) => self.leave_group(&filter, &group, session),
                (Subscribed::Shared(_), Some(_)) => {}
            }
        }
    }

    fn join(
        self: &Arc<Self>,
        request: &Request,
        filter: &str,
        session: &Arc<Session>,
        positions: &mut super::lifecycle::Positions<'_>,
        starts: &[Start],
    ) -> Arc<Group> {
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
