use super::*;
use crate::store::{EntryKind, SegmentId};
use crate::{Epoch, LogId};

fn sizes() -> Sizes {
    Sizes { extent: 8192, chunk: 1024, tail: 4096, in_flight: 4096 }
}

fn key(id: u32) -> ExtentKey {
    ExtentKey { id: ExtentId(id), salt: id }
}

fn core() -> Core {
    let mut core = Core::new(sizes());
    core.set_spare(key(1));
    core
}

fn append(core: &mut Core, len: usize) -> Result<Placed, StoreError> {
    let header = EntryHeader {
        id: SegmentId { log: LogId(1), epoch: Epoch(0) },
        kind: EntryKind::Data,
        base_offset: 0,
        count: 1,
        max_timestamp: 0,
        key: None,
        window: 0,
        digest: None,
    };
    let payload = vec![7; len];
    core.append(&Incoming { header: &header, payload: [&payload, &[]], crc: 0 })
}

fn write_and_sync(core: &mut Core) {
    while let Some(group) = core.take() {
        let covers = core.written(&group);
        core.synced(group.key.id, covers);
    }
}

#[test]
fn a_group_is_what_arrived_before_it_was_taken() {
    let mut core = core();
    let first = append(&mut core, 100).unwrap();
    let group = core.take().unwrap();
    assert_eq!((group.start, group.end), (512, 1024));
    assert_eq!(group.parts().iter().map(|part| part.len()).sum::<usize>(), 512);
    append(&mut core, 100).unwrap();
    let last = append(&mut core, 500).unwrap();
    let next = core.take().unwrap();
    assert_eq!((next.start, next.end), (1024, 2048));
    assert!(core.take().is_none());

    let covers = core.written(&next);
    assert_eq!(covers, 512, "the write before it is not done");
    assert!(!core.synced(ExtentId(1), covers));
    let covers = core.written(&group);
    assert_eq!(covers, 2048);
    assert!(core.synced(ExtentId(1), covers));
    assert!(core.durable() >= first.position && core.durable() >= last.position);
    assert!(core.is_settled());
}

#[test]
fn an_idle_journal_states_what_is_synced_once() {
    let mut core = core();
    assert!(core.take_marker().is_none(), "nothing to state");
    append(&mut core, 10).unwrap();
    assert!(core.take_marker().is_none(), "not idle");
    write_and_sync(&mut core);
    let marker = core.take_marker().unwrap();
    let header = GroupHeader::decode(marker.parts()[0], key(1), marker.start).unwrap();
    assert_eq!(header.synced, Position::new(ExtentId(1), 1024));
    let covers = core.written(&marker);
    core.synced(ExtentId(1), covers);
    assert!(core.take_marker().is_none(), "silent");
}

#[test]
fn memory_in_flight_is_bounded_but_one_large_entry_passes() {
    let mut core = core();
    append(&mut core, 5000).unwrap();
    assert_eq!(append(&mut core, 1).unwrap_err(), StoreError::Busy);
    write_and_sync(&mut core);
    append(&mut core, 1).unwrap();
}

#[test]
fn the_next_extent_must_be_ready() {
    let mut core = core();
    assert!(!core.needs_spare());
    for _ in 0..2 {
        append(&mut core, 2900).unwrap();
        write_and_sync(&mut core);
    }
    assert!(core.needs_spare());
    assert_eq!(append(&mut core, 2900).unwrap_err(), StoreError::Busy);
    core.set_spare(key(2));
    let placed = append(&mut core, 2900).unwrap();
    assert_eq!(placed.extent, ExtentId(2));
    let (ended, end) = placed.ended.unwrap();
    assert_eq!(ended, ExtentId(1));
    let group = core.take().unwrap();
    let header = GroupHeader::decode(group.parts()[0], key(2), 512).unwrap();
    assert_eq!(header.previous, Position::new(ExtentId(1), end));
    assert!(core.is_past(ExtentId(1)));
    let limit = append(&mut core, 9000).unwrap_err();
    assert_eq!(limit, StoreError::TooLarge { max_bytes: 8192 - 512 - 40 - 80 });
}

#[test]
fn after_a_failure_nothing_counts() {
    let mut core = core();
    append(&mut core, 10).unwrap();
    let group = core.take().unwrap();
    let covers = core.written(&group);
    append(&mut core, 10).unwrap();
    assert!(core.fail("a".into()));
    assert!(!core.fail("b".into()));
    let durable = core.durable();
    assert!(!core.synced(ExtentId(1), covers));
    assert_eq!(core.durable(), durable);
    assert!(core.take().is_none());
    assert_eq!(append(&mut core, 1).unwrap_err(), StoreError::Failed("a".into()));
}

#[test]
fn entries_are_read_from_memory_as_soon_as_they_were_appended() {
    let mut core = core();
    let placed = append(&mut core, 100).unwrap();
    let bytes = core.get(placed.extent, placed.at, 180).unwrap();
    assert_eq!(bytes[80..], [7; 100]);
    append(&mut core, 50).unwrap();
    let group = core.take().unwrap();
    assert_eq!(group.parts().len(), 4, "two pieces, one group");
}
