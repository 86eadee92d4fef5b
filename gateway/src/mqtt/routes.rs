//! Who gets which topics: the subscriptions of all sessions, by filter.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{RwLock, RwLockReadGuard};

use super::codec::SubscriptionOptions;
use super::session::Session;
use super::shared::Group;
use super::topic::FilterIndex;

/// Where in a log a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    /// Records below are not for it.
    pub(crate) offset: u64,
    /// Nor are early batches with a smaller number.
    pub(crate) early: u64,
}

/// One ordinary subscription. Never changed: new options make a new route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) session: Arc<Session>,
    pub(crate) filter: Arc<str>,
    pub(crate) options: SubscriptionOptions,
    pub(crate) subscription_id: Option<u32>,
    /// One a log of the stream.
    pub(crate) starts: Arc<[Start]>,
}

impl Route {
    pub(crate) fn start(&self, shard: u16) -> u64 {
        self.starts.get(usize::from(shard)).map_or(0, |start| start.offset)
    }

    pub(crate) fn early_from(&self, shard: u16) -> u64 {
        self.starts.get(usize::from(shard)).map_or(0, |start| start.early)
    }
}

/// A session's subscription.
#[derive(Clone, Debug)]
pub(crate) enum Subscribed {
    /// Its own.
    Own(Arc<Route>),
    /// A membership in a shared subscription.
    Shared(Arc<Group>),
}

/// Everybody with one filter.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(crate) routes: Vec<Arc<Route>>,
    pub(crate) groups: Vec<Arc<Group>>,
    /// Where each session's route stands, by the session's key; only where there are many.
    places: Option<Box<HashMap<u64, usize, RandomState>>>,
}

/// So many routes are searched one by one; more are not, or a million sessions that end take a
/// million times as long each.
const FEW: usize = 32;

impl Targets {
    fn place(&self, session: &Session) -> Option<usize> {
        match &self.places {
            Some(places) => places.get(&session.key).copied(),
            None => self.routes.iter().position(|route| route.session.key == session.key),
        }
    }

    fn push(&mut self, route: Arc<Route>) {
        if let Some(places) = &mut self.places {
            places.insert(route.session.key, self.routes.len());
        }
        self.routes.push(route);
        if self.places.is_none() && self.routes.len() > FEW {
            let places = self.routes.iter().enumerate();
            self.places = Some(Box::new(places.map(|(at, it)| (it.session.key, at)).collect()));
        }
    }

    fn remove(&mut self, session: &Session) {
        let Some(at) = self.place(session) else { return };
        self.routes.swap_remove(at);
        let moved = self.routes.get(at).map(|route| route.session.key);
        if let Some(places) = &mut self.places {
            places.remove(&session.key);
            if let Some(moved) = moved {
                places.insert(moved, at);
            }
        }
        if self.routes.len() <= FEW / 2 {
            self.places = None;
        }
    }

    fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.groups.is_empty()
    }
}

/// The index of all subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    index: RwLock<FilterIndex<Targets>>,
}

impl Routes {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, FilterIndex<Targets>> {
        self.index.read()
    }

    /// Adds a route; if it isn't new, in the place of its session's older one for the filter.
    pub(crate) fn insert(&self, route: Arc<Route>, is_new: bool) {
        let mut index = self.index.write();
        let filter = route.filter.clone();
        let targets = index.get_or_insert_with(&filter, Targets::default);
        let at = if is_new { None } else { targets.place(&route.session) };
        match at.and_then(|at| targets.routes.get_mut(at)) {
            Some(old) => *old = route,
            None => targets.push(route),
        }
    }

    pub(crate) fn remove(&self, route: &Route) {
        let mut index = self.index.write();
        let Some(targets) = index.get_mut(&route.filter) else { return };
        targets.remove(&route.session);
        if targets.is_empty() {
            index.remove(&route.filter);
        }
    }

    pub(crate) fn insert_group(&self, group: Arc<Group>) {
        let mut index = self.index.write();
        let targets = index.get_or_insert_with(&group.filter, Targets::default);
        if !targets.groups.iter().any(|other| Arc::ptr_eq(other, &group)) {
            targets.groups.push(group.clone());
        }
    }

    pub(crate) fn remove_group(&self, group: &Arc<Group>) {
        let mut index = self.index.write();
        let Some(targets) = index.get_mut(&group.filter) else { return };
        targets.groups.retain(|other| !Arc::ptr_eq(other, group));
        if targets.is_empty() {
            index.remove(&group.filter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mqtt::codec::QoS;

    fn route(session: &Arc<Session>, qos: QoS) -> Arc<Route> {
        Arc::new(Route {
            session: session.clone(),
            filter: "t".into(),
            options: SubscriptionOptions { qos, ..Default::default() },
            subscription_id: None,
            starts: Arc::default(),
        })
    }

    #[test]
    fn many_sessions_with_one_filter_come_change_and_go() {
        let routes = Routes::default();
        let sessions: Vec<_> = (0..100).map(|key| Session::new("c".into(), key)).collect();
        for session in &sessions {
            routes.insert(route(session, QoS::AtMostOnce), true);
        }
        let of = |key: u64| {
            let mut found = Vec::new();
            routes.read().matches("t", &mut |targets: &Targets| {
                assert_eq!(targets.places.is_some(), targets.routes.len() > FEW / 2);
                let same = targets.routes.iter().filter(|route| route.session.key == key);
                found.extend(same.map(|route| route.options.qos));
            });
            found
        };
        for session in &sessions {
            routes.insert(route(session, QoS::AtLeastOnce), false);
            assert_eq!(of(session.key), [QoS::AtLeastOnce]);
        }
        for (done, session) in sessions.iter().enumerate() {
            routes.remove(&route(session, QoS::AtLeastOnce));
            assert_eq!(of(session.key), []);
            for later in sessions.iter().skip(done + 1) {
                assert_eq!(of(later.key), [QoS::AtLeastOnce]);
            }
        }
        assert!(routes.read().is_empty());
    }
}
