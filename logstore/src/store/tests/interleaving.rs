//! Extents whose segments are interleaved, put in order once, while reads go on and the power is
//! cut.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::journal::{ExtentId, ExtentKey, ExtentKind};

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const EACH: u64 = 90;
const LOGS: u64 = 4;

fn payload(log: u64, offset: u64) -> Vec<u8> {
    let mut payload = vec![0x77; 200];
    payload[..8].copy_from_slice(&log.to_le_bytes());
    payload[8..16].copy_from_slice(&offset.to_le_bytes());
    payload
}

/// In extents this small everything counts as interleaved.
fn always() -> Options {
    Options { rewrite_scan_factor: 1, ..options() }
}

/// Logs in turn, over a few extents. Logs 0 and 1 live for ever, 2 and 3 for two hours.
fn woven(options: Options) -> Harness {
    let harness = Harness::over(FaultDisk::new(), options);
    for offset in 0..EACH {
        for log in 0..LOGS {
            harness.must_append(log, offset, &payload(log, offset));
        }
    }
    harness.settle();
    harness
}

fn tell_lives(harness: &Harness) {
    for log in 0..LOGS {
        let life = if log < 2 { Duration::MAX } else { 2 * HOUR };
        harness.store.expect_life(LogId(log), Some(life));
    }
}

fn check(harness: &Harness) {
    for log in 0..LOGS {
        check_log(harness, log);
    }
}

fn check_log(harness: &Harness, log: u64) {
    let found = harness.payloads(log);
    assert_eq!(found.len() as u64, EACH, "log {log}");
    for (offset, bytes) in (0..).zip(found) {
        assert_eq!(bytes, payload(log, offset));
    }
}

fn of_kind(harness: &Harness, kind: ExtentKind) -> BTreeSet<ExtentId> {
    let names = harness.extents();
    let keys = names.iter().filter_map(|name| ExtentKey::parse_name(name));
    keys.filter(|(_, of)| *of == kind).map(|(key, _)| key.id).collect()
}

/// Closed extents that are as the journal wrote them.
fn originals(harness: &Harness) -> usize {
    let state = harness.store.shared.state.lock();
    let extents = state.index.extents.values();
    extents.filter(|extent| extent.is_closed && extent.kind == ExtentKind::Journal).count()
}

#[test]
fn only_what_is_interleaved_and_lives_is_put_in_order_and_only_once() {
    let options = Options {
        extent_bytes: 1 << 20,
        max_in_flight_bytes: 4 << 20,
        chunk_bytes: 64 << 10,
        ..options()
    };
    let harness = Harness::over(FaultDisk::new(), options);
    let append = |log, from: u64, to: u64| {
        for offset in from..to {
            harness.must_append(log, offset, &[7; 4096]);
        }
    };
    // Log 9 alone fills more than one extent, then four logs in turn fill two.
    append(9, 0, 300);
    for offset in 0..128 {
        (0..4).for_each(|log| append(log, offset, offset + 1));
    }
    append(9, 300, 600);
    harness.settle();
    assert_eq!(of_kind(&harness, ExtentKind::Rewritten).len(), 0, "nobody said that it lives");
    for log in [0, 1, 2, 3, 9] {
        harness.store.expect_life(LogId(log), Some(HOUR / 2));
    }
    harness.keep();
    assert_eq!(of_kind(&harness, ExtentKind::Rewritten).len(), 0, "it dies soon");
    let before = of_kind(&harness, ExtentKind::Journal);
    for log in [0, 1, 2, 3, 9] {
        harness.store.expect_life(LogId(log), Some(24 * HOUR));
    }
    harness.keep();
    let gone = &before - &of_kind(&harness, ExtentKind::Journal);
    assert!((2..=3).contains(&gone.len()), "{gone:?} of {before:?}");
    let after = harness.extents();
    {
        let state = harness.store.shared.state.lock();
        for extent in state.index.extents.values().filter(|extent| extent.is_closed) {
            let runs = state.index.runs_of(extent.key.id);
            let least: u64 = runs.iter().map(|(run, _)| run.stats.least_scan_bytes()).sum();
            let most = match extent.kind {
                ExtentKind::Journal => least * 2,
                ExtentKind::Rewritten => least * 21 / 20,
            };
            assert!(extent.scan_bytes < most, "{:?}: all is in order", extent.key.id);
            assert_eq!(extent.runs as usize, runs.len());
            assert_eq!(extent.scan_bytes, runs.iter().map(|(run, _)| run.scan_bytes).sum::<u64>());
        }
    }
    // What is known of the order survives a restart, what was said of lives doesn't.
    let mut harness = harness;
    for seed in 0..2 {
        harness = harness.crash(seed);
        for log in [0, 1, 2, 3, 9] {
            harness.store.expect_life(LogId(log), Some(24 * HOUR));
        }
        harness.keep();
        let rewritten = |names: &[String]| {
            names.iter().filter(|name| name.starts_with('r')).cloned().collect::<Vec<_>>()
        };
        assert_eq!(rewritten(&harness.extents()), rewritten(&after));
    }
}

