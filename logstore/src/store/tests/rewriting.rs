//! Extents that are mostly dead, rewritten while reads go on and the power is cut.

use super::*;

fn payload(log: u64, offset: u64) -> Vec<u8> {
    let mut payload = vec![0x5a; 200];
    payload[..8].copy_from_slice(&log.to_le_bytes());
    payload[8..16].copy_from_slice(&offset.to_le_bytes());
    payload
}

const KEPT: u64 = 40;

/// Many short-lived segments between the entries of two that stay.
fn mixed() -> Harness {
    let harness = Harness::new();
    for offset in 0..KEPT {
        for log in 0..2 {
            harness.must_append(log, offset, &payload(log, offset));
        }
        for n in 0..8 {
            harness.must_append(100 + n, offset, &payload(100 + n, offset));
        }
        let snapshot = EntryHeader { kind: EntryKind::Snapshot, ..header(0, offset + 1, 0) };
        let entry = Entry { header: snapshot, payload: &offset.to_le_bytes(), leader_epoch: None };
        while harness.store.append(&entry).is_err() {
            harness.settle();
        }
    }
    harness.settle();
    harness
}

fn drop_short_lived(harness: &Harness) {
    for found in harness.store.segments() {
        if found.id.log.0 >= 100 {
            harness.store.drop_segment(found.id);
        }
    }
}

fn check(harness: &Harness) {
    for log in 0..2 {
        let found = harness.payloads(log);
        assert_eq!(found.len() as u64, KEPT);
        for (offset, bytes) in (0..).zip(found) {
            assert_eq!(bytes, payload(log, offset));
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (_, snapshot) = runtime.block_on(harness.store.last_snapshot(segment(0))).unwrap().unwrap();
    assert_eq!(snapshot, (KEPT - 1).to_le_bytes()[..]);
}

fn rewritten(harness: &Harness) -> usize {
    harness
        .extents()
        .iter()
        .filter(|name| name.starts_with('r') && name.ends_with("extent"))
        .count()
}

#[test]
fn what_is_alive_is_put_together_and_the_rest_is_freed() {
    let harness = mixed();
    let before = harness.disk.used();
    drop_short_lived(&harness);
    harness.keep();
    assert!(rewritten(&harness) >= 1);
    assert!(harness.disk.used() < before * 2 / 3, "{} of {before}", harness.disk.used());
    check(&harness);
    let mut harness = harness;
    for seed in 0..3 {
        harness = harness.crash(seed);
        drop_short_lived(&harness);
        check(&harness);
        harness.keep();
        check(&harness);
    }
    harness.store.drop_segment(segment(0));
    harness.store.drop_segment(segment(1));
    harness.keep();
    assert_eq!(rewritten(&harness), 0, "dead copies are freed as well");
}

#[test]
fn reads_go_on_at_every_step() {
    let harness = mixed();
    drop_short_lived(&harness);
    while keeper::keep_one(&harness.store.shared).is_some() {
        check(&harness);
    }
    assert!(rewritten(&harness) >= 1);
}

#[test]
fn the_power_may_fail_at_every_step() {
    let mut during = 0;
    for steps in 0.. {
        let harness = mixed();
        drop_short_lived(&harness);
        let done = (0..steps).take_while(|_| keeper::keep_one(&harness.store.shared).is_some());
        let done = done.count();
        during += usize::from(harness.extents().iter().any(|name| name.ends_with(".tmp")));
        let harness = harness.crash(steps);
        check(&harness);
        drop_short_lived(&harness);
        harness.keep();
        check(&harness);
        assert!(!harness.extents().iter().any(|name| name.ends_with(".tmp")));
        let harness = harness.crash(steps);
        check(&harness);
        if (done as u64) < steps {
            break;
        }
    }
    assert!(during > 3);
}

#[test]
fn a_name_that_did_not_last_is_taken_back() {
    let harness = mixed();
    drop_short_lived(&harness);
    let is_unfinished =
        |harness: &Harness| harness.extents().iter().any(|name| name.ends_with(".tmp"));
    while !is_unfinished(&harness) {
        keeper::keep_one(&harness.store.shared).unwrap();
    }
    harness.disk.fail_folder_sync_after(0);
    let old: Vec<String> =
        harness.extents().into_iter().filter(|name| name.ends_with("extent")).collect();
    harness.keep();
    assert_eq!(rewritten(&harness), 0, "what counts in memory is what counts on the disk");
    assert!(!is_unfinished(&harness));
    assert_eq!(harness.extents(), old);
    check(&harness);
    let harness = harness.crash(1);
    check(&harness);
    drop_short_lived(&harness);
    harness.keep();
    assert!(rewritten(&harness) >= 1, "the next time it works");
    check(&harness);
}

#[test]
fn a_damaged_footer_of_a_rewritten_extent_is_made_anew() {
    let harness = mixed();
    drop_short_lived(&harness);
    harness.keep();
    for name in harness.extents() {
        if name.starts_with('r') {
            let len = harness.folder.contents(&name).unwrap().len() as u64;
            harness.folder.flip(&name, len - 10, 1).unwrap();
            harness.folder.flip(&name, 10, 1).unwrap();
        }
    }
    let harness = harness.crash(1);
    check(&harness);
}

#[test]
fn an_entry_that_went_bad_is_reported_and_the_rest_moves() {
    let harness = mixed();
    let needle = payload(1, 3);
    for name in harness.extents() {
        let contents = harness.folder.contents(&name).unwrap();
        if let Some(at) = contents.windows(200).position(|window| window == needle) {
            harness.folder.flip(&name, at as u64 + 30, 1).unwrap();
        }
    }
    drop_short_lived(&harness);
    harness.keep();
    let check = |harness: &Harness| {
        let found = harness.store.segment(segment(1)).unwrap();
        assert_eq!(found.damaged, vec![3..4]);
        let read = |offset| harness.read(&SegmentRead { offset, ..whole(1) });
        assert_eq!(read(3).unwrap_err(), StoreError::Damaged(3..4));
        assert_eq!(read(0).unwrap().next_offset, 3);
        assert_eq!(read(4).unwrap().batches[0].bytes, payload(1, 4));
        assert_eq!(harness.payloads(0).len() as u64, KEPT);
    };
    check(&harness);
    check(&harness.crash(1));
}
