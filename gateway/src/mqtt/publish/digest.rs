//! What a batch tells filtered reads of its topics: hashes of whole topics and of their first
//! one and two levels.

use interflow_logstore::KeyDigest;

use crate::mqtt::topic::{is_wildcard, murmur2};

/// A batch with more hashes has no digest: it would match nearly any filter anyway.
const MAX_HASHES: usize = 192;

#[derive(Clone, Copy)]
enum Part {
    Whole,
    One,
    Two,
}

fn hash(part: Part, text: &str) -> u32 {
    let salt = match part {
        Part::Whole => 0x9e37_79b9,
        Part::One => 0x85eb_ca6b,
        Part::Two => 0xc2b2_ae35_u32,
    };
    murmur2(text.as_bytes()).rotate_left(7) ^ salt
}

/// `topic` up to its first and second `/`.
fn levels(topic: &str) -> (&str, Option<&str>) {
    let Some((one, rest)) = topic.split_once('/') else { return (topic, None) };
    let two = one.len() + 1 + rest.find('/').unwrap_or(rest.len());
    (one, topic.get(..two))
}

/// Collects the hashes of one batch.
#[derive(Debug, Default)]
pub(super) struct DigestBuilder {
    hashes: Vec<u32>,
    last_topic: String,
    overflowed: bool,
}

impl DigestBuilder {
    pub(super) fn add(&mut self, topic: &str) {
        if self.overflowed || self.last_topic == topic {
            return;
        }
        self.last_topic.clear();
        self.last_topic.push_str(topic);
        let (one, two) = levels(topic);
        self.hashes.extend([hash(Part::Whole, topic), hash(Part::One, one)]);
        self.hashes.extend(two.map(|two| hash(Part::Two, two)));
        if self.hashes.len() > 2 * MAX_HASHES {
            self.sort();
            if self.hashes.len() > MAX_HASHES {
                self.overflowed = true;
                self.hashes = Vec::new();
            }
        }
    }

    fn sort(&mut self) {
        self.hashes.sort_unstable();
        self.hashes.dedup();
    }

    /// The digest, and an empty builder again.
    pub(super) fn finish(&mut self) -> Option<KeyDigest> {
        self.sort();
        self.last_topic.clear();
        let overflowed = std::mem::take(&mut self.overflowed);
        let digest = (!overflowed && self.hashes.len() <= MAX_HASHES)
            .then(|| KeyDigest(self.hashes.as_slice().into()));
        self.hashes.clear();
        digest
    }
}

/// What a read for these filters (without `$share/GROUP/`) may skip by; `None`: read all.
pub(crate) fn filter_hashes<'a>(filters: impl Iterator<Item = &'a str>) -> Option<Vec<u32>> {
    let mut hashes = Vec::new();
    for filter in filters {
        hashes.push(filter_hash(filter)?);
    }
    hashes.sort_unstable();
    hashes.dedup();
    Some(hashes)
}

fn filter_hash(filter: &str) -> Option<u32> {
    if !is_wildcard(filter) {
        return Some(hash(Part::Whole, filter));
    }
    let (one, two) = levels(filter);
    if is_wildcard(one) {
        return None;
    }
    Some(match two {
        Some(two) if !is_wildcard(two) => hash(Part::Two, two),
        _ => hash(Part::One, one),
    })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::topic::{filter_matches, is_filter, is_name};

    fn path() -> impl Strategy<Value = String> {
        vec(prop_oneof!["[ab]?", Just("+".into()), Just("#".into())], 1..5)
            .prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn a_filter_never_skips_what_it_matches(filter in path(), topics in vec(path(), 1..400)) {
            prop_assume!(is_filter(&filter));
            let topics: Vec<_> = topics.into_iter().filter(|topic| is_name(topic)).collect();
            let mut builder = DigestBuilder::default();
            topics.iter().for_each(|topic| builder.add(topic));
            let digest = builder.finish();
            let matches = topics.iter().any(|topic| filter_matches(&filter, topic));
            if let (true, Some(digest), Some(hashes)) =
                (matches, digest, filter_hashes([filter.as_str()].into_iter()))
            {
                prop_assert!(hashes.iter().any(|hash| digest.0.binary_search(hash).is_ok()));
            }
        }
    }

    #[test]
    fn too_many_topics_leave_no_digest() {
        let mut builder = DigestBuilder::default();
        (0..1000).for_each(|n| builder.add(&format!("a/{n}/c")));
        assert_eq!(builder.finish(), None);
        builder.add("a/b");
        assert_eq!(builder.finish().map(|digest| digest.0.len()), Some(3));
    }
}
