//! How a scan of topics in key order jumps to what a filter can match.
//!
//! Topics sort level by level, a parent before its children. So when a topic does not match, the
//! filter tells the least later topic that can.

/// What a topic is to a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    /// It matches; go on behind it as said.
    Match(Next<'a>),
    /// It doesn't; go on as said.
    Skip(Next<'a>),
}

/// Where the next topic that may match can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// Right behind this topic.
    Behind,
    /// At these levels or behind.
    At(Vec<&'a str>),
    /// Behind the topic's first levels, this many, and all their children.
    Past(usize),
    /// Behind all topics whose first level begins with `$`.
    PastDollar,
    /// Nowhere.
    Nowhere,
}

/// The levels before the filter's first wildcard: what all that it matches begins with.
pub(super) fn fixed_levels<'a>(filter: &[&'a str]) -> Vec<&'a str> {
    let fixed = filter.iter().take_while(|level| !is_wildcard(level));
    fixed.copied().collect()
}

fn is_wildcard(level: &str) -> bool {
    level == "+" || level == "#"
}

/// Judges `topic`. A filter that begins with a wildcard doesn't match `$…` [MQTT-4.7.2-1].
pub(super) fn judge<'a>(filter: &[&'a str], topic: &[&'a str]) -> Verdict<'a> {
    if filter.first().is_some_and(|level| is_wildcard(level))
        && topic.first().is_some_and(|level| level.starts_with('$'))
    {
        return Verdict::Skip(Next::PastDollar);
    }
    let mut at = 0;
    loop {
        match (filter.get(at), topic.get(at)) {
            // Also the parent itself: `a/#` matches `a`.
            (Some(&"#"), _) => return Verdict::Match(Next::Behind),
            (None, None) => return Verdict::Match(past_last_plus(filter, at)),
            (None, Some(_)) => return Verdict::Skip(past_last_plus(filter, at)),
            (Some(&"+"), Some(_)) => {}
            (Some(&"+"), None) => return Verdict::Skip(Next::Behind),
            (Some(_), None) => return Verdict::Skip(down(filter, topic, at)),
            (Some(wanted), Some(level)) => match level.cmp(wanted) {
                std::cmp::Ordering::Less => return Verdict::Skip(down(filter, topic, at)),
                std::cmp::Ordering::Greater => {
                    return Verdict::Skip(past_last_plus(filter, at));
                }
                std::cmp::Ordering::Equal => {}
            },
        }
        at += 1;
    }
}

/// The first `at` levels of `topic`, and below them what the filter wants.
fn down<'a>(filter: &[&'a str], topic: &[&'a str], at: usize) -> Next<'a> {
    let wanted = fixed_levels(filter.get(at..).unwrap_or_default());
    let above = topic.iter().copied().take(at);
    Next::At(above.chain(wanted).collect())
}

/// Nothing more below the level of the last `+` among the first `count` of the filter.
fn past_last_plus<'a>(filter: &[&str], count: usize) -> Next<'a> {
    let above = filter.get(..count).unwrap_or(filter);
    match above.iter().rposition(|level| *level == "+") {
        Some(plus) => Next::Past(plus + 1),
        None => Next::Nowhere,
    }
}
