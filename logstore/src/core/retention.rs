//! Which segments may go.

use std::time::Duration;

use interflow_meta::Offset;

use super::chain::{Chain, Closed};

/// How long a log keeps what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RetentionPolicy {
    /// Milliseconds after a segment's newest record (Kafka's `retention.ms`); `None`: for ever.
    pub(crate) max_age_ms: Option<u64>,
    /// Payload bytes of the log (Kafka's `retention.bytes`); `None`: any.
    pub(crate) max_bytes: Option<u64>,
}

/// The log's new start if its oldest closed segments go that may go: those wholly below `trim`,
/// those whose newest record is older than the policy keeps, and those without which the log
/// still has the bytes that the policy keeps. `None` if all of them stay. The open segment, of
/// `open_bytes`, always stays, and so does all behind the first that stays.
pub(crate) fn removable(
    chain: &Chain,
    open_bytes: u64,
    trim: Offset,
    policy: &RetentionPolicy,
    now_ms: i64,
) -> Option<Offset> {
    let mut total =
        chain.closed().fold(open_bytes, |total, segment| total.saturating_add(segment.bytes));
    let mut start = None;
    for (segment, next_base) in chain.closed_with_next_base() {
        let is_trimmed = next_base <= trim;
        let is_old = policy.max_age_ms.is_some_and(|max_age_ms| {
            now_ms.saturating_sub(segment.newest_ms) > i64::try_from(max_age_ms).unwrap_or(i64::MAX)
        });
        let rest = total.saturating_sub(segment.bytes);
        let is_surplus = policy.max_bytes.is_some_and(|max_bytes| rest >= max_bytes);
        if !(is_trimmed || is_old || is_surplus) {
            break;
        }
        total = rest;
        start = Some(next_base);
    }
    start
}

