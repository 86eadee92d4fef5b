//! Dead extents whose files are written over.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::journal::scan::{Found, scan};
use crate::journal::{ExtentId, ExtentKey, ExtentKind, format};

fn payload(log: u64, offset: u64) -> Vec<u8> {
    let mut payload = vec![0x3c; 200 + (offset as usize * 37) % 900];
    payload[..8].copy_from_slice(&log.to_le_bytes());
    payload[8..16].copy_from_slice(&offset.to_le_bytes());
    payload
}

fn free(harness: &Harness) -> Vec<String> {
    harness.extents().into_iter().filter(|name| name.ends_with(".free")).collect()
}

fn recycling() -> Options {
    Options { recycled_extents: 2, ..options() }
}

fn restart(harness: Harness, options: Options) -> Harness {
    harness.disk.kill();
    let disk = harness.disk.clone();
    drop(harness);
    Harness::over(disk, options)
}

/// Several extents of one log, which is then dropped.
fn with_dead(n: u64) -> Harness {
    let harness = Harness::over(FaultDisk::new(), recycling());
    for offset in 0..n {
        harness.must_append(0, offset, &payload(0, offset));
    }
    harness.settle();
    harness.store.drop_segment(segment(0));
    harness.keep();
    harness
}

#[test]
fn a_bounded_number_of_dead_extents_is_written_over() {
    let harness = with_dead(300);
    assert_eq!(free(&harness).len(), 2);
    let before = free(&harness);
    let used = harness.disk.used();
    for offset in 0..40 {
        harness.must_append(1, offset, &payload(1, offset));
    }
    harness.settle();
    assert!(free(&harness).len() < 2, "{:?} were not used", before);
    assert!(harness.disk.used() <= used, "nothing new was reserved");
    harness.disk.crash(1);
    let harness = restart(harness, recycling());
    let all: Vec<_> = (0..40).map(|offset| payload(1, offset)).collect();
    assert_eq!(harness.payloads(1), all);
    assert!(harness.store.segment(segment(0)).is_none_or(|found| found.start > 0));
}

#[test]
fn they_are_kept_over_a_restart_and_go_when_the_disk_is_full_or_they_are_not_wanted() {
    let harness = with_dead(300);
    let kept = free(&harness);
    let harness = restart(harness, recycling());
    assert_eq!(free(&harness), kept[..1], "one is the next extent");

    let full = Options { min_free_bytes: 40 << 10, ..recycling() };
    let harness = restart(with_dead(300), full);
    let before = free(&harness).len();
    harness.disk.set_capacity(Some(harness.disk.used() + (30 << 10)));
    assert!(!harness.store.shared.check_space());
    assert_eq!(harness.append(1, 0, &[7; 100]), Err(StoreError::DiskFull));
    harness.keep();
    assert!(free(&harness).len() < before, "its room is needed");
    harness.append(1, 0, &[7; 100]).unwrap();

    let harness = restart(with_dead(300), Options { recycled_extents: 0, ..options() });
    assert!(free(&harness).is_empty());
    let last = harness.extents().pop().unwrap();
    let ids = |name: &String| ExtentKey::parse_name(name).unwrap().0.id;
    assert!(kept.iter().all(|name| ids(&name.replace(".free", "")) < ids(&last)), "none twice");
}

/// Groups of an earlier life pass for nothing, whether the new extent got its header or not.
#[test]
fn what_a_file_held_before_passes_for_nothing() {
    let harness = with_dead(300);
    let old = harness.folder.contents(&free(&harness)[0]).unwrap();
    let segments = restart(harness, recycling());
    let disk = segments.disk.clone();
    let before = segments.store.segments();
    drop(segments);
    for with_header in [false, true] {
        disk.kill();
        let folder = disk.folder("journal");
        let key = ExtentKey { id: ExtentId(9_000), salt: 5 };
        let name = key.file_name(ExtentKind::Journal);
        let mut contents = old.clone();
        if with_header {
            contents[..512].copy_from_slice(&format::encode_extent(key));
        }
        folder.create(&name).unwrap().write_at(&contents, 0).unwrap();
        let found = scan(&*folder.open(&name).unwrap(), key).unwrap();
        assert!(found.iter().all(|found| matches!(found, Found::Bad { .. })), "{found:?}");
        let harness = Harness::over(disk.clone(), recycling());
        assert_eq!(harness.store.segments(), before);
        assert!(!harness.extents().contains(&name), "it is empty");
    }
}