#[test]
fn an_extent_waits_until_its_short_lived_part_is_gone() {
    let harness = woven(always());
    let closed = originals(&harness);
    assert!(closed >= 3);
    for log in 0..LOGS {
        let life = if log == 0 { HOUR / 2 } else { Duration::MAX };
        harness.store.expect_life(LogId(log), Some(life));
    }
    harness.keep();
    assert_eq!(originals(&harness), closed);
    harness.store.drop_segment(segment(0));
    harness.keep();
    assert_eq!(originals(&harness), 0);
    (1..LOGS).for_each(|log| check_log(&harness, log));
}

#[test]
fn what_dies_together_is_together_and_goes_without_a_copy() {
    let harness = woven(always());
    tell_lives(&harness);
    harness.keep();
    assert_eq!(originals(&harness), 0);
    let rewritten = of_kind(&harness, ExtentKind::Rewritten);
    {
        let state = harness.store.shared.state.lock();
        for extent in &rewritten {
            let logs: BTreeSet<bool> =
                state.index.runs_of(*extent).iter().map(|(run, _)| run.id.log.0 < 2).collect();
            assert_eq!(logs.len(), 1, "one life an extent");
        }
    }
    check(&harness);
    let writes = harness.disk.activity().0;
    harness.store.drop_segment(segment(2));
    harness.store.drop_segment(segment(3));
    harness.keep();
    assert_eq!(harness.disk.activity().0, writes, "nothing is written to free it");
    let left = of_kind(&harness, ExtentKind::Rewritten);
    assert_eq!(left.len(), rewritten.len() / 2);
    (0..2).for_each(|log| check_log(&harness, log));
}

#[test]
fn an_old_extent_stays_until_everything_of_it_is_durable_elsewhere() {
    let harness = woven(always());
    tell_lives(&harness);
    let mut halfway = 0;
    while keeper::keep_one(&harness.store.shared).is_some() {
        check(&harness);
        // What a power cut would leave that loses everything that may be lost.
        let names = harness.folder.list().unwrap();
        let state = harness.store.shared.state.lock();
        for extent in state.index.extents.values() {
            assert!(names.contains(&extent.key.file_name(extent.kind)), "a run without a file");
        }
        let live = |kind| {
            let extents = state.index.extents.values().filter(move |extent| extent.kind == kind);
            extents.map(|extent| extent.live).sum::<u64>()
        };
        halfway += usize::from(live(ExtentKind::Rewritten) > 0 && live(ExtentKind::Journal) > 0);
    }
    assert!(halfway > 3);
}

