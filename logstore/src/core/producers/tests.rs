//! The table by its rules, and against a model that remembers everything.

use proptest::prelude::*;

use super::*;

const LIMITS: ProducerLimits =
    ProducerLimits { max_producers: 100, max_batches: 1000, expiry_ms: 1000 };

fn key(producer_id: i64, producer_epoch: i16, sequence: i32) -> AppendKey {
    AppendKey { producer_id, producer_epoch, sequence }
}

fn table(batches: &[(AppendKey, Offset, u32)]) -> Producers {
    let mut producers = Producers::default();
    for (key, offset, count) in batches {
        producers.record(key, (*offset, *count), 5, 0, &LIMITS);
    }
    producers
}

#[test]
fn an_unknown_producer_begins_anywhere() {
    assert_eq!(Producers::default().check(&key(1, 3, 77), 1), Ok(Verdict::Fresh));
}

#[test]
fn a_gap_is_out_of_order() {
    let producers = table(&[(key(1, 0, 10), 100, 5)]);
    assert_eq!(producers.check(&key(1, 0, 15), 1), Ok(Verdict::Fresh));
    assert_eq!(
        producers.check(&key(1, 0, 16), 1),
        Err(AppendError::OutOfOrderSequence { expected: 15, got: 16 })
    );
}

#[test]
fn a_retry_of_a_remembered_batch_gets_its_offset() {
    let batches: Vec<_> = (0..7).map(|n| (key(1, 0, n * 2), 50 + n as u64 * 2, 2)).collect();
    let producers = table(&batches);
    for n in 2..7 {
        assert_eq!(
            producers.check(&key(1, 0, n * 2), 2),
            Ok(Verdict::Duplicate { base: 50 + n as u64 * 2, end: 52 + n as u64 * 2 })
        );
    }
    // Only the last five are remembered.
    assert_eq!(producers.check(&key(1, 0, 2), 2), Err(AppendError::DuplicateSequence));
    // The same sequence with another count is no retry.
    assert_eq!(
        producers.check(&key(1, 0, 12), 3),
        Err(AppendError::OutOfOrderSequence { expected: 14, got: 12 })
    );
}

#[test]
fn an_old_epoch_is_fenced_and_a_new_one_begins_at_zero() {
    let producers = table(&[(key(1, 4, 10), 0, 1)]);
    assert_eq!(producers.check(&key(1, 3, 11), 1), Err(AppendError::ProducerFenced { current: 4 }));
    assert_eq!(
        producers.check(&key(1, 5, 11), 1),
        Err(AppendError::OutOfOrderSequence { expected: 0, got: 11 })
    );
    assert_eq!(producers.check(&key(1, 5, 0), 1), Ok(Verdict::Fresh));
    let producers = table(&[(key(1, 4, 10), 0, 1), (key(1, 5, 0), 1, 1)]);
    assert_eq!(producers.check(&key(1, 4, 10), 1), Err(AppendError::ProducerFenced { current: 5 }));
}

#[test]
fn sequences_go_on_behind_the_wrap() {
    let producers = table(&[(key(1, 0, i32::MAX - 1), 0, 2)]);
    assert_eq!(producers.check(&key(1, 0, 0), 1), Ok(Verdict::Fresh));
    let producers = table(&[(key(1, 0, i32::MAX), 0, 3)]);
    assert_eq!(producers.check(&key(1, 0, 2), 1), Ok(Verdict::Fresh));
    assert_eq!(
        producers.check(&key(1, 0, i32::MAX), 3),
        Ok(Verdict::Duplicate { base: 0, end: 3 })
    );
}

#[test]
fn a_successor_does_not_overtake_a_refused_first_batch() {
    let mut producers = Producers::default();
    producers.refused(&key(1, 0, 7), 0, &LIMITS);
    assert_eq!(
        producers.check(&key(1, 0, 9), 1),
        Err(AppendError::OutOfOrderSequence { expected: 7, got: 9 })
    );
    assert_eq!(producers.check(&key(1, 0, 7), 2), Ok(Verdict::Fresh));
    // Nor that of a new epoch.
    let mut producers = table(&[(key(2, 0, 0), 0, 1)]);
    producers.refused(&key(2, 1, 0), 0, &LIMITS);
    assert_eq!(
        producers.check(&key(2, 1, 1), 1),
        Err(AppendError::OutOfOrderSequence { expected: 0, got: 1 })
    );
}

