//! Any bytes as what a disk gives back: for fuzzing.

use std::io;

use crate::core::producers::Producers;
use crate::disk::DiskFile;
use crate::store::{EntryHeader, EntryKind, Position, SegmentId};
use crate::{AppendKey, Epoch, KeyDigest, LogId};

use super::entries::{IndexEntry, RunIndex};
use super::footer::{self, BlockRef, MARK, Mark, RunStats, RunSummary};
use super::format::{self, ENTRY_HEADER, EXTENT_HEADER, GROUP_HEADER, GroupHeader};
use super::scan::scan;
use super::{ExtentId, ExtentKey};

const KEY: ExtentKey = ExtentKey { id: ExtentId(5), salt: 77 };

/// Reads any bytes as everything that an extent holds, with checksums made good where a decoder
/// would stop at them.
pub fn fuzz_journal(bytes: &[u8]) {
    let _ = format::decode_extent_version(bytes);
    let _ = format::read_entry(bytes);
    if let Ok((producers, is_last)) = Producers::decode(bytes) {
        assert_eq!(Producers::decode(&producers.encode(is_last)), Ok((producers, is_last)));
    }
    if let Some(index) = RunIndex::decode(bytes) {
        let blocks = index.entries().len().div_ceil(super::entries::BLOCK);
        for block in 0..=blocks {
            let _ = index.block_may_match(block, &[1, 2, 3]);
        }
        assert!(index.entries().len() <= bytes.len(), "entries out of nothing");
    }
    if let Some(summary) = mark_of(bytes).and_then(|mark| mark.summary(KEY, bytes)) {
        assert!(summary.runs.len() + summary.replaces.len() <= bytes.len(), "runs out of nothing");
    }
    // A file in memory can be read.
    let _ = scan(&Memory(extent(bytes)), KEY);
}

/// A good mark whose summary is `summary`.
fn mark_of(summary: &[u8]) -> Option<Mark> {
    let mut mark = footer::encode(KEY, 0, Position(0), ExtentId(0), &[], &mut []);
    mark.truncate(MARK);
    let len = u32::try_from(summary.len()).ok()?;
    mark.get_mut(20..24)?.copy_from_slice(&len.to_le_bytes());
    let crc = crc32c::crc32c_append(KEY.salt, summary);
    mark.get_mut(24..28)?.copy_from_slice(&crc.to_le_bytes());
    seal(&mut mark);
    Mark::decode(&mark, KEY)
}

/// An extent that holds `bytes`; the checksums of the first group and its first entry are good.
fn extent(bytes: &[u8]) -> Vec<u8> {
    let mut extent = vec![0; EXTENT_HEADER as usize];
    let mut groups = bytes.to_vec();
    if let Some((group, entry)) = groups.split_at_mut_checked(GROUP_HEADER as usize) {
        seal(group);
        let digest = entry.get(72..74).and_then(|len| len.try_into().ok()).map(u16::from_le_bytes);
        let head_len = ENTRY_HEADER + 4 * usize::from(digest.unwrap_or(0));
        if let Some(head) = entry.get_mut(..head_len) {
            seal(head);
        }
    }
    extent.append(&mut groups);
    extent
}

