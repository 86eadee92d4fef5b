//! When a log's open segment has had its share.

/// When to open the next segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RollPolicy {
    /// Payload bytes of a segment (Kafka's `segment.bytes`).
    pub(crate) max_bytes: u64,
    /// Milliseconds since a segment's first entry (Kafka's `segment.ms`).
    pub(crate) max_age_ms: u64,
    /// Offsets of a segment.
    pub(crate) max_offsets: u64,
}

/// What an open segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fill {
    /// Payload bytes.
    pub(crate) bytes: u64,
    /// Offsets.
    pub(crate) offsets: u64,
    /// When its first entry came, on the monotonic clock.
    pub(crate) first_ms: u64,
}

/// Whether a batch of `bytes` and `count` offsets belongs into the next segment. An empty
/// segment takes any batch, so a roll always makes progress.
pub(crate) fn is_due(
    policy: &RollPolicy,
    fill: &Fill,
    bytes: u64,
    count: u64,
    now_ms: u64,
) -> bool {
    fill.offsets > 0
        && (fill.bytes.saturating_add(bytes) > policy.max_bytes
            || fill.offsets.saturating_add(count) > policy.max_offsets
            || now_ms.saturating_sub(fill.first_ms) >= policy.max_age_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RollPolicy = RollPolicy { max_bytes: 100, max_age_ms: 1000, max_offsets: 50 };

    #[test]
    fn size_age_and_offsets_each_suffice() {
        let fill = Fill { bytes: 60, offsets: 10, first_ms: 500 };
        for (bytes, count, now_ms, due) in [
            (40, 1, 600, false),
            (41, 1, 600, true),
            (1, 40, 600, false),
            (1, 41, 600, true),
            (1, 1, 1499, false),
            (1, 1, 1500, true),
        ] {
            assert_eq!(
                is_due(&POLICY, &fill, bytes, count, now_ms),
                due,
                "{bytes} {count} {now_ms}"
            );
        }
    }

    #[test]
    fn an_empty_segment_takes_anything() {
        assert!(!is_due(&POLICY, &Fill::default(), 1 << 40, 1 << 40, u64::MAX));
    }
}