#[test]
fn who_reads_what_is_written_over_meanwhile_looks_again() {
    let harness = Harness::over(FaultDisk::new(), recycling());
    for offset in 0..100 {
        harness.must_append(0, offset, &payload(0, offset));
    }
    harness.settle();
    let (shared, folder) = (Arc::clone(&harness.store.shared), harness.folder.clone());
    harness.disk.before_next_read(move || {
        shared.state.lock().index.drop_segment(segment(0));
        while keeper::keep_one(&shared).is_some() {}
        for name in folder.list().unwrap().iter().filter(|name| name.ends_with(".free")) {
            folder.open(name).unwrap().write_at(&[9; 30_000], 512).unwrap();
        }
    });
    harness.disk.set_cold(true);
    let outcome = harness.read(&whole(0)).expect("gone, not damaged");
    assert!(outcome.batches.is_empty());
    assert_eq!(free(&harness).len(), 2);
}

/// Logs that come and go, power cuts at random moments: what was reported is there, byte for
/// byte, and nothing else.
#[test]
fn over_power_cuts_nothing_of_an_earlier_life_comes_back() {
    let mut written_over = 0;
    for seed in 0..150 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut harness = Harness::over(FaultDisk::new(), recycling());
        // Of each log that lives: its entries' positions; and how many a start has found.
        let mut logs: BTreeMap<u64, (Vec<Position>, u64)> = BTreeMap::new();
        for log in 0..12 {
            let reported = |harness: &Harness, positions: &[Position]| {
                let durable = *harness.events.durable.lock();
                positions.iter().take_while(|position| **position <= durable).count() as u64
            };
            logs.insert(log, (Vec::new(), 0));
            for offset in 0..rng.random_range(10..90) {
                let position = harness.must_append(log, offset, &payload(log, offset));
                logs.get_mut(&log).unwrap().0.push(position);
                if rng.random_bool(0.1) {
                    harness.settle();
                }
                if rng.random_bool(0.2) {
                    let before = free(&harness).len();
                    keeper::keep_one(&harness.store.shared);
                    written_over += before.saturating_sub(free(&harness).len());
                }
            }
            if let Some(old) = log.checked_sub(2) {
                harness.store.drop_segment(segment(old));
                logs.remove(&old);
                for _ in 0..rng.random_range(0..8) {
                    keeper::keep_one(&harness.store.shared);
                }
            }
            if rng.random_bool(0.5) {
                let must: Vec<(u64, u64)> = logs
                    .iter()
                    .map(|(log, (positions, found))| {
                        (*log, (*found).max(reported(&harness, positions)))
                    })
                    .collect();
                harness.disk.crash(seed * 100 + log);
                harness = restart(harness, recycling());
                for (log, must) in must {
                    let payloads = harness.payloads(log);
                    assert!(payloads.len() as u64 >= must, "seed {seed}: log {log} lost some");
                    for (offset, bytes) in (0..).zip(&payloads) {
                        assert_eq!(*bytes, payload(log, offset), "seed {seed}: log {log}");
                    }
                    let found = harness.store.segment(segment(log));
                    assert!(found.is_none_or(|found| found.damaged.is_empty()), "seed {seed}");
                    logs.insert(log, (Vec::new(), payloads.len() as u64));
                }
                for found in harness.store.segments() {
                    let log = found.id.log.0;
                    if !logs.contains_key(&log) {
                        harness.store.drop_segment(found.id);
                    }
                }
            }
        }
    }
    assert!(written_over > 100, "{written_over}");
}
