//! Bytes that the disk does not give back: told where something may have been, never silent, and
//! no reason not to open.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const LOGS: u64 = 3;
const EACH: u64 = 60;

fn payload(log: u64, offset: u64) -> Vec<u8> {
    let mut payload = vec![0xcd; 300];
    payload[..8].copy_from_slice(&log.to_le_bytes());
    payload[8..16].copy_from_slice(&offset.to_le_bytes());
    payload
}

/// Three logs in turn over several extents, all of it reported durable, and not closed.
fn filled(seed: u64, is_idle: bool) -> Harness {
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
    super::super::close::drain(&harness.store.shared);
    if rng.random_bool(0.5) {
        harness.keep();
    }
    if is_idle {
        harness.idle();
    }
    harness
}

fn reopen(harness: Harness) -> Harness {
    harness.disk.kill();
    let disk = harness.disk.clone();
    drop(harness);
    Harness::over(disk, options())
}

/// Which offsets below `end` can be read. Those that can't are errors; what is read is what was
/// written.
fn readable(harness: &Harness, log: u64, end: u64) -> Vec<bool> {
    let found = harness.store.segment(segment(log));
    if found.is_none() {
        assert!(harness.store.may_lack_segments(), "log {log} is lost in silence");
        return vec![false; end as usize];
    }
    let first = found.map_or(0, |found| found.start);
    (0..end)
        .map(|offset| {
            let read = SegmentRead { offset, max_bytes: 1, ..whole(log) };
            match harness.read(&read) {
                Ok(outcome) => {
                    let batch = outcome.batches.first();
                    let batch = batch.unwrap_or_else(|| panic!("log {log} ends at {offset}"));
                    // What a segment begins with is known to the log above.
                    if offset < first {
                        return false;
                    }
                    assert_eq!(batch.base_offset, offset, "log {log}");
                    assert_eq!(batch.bytes, payload(log, offset));
                    true
                }
                Err(StoreError::Damaged(range)) => {
                    assert!(range.contains(&offset));
                    false
                }
                Err(StoreError::Io(_)) => false,
                Err(error) => panic!("{error}"),
            }
        })
        .collect()
}

fn lost(harness: &Harness) -> usize {
    let all = (0..LOGS).flat_map(|log| readable(harness, log, EACH));
    all.filter(|is_there| !is_there).count()
}

#[test]
fn a_bad_page_costs_what_lies_in_it_and_all_of_that_is_told() {
    let mut harmless = 0;
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let harness = filled(seed, rng.random_bool(0.5));
        let names = harness.extents();
        let name = names[rng.random_range(0..names.len())].clone();
        let pages = harness.folder.contents(&name).unwrap().len() as u64 / 4096;
        let at = 4096 * rng.random_range(0..pages.max(1));
        harness.folder.set_unreadable(&name, std::iter::once(at..at + 4096).collect()).unwrap();
        let harness = reopen(harness);
        let before = lost(&harness);
        // A group's header in the page hides the rest of the group.
        assert!(before < 60, "seed {seed}: {before} for a page at {at} of {name}");
        harmless += usize::from(before == 0);
        // Other logs go on.
        for offset in 0..20 {
            harness.must_append(50, offset, &payload(50, offset));
        }
        harness.settle();
        let harness = reopen(harness);
        assert_eq!(lost(&harness), before, "seed {seed}: over a restart");
        assert!(readable(&harness, 50, 20).iter().all(|is_there| *is_there), "seed {seed}");
        // Whatever the disk gives back later, nothing more is lost by it.
        if harness.extents().contains(&name) {
            harness.folder.set_unreadable(&name, Vec::new()).unwrap();
        }
        let harness = reopen(harness);
        assert!(lost(&harness) <= before, "seed {seed}");
    }
    assert!(harmless > 10, "{harmless}");
}

#[test]
fn a_file_that_cannot_be_read_at_all_comes_back_when_it_can() {
    for seed in 0..8 {
        let harness = filled(seed, seed % 2 == 0);
        let n = harness.extents().len();
        for i in 0..n {
            let harness = filled(seed, seed % 2 == 0);
            let name = harness.extents()[i].clone();
            // It can't be opened, or only not be read.
            let end = if seed % 4 < 2 { u64::MAX } else { u64::MAX - 1 };
            harness.folder.set_unreadable(&name, std::iter::once(0..end).collect()).unwrap();
            let harness = reopen(harness);
            let before = lost(&harness);
            harness.must_append(50, 0, &payload(50, 0));
            harness.settle();
            let harness = reopen(harness);
            assert_eq!(lost(&harness), before, "seed {seed}");
            assert!(harness.extents().contains(&name), "it is left alone");
            harness.folder.set_unreadable(&name, Vec::new()).unwrap();
            let harness = reopen(harness);
            assert_eq!(lost(&harness), 0, "seed {seed}: {name}");
            assert_eq!(readable(&harness, 50, 1), [true]);
        }
    }
}

#[test]
fn after_a_power_cut_as_well_nothing_reported_is_lost_in_silence() {
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let harness = filled(seed, false);
        // More of each log that nobody was told of.
        let mut ends = [EACH; LOGS as usize];
        for _ in 0..rng.random_range(0..30) {
            let log = rng.random_range(0..LOGS);
            if harness.append(log, ends[log as usize], &payload(log, ends[log as usize])).is_ok() {
                ends[log as usize] += 1;
            }
        }
        let group = harness.store.shared.state.lock().core.take();
        if let Some(group) = group {
            harness.store.shared.write(&group, &mut WorkerFile::default()).unwrap();
        }
        harness.disk.crash(seed);
        let names = harness.extents();
        let name = names[names.len() - 1 - rng.random_range(0..2.min(names.len()))].clone();
        let pages = harness.folder.contents(&name).unwrap().len() as u64 / 4096;
        let at = 4096 * rng.random_range(0..pages.max(1));
        harness.folder.set_unreadable(&name, std::iter::once(at..at + 4096).collect()).unwrap();
        let harness = reopen(harness);
        let before = lost(&harness);
        harness.must_append(50, 0, &payload(50, 0));
        harness.settle();
        let ends = |harness: &Harness| -> Vec<u64> {
            let found = (0..LOGS).map(|log| harness.store.segment(segment(log)));
            found.map(|found| found.map_or(0, |found| found.end)).collect()
        };
        let ended = ends(&harness);
        let harness = reopen(harness);
        assert_eq!(lost(&harness), before, "seed {seed}");
        for (log, (ended, end)) in (0..).zip(ended.into_iter().zip(ends(&harness))) {
            // What was cut stays so; at most a remainder of it is told as damage.
            for offset in ended..end {
                let read = harness.read(&SegmentRead { offset, ..whole(log) });
                assert!(matches!(read, Err(StoreError::Damaged(_))), "seed {seed}: {offset}");
            }
        }
    }
}

#[test]
fn where_nothing_can_be_read_there_is_nothing_to_open() {
    let harness = filled(1, true);
    for name in harness.extents() {
        harness.folder.set_unreadable(&name, std::iter::once(0..u64::MAX).collect()).unwrap();
    }
    harness.disk.kill();
    let open = || {
        let folder = Arc::new(harness.disk.folder("journal"));
        JournalStore::open(folder, options(), harness.events.clone())
    };
    assert!(matches!(open(), Err(OpenError::Io { .. })));
    let name = harness.extents()[0].clone();
    harness.folder.set_unreadable(&name, Vec::new()).unwrap();
    harness.disk.kill();
    assert!(open().is_ok());
}