#[test]
fn the_power_may_fail_at_every_step() {
    let (mut unfinished, mut between) = (0, 0);
    for seed in 0..2 {
        for steps in 0.. {
            let harness = woven(Options { recycled_extents: seed as usize * 2, ..always() });
            tell_lives(&harness);
            let done = (0..steps).take_while(|_| keeper::keep_one(&harness.store.shared).is_some());
            let done = done.count() as u64;
            unfinished += usize::from(harness.extents().iter().any(|name| name.ends_with(".tmp")));
            // One of an extent's two new ones is in use, the other isn't there yet.
            let originals = of_kind(&harness, ExtentKind::Journal);
            between += {
                let state = harness.store.shared.state.lock();
                let part_gone = |id: &ExtentId| {
                    let extent = &state.index.extents[id];
                    extent.is_closed
                        && state.index.runs_of(*id).len() < extent.segments.len()
                        && extent.live > 0
                };
                usize::from(originals.iter().any(part_gone))
            };
            let harness = harness.crash(steps * 2 + seed);
            check(&harness);
            tell_lives(&harness);
            harness.keep();
            check(&harness);
            assert!(!harness.extents().iter().any(|name| name.ends_with(".tmp")));
            let harness = harness.crash(steps);
            check(&harness);
            for found in harness.store.segments() {
                assert_eq!(found.damaged, vec![]);
                harness.store.drop_segment(found.id);
            }
            harness.keep();
            assert_eq!(of_kind(&harness, ExtentKind::Rewritten).len(), 0, "nothing is left over");
            if done < steps {
                break;
            }
        }
    }
    assert!(unfinished > 3 && between > 3, "{unfinished} {between}");
}

#[test]
fn a_disk_that_fails_halfway_loses_nothing() {
    for is_sync in [true, false] {
        for after in 0..12 {
            let harness = woven(always());
            tell_lives(&harness);
            if is_sync {
                harness.disk.fail_sync_after(after)
            } else {
                harness.disk.fail_write_after(after)
            }
            harness.keep();
            check(&harness);
            assert!(harness.events.failed.lock().is_none(), "the journal goes on");
            // Whatever is in place stays in use; the next drop lets it try again.
            harness.store.drop_segment(segment(77));
            harness.must_append(77, 0, &payload(77, 0));
            harness.store.drop_segment(segment(77));
            harness.keep();
            check(&harness);
            check(&harness.crash(after));
        }
    }
}

#[test]
fn an_entry_that_went_bad_is_reported_at_every_step_and_after() {
    let needle = payload(1, 3);
    let check = |harness: &Harness| {
        let read = |offset| harness.read(&SegmentRead { offset, ..whole(1) });
        assert_eq!(read(3).unwrap_err(), StoreError::Damaged(3..4));
        assert_eq!(read(0).unwrap().next_offset, 3);
        assert_eq!(read(4).unwrap().batches[0].bytes, payload(1, 4));
        check_log(harness, 0);
        check_log(harness, 3);
    };
    for steps in 0.. {
        let harness = woven(always());
        for name in harness.extents() {
            let contents = harness.folder.contents(&name).unwrap();
            if let Some(at) = contents.windows(200).position(|window| window == needle) {
                harness.folder.flip(&name, at as u64 + 30, 1).unwrap();
            }
        }
        check(&harness);
        tell_lives(&harness);
        let done = (0..steps).take_while(|_| keeper::keep_one(&harness.store.shared).is_some());
        let done = done.count();
        check(&harness);
        let harness = harness.crash(steps);
        check(&harness);
        tell_lives(&harness);
        harness.keep();
        check(&harness);
        assert_eq!(harness.store.segment(segment(1)).unwrap().damaged, vec![3..4]);
        if (done as u64) < steps {
            return;
        }
    }
}

#[test]
fn rewriting_keeps_to_its_bytes_a_second_and_urgent_chores_do_not_wait_for_it() {
    const RATE: u64 = 10_000;
    let harness = woven(Options { rewrite_bytes_per_second: RATE, ..always() });
    tell_lives(&harness);
    let shared = &harness.store.shared;
    let mut pauses = 0;
    while let Some(pause) = keeper::keep_one(shared) {
        if pause.is_zero() {
            continue;
        }
        pauses += 1;
        if pauses == 3 {
            // Not a moment has passed: only what is urgent is done.
            let activity = harness.disk.activity();
            assert_eq!(keeper::keep_one(shared), Some(pause));
            assert_eq!(harness.disk.activity(), activity);
            let dead = Extent::dead(shared);
            assert_eq!(keeper::keep_one(shared), Some(Duration::ZERO));
            assert!(!harness.extents().contains(&dead), "it is freed at once");
        }
        harness.clock.advance(u32::try_from(pause.as_micros().div_ceil(1000)).unwrap());
    }
    let written: u64 = {
        let state = shared.state.lock();
        let extents = state.index.extents.values();
        extents.filter(|e| e.kind == ExtentKind::Rewritten).map(|e| e.stored).sum()
    };
    let elapsed = crate::clock::Clock::monotonic_ms(&*harness.clock);
    // Each byte was read once and written once, at this rate.
    assert!(written * 2 * 1000 / RATE <= elapsed, "{written} bytes in {elapsed} ms");
    assert!(written * 4 * 1000 / RATE >= elapsed, "{written} bytes in {elapsed} ms");
    check(&harness);
}

