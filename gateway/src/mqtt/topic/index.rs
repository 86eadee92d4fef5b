//! Which of many filters match a topic.
//!
//! ```text
//!   topic a/b/c ─► exact:     hash map by the whole filter
//!               └► wildcards: root ─a─► . ─+─► . ─c─► value
//!                                       └────► # value
//! ```

use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;
use hashbrown::{Equivalent, HashMap};
use slab::Slab;
use smallvec::SmallVec;

use super::is_wildcard;

/// Values by filter, looked up by topic. Filters are well-formed and without `$share/GROUP/`.
///
/// A look-up costs a hash of the topic, and a hash for each trie node that its levels reach.
#[derive(Debug)]
pub struct FilterIndex<V> {
    exact: HashMap<Box<str>, V, RandomState>,
    nodes: Slab<Node<V>>,
    /// The children of all nodes by level name, `+` among them.
    children: HashMap<Edge, usize, RandomState>,
    root: usize,
    wildcards: usize,
}

#[derive(Debug)]
struct Node<V> {
    /// Of the filter that ends here.
    here: Option<V>,
    /// Of the filter that ends in `#` here.
    below: Option<V>,
    plus: Option<usize>,
    children: usize,
}

impl<V> Node<V> {
    fn new() -> Self {
        Self { here: None, below: None, plus: None, children: 0 }
    }

    /// Where the value of a filter that ends at this node is.
    fn place(&mut self, filter: &str) -> &mut Option<V> {
        if ends_below(filter) { &mut self.below } else { &mut self.here }
    }

    fn is_empty(&self) -> bool {
        self.here.is_none() && self.below.is_none() && self.plus.is_none() && self.children == 0
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Edge {
    parent: usize,
    level: Box<str>,
}

struct EdgeRef<'a> {
    parent: usize,
    level: &'a str,
}

impl Hash for Edge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        EdgeRef { parent: self.parent, level: &self.level }.hash(state);
    }
}

impl Hash for EdgeRef<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parent.hash(state);
        self.level.hash(state);
    }
}

impl Equivalent<Edge> for EdgeRef<'_> {
    fn equivalent(&self, edge: &Edge) -> bool {
        self.parent == edge.parent && *self.level == *edge.level
    }
}

impl<V> Default for FilterIndex<V> {
    fn default() -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::new());
        Self { exact: HashMap::default(), nodes, children: HashMap::default(), root, wildcards: 0 }
    }
}

impl<V> FilterIndex<V> {
    /// How many filters it holds.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcards
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the filter's value and returns its old one.
    pub fn insert(&mut self, filter: &str, value: V) -> Option<V> {
        if !is_wildcard(filter) {
            return self.exact.insert(filter.into(), value);
        }
        let old = self.grow(filter).replace(value);
        self.wildcards += usize::from(old.is_none());
        old
    }

    /// The filter's value, made by `make` if it has none.
    pub fn get_or_insert_with(&mut self, filter: &str, make: impl FnOnce() -> V) -> &mut V {
        if !is_wildcard(filter) {
            return self.exact.entry(filter.into()).or_insert_with(make);
        }
        self.wildcards += usize::from(self.get(filter).is_none());
        self.grow(filter).get_or_insert_with(make)
    }

    /// The filter's value: the filter itself is looked up, nothing is matched.
    pub fn get(&self, filter: &str) -> Option<&V> {
        if !is_wildcard(filter) {
            return self.exact.get(filter);
        }
        let at = levels(filter).try_fold(self.root, |at, level| self.step(at, level))?;
        let node = self.nodes.get(at)?;
        if ends_below(filter) { node.below.as_ref() } else { node.here.as_ref() }
    }