#[test]
fn who_is_silent_for_long_is_forgotten() {
    let mut producers = table(&[(key(1, 0, 0), 0, 1)]);
    producers.record(&key(2, 0, 0), (1, 1), 5, 900, &LIMITS);
    producers.expire(1001, &LIMITS);
    assert_eq!(producers.len(), 1);
    assert_eq!(producers.check(&key(1, 0, 50), 1), Ok(Verdict::Fresh));
}

#[test]
fn the_least_recently_used_make_room() {
    let mut producers = Producers::default();
    for id in 0..500 {
        producers.record(&key(id, 0, 0), (id as u64, 1), 5, id, &LIMITS);
        assert!(producers.len() <= LIMITS.max_producers);
        assert!(matches!(producers.check(&key(id, 0, 0), 1), Ok(Verdict::Duplicate { .. })));
    }
    // One producer with a large window can't push the others' memory past the bound.
    for n in 0..5000 {
        producers.record(&key(1000, 0, n), (n as u64, 1), 900, 600, &LIMITS);
        assert!(producers.remembered <= LIMITS.max_batches);
    }
}

fn any_key() -> impl Strategy<Value = (AppendKey, u32)> {
    (0..3i64, 0..3i16, 0..12i32, 1..3u32).prop_map(|(id, epoch, sequence, count)| {
        // Some near the wrap.
        let sequence = if sequence < 6 { sequence } else { i32::MAX - (sequence - 6) };
        (key(id, epoch, sequence), count)
    })
}

proptest! {
    /// I8 by construction: what the table lets in is, per producer and epoch, one unbroken run of
    /// sequences, each once; a duplicate is exactly what was let in before.
    #[test]
    fn what_is_let_in_is_in_sequence(batches in prop::collection::vec(any_key(), 1..200)) {
        let mut producers = Producers::default();
        let mut log: Vec<(AppendKey, u32, Offset)> = Vec::new();
        let mut offset = 0;
        for (key, count) in batches {
            match producers.check(&key, count) {
                Ok(Verdict::Fresh) => {
                    let last = log.iter().rev().find(|(other, _, _)| other.producer_id == key.producer_id);
                    if let Some((last, last_count, _)) = last {
                        prop_assert!(key.producer_epoch >= last.producer_epoch);
                        let expected = if key.producer_epoch > last.producer_epoch {
                            0
                        } else {
                            sequence::advance(last.sequence, *last_count)
                        };
                        prop_assert_eq!(key.sequence, expected);
                    }
                    producers.record(&key, (offset, count), 5, 0, &LIMITS);
                    log.push((key, count, offset));
                    offset += u64::from(count);
                }
                Ok(Verdict::Duplicate { base, .. }) => {
                    prop_assert!(log.contains(&(key, count, base)));
                }
                Err(_) => {}
            }
        }
    }

    #[test]
    fn a_snapshot_is_the_table(
        batches in prop::collection::vec((any_key(), 1..20u16), 0..100),
        is_last in any::<bool>(),
    ) {
        let mut producers = Producers::default();
        for (offset, ((key, count), window)) in batches.into_iter().enumerate() {
            producers.record(&key, (offset as u64, count), window, offset as i64, &LIMITS);
        }
        let bytes = producers.encode(is_last);
        prop_assert_eq!(Producers::decode(&bytes), Ok((producers, is_last)));
        for cut in 0..bytes.len() {
            prop_assert!(Producers::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn any_bytes_are_a_table_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut bytes = bytes;
        if let [version, is_last, ..] = bytes.as_mut_slice() {
            *version = 1;
            *is_last &= 1;
        }
        if let Ok((producers, is_last)) = Producers::decode(&bytes) {
            let again = Producers::decode(&producers.encode(is_last));
            prop_assert_eq!(again, Ok((producers, is_last)));
        }
    }
}
