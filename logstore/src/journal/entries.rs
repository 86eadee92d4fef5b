//! Where the entries of one segment lie in one extent.

use crate::Offset;
use crate::store::EntryKind;

use super::format::{self, Reader};

/// Entries that share one digest.
pub(crate) const BLOCK: usize = 64;
/// A block with more hashes than this may match any filter.
const MAX_BLOCK_HASHES: usize = 4096;
const ENTRY_BYTES: usize = 32;
/// What going to another place of the disk costs, in bytes that it could have read meanwhile: some
/// 100 µs at 600 MB/s.
pub(crate) const SEEK_BYTES: u32 = 64 << 10;
/// What may lie between entries that were written together: the padding and header of a group.
const PADDING: u32 = format::ALIGN + format::GROUP_HEADER;
/// Stands for the number of hashes of a block that may match any filter.
const ANY: u32 = u32::MAX;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) offset: Offset,
    pub(crate) max_timestamp: i64,
    /// Bytes from the start of the extent to its header.
    pub(crate) at: u32,
    pub(crate) payload_len: u32,
    pub(crate) count: u32,
    pub(crate) head_len: u16,
    pub(crate) kind: EntryKind,
}

/// The entries of a run, in order, with merged digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunIndex {
    entries: Vec<IndexEntry>,
    /// One for each full block; `None` may match any filter.
    digests: Vec<Option<Box<[u32]>>>,
    /// The hashes of the last, unfinished block.
    gathering: Vec<u32>,
    may_match_any: bool,
}

impl IndexEntry {
    /// One past its last offset.
    pub(crate) fn end(&self) -> Offset {
        self.offset.saturating_add(u64::from(self.count))
    }

    /// Bytes that it takes, header and payload.
    pub(crate) fn len(&self) -> u32 {
        u32::from(self.head_len).saturating_add(self.payload_len)
    }

    /// Where it ends in its extent.
    pub(crate) fn after(&self) -> u32 {
        self.at.saturating_add(self.len())
    }

    /// Whether it takes no offset.
    pub(crate) fn is_snapshot(&self) -> bool {
        self.kind == EntryKind::Snapshot
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.offset.to_le_bytes());
        out.extend_from_slice(&self.max_timestamp.to_le_bytes());
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&self.payload_len.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.head_len.to_le_bytes());
        out.extend_from_slice(&[self.kind as u8, 0]);
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let entry = Self {
            offset: reader.u64()?,
            max_timestamp: reader.i64()?,
            at: reader.u32()?,
            payload_len: reader.u32()?,
            count: reader.u32()?,
            head_len: reader.u16()?,
            kind: format::kind(reader.u8()?)?,
        };
        reader.u8()?;
        Some(entry)
    }
}

impl RunIndex {
    /// Adds the next entry.
    pub(crate) fn push(&mut self, entry: IndexEntry, digest: Option<&[u32]>) {
        self.entries.push(entry);
        match digest {
            _ if entry.is_snapshot() => {}
            Some(hashes) if !self.may_match_any => self.gathering.extend_from_slice(hashes),
            Some(_) => {}
            None => {
                self.may_match_any = true;
                self.gathering = Vec::new();
            }
        }
        if self.entries.len().is_multiple_of(BLOCK) {
            let mut hashes = std::mem::take(&mut self.gathering);
            hashes.sort_unstable();
            hashes.dedup();
            let any = std::mem::take(&mut self.may_match_any) || hashes.len() > MAX_BLOCK_HASHES;
            self.digests.push((!any).then(|| hashes.into_boxed_slice()));
        }
    }

    pub(crate) fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Whether a block of entries may hold one of the hashes (sorted).
    pub(crate) fn block_may_match(&self, block: usize, filter: &[u32]) -> bool {
        match self.digests.get(block) {
            Some(Some(hashes)) => intersects(hashes, filter),
            _ => true,
        }
    }

    /// What it costs to read all entries in order, in bytes that the disk reads in sequence in the
    /// same time: going there, the entries, and for each gap the cheaper of reading through it
    /// and going on behind it.
    pub(crate) fn scan_bytes(&self) -> u64 {
        let mut cost = u64::from(SEEK_BYTES);
        let mut end = None;
        for entry in &self.entries {
            let gap = match end {
                Some(end) => entry.at.checked_sub(end).unwrap_or(SEEK_BYTES),
                None => 0,
            };
            if gap > PADDING {
                cost += u64::from(gap.min(SEEK_BYTES));
            }
            cost += u64::from(entry.len());
            end = Some(entry.after());
        }
        cost
    }

    /// Memory that it takes, bytes.
    pub(crate) fn memory(&self) -> usize {
        let hashes: usize = self.digests.iter().flatten().map(|hashes| hashes.len() * 4).sum();
        self.entries.len() * size_of::<IndexEntry>() + self.digests.len() * 16 + hashes
    }

