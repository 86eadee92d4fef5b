use super::*;
use crate::journal::format::GroupHeader;
use crate::store::{EntryHeader, EntryKind, SegmentId};
use crate::{Epoch, LogId};

fn at(extent: u32, at: u32) -> Position {
    Position::new(ExtentId(extent), at)
}

fn group(at: u32, synced: Position, previous: Position) -> Found {
    Found::Group { at, header: GroupHeader { bytes: 400, synced, previous } }
}

fn entry(at: u32, is_good: bool) -> Found {
    let header = EntryHeader {
        id: SegmentId { log: LogId(1), epoch: Epoch(0) },
        kind: EntryKind::Data,
        base_offset: at.into(),
        count: 1,
        max_timestamp: 0,
        key: None,
        window: 0,
        digest: None,
    };
    let head = EntryHead { header, head_len: 80, payload_len: 320, payload_crc: 0 };
    Found::Entry { at, head, is_good }
}

fn extent(id: u32, found: Vec<Found>) -> Scanned {
    Scanned {
        id: ExtentId(id),
        kind: ExtentKind::Journal,
        found,
        len: 4096,
        unreadable: Vec::new(),
    }
}

fn kept(verdict: &Verdict) -> Vec<u32> {
    verdict.kept.iter().map(|(entry, _)| entry.at).collect()
}

const START: Position = Position(0);

#[test]
fn above_s_the_first_bad_entry_is_where_to_cut() {
    let found = vec![
        group(512, START, START),
        entry(552, true),
        group(1024, at(1, 1024), START),
        entry(1064, false),
        group(1536, at(1, 1024), START),
        entry(1576, true),
    ];
    let later = extent(2, vec![group(512, at(1, 1024), at(1, 2048)), entry(552, true)]);
    let verdicts = judge(vec![extent(1, found), later], &[]);
    assert_eq!(kept(&verdicts[0]), [552]);
    assert!(verdicts[0].is_cut && verdicts[0].damaged.is_empty());
    assert_eq!(verdicts[0].end, 1024);
    assert!(verdicts[1].is_void, "valid or not, it is behind the cut");
}

#[test]
fn below_s_it_is_damage_and_what_follows_stays() {
    let found = vec![
        group(512, START, START),
        entry(552, false),
        Found::BadGroup { at: 1024 },
        entry(1064, true),
        Found::Bad { from: 1536, to: 2048 },
        group(2048, at(1, 2048), START),
        entry(2088, true),
        Found::Bad { from: 2560, to: 4096 },
    ];
    let verdicts = judge(vec![extent(1, found)], &[]);
    let verdict = &verdicts[0];
    assert_eq!(kept(verdict), [1064, 2088]);
    assert_eq!(verdict.damaged.len(), 1);
    assert_eq!(verdict.holes, [(1536, 2048)], "a bad group header alone is no hole");
    assert_eq!((verdict.end, verdict.unreported_from), (2560, 2048));
}

#[test]
fn a_group_of_a_later_extent_says_where_one_ended() {
    let first =
        vec![group(512, START, START), entry(552, true), Found::Bad { from: 1024, to: 4096 }];
    let second = |previous| vec![group(512, at(1, 1024), previous), entry(552, true)];
    let whole = judge(vec![extent(1, first.clone()), extent(2, second(at(1, 1024)))], &[]);
    assert!(!whole[0].is_cut && whole[0].holes.is_empty());
    assert_eq!(kept(&whole[1]), [552]);
    // It ended later than what is there, and nobody was told that it was durable.
    let cut = judge(vec![extent(1, first), extent(2, second(at(1, 1536)))], &[]);
    assert!(cut[0].is_cut && cut[1].is_void);
}

#[test]
fn footers_prove_what_came_before_and_void_what_was_dropped() {
    let footer = |id, void_to| Footered {
        id: ExtentId(id),
        kind: ExtentKind::Journal,
        end: 2048,
        previous: at(id - 1, 1024),
        void_to: ExtentId(void_to),
    };
    let found =
        vec![group(512, START, START), entry(552, false), Found::Bad { from: 1024, to: 4096 }];
    let verdicts = judge(vec![extent(1, found.clone())], &[footer(2, 0)]);
    assert_eq!(verdicts[0].damaged.len(), 1, "a later footer says that it was durable");
    assert!(verdicts[0].holes.is_empty(), "and where it ended");
    let verdicts = judge(vec![extent(4, found.clone())], &[footer(2, 4)]);
    assert!(verdicts[0].is_void);
    // A rewritten extent says nothing about the journal.
    let rewritten = Footered { kind: ExtentKind::Rewritten, ..footer(2, 0) };
    assert!(judge(vec![extent(1, found)], &[rewritten])[0].is_cut);
}

