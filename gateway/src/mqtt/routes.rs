//! Who gets which topics: the subscriptions of all sessions, by filter.

use std::sync::Arc;

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
}

impl Targets {
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
        let same = |other: &&mut Arc<Route>| Arc::ptr_eq(&other.session, &route.session);
        let old = if is_new { None } else { targets.routes.iter_mut().rev().find(same) };
        match old {
            Some(old) => *old = route,
            None => targets.routes.push(route),
        }
    }

    pub(crate) fn remove(&self, route: &Route) {
        let mut index = self.index.write();
        let Some(targets) = index.get_mut(&route.filter) else { return };
        let at = targets.routes.iter().position(|it| Arc::ptr_eq(&it.session, &route.session));
        if let Some(at) = at {
            targets.routes.swap_remove(at);
        }
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
