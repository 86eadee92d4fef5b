//! Arithmetic of sequences: they count records and wrap from `i32::MAX` to 0, as Kafka's do.

/// How many sequences there are: 0 to `i32::MAX`.
const SEQUENCES: i64 = 1 << 31;

/// The sequence `count` records after `sequence`.
pub(super) fn advance(sequence: i32, count: u32) -> i32 {
    let next = (i64::from(sequence) + i64::from(count)).rem_euclid(SEQUENCES);
    // In 0..2^31 by the line above.
    i32::try_from(next).unwrap_or(0)
}

/// Whether `sequence` comes before `other`, when both are less than half the circle apart.
pub(super) fn is_before(sequence: i32, other: i32) -> bool {
    let ahead = (i64::from(other) - i64::from(sequence)).rem_euclid(SEQUENCES);
    ahead != 0 && ahead < SEQUENCES / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(advance(0, 1), 1);
        assert_eq!(advance(i32::MAX, 1), 0);
        assert_eq!(advance(i32::MAX - 1, 5), 3);
        assert_eq!(advance(7, 0), 7);
        assert!((0..=i32::MAX).contains(&advance(i32::MAX, u32::MAX)));
    }

    #[test]
    fn before_is_judged_over_the_wrap() {
        assert!(is_before(3, 4));
        assert!(!is_before(4, 4));
        assert!(!is_before(5, 4));
        assert!(is_before(i32::MAX, 2));
        assert!(!is_before(2, i32::MAX));
    }
}