    /// The index as a footer keeps it.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8 + self.entries.len() * ENTRY_BYTES);
        let count = u32::try_from(self.entries.len()).unwrap_or(0);
        out.extend_from_slice(&count.to_le_bytes());
        for entry in &self.entries {
            entry.encode(&mut out);
        }
        for digest in &self.digests {
            let len = digest.as_ref().map_or(ANY, |d| u32::try_from(d.len()).unwrap_or(ANY));
            out.extend_from_slice(&len.to_le_bytes());
            for hash in digest.iter().flatten() {
                out.extend_from_slice(&hash.to_le_bytes());
            }
        }
        out
    }

    /// Reads it back; its checksum was checked before.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let count = usize::try_from(reader.u32()?).ok()?;
        if reader.0.len() < count.checked_mul(ENTRY_BYTES)? {
            return None;
        }
        let entries: Option<Vec<_>> = (0..count).map(|_| IndexEntry::decode(&mut reader)).collect();
        let mut digests = Vec::with_capacity(count / BLOCK);
        for _ in 0..count / BLOCK {
            let len = reader.u32()?;
            digests.push(if len == ANY {
                None
            } else {
                let (hashes, rest) =
                    reader.0.split_at_checked(usize::try_from(len).ok()?.checked_mul(4)?)?;
                reader.0 = rest;
                Some(hashes.chunks_exact(4).filter_map(|hash| Reader(hash).u32()).collect())
            });
        }
        Some(Self { entries: entries?, digests, ..Self::default() })
    }
}

/// Whether two sorted lists share an element.
pub(crate) fn intersects(a: &[u32], b: &[u32]) -> bool {
    let (short, long) = if a.len() < b.len() { (a, b) } else { (b, a) };
    if short.len() * 8 < long.len() {
        return short.iter().any(|x| long.binary_search(x).is_ok());
    }
    let (mut a, mut b) = (short.iter().peekable(), long.iter().peekable());
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        match x.cmp(y) {
            std::cmp::Ordering::Equal => return true,
            std::cmp::Ordering::Less => a.next(),
            std::cmp::Ordering::Greater => b.next(),
        };
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_index_is_read_back_and_never_skips_what_matches(
            digests in proptest::collection::vec(
                proptest::option::of(proptest::collection::btree_set(0..200u32, 0..6)), 0..200),
            filter in proptest::collection::btree_set(0..200u32, 1..4),
        ) {
            let filter: Vec<u32> = filter.into_iter().collect();
            let mut index = RunIndex::default();
            for (i, digest) in digests.iter().enumerate() {
                let digest: Option<Vec<u32>> = digest.as_ref().map(|d| d.iter().copied().collect());
                index.push(IndexEntry {
                    offset: i as u64, max_timestamp: -1, at: 3, payload_len: 4, count: 1,
                    head_len: 80, kind: EntryKind::Data,
                }, digest.as_deref());
            }
            let back = RunIndex::decode(&index.encode()).unwrap();
            prop_assert_eq!(back.entries(), index.entries());
            for (i, digest) in digests.iter().enumerate() {
                let matches = digest.as_ref().is_none_or(|d| filter.iter().any(|f| d.contains(f)));
                if matches {
                    prop_assert!(index.block_may_match(i / BLOCK, &filter));
                    prop_assert!(back.block_may_match(i / BLOCK, &filter));
                }
            }
        }

        #[test]
        fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = RunIndex::decode(&bytes);
        }
    }

    #[test]
    fn lists_intersect() {
        let long: Vec<u32> = (0..100).map(|i| i * 2).collect();
        for (a, expected) in
            [(vec![4], true), (vec![5], false), (vec![], false), (vec![1, 198], true)]
        {
            assert_eq!(intersects(&a, &long), expected);
            assert_eq!(intersects(&long, &a), expected);
        }
        assert!(intersects(&[1, 3, 5], &[2, 5]));
        assert!(!intersects(&[1, 3, 5], &[2, 4]));
    }

    #[test]
    fn a_scan_costs_its_bytes_and_its_gaps() {
        let seek = u64::from(SEEK_BYTES);
        let cases: [(&str, &[u32], u64); 6] = [
            ("nothing", &[], seek),
            ("side by side", &[552, 652, 752], seek + 300),
            ("groups", &[552, 1064, 1576], seek + 300),
            ("a gap is read through", &[552, 652 + 4096], seek + 200 + 4096),
            ("a wide one is left out", &[552, 40 << 20], seek + 200 + seek),
            ("backwards", &[4096, 552], seek + 200 + seek),
        ];
        for (name, places, expected) in cases {
            let mut index = RunIndex::default();
            for at in places {
                index.push(
                    IndexEntry {
                        offset: 0,
                        max_timestamp: 0,
                        at: *at,
                        payload_len: 20,
                        count: 1,
                        head_len: 80,
                        kind: EntryKind::Data,
                    },
                    None,
                );
            }
            assert_eq!(index.scan_bytes(), expected, "{name}");
        }
    }

    #[test]
    fn an_entry_takes_32_bytes() {
        assert_eq!(size_of::<IndexEntry>(), 32);
    }
}
