use super::*;

fn payload(i: u64, len: usize) -> Vec<u8> {
    let mut payload = vec![u8::try_from(i % 251).unwrap(); len];
    payload[..8].copy_from_slice(&i.to_le_bytes());
    payload
}

fn fill(harness: &Harness, logs: u64, each: u64, len: usize) {
    for i in 0..each {
        for log in 0..logs {
            harness.must_append(log, i, &payload(i * 1000 + log, len));
        }
    }
    harness.settle();
}

fn assert_filled(harness: &Harness, logs: u64, each: u64, len: usize) {
    for log in 0..logs {
        let found = harness.payloads(log);
        assert_eq!(found.len() as u64, each);
        for (i, bytes) in (0..).zip(found) {
            assert_eq!(bytes, payload(i * 1000 + log, len));
        }
    }
}

#[test]
fn entries_are_read_over_many_extents_and_after_a_restart() {
    let mut harness = Harness::new();
    fill(&harness, 3, 100, 700);
    assert!(harness.extents().len() > 5);
    assert_filled(&harness, 3, 100, 700);
    for seed in 0..3 {
        harness = harness.crash(seed);
        assert_filled(&harness, 3, 100, 700);
    }
    let found = harness.store.segment(segment(1)).unwrap();
    assert_eq!((found.start, found.end, found.bytes), (0, 100, 70_000));
    assert_eq!((found.max_timestamp, found.max_timestamp_offset), (99, 99));
    assert_eq!(harness.store.segments().len(), 3);
}

#[test]
fn base_offset_and_leader_epoch_are_patched() {
    let harness = Harness::new();
    let entry = Entry { header: header(1, 77, 3), payload: &[0xff; 61], leader_epoch: Some(5) };
    harness.store.append(&entry).unwrap();
    let outcome = harness.read(&whole(1)).unwrap();
    let bytes = &outcome.batches[0].bytes;
    assert_eq!(bytes[..8], 77u64.to_be_bytes());
    assert_eq!(bytes[8..12], [0xff; 4]);
    assert_eq!(bytes[12..16], 5u32.to_be_bytes());
    assert_eq!(bytes[16..], [0xff; 45]);
    assert_eq!(outcome.next_offset, 80);
    let harness = {
        harness.settle();
        harness.crash(1)
    };
    assert_eq!(harness.read(&whole(1)).unwrap().batches[0].bytes, bytes);
}

#[test]
fn reads_are_bounded_by_bytes_and_by_the_end() {
    let harness = Harness::new();
    fill(&harness, 1, 10, 100);
    let read = |offset, end, max_bytes| {
        let wanted = SegmentRead { offset, end, max_bytes, ..whole(0) };
        let outcome = harness.read(&wanted).unwrap();
        (outcome.batches.iter().map(|b| b.base_offset).collect::<Vec<_>>(), outcome.next_offset)
    };
    assert_eq!(read(2, 5, 10_000), (vec![2, 3, 4], 5));
    assert_eq!(read(2, 100, 250), (vec![2, 3], 4));
    assert_eq!(read(2, 100, 1), (vec![2], 3), "the first comes anyway");
    assert_eq!(read(10, 100, 1000), (vec![], 10));
    assert_eq!(read(5, 5, 1000), (vec![], 5));
}

#[test]
fn snapshots_take_no_offset_and_are_found_again() {
    let mut harness = Harness::new();
    let snapshot = |offset, text: &'static str| {
        let header = EntryHeader { kind: EntryKind::Snapshot, ..header(1, offset, 0) };
        (header.clone(), Entry { header, payload: text.as_bytes(), leader_epoch: None })
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(harness.store.last_snapshot(segment(1))).unwrap(), None);
    harness.store.append(&snapshot(0, "first").1).unwrap();
    harness.must_append(1, 0, &[1; 20]);
    harness.must_append(1, 1, &[2; 20]);
    harness.store.append(&snapshot(2, "second").1).unwrap();
    harness.must_append(1, 2, &[3; 20]);
    harness.settle();
    for seed in 0..3 {
        let (header, payload) =
            runtime.block_on(harness.store.last_snapshot(segment(1))).unwrap().unwrap();
        assert_eq!((header, &payload[..]), (snapshot(2, "").0, &b"second"[..]));
        assert_eq!(harness.payloads(1).len(), 3);
        let headers = runtime.block_on(harness.store.headers(segment(1), 1)).unwrap();
        let offsets: Vec<_> =
            headers.iter().map(|(h, payload)| (h.base_offset, payload.is_some())).collect();
        assert_eq!(offsets, [(1, false), (2, true), (2, false)]);
        harness = harness.crash(seed);
    }
}

