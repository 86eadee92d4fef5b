//! A session's subscriptions against the topics of a page.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::page::{Filter, Page};
use crate::mqtt::publish::filter_hashes;
use crate::mqtt::routes::Route;
use crate::mqtt::session::State;
use crate::mqtt::topic::{FilterIndex, is_wildcard};

/// The routes that match one topic.
pub(super) type Routes = SmallVec<[Arc<Route>; 2]>;

/// A session's own subscriptions as they were at one time.
#[derive(Debug)]
pub(super) struct Matcher {
    version: u64,
    exact: HashMap<Arc<str>, Arc<Route>, RandomState>,
    wildcards: FilterIndex<Arc<Route>>,
    filter: Filter,
}

/// Records of a page that match.
#[derive(Debug, Default)]
pub(super) struct Matches {
    topics: Vec<Routes>,
    /// Number in the page, and which of the topics; in order.
    records: Vec<(u32, u32)>,
    /// Topics looked for among filters, or filters among topics.
    pub(super) steps: u64,
}

impl Matcher {
    pub(super) fn new(state: &State) -> Self {
        let routes = state.routes();
        let filter = filter_hashes(routes.iter().map(|route| &*route.filter)).map(Into::into);
        let mut exact = HashMap::default();
        let mut wildcards = FilterIndex::default();
        for route in routes {
            if is_wildcard(&route.filter) {
                wildcards.insert(&route.filter.clone(), route);
            } else {
                exact.insert(route.filter.clone(), route);
            }
        }
        Self { version: state.subscriptions_version, exact, wildcards, filter }
    }

    /// The subscriptions are still the same.
    pub(super) fn is_current(&self, state: &State) -> bool {
        self.version == state.subscriptions_version
    }

    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcards.is_empty()
    }

    /// What reads may skip by.
    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The records with numbers in `numbers` that match. Costs a step for each topic of the page,
    /// or for each filter if they are fewer and have no wildcard.
    pub(super) fn matches(&self, page: &Page, numbers: std::ops::Range<u32>) -> Matches {
        let mut matches = Matches::default();
        if self.wildcards.is_empty() && self.exact.len() < page.topics().len() {
            for (name, route) in &self.exact {
                matches.add(Routes::from_iter([route.clone()]), page.topic(name), &numbers);
            }
        } else {
            for (name, records) in page.topics() {
                let mut routes = Routes::new();
                routes.extend(self.exact.get(name).cloned());
                self.wildcards.matches(name, &mut |route| routes.push(route.clone()));
                matches.add(routes, records, &numbers);
            }
        }
        matches.records.sort_unstable();
        matches
    }
}

impl Matches {
    fn add(&mut self, routes: Routes, records: &[u32], numbers: &std::ops::Range<u32>) {
        self.steps += 1;
        let Ok(topic) = u32::try_from(self.topics.len()) else { return };
        let before = self.records.len();
        if !routes.is_empty() {
            let wanted = records.iter().filter(|number| numbers.contains(number));
            self.records.extend(wanted.map(|number| (*number, topic)));
        }
        if self.records.len() > before {
            self.topics.push(routes);
        }
    }

    /// The records' numbers, in order, with the routes that each matches.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Routes)> {
        self.records.iter().filter_map(|(number, topic)| {
            Some((*number, self.topics.get(usize::try_from(*topic).ok()?)?))
        })
    }
}
