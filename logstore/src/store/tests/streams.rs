use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::{Epoch, LogId};

const LIMITS: Limits = Limits { window: 100, total: 250 };

fn id(log: u64) -> SegmentId {
    SegmentId { log: LogId(log), epoch: Epoch(0) }
}

/// A read of ten offsets, ten bytes each one.
fn ten(log: u64, from: Offset) -> DiskRead {
    DiskRead { id: id(log), from, next: from + 10, bytes: 10 }
}

/// The offset and the bytes of a wish.
fn wish(wish: Option<Wish>) -> Option<(Offset, u64)> {
    wish.map(|wish| (wish.from, wish.bytes))
}

#[test]
fn the_second_read_in_sequence_asks_and_then_each_half_window() {
    let mut streams = Streams::default();
    assert_eq!(streams.read(&ten(1, 0), LIMITS, 0), None, "it may be the only one");
    let first = streams.read(&ten(1, 10), LIMITS, 0).unwrap();
    assert_eq!(wish(Some(first)), Some((20, 100)));
    assert_eq!(streams.read(&ten(1, 20), LIMITS, 0), None, "one wish at a time");
    streams.asked(&first, 120, 100);
    let asked: Vec<_> = (3..12).map(|n| wish(streams.read(&ten(1, n * 10), LIMITS, 0))).collect();
    // At 80, 40 bytes of those up to 120 are left.
    assert_eq!(asked.iter().flatten().collect::<Vec<_>>(), [&(120, 100)]);
    assert_eq!(asked.iter().position(Option::is_some), Some(5));
}

#[test]
fn random_reads_ask_for_nothing() {
    let mut streams = Streams::default();
    let mut rng = StdRng::seed_from_u64(1);
    for now in 0..10_000 {
        let from = rng.random_range(0..1 << 40);
        assert_eq!(streams.read(&ten(from % 7, from), LIMITS, now), None);
        assert!(streams.streams.len() <= MAX_STREAMS);
        assert_eq!(streams.streams.len(), streams.readers.len());
    }
    let off = Limits { window: 0, total: 250 };
    streams.read(&ten(1, 0), off, 0);
    assert_eq!(streams.read(&ten(1, 10), off, 0), None, "turned off");
}

#[test]
fn all_together_stay_within_the_budget_until_one_has_gone() {
    let mut streams = Streams::default();
    let mut ask = |log, now| {
        streams.read(&ten(log, 0), LIMITS, now);
        streams.read(&ten(log, 10), LIMITS, now)
    };
    assert!(ask(1, 0).is_some());
    assert!(ask(2, 1).is_some());
    assert_eq!(ask(3, 2), None, "300 bytes are too many");
    assert!(ask(4, IDLE_MS).is_some(), "the first has gone");
    assert_eq!(ask(5, IDLE_MS), None);
}

/// Any order of reads, of answers and of readers who overtake what was asked for.
#[test]
fn the_books_balance() {
    for seed in 0..200 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut streams = Streams::default();
        let mut wishes: Vec<Wish> = Vec::new();
        let mut places = [0; 6];
        for now in 0..400 {
            if rng.random_bool(0.7) {
                let n = rng.random_range(0..places.len());
                if rng.random_bool(0.1) {
                    places[n] = rng.random_range(0..50) * 10;
                }
                let read = ten(n as u64 % 2, places[n]);
                places[n] = read.next;
                wishes.extend(streams.read(&read, LIMITS, now * 100));
            } else if !wishes.is_empty() {
                let wish = wishes.swap_remove(rng.random_range(0..wishes.len()));
                let offsets = rng.random_range(0..20) * 10;
                streams.asked(&wish, wish.from + offsets, offsets.min(100));
            }
            let sum: u64 = streams.streams.values().map(|stream| stream.ahead).sum();
            assert_eq!(streams.ahead, sum);
            assert!(sum <= LIMITS.total, "seed {seed}");
            for (next, reader) in &streams.readers {
                assert_eq!(streams.streams[reader].next, *next);
            }
            assert_eq!(streams.streams.len(), streams.readers.len());
        }
    }
}