#[test]
fn times_are_found_and_filters_skip() {
    let harness = Harness::new();
    for i in 0..300u32 {
        let digest = (i != 7).then(|| crate::KeyDigest(vec![i % 10, 1000 + i / 64].into()));
        let entry = Entry {
            header: EntryHeader { digest, ..header(1, i.into(), 1) },
            payload: &[0; 100],
            leader_epoch: None,
        };
        while harness.store.append(&entry).is_err() {
            harness.settle();
        }
    }
    harness.settle();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let seek = |t, end| runtime.block_on(harness.store.seek_time(segment(1), t, end)).unwrap();
    assert_eq!(seek(5, 1000), Some((5, 5)));
    assert_eq!(seek(299, 1000), Some((299, 299)));
    assert_eq!(seek(300, 1000), None);
    assert_eq!(seek(50, 50), None);

    let mut found = Vec::new();
    let mut wanted = SegmentRead { filter: Some(vec![3].into()), max_bytes: 1, ..whole(1) };
    loop {
        let outcome = harness.read(&wanted).unwrap();
        found.extend(outcome.batches.iter().map(|batch| batch.base_offset));
        if outcome.next_offset == wanted.offset {
            break;
        }
        wanted.offset = outcome.next_offset;
    }
    let expected: Vec<u64> = (0..300).filter(|i| i % 10 == 3 || *i == 7).collect();
    assert_eq!(found, expected);
    assert_eq!(wanted.offset, 300, "it goes past all that was skipped");
}

#[test]
fn a_clean_end_needs_no_scan() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let harness = Harness::new();
    fill(&harness, 2, 30, 500);
    runtime.block_on(harness.store.close());
    assert!(matches!(harness.append(0, 30, &[0; 9]), Err(StoreError::Failed(_))));
    assert_filled(&harness, 2, 30, 500);
    for name in harness.extents() {
        let len = harness.folder.contents(&name).unwrap().len();
        assert!(len != 32 << 10, "{name} has a footer and no spare room");
    }
    let harness = harness.crash(1);
    assert_filled(&harness, 2, 30, 500);
}

#[test]
fn dropped_segments_free_their_extents() {
    let harness = Harness::new();
    fill(&harness, 2, 200, 700);
    let before = harness.disk.used();
    harness.store.drop_segment(segment(0));
    harness.store.drop_segment(segment(0));
    assert!(harness.store.segment(segment(0)).is_none());
    harness.store.drop_segment(segment(1));
    harness.keep();
    assert!(harness.disk.used() < before / 3, "{} {before}", harness.disk.used());
    let harness = harness.crash(3);
    for found in harness.store.segments() {
        harness.store.drop_segment(found.id);
    }
    harness.keep();
    assert_eq!(harness.extents().len(), 1, "the one that is written to");
}

#[test]
fn a_failed_sync_or_write_ends_the_journal_but_not_reads() {
    for is_sync in [true, false] {
        let harness = Harness::new();
        fill(&harness, 1, 3, 50);
        if is_sync {
            harness.disk.fail_sync_after(0)
        } else {
            harness.disk.fail_write_after(0)
        }
        harness.append(0, 3, &[9; 50]).unwrap();
        let durable = *harness.events.durable.lock();
        harness.settle();
        assert!(harness.events.failed.lock().is_some());
        assert!(matches!(harness.append(0, 4, &[9; 50]), Err(StoreError::Failed(_))));
        harness.settle();
        assert_eq!(*harness.events.durable.lock(), durable, "nothing counts any more");
        assert!(harness.payloads(0).len() >= 3);
    }
}