    /// The filter's value, to be changed.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        if !is_wildcard(filter) {
            return self.exact.get_mut(filter);
        }
        let at = levels(filter).try_fold(self.root, |at, level| self.step(at, level))?;
        self.nodes.get_mut(at)?.place(filter).as_mut()
    }

    /// Takes the filter out and returns its value.
    pub fn remove(&mut self, filter: &str) -> Option<V> {
        if !is_wildcard(filter) {
            return self.exact.remove(filter);
        }
        let mut path: SmallVec<[(usize, &str); 24]> = SmallVec::new();
        let mut at = self.root;
        for level in levels(filter) {
            path.push((at, level));
            at = self.step(at, level)?;
        }
        let value = self.nodes.get_mut(at)?.place(filter).take()?;
        self.wildcards -= 1;
        while let Some((parent, level)) = path.pop() {
            if !self.nodes.get(at).is_some_and(Node::is_empty) {
                break;
            }
            self.nodes.remove(at);
            self.cut(parent, level);
            at = parent;
        }
        Some(value)
    }

    /// Calls `each` with the value of every filter that matches `topic`, each once, in no order.
    pub fn matches<'s>(&'s self, topic: &str, each: &mut impl FnMut(&'s V)) {
        if let Some(value) = self.exact.get(topic) {
            each(value);
        }
        if self.wildcards == 0 {
            return;
        }
        // A step takes one from the stack and adds at most two, so it holds at most one more than
        // the topic has levels: usual topics need no allocation.
        let mut stack: SmallVec<[(usize, Option<&str>); 24]> = SmallVec::new();
        stack.push((self.root, Some(topic)));
        while let Some((at, rest)) = stack.pop() {
            let Some(node) = self.nodes.get(at) else { continue };
            // [MQTT-4.7.2-1]
            let wildcards_match = at != self.root || !topic.starts_with('$');
            if let (Some(value), true) = (&node.below, wildcards_match) {
                each(value);
            }
            let Some(rest) = rest else {
                node.here.iter().for_each(&mut *each);
                continue;
            };
            let (level, rest) = match rest.split_once('/') {
                Some((level, rest)) => (level, Some(rest)),
                None => (rest, None),
            };
            if let (Some(plus), true) = (node.plus, wildcards_match) {
                stack.push((plus, rest));
            }
            if node.children > 0
                && let Some(child) = self.children.get(&EdgeRef { parent: at, level })
            {
                stack.push((*child, rest));
            }
        }
    }

    fn step(&self, at: usize, level: &str) -> Option<usize> {
        if level == "+" {
            self.nodes.get(at)?.plus
        } else {
            self.children.get(&EdgeRef { parent: at, level }).copied()
        }
    }

    /// Makes the nodes down to a wildcard filter's, and returns the place of its value.
    fn grow(&mut self, filter: &str) -> &mut Option<V> {
        let mut at = self.root;
        for level in levels(filter) {
            at = match self.step(at, level) {
                Some(child) => child,
                None => self.add(at, level),
            };
        }
        self.nodes[at].place(filter)
    }

    fn add(&mut self, parent: usize, level: &str) -> usize {
        let child = self.nodes.insert(Node::new());
        let node = &mut self.nodes[parent];
        if level == "+" {
            node.plus = Some(child);
        } else {
            node.children += 1;
            self.children.insert(Edge { parent, level: level.into() }, child);
        }
        child
    }

    fn cut(&mut self, parent: usize, level: &str) {
        let node = &mut self.nodes[parent];
        if level == "+" {
            node.plus = None;
        } else {
            node.children -= 1;
            self.children.remove(&EdgeRef { parent, level });
        }
    }
}

/// The levels of a filter that are nodes: all but a last `#`.
fn levels(filter: &str) -> impl Iterator<Item = &str> {
    filter.split('/').filter(|level| *level != "#")
}

fn ends_below(filter: &str) -> bool {
    filter.ends_with('#')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::{filter_matches, is_filter, is_name};
    use super::*;

    fn matched(index: &FilterIndex<u32>, topic: &str) -> Vec<u32> {
        let mut found = Vec::new();
        index.matches(topic, &mut |value| found.push(*value));
        found.sort_unstable();
        found
    }

    fn level() -> impl Strategy<Value = String> {
        prop_oneof!["[ab]?", Just("+".into()), Just("#".into()), Just("$x".into())]
    }

    fn topic_or_filter() -> impl Strategy<Value = String> {
        vec(level(), 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn finds_what_the_naive_matcher_finds(
            changes in vec((topic_or_filter(), any::<Option<u32>>()), 0..60),
            topics in vec(topic_or_filter(), 1..20),
        ) {
            let mut index = FilterIndex::default();
            let mut naive: BTreeMap<String, u32> = BTreeMap::new();
            for (filter, value) in changes.into_iter().filter(|(filter, _)| is_filter(filter)) {
                match value {
                    Some(value) => {
                        prop_assert_eq!(index.insert(&filter, value), naive.insert(filter, value));
                    }
                    None => prop_assert_eq!(index.remove(&filter), naive.remove(&filter)),
                }
                prop_assert_eq!(index.len(), naive.len());
            }
            for topic in topics.iter().filter(|topic| is_name(topic)) {
                let mut expected: Vec<u32> = naive
                    .iter()
                    .filter(|(filter, _)| filter_matches(filter, topic))
                    .map(|(_, value)| *value)
                    .collect();
                expected.sort_unstable();
                prop_assert_eq!(matched(&index, topic), expected);
            }
            for (filter, value) in &naive {
                prop_assert_eq!(index.get(filter), Some(value));
                prop_assert_eq!(index.get_or_insert_with(filter, || 0), &mut value.clone());
            }
            for filter in naive.keys() {
                prop_assert!(index.remove(filter).is_some());
            }
            prop_assert!(index.is_empty());
            prop_assert_eq!((index.nodes.len(), index.children.len()), (1, 0));
        }
    }

    #[test]
    fn a_deep_filter_neither_overflows_nor_leaks() {
        let mut index = FilterIndex::default();
        let filter = format!("{}#", "+/".repeat(32_000));
        index.insert(&filter, 1);
        assert_eq!(matched(&index, &"/".repeat(32_000)), [1]);
        assert_eq!(index.remove(&filter), Some(1));
        assert_eq!(index.nodes.len(), 1);
    }
}
