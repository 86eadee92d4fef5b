use super::*;
use crate::journal::footer::RunStats;
use crate::store::index::Run;
use crate::store::{EntryKind, SegmentId};
use crate::{Epoch, LogId};

fn entry(offset: Offset, at: u32) -> IndexEntry {
    IndexEntry {
        offset,
        max_timestamp: 0,
        at,
        payload_len: 100,
        count: 10,
        head_len: 80,
        kind: EntryKind::Data,
    }
}

/// Three entries of ten offsets each: two in memory, and one whose index is in a footer.
fn segment() -> Segment {
    let mut index = RunIndex::default();
    let mut stats = RunStats::default();
    for entry in [entry(0, 552), entry(10, 732)] {
        stats.add(&entry);
        index.push(entry, None);
    }
    let mut later = RunStats::default();
    later.add(&entry(20, 552));
    let block = BlockRef { at: 1024, len: 9, crc: 0 };
    let run = |extent, stats, place| Run { extent: ExtentId(extent), stats, place, scan_bytes: 0 };
    Segment {
        runs: vec![
            run(1, stats, RunPlace::Memory(Arc::new(index))),
            run(2, later, RunPlace::Footer(block)),
        ],
        ..Segment::default()
    }
}

fn cached(_: ExtentId, _: BlockRef) -> Option<Arc<RunIndex>> {
    let mut index = RunIndex::default();
    index.push(entry(20, 552), None);
    Some(Arc::new(index))
}

fn read(offset: Offset, end: Offset, max_bytes: usize) -> SegmentRead {
    let id = SegmentId { log: LogId(1), epoch: Epoch(0) };
    SegmentRead { id, offset, end, max_bytes, filter: None }
}

#[test]
fn plans_begin_with_the_entry_that_holds_the_offset() {
    let cases = [
        (read(0, 100, 1000), vec![0, 10, 20], 30),
        (read(15, 100, 1000), vec![10, 20], 30),
        (read(15, 20, 1000), vec![10], 20),
        (read(0, 100, 250), vec![0, 10], 20),
        (read(25, 100, 1), vec![20], 30),
        (read(30, 100, 1000), vec![], 30),
    ];
    for (read, expected, next) in cases {
        let Plan::Entries { wanted, next_offset } = plan(&segment(), &read, cached) else {
            panic!("{read:?}");
        };
        let offsets: Vec<_> = wanted.iter().map(|wanted| wanted.entry.offset).collect();
        assert_eq!((offsets, next_offset), (expected, next), "{read:?}");
    }
}

#[test]
fn an_index_that_is_not_loaded_ends_the_plan_or_is_asked_for() {
    let none = |_, _| None;
    let plan_of = |offset| plan(&segment(), &read(offset, 100, 1000), none);
    assert!(matches!(plan_of(0), Plan::Entries { wanted, next_offset: 20 } if wanted.len() == 2));
    assert!(matches!(plan_of(20), Plan::Needs(ExtentId(2), _)));
}

#[test]
fn a_plan_stops_before_damage_and_says_so_inside_it() {
    let mut segment = segment();
    segment.damage(10..20);
    let plan_of = |offset| plan(&segment, &read(offset, 100, 1000), cached);
    assert!(matches!(plan_of(0), Plan::Entries { wanted, next_offset: 10 } if wanted.len() == 1));
    assert_eq!(plan_of(12), Plan::Damaged(10..20));
    assert!(matches!(plan_of(20), Plan::Entries { wanted, .. } if wanted.len() == 1));
}

#[test]
fn neighbours_are_read_at_once() {
    let wanted: Vec<Wanted> = [(1, 552), (1, 732), (1, 50_000), (2, 552), (2, 400)]
        .into_iter()
        .map(|(extent, at)| Wanted { extent: ExtentId(extent), entry: entry(0, at) })
        .collect();
    let lengths: Vec<usize> = stretches(&wanted).iter().map(|stretch| stretch.len()).collect();
    assert_eq!(lengths, [2, 1, 1, 1], "apart, in another extent, or backwards: not");
}
