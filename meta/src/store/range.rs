//! Ranges of keys, and sets of them.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

/// The keys from `begin` up to, not including, `end`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyRange {
    /// The first key.
    pub begin: Bytes,
    /// One past the last.
    pub end: Bytes,
}

/// The key right behind `key`.
pub(crate) fn key_after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// The first key behind all that begin with `prefix`; `None` when there is none.
pub(crate) fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let keep = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut next = prefix.get(..=keep)?.to_vec();
    if let Some(last) = next.last_mut() {
        *last = last.wrapping_add(1);
    }
    Some(next.into())
}

impl KeyRange {
    /// The keys from `begin` up to `end`.
    pub fn new(begin: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self { begin: begin.into(), end: end.into() }
    }

    /// One key.
    #[must_use]
    pub fn key(key: &[u8]) -> Self {
        Self::new(Bytes::copy_from_slice(key), key_after(key))
    }

    /// All keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(prefix: &[u8]) -> Self {
        Self::new(
            Bytes::copy_from_slice(prefix),
            after_prefix(prefix).unwrap_or_else(|| Bytes::from_static(&[0xff])),
        )
    }

    /// No key is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.begin >= self.end
    }

    /// `key` is in it.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.begin <= key && key < &self.end[..]
    }
}

/// A set of keys made of ranges, merged where they touch.
#[derive(Clone, Debug, Default)]
pub struct RangeSet {
    /// Begin to end; apart from one another.
    ranges: BTreeMap<Bytes, Bytes>,
    bytes: usize,
}

impl RangeSet {
    /// Adds all keys of `range`.
    pub fn insert(&mut self, range: KeyRange) {
        if range.is_empty() {
            return;
        }
        let KeyRange { mut begin, mut end } = range;
        if let Some((before, last)) = self.ranges.range(..=begin.clone()).next_back()
            && *last >= begin
        {
            if *last >= end {
                return;
            }
            begin = before.clone();
        }
        while let Some((next, last)) = self
            .ranges
            .range((Bound::Included(begin.clone()), Bound::Included(end.clone())))
            .next()
            .map(|(next, last)| (next.clone(), last.clone()))
        {
            self.ranges.remove(&next);
            self.bytes -= next.len() + last.len();
            if last > end {
                end = last;
            }
        }
        self.bytes += begin.len() + end.len();
        self.ranges.insert(begin, end);
    }

    /// `key` is in the set.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        self.ranges
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .is_some_and(|(_, end)| key < &end[..])
    }

    /// Some key of `range` is in the set.
    #[must_use]
    pub fn intersects(&self, range: &KeyRange) -> bool {
        !range.is_empty()
            && self
                .ranges
                .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(&range.end[..])))
                .next_back()
                .is_some_and(|(_, end)| *end > range.begin)
    }

    /// The bytes of all begins and ends.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.bytes
    }

    /// No key is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The ranges in order, apart from one another.
    pub fn iter(&self) -> impl Iterator<Item = KeyRange> + '_ {
        self.ranges.iter().map(|(begin, end)| KeyRange::new(begin.clone(), end.clone()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn prefixes_end_where_the_next_begins() {
        assert_eq!(after_prefix(b"a\xff\xff").unwrap(), &b"b"[..]);
        assert_eq!(after_prefix(b"ab").unwrap(), &b"ac"[..]);
        assert_eq!(after_prefix(b"\xff"), None);
        assert_eq!(after_prefix(b""), None);
    }

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set_of_keys(
            ranges in proptest::collection::vec((0_u8..20, 0_u8..6), 0..20),
            asked in (0_u8..20, 0_u8..6),
        ) {
            let range = |(begin, len)| KeyRange::new(vec![begin], vec![begin + len]);
            let mut set = RangeSet::default();
            let mut keys = std::collections::BTreeSet::new();
            for (begin, len) in ranges {
                set.insert(range((begin, len)));
                keys.extend(begin..begin + len);
            }
            for key in 0_u8..30 {
                prop_assert_eq!(set.contains(&[key]), keys.contains(&key));
            }
            let (begin, len) = asked;
            let expected = keys.range(begin..begin + len).next().is_some();
            prop_assert_eq!(set.intersects(&range(asked)), expected);
            let parts: Vec<_> = set.iter().collect();
            prop_assert!(parts.windows(2).all(|pair| pair[0].end < pair[1].begin));
            let bytes: usize = parts.iter().map(|part| part.begin.len() + part.end.len()).sum();
            prop_assert_eq!(bytes, set.byte_size());
        }
    }
}
