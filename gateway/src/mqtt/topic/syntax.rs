//! What is a topic name, a topic filter, a shared subscription (§4.7, §4.8).
//!
//! Topics are compared byte by byte: nothing is normalised or folded [MQTT-4.7.3-4].

/// The prefix of a shared subscription.
const SHARE: &str = "$share/";

/// How long and deep topics may be: ours, not the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a name or filter.
    pub max_bytes: usize,
    /// Levels of a name or filter.
    pub max_levels: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 4096, max_levels: 128 }
    }
}

impl Limits {
    /// Whether a well-formed name or filter is within the limits.
    pub fn admit(&self, topic: &str) -> bool {
        topic.len() <= self.max_bytes
            && topic.bytes().filter(|byte| *byte == b'/').count() < self.max_levels
    }
}

/// Whether `name` is a topic name: not empty, without NUL and wildcards [MQTT-3.3.2-2,
/// MQTT-4.7.3-1, MQTT-4.7.3-2], at most 65,535 bytes.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= usize::from(u16::MAX)
        && !name.bytes().any(|byte| matches!(byte, 0 | b'+' | b'#'))
}

/// Whether `filter` is a topic filter: not empty, without NUL, `#` only as the last level and
/// each wildcard alone in its level [MQTT-4.7.1-1, MQTT-4.7.1-2], at most 65,535 bytes.
///
/// `$share/…` passes only as a well-formed shared subscription [MQTT-4.8.2-1, MQTT-4.8.2-2].
pub fn is_filter(filter: &str) -> bool {
    if filter.len() > usize::from(u16::MAX) {
        return false;
    }
    if filter.starts_with(SHARE) {
        SharedFilter::parse(filter).is_some_and(|shared| is_plain_filter(shared.filter))
    } else {
        is_plain_filter(filter)
    }
}

/// Whether a well-formed filter holds a wildcard.
pub fn is_wildcard(filter: &str) -> bool {
    filter.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

fn is_plain_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.contains('\0') {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let well_formed = match level {
            "#" => levels.peek().is_none(),
            "+" => true,
            _ => !level.contains(['+', '#']),
        };
        if !well_formed {
            return false;
        }
    }
    true
}

/// The parts of `$share/GROUP/FILTER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedFilter<'a> {
    /// The group's name.
    pub group: &'a str,
    /// What the group subscribes to.
    pub filter: &'a str,
}

impl<'a> SharedFilter<'a> {
    /// The parts of a shared subscription; `None` for an ordinary filter, or an ill-formed one
    /// ([`is_filter`] tells).
    pub fn parse(filter: &'a str) -> Option<Self> {
        let (group, filter) = filter.strip_prefix(SHARE)?.split_once('/')?;
        let is_legal = !group.is_empty() && !group.contains(['+', '#']) && !filter.is_empty();
        is_legal.then_some(Self { group, filter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_topic_names() {
        for good in ["a", "/", "a/b", "/a", "a/", "a//b", "$SYS/x", "\u{feff}", "ä/ö", " "] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in ["", "#", "+", "a/#", "a/+/b", "a+", "a\0b"] {
            assert!(!is_name(bad), "{bad:?}");
        }
        assert!(is_name(&"a".repeat(65_535)));
        assert!(!is_name(&"a".repeat(65_536)));
    }

    #[test]
    fn s3_filters() {
        for good in
            ["#", "+", "/", "a/#", "+/#", "a/+/b", "/+", "+/", "//#", "$SYS/#", "$share/g/#"]
        {
            assert!(is_filter(good), "{good:?}");
        }
        for bad in ["", "a/#/b", "a+", "a#", "a/b#", "+a", "##", "#/", "a/++/b", "a\0"] {
            assert!(!is_filter(bad), "{bad:?}");
        }
    }

    #[test]
    fn h1_shared_filters() {
        let shared = SharedFilter::parse("$share/g/a/+/#");
        assert_eq!(shared, Some(SharedFilter { group: "g", filter: "a/+/#" }));
        let shared = SharedFilter::parse("$share/g//a");
        assert_eq!(shared, Some(SharedFilter { group: "g", filter: "/a" }));
        for bad in ["$share/", "$share/g", "$share/g/", "$share//a", "$share/+/a", "$share/g#/a"] {
            assert!(!is_filter(bad), "{bad:?}");
            assert_eq!(SharedFilter::parse(bad), None);
        }
        assert!(!is_filter("$share/g/a#"));
        assert_eq!(SharedFilter::parse("$shared/g/a"), None);
    }

    #[test]
    fn u4_limits() {
        let limits = Limits { max_bytes: 8, max_levels: 3 };
        assert!(limits.admit("a/b/c") && limits.admit("12345678"));
        assert!(!limits.admit("a/b/c/d") && !limits.admit("123456789"));
    }
}