#[test]
fn a_full_disk_refuses_appends_until_there_is_room() {
    let full = Options { min_free_bytes: 10_000, ..options() };
    let disk = FaultDisk::new();
    let harness = Harness::over(disk.clone(), full);
    fill(&harness, 1, 10, 500);
    disk.set_capacity(Some(disk.used() + 5_000));
    let mut offset = 10;
    let refused = loop {
        match harness.append(0, offset, &[7; 500]) {
            Ok(_) => offset += 1,
            Err(StoreError::Busy) => harness.settle(),
            Err(error) => break error,
        }
    };
    assert_eq!(refused, StoreError::DiskFull);
    harness.settle();
    assert_eq!(harness.payloads(0).len() as u64, offset, "reads go on");
    assert_eq!(harness.append(0, offset, &[7; 500]), Err(StoreError::DiskFull));
    disk.set_capacity(None);
    assert_eq!(harness.append(0, offset, &[7; 500]), Err(StoreError::DiskFull));
    harness.settle();
    harness.must_append(0, offset, &[7; 500]);
}

#[test]
fn those_who_wait_for_an_extent_are_told_when_the_disk_has_no_room_for_it() {
    let disk = FaultDisk::new();
    let harness = Harness::over(disk.clone(), Options { min_free_bytes: 10_000, ..options() });
    disk.set_capacity(Some(disk.used() + 5_000));
    let mut offset = 0;
    // Everything is durable before each append: no report of progress is still to come.
    while harness.append(0, offset, &[7; 500]) != Err(StoreError::Busy) {
        offset += 1;
        crate::store::close::drain(&harness.store.shared);
    }
    let told = *harness.events.told.lock();
    harness.keep();
    assert!(*harness.events.told.lock() > told, "who waits has to try again");
    assert_eq!(harness.append(0, offset, &[7; 500]), Err(StoreError::DiskFull));
}

#[test]
fn who_waits_for_an_extent_with_a_large_entry_is_told_when_there_is_one() {
    let harness = Harness::new();
    harness.append(0, 0, &[7; 10_000]).unwrap();
    harness.settle();
    // Most of the extent is left, but not enough, and there is no other yet.
    assert_eq!(harness.append(0, 1, &[8; 25_000]), Err(StoreError::Busy));
    let told = *harness.events.told.lock();
    harness.keep();
    assert!(*harness.events.told.lock() > told, "who waits has to try again");
    harness.append(0, 1, &[8; 25_000]).unwrap();
    harness.settle();
    let harness = harness.crash(1);
    assert_eq!(harness.payloads(0), [vec![7; 10_000], vec![8; 25_000]]);
}

#[test]
fn an_idle_journal_is_silent() {
    let harness = Harness::new();
    fill(&harness, 1, 3, 50);
    harness.idle();
    let activity = harness.disk.activity();
    harness.idle();
    harness.settle();
    assert_eq!(harness.disk.activity(), activity);
}

#[test]
fn one_store_a_folder_and_no_newer_format() {
    let harness = Harness::new();
    let open =
        || JournalStore::open(Arc::new(harness.folder.clone()), options(), harness.events.clone());
    assert!(matches!(open(), Err(OpenError::Locked)));
    let harness = harness.crash(1);
    fill(&harness, 1, 1, 50);
    let name = harness.extents()[0].clone();
    let mut newer = vec![0; 512];
    let header = harness.folder.contents(&name).unwrap();
    newer.copy_from_slice(&header[..512]);
    newer[4] = 9;
    let crc = crc32c::crc32c(&newer[..16]).to_le_bytes();
    newer[16..20].copy_from_slice(&crc);
    harness.folder.open(&name).unwrap().write_at(&newer, 0).unwrap();
    harness.disk.kill();
    let folder = Arc::new(harness.disk.folder("journal"));
    let error = JournalStore::open(folder, options(), harness.events.clone());
    assert!(matches!(error, Err(OpenError::NewerFormat { found: 9, .. })));
}

#[test]
fn reads_that_must_not_wait_say_so() {
    let harness = Harness::new();
    fill(&harness, 1, 100, 700);
    harness.disk.set_cold(true);
    assert!(harness.store.try_read(&whole(0)).is_none(), "the oldest are on disk only");
    let newest = SegmentRead { offset: 99, ..whole(0) };
    assert_eq!(harness.store.try_read(&newest).unwrap().unwrap().batches.len(), 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let outcome = runtime.block_on(harness.store.read(whole(0))).unwrap();
    assert!(!outcome.batches.is_empty());
}
