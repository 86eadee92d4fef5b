//! Bits that flipped: cut where nothing was reported, told where something was, never silent.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const LOGS: u64 = 3;
const EACH: u64 = 60;

fn payload(log: u64, offset: u64) -> Vec<u8> {
    let mut payload = vec![0xab; 300];
    payload[..8].copy_from_slice(&log.to_le_bytes());
    payload[8..16].copy_from_slice(&offset.to_le_bytes());
    payload
}

/// Three logs in turn, a few entries a group, over several extents; all of it reported durable,
/// and the journal idle since.
fn filled(seed: u64) -> Harness {
    let harness = Harness::new();
    let mut rng = StdRng::seed_from_u64(seed);
    for offset in 0..EACH {
        for log in 0..LOGS {
            harness.must_append(log, offset, &payload(log, offset));
            if rng.random_bool(0.3) {
                harness.settle();
            }
        }
    }
    harness.settle();
    harness.idle();
    harness
}

fn reopen(harness: Harness) -> Harness {
    harness.disk.kill();
    let disk = harness.disk.clone();
    drop(harness);
    Harness::over(disk, options())
}

/// Reads every offset: true where it is there, false where the read says that it is damaged.
/// Anything else, a hole or other bytes, fails.
fn readable(harness: &Harness, log: u64) -> Vec<bool> {
    let mut out = Vec::new();
    while (out.len() as u64) < EACH {
        let offset = out.len() as u64;
        match harness.read(&SegmentRead { offset, max_bytes: 1000, ..whole(log) }) {
            Ok(outcome) => {
                assert!(!outcome.batches.is_empty(), "log {log} ends silently at {offset}");
                for batch in outcome.batches {
                    assert_eq!(batch.base_offset, out.len() as u64);
                    assert_eq!(batch.bytes, payload(log, batch.base_offset));
                    out.push(true);
                }
            }
            Err(StoreError::Damaged(range)) => {
                assert!(range.contains(&offset));
                out.resize(range.end.min(EACH) as usize, false);
            }
            Err(error) => panic!("{error}"),
        }
    }
    out
}

/// The file and the place of some bytes.
fn find(harness: &Harness, bytes: &[u8]) -> (String, u64) {
    for name in harness.extents() {
        let contents = harness.folder.contents(&name).unwrap();
        if let Some(at) = contents.windows(bytes.len()).position(|window| window == bytes) {
            return (name, at as u64);
        }
    }
    panic!("not on the disk");
}

#[test]
fn a_damaged_payload_costs_that_entry_alone() {
    for offset in [5, EACH - 10, EACH - 1] {
        let harness = filled(1);
        let (name, at) = find(&harness, &payload(1, offset)[..16]);
        harness.folder.flip(&name, at + 100, 4).unwrap();
        let mut harness = reopen(harness);
        for _ in 0..2 {
            for log in 0..LOGS {
                let damaged: Vec<u64> = (0..)
                    .zip(readable(&harness, log))
                    .filter_map(|(offset, is_there)| (!is_there).then_some(offset))
                    .collect();
                assert_eq!(damaged, if log == 1 { vec![offset] } else { vec![] });
            }
            harness = reopen(harness);
        }
    }
}

#[test]
fn damage_of_the_open_extent_is_known_at_the_start() {
    let harness = filled(2);
    let (name, at) = find(&harness, &payload(1, EACH - 4)[..16]);
    harness.folder.flip(&name, at + 20, 1).unwrap();
    let harness = reopen(harness);
    let found = harness.store.segment(segment(1)).unwrap();
    assert_eq!(found.damaged, vec![EACH - 4..EACH - 3]);
    assert_eq!((found.start, found.end), (0, EACH));
    assert!(harness.store.segment(segment(0)).unwrap().damaged.is_empty());
    // The log goes on, in a new segment or this one.
    harness.must_append(1, EACH, &payload(1, EACH));
    harness.settle();
    let harness = reopen(harness);
    assert_eq!(harness.store.segment(segment(1)).unwrap().damaged, vec![EACH - 4..EACH - 3]);
}

#[test]
fn a_damaged_entry_header_costs_that_entry_alone() {
    for offset in [5, EACH - 10] {
        let harness = filled(3);
        let (name, at) = find(&harness, &payload(2, offset)[..16]);
        harness.folder.flip(&name, at - 40, 0x80).unwrap();
        let harness = reopen(harness);
        for log in 0..LOGS {
            let damaged = readable(&harness, log).iter().filter(|is_there| !*is_there).count();
            assert_eq!(damaged, usize::from(log == 2));
        }
    }
}

#[test]
fn what_was_not_reported_is_cut_at_the_first_bad_entry() {
    let harness = Harness::new();
    for offset in 0..10 {
        harness.must_append(0, offset, &payload(0, offset));
        harness.settle();
    }
    // Nothing says yet that the last group is durable.
    let (name, at) = find(&harness, &payload(0, 9)[..16]);
    harness.folder.flip(&name, at + 50, 1).unwrap();
    let harness = reopen(harness);
    let found = harness.store.segment(segment(0)).unwrap();
    assert_eq!((found.end, found.damaged.len()), (9, 0));
    harness.must_append(0, 9, &[1; 100]);
    harness.settle();
    let harness = reopen(harness);
    assert_eq!(harness.payloads(0)[9], vec![1; 100], "what was cut never comes back");
}

#[test]
fn wherever_one_byte_flips_nothing_is_lost_in_silence() {
    let mut harmless = 0;
    for seed in 0..400 {
        let harness = filled(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        let names = harness.extents();
        let name = &names[rng.random_range(0..names.len())];
        let len = harness.folder.contents(name).unwrap().len() as u64;
        let at = rng.random_range(0..len);
        harness.folder.flip(name, at, 1 << rng.random_range(0..8)).unwrap();
        let mut harness = reopen(harness);
        let mut before = None;
        for _ in 0..2 {
            let lost: usize = (0..LOGS)
                .map(|log| readable(&harness, log).iter().filter(|is_there| !*is_there).count())
                .sum();
            assert!(lost <= 1, "seed {seed}: {lost} entries for one bit at {at} of {name}");
            assert!(before.is_none_or(|before| before == lost), "seed {seed}: over a restart");
            before = Some(lost);
            harness = reopen(harness);
        }
        harmless += usize::from(before == Some(0));
    }
    assert!(harmless > 50, "headers, footers and padding harm nothing: {harmless}");
}