/// How long a log's segments, of which `closed` are the closed ones, are likely to be kept after
/// their newest record: as long as the policy says, or, where it bounds bytes, until as many have
/// come since, at the rate of those that are there; `Duration::MAX` for ever.
pub(crate) fn expected_life<'a>(
    mut closed: impl Iterator<Item = &'a Closed>,
    open_bytes: u64,
    policy: &RetentionPolicy,
    now_ms: i64,
) -> Duration {
    let mut by_size = || {
        let oldest = closed.next()?;
        let since = closed.by_ref().map(|segment| segment.bytes);
        let since = since.fold(open_bytes, u64::saturating_add);
        let age_ms = u128::try_from(now_ms.saturating_sub(oldest.newest_ms)).ok()?;
        let ms = age_ms.saturating_mul(policy.max_bytes?.into()).checked_div(since.into())?;
        u64::try_from(ms).ok()
    };
    let ms = [policy.max_age_ms, by_size()].into_iter().flatten().min();
    ms.map_or(Duration::MAX, Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use interflow_meta::Epoch;
    use proptest::prelude::*;

    use super::super::chain::Open;
    use super::*;

    /// `(bytes, newest_ms)` of each closed one.
    type Segments<'a> = &'a [(u64, i64)];

    /// Ten offsets a segment.
    fn chain(closed: Segments<'_>) -> Chain {
        let segments: Vec<Closed> = (0u32..)
            .zip(closed)
            .map(|(n, (bytes, newest_ms))| Closed {
                epoch: Epoch(n),
                leader_epoch: 0,
                base: u64::from(n) * 10,
                end: u64::from(n) * 10 + 10,
                bytes: *bytes,
                newest_ms: *newest_ms,
                replicas: Default::default(),
                is_short: false,
                acks: 1,
            })
            .collect();
        let n = segments.len() as u64;
        Chain::new(segments, Open { epoch: Epoch(1000), leader_epoch: 0, base: n * 10 }).unwrap()
    }

    fn policy(max_age_ms: Option<u64>, max_bytes: Option<u64>) -> RetentionPolicy {
        RetentionPolicy { max_age_ms, max_bytes }
    }

    #[test]
    fn nothing_goes_without_a_reason() {
        let chain = chain(&[(10, 0), (10, 0)]);
        assert_eq!(removable(&chain, 10, 0, &policy(None, None), i64::MAX), None);
        assert_eq!(removable(&chain, 10, 9, &policy(Some(100), Some(100)), 100), None);
    }

    #[test]
    fn old_segments_go_up_to_the_first_young_one() {
        let chain = chain(&[(1, 100), (1, 200), (1, 900), (1, 150)]);
        assert_eq!(removable(&chain, 0, 0, &policy(Some(500), None), 1000), Some(20));
    }

    #[test]
    fn surplus_goes_while_enough_stays() {
        let chain = chain(&[(10, 0), (10, 0), (10, 0)]);
        // 35 bytes in all: without the first there are 25, without the second 15.
        assert_eq!(removable(&chain, 5, 0, &policy(None, Some(15)), 0), Some(20));
        assert_eq!(removable(&chain, 5, 0, &policy(None, Some(16)), 0), Some(10));
        assert_eq!(removable(&chain, 5, 0, &policy(None, Some(26)), 0), None);
        assert_eq!(removable(&chain, 500, 0, &policy(None, Some(26)), 0), Some(30));
    }

    #[test]
    fn what_is_trimmed_goes_whole() {
        let chain = chain(&[(1, 0), (1, 0)]);
        assert_eq!(removable(&chain, 0, 9, &policy(None, None), 0), None);
        assert_eq!(removable(&chain, 0, 10, &policy(None, None), 0), Some(10));
        assert_eq!(removable(&chain, 0, 25, &policy(None, None), 0), Some(20));
    }

    #[test]
    fn segments_are_kept_for_their_age_or_until_enough_has_come_since() {
        let forever = u64::MAX;
        let cases: [(&str, Segments<'_>, u64, RetentionPolicy, u64); 7] = [
            ("for ever", &[(10, 0)], 10, policy(None, None), forever),
            ("by age", &[(10, 0)], 10, policy(Some(500), None), 500),
            ("20 bytes a second", &[(7, 0), (10, 500)], 10, policy(None, Some(60)), 3000),
            ("what comes first", &[(7, 0), (10, 500)], 10, policy(Some(500), Some(60)), 500),
            ("nothing has come since", &[(7, 0)], 0, policy(Some(500), Some(60)), 500),
            ("nothing is closed", &[], 90, policy(None, Some(60)), forever),
            ("a record of tomorrow", &[(7, 5000)], 9, policy(None, Some(60)), forever),
        ];
        for (name, closed, open_bytes, policy, expected) in cases {
            let life = expected_life(chain(closed).closed(), open_bytes, &policy, 1000);
            let expected =
                if expected == forever { Duration::MAX } else { Duration::from_millis(expected) };
            assert_eq!(life, expected, "{name}");
        }
    }

    proptest! {
        /// What stays is neither old nor surplus at its oldest end, and never less than asked for.
        #[test]
        fn the_rest_is_what_the_policy_wants(
            closed in prop::collection::vec((0..50u64, 0..1000i64), 0..12),
            open_bytes in 0..50u64,
            max_age_ms in prop::option::of(0..1000u64),
            max_bytes in prop::option::of(0..300u64),
        ) {
            let chain = chain(&closed);
            let policy = policy(max_age_ms, max_bytes);
            let start = removable(&chain, open_bytes, 0, &policy, 1000).unwrap_or(0);
            let gone = (start / 10) as usize;
            prop_assert!(gone <= closed.len());
            let is_old = |n: usize| max_age_ms.is_some_and(|age| 1000 - closed[n].1 > age as i64);
            let rest = |from: usize| closed[from..].iter().map(|(bytes, _)| bytes).sum::<u64>() + open_bytes;
            for n in 0..gone {
                prop_assert!(is_old(n) || max_bytes.is_some_and(|max| rest(n + 1) >= max));
            }
            if gone < closed.len() {
                prop_assert!(!is_old(gone));
                prop_assert!(max_bytes.is_none_or(|max| rest(gone + 1) < max));
            }
        }
    }
}
