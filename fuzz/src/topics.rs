//! Topic filters: syntax, and the index against the plain matcher.

use interflow_gateway::mqtt::topic::{
    FilterIndex, Limits, SharedFilter, filter_matches, is_filter, is_name, shard_of,
};

use crate::Memory;

/// The index keeps the filter's levels.
pub(crate) const MEMORY: Memory = Memory { fixed: 16 << 10, per_byte: 1 << 10 };

/// Lines: a topic, then filters.
pub(crate) fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let topic = lines.next().unwrap_or_default();
    let mut index = FilterIndex::default();
    let mut filters: Vec<&str> = lines.take(16).filter(|filter| is_filter(filter)).collect();
    for filter in &mut filters {
        if let Some(shared) = SharedFilter::parse(filter) {
            assert!(is_filter(shared.filter) || shared.filter.starts_with("$share/"));
            *filter = shared.filter;
        }
        Limits::default().admit(filter);
        index.insert(filter, *filter);
    }
    filters.sort_unstable();
    filters.dedup();
    assert_eq!(index.len(), filters.len());
    if is_name(topic) {
        assert!(shard_of(topic.as_bytes(), 8) < 8);
        let mut found = Vec::new();
        index.matches(topic, &mut |filter| found.push(*filter));
        found.sort_unstable();
        let expected: Vec<_> =
            filters.iter().copied().filter(|filter| filter_matches(filter, topic)).collect();
        assert_eq!(found, expected);
    }
    for filter in filters {
        assert_eq!(index.remove(filter), Some(filter));
    }
    assert!(index.is_empty());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    [
        "a/b/c\na/+/c\na/#\n#\n+/b/+\na/b/c\na/b",
        "$SYS/broker/uptime\n#\n+/#\n$SYS/#\n$SYS/+/uptime",
        "/\n/+\n+/+\n+\n#\n/",
        "a//b\na/+/b\na//b\na//#",
        "a\n$share/group/a\n$share/group/#\n$share//a\n$share/g",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