#[test]
fn a_rewritten_extent_was_complete() {
    let found = vec![
        group(512, START, START),
        entry(552, true),
        Found::Bad { from: 1024, to: 1536 },
        Found::End { at: 1536 },
    ];
    let scanned = Scanned { kind: ExtentKind::Rewritten, ..extent(3, found) };
    let verdict = &judge(vec![scanned], &[])[0];
    assert_eq!((kept(verdict), verdict.is_cut), (vec![552], false));
    assert_eq!(verdict.holes, [(1024, 1536)]);
}

#[test]
fn a_file_that_is_too_short_is_damaged() {
    let found = vec![group(512, START, START), entry(552, true)];
    let short = Scanned { len: 1024, ..extent(1, found) };
    let next = extent(2, vec![group(512, at(1, 2048), at(1, 2048))]);
    let verdicts = judge(vec![short, next], &[]);
    assert_eq!(verdicts[0].holes, [(952, 2048)]);
}

#[test]
fn what_cannot_be_read_may_have_been_reported() {
    let good = |from| [group(from, START, START), entry(from + 40, true)];
    let unreadable = |unreadable, found| Scanned { unreadable, ..extent(1, found) };
    // Nothing states a position, and yet neither a gap nor what lies behind it is cut.
    let mut found = good(512).to_vec();
    found.push(Found::Bad { from: 1024, to: 2048 });
    found.extend(good(2048));
    found.push(Found::Bad { from: 2560, to: 4096 });
    let verdict = &judge(vec![unreadable(vec![(1024, 1536)], found)], &[])[0];
    assert_eq!(kept(verdict), [552, 2088]);
    assert_eq!(verdict.holes, [(1024, 2048)]);
    assert!(verdict.is_cut && verdict.is_unreadable, "what was never written is cut");
    assert_eq!((verdict.end, verdict.unreported_from), (2560, 512));

    // At the end of what was written it isn't known how far that went.
    let mut found = good(512).to_vec();
    found.push(Found::Bad { from: 1024, to: 4096 });
    let verdict = &judge(vec![unreadable(vec![(1024, 1536)], found)], &[])[0];
    assert_eq!((verdict.holes.as_slice(), verdict.end), (&[(1024, 1536)][..], 1536));

    // A payload that can't be read is damage, and so is what is bad before it.
    let mut found = vec![group(512, START, START), entry(552, false)];
    found.extend(good(1024));
    found.extend([group(1536, START, START), entry(1576, false)]);
    found.push(Found::Bad { from: 2048, to: 4096 });
    let verdict = &judge(vec![unreadable(vec![(1792, 2048)], found)], &[])[0];
    assert_eq!((kept(verdict), verdict.damaged.len()), (vec![1064], 2));

    // A later extent that can't be read at all: the one before was perhaps reported to its end.
    let mut first = good(512).to_vec();
    first.extend([group(1024, START, START), entry(1064, false)]);
    let lost = Scanned {
        len: u32::MAX,
        unreadable: vec![(0, u32::MAX)],
        ..extent(2, vec![Found::Bad { from: 512, to: u32::MAX }])
    };
    let verdicts = judge(vec![extent(1, first), lost], &[]);
    assert_eq!((verdicts[0].damaged.len(), verdicts[0].is_cut), (1, false));
    assert!(!verdicts[0].is_unreadable && verdicts[1].is_unreadable);
    assert_eq!(verdicts[1].holes.len(), 1);

    // What was cut before it never was: then it doesn't matter.
    let mut found = good(512).to_vec();
    found.push(Found::Bad { from: 1024, to: 4096 });
    let stated = vec![group(512, at(1, 1024), at(1, 1024)), entry(552, true)];
    let verdicts = judge(vec![unreadable(vec![(2048, 4096)], found), extent(2, stated)], &[]);
    assert!(!verdicts[0].is_unreadable && verdicts[0].holes.is_empty());
}