fn seal(header: &mut [u8]) {
    let crc = crc32c::crc32c_append(KEY.salt, header.get(8..).unwrap_or_default());
    if let Some(place) = header.get_mut(4..8) {
        place.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Valid inputs of [`fuzz_journal`].
pub fn journal_seeds() -> Vec<Vec<u8>> {
    let id = SegmentId { log: LogId(7), epoch: Epoch(2) };
    let mut index = RunIndex::default();
    for offset in 0..65 {
        let entry = IndexEntry {
            offset,
            max_timestamp: 1000,
            at: 4096,
            payload_len: 5,
            count: 1,
            head_len: 80,
            kind: EntryKind::Data,
        };
        index.push(entry, (offset != 64).then_some(&[1, 2]));
    }
    let stats = RunStats {
        first: 0,
        end: 65,
        bytes: 325,
        disk_bytes: 5525,
        max_timestamp: 1000,
        max_at: 0,
    };
    let summary = RunSummary {
        id,
        stats,
        snapshot: index.entries().first().copied(),
        block: BlockRef { at: 0, len: 0, crc: 0 },
        scan_bytes: 0,
        damaged: std::iter::once(3..5).collect(),
    };
    let footer =
        footer::encode(KEY, 0, Position(0), ExtentId(0), &[ExtentId(4)], &mut [(summary, &index)]);
    let block = index.encode();
    let summary = footer.get(MARK + block.len()..footer.len() - MARK).unwrap_or_default().to_vec();

    let header = EntryHeader {
        id,
        kind: EntryKind::Data,
        base_offset: 9,
        count: 2,
        max_timestamp: 1000,
        key: Some(AppendKey { producer_id: 1, producer_epoch: 0, sequence: 3 }),
        window: 5,
        digest: Some(KeyDigest([1, 2, 3].into())),
    };
    let payload = b"hello";
    let mut entry = vec![0; format::head_len(&header)];
    let (len, crc) = (payload.len() as u32, crc32c::crc32c(payload));
    format::encode_entry(&mut entry, &header, len, crc, KEY, EXTENT_HEADER + GROUP_HEADER);
    entry.extend_from_slice(payload);
    let group =
        GroupHeader { bytes: entry.len() as u32, synced: Position(0), previous: Position(0) };
    let group = [&group.encode(KEY, EXTENT_HEADER)[..], &entry].concat();
    let end = EXTENT_HEADER + format::align(group.len() as u32);
    let mut closed = group.clone();
    closed.resize((end - EXTENT_HEADER) as usize, 0);
    closed.extend(footer::encode(KEY, end, Position(0), ExtentId(0), &[], &mut []));
    vec![block, summary, entry, group, closed, format::encode_extent(KEY)]
}

/// A file in memory that is only read.
struct Memory(Vec<u8>);

impl DiskFile for Memory {
    fn write_vectored_at(&self, _parts: &[&[u8]], _position: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at(&self, into: &mut [u8], position: u64) -> io::Result<usize> {
        let start = usize::try_from(position).unwrap_or(usize::MAX);
        let there = self.0.get(start..).unwrap_or_default();
        let len = there.len().min(into.len());
        for (to, from) in into.iter_mut().zip(there) {
            *to = *from;
        }
        Ok(len)
    }

    fn try_read_at(&self, into: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        self.read_at(into, position).map(Some)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn preallocate(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scan::Found;
    use super::*;

    #[test]
    fn seeds_reach_what_they_are_for() {
        let seeds = journal_seeds();
        let [block, summary, _, group, closed, _] = &seeds[..] else { panic!() };
        assert_eq!(RunIndex::decode(block).unwrap().entries().len(), 65);
        let found = mark_of(summary).unwrap().summary(KEY, summary).unwrap();
        assert_eq!((found.runs.len(), found.replaces.len()), (1, 1));
        let found = scan(&Memory(extent(group)), KEY).unwrap();
        assert!(matches!(found[..2], [Found::Group { .. }, Found::Entry { is_good: true, .. }]));
        let found = scan(&Memory(extent(closed)), KEY).unwrap();
        assert!(matches!(found.last(), Some(Found::End { .. })));
        seeds.iter().for_each(|seed| fuzz_journal(seed));
    }
    #[test]
    fn lengths_past_the_file_neither_hang_nor_overflow() {
        let group = &journal_seeds()[3];
        let mut long_group = group.clone();
        long_group[16..20].fill(0xff);
        // The entry is bad too, so the rest of the group is searched.
        long_group[GROUP_HEADER as usize] ^= 1;
        fuzz_journal(&long_group);
        let mut long_entry = group.clone();
        let payload_len = GROUP_HEADER as usize + 64;
        long_entry[payload_len..payload_len + 4].fill(0xff);
        fuzz_journal(&long_entry);
        long_entry[0] ^= 1;
        fuzz_journal(&long_entry);
    }
}