struct Extent;

impl Extent {
    /// Makes an empty extent that nothing refers to; returns its name.
    fn dead(shared: &crate::store::shared::Shared) -> String {
        let mut state = shared.state.lock();
        let key = ExtentKey { id: state.new_extent(), salt: 1 };
        let name = key.file_name(ExtentKind::Rewritten);
        shared.disk.create(&name).unwrap();
        let mut extent =
            crate::store::index::Extent::new(key, ExtentKind::Rewritten, Position::default());
        extent.is_closed = true;
        state.index.extents.insert(key.id, extent);
        name
    }
}

/// Segments of many lives, dropped when their time has come: what is written in all is bounded,
/// and what dies soon is written once.
#[test]
fn bytes_are_written_about_twice_at_most() {
    for seed in 0..6 {
        let mut rng = StdRng::seed_from_u64(seed);
        let options = Options { rewrite_live_percent: 25, ..always() };
        let harness = Harness::over(FaultDisk::new(), options);
        let lives = [HOUR / 4, HOUR / 2, 3 * HOUR, 40 * HOUR, Duration::MAX];
        let id = |log: usize, epoch: u32| SegmentId { log: LogId(log as u64), epoch: Epoch(epoch) };
        let mut next = [(0, 0u64); 5];
        let mut dying: Vec<(i64, SegmentId)> = Vec::new();
        let (mut appended, mut copied, mut copied_short) = (0, 0, 0);
        let mut seen: BTreeMap<ExtentId, ()> = BTreeMap::new();
        let mut now = 0i64;
        for (log, life) in lives.iter().enumerate() {
            harness.store.expect_life(LogId(log as u64), Some(*life));
        }
        for _ in 0..4000 {
            harness.clock.advance(20_000);
            now += 20_000;
            let log = rng.random_range(0..lives.len());
            let (epoch, offset) = &mut next[log];
            if rng.random_bool(0.02) {
                if let Some(at) =
                    now.checked_add_unsigned(lives[log].as_millis().min(1 << 50) as u64)
                {
                    dying.push((at, id(log, *epoch)));
                }
                *epoch += 1;
            }
            let header =
                EntryHeader { max_timestamp: now, id: id(log, *epoch), ..header(0, *offset, 1) };
            let payload = vec![1; rng.random_range(50..900)];
            let entry = Entry { header, payload: &payload, leader_epoch: None };
            while harness.store.append(&entry).is_err() {
                harness.settle();
            }
            *offset += 1;
            appended += payload.len() as u64 + 80;
            dying.retain(|(at, id)| {
                let is_over = *at <= now;
                if is_over {
                    harness.store.drop_segment(*id);
                }
                !is_over
            });
            if rng.random_bool(0.1) {
                harness.settle();
            }
            let state = harness.store.shared.state.lock();
            for extent in state.index.extents.values() {
                let is_new = extent.kind == ExtentKind::Rewritten
                    && seen.insert(extent.key.id, ()).is_none();
                if is_new {
                    copied += extent.stored;
                    let runs = state.index.runs_of(extent.key.id);
                    copied_short += runs
                        .iter()
                        .filter(|(run, _)| run.id.log.0 < 2)
                        .map(|(run, _)| run.stats.disk_bytes)
                        .sum::<u64>();
                }
            }
        }
        assert!(copied * 4 > appended, "seed {seed}: {copied} of {appended}: it is put in order");
        assert!(copied * 3 <= appended * 4, "seed {seed}: {copied} of {appended}");
        assert!(copied_short * 20 <= appended, "seed {seed}: {copied_short} of {appended}");
    }
}
