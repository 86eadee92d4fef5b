//! Whether one filter matches one topic name.

/// Whether `filter` matches `topic`, both well-formed; `filter` without `$share/GROUP/`.
///
/// `#` matches its parent too; `+` matches an empty level; a filter that starts with a wildcard
/// matches no topic that starts with `$` [MQTT-4.7.2-1].
pub fn filter_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut topic = topic.split('/');
    for level in filter.split('/') {
        if level == "#" {
            return true;
        }
        match topic.next() {
            Some(name) if level == "+" || level == name => {}
            _ => return false,
        }
    }
    topic.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::filter_matches;

    #[test]
    fn s17_matching() {
        for (filter, topic) in [
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("a/#", "a/"),
            ("#", "a/b"),
            ("#", "/"),
            ("+", "a"),
            ("a/+", "a/"),
            ("a/+/b", "a//b"),
            ("+/+", "/a"),
            ("/+", "/a"),
            ("+/#", "a"),
            ("a", "a"),
        ] {
            assert!(filter_matches(filter, topic), "{filter} {topic}");
        }
        for (filter, topic) in [
            ("+", "a/b"),
            ("+", "/a"),
            ("a/+", "a"),
            ("a", "/a"),
            ("a", "a/"),
            ("a/b", "a"),
            ("a/#", "ab"),
            ("a/#", "b"),
            ("+/b/#", "a"),
        ] {
            assert!(!filter_matches(filter, topic), "{filter} {topic}");
        }
    }

    #[test]
    fn s18_wildcards_first_match_no_dollar_topic() {
        for filter in ["#", "+/x", "+/#"] {
            assert!(!filter_matches(filter, "$SYS/x"), "{filter}");
        }
        assert!(filter_matches("$SYS/#", "$SYS/x"));
        assert!(filter_matches("$SYS/+", "$SYS/x"));
        assert!(filter_matches("+/$SYS", "a/$SYS"));
    }

    #[test]
    fn s20_nothing_is_normalised() {
        assert!(!filter_matches("A", "a"));
        assert!(!filter_matches("\u{e9}", "e\u{301}"));
        assert!(!filter_matches("\u{feff}a", "a"));
    }
}
