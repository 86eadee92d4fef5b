//! What is written behind the last group of an extent: an index of it.
//!
//! ```text
//!   … last group | mark | index of run | index of run | … | summary | mark |  end of file
//! ```
//!
//! The mark stands at both ends, so that one bad sector never hides where the data ends. A start
//! reads the last mark and the summary only; the index of a run is read when it is needed. An
//! extent has a valid footer only when everything before it is durable.

use std::ops::Range;

use crate::store::{Position, SegmentId};
use crate::{Epoch, LogId, Offset};

use super::entries::{IndexEntry, RunIndex, SEEK_BYTES};
use super::format::Reader;
use super::{ExtentId, ExtentKey};

/// Bytes of a mark.
pub(crate) const MARK: usize = 64;
const MAGIC: u32 = u32::from_le_bytes(*b"IFF1");
const HAS_SNAPSHOT: u8 = 1;

/// The place of everything in a footer, and how its extent relates to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Where the groups end and the footer begins.
    pub(crate) end: u32,
    pub(crate) summary_at: u32,
    pub(crate) summary_len: u32,
    summary_crc: u32,
    /// Where the extent before this one ended.
    pub(crate) previous: Position,
    /// Extents after this one, up to this one, hold nothing that counts: it was cut.
    pub(crate) void_to: ExtentId,
}

/// Sizes and bounds of a run: the consecutive entries of one segment in one extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunStats {
    pub(crate) first: Offset,
    pub(crate) end: Offset,
    /// Payload bytes.
    pub(crate) bytes: u64,
    /// Bytes that its entries take on disk.
    pub(crate) disk_bytes: u64,
    pub(crate) max_timestamp: i64,
    /// The offset of the first batch with it.
    pub(crate) max_at: Offset,
}

/// Where the index of a run is in its extent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockRef {
    pub(crate) at: u32,
    pub(crate) len: u32,
    pub(crate) crc: u32,
}

/// A run as a footer's summary tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunSummary {
    pub(crate) id: SegmentId,
    pub(crate) stats: RunStats,
    /// The run's last entry that takes no offset.
    pub(crate) snapshot: Option<IndexEntry>,
    pub(crate) block: BlockRef,
    /// What reading the run costs, see [`RunIndex::scan_bytes`]; filled in with the footer.
    pub(crate) scan_bytes: u64,
    /// Offsets that were found to be lost when the extent was closed.
    pub(crate) damaged: Vec<Range<Offset>>,
}

/// What a start reads of a footer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Extents whose content this one has taken over.
    pub(crate) replaces: Vec<ExtentId>,
    pub(crate) runs: Vec<RunSummary>,
}

impl Default for RunStats {
    fn default() -> Self {
        Self {
            first: Offset::MAX,
            end: 0,
            bytes: 0,
            disk_bytes: 0,
            max_timestamp: i64::MIN,
            max_at: 0,
        }
    }
}

impl RunStats {
    /// What reading the run costs where its entries lie side by side.
    pub(crate) fn least_scan_bytes(&self) -> u64 {
        self.disk_bytes.saturating_add(u64::from(SEEK_BYTES))
    }

    /// Counts offsets in that are lost.
    pub(crate) fn cover(&mut self, lost: &IndexEntry) {
        self.first = self.first.min(lost.offset);
        self.end = self.end.max(lost.end());
    }

    /// Counts the next entry in.
    pub(crate) fn add(&mut self, entry: &IndexEntry) {
        self.first = self.first.min(entry.offset);
        self.end = self.end.max(entry.end());
        self.disk_bytes += u64::from(entry.len());
        if entry.is_snapshot() {
            return;
        }
        self.bytes += u64::from(entry.payload_len);
        if entry.max_timestamp > self.max_timestamp {
            self.max_timestamp = entry.max_timestamp;
            self.max_at = entry.offset;
        }
    }
}

/// The bytes of a footer that stands at `end`. The block references and costs of `runs`
/// are filled in.
pub(crate) fn encode(
    key: ExtentKey,
    end: u32,
    previous: Position,
    void_to: ExtentId,
    replaces: &[ExtentId],
    runs: &mut [(RunSummary, &RunIndex)],
) -> Vec<u8> {
    let place = |len: usize| end.saturating_add(u32::try_from(len).unwrap_or(u32::MAX));
    let mut out = vec![0; MARK];
    for (summary, index) in runs.iter_mut() {
        let block = index.encode();
        summary.block = BlockRef {
            at: place(out.len()),
            len: u32::try_from(block.len()).unwrap_or(0),
            crc: crc32c::crc32c_append(key.salt, &block),
        };
        summary.scan_bytes = index.scan_bytes();
        out.extend_from_slice(&block);
    }
    let summary_at = out.len();
    put_list(&mut out, replaces, |out, id| out.extend_from_slice(&id.0.to_le_bytes()));
    put_list(&mut out, runs, |out, (run, _)| run.encode(out));
    // Behind everything that the first version knew, which doesn't look further.
    put_list(&mut out, runs, |out, (run, _)| out.extend_from_slice(&run.scan_bytes.to_le_bytes()));
    let summary = out.get(summary_at..).unwrap_or_default();
    let mark = Mark {
        end,
        summary_at: place(summary_at),
        summary_len: u32::try_from(summary.len()).unwrap_or(0),
        summary_crc: crc32c::crc32c_append(key.salt, summary),
        previous,
        void_to,
    }
    .encode(key);
    if let Some(head) = out.get_mut(..MARK) {
        head.copy_from_slice(&mark);
    }
    out.extend_from_slice(&mark);
    out
}

fn put_list<T>(out: &mut Vec<u8>, list: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
    out.extend_from_slice(&u32::try_from(list.len()).unwrap_or(0).to_le_bytes());
    for item in list {
        put(out, item);
    }
}

/// Reads a list; each of its items takes at least `min` bytes.
fn list<T>(
    reader: &mut Reader<'_>,
    min: usize,
    read: impl Fn(&mut Reader<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let count = usize::try_from(reader.u32()?).ok()?;
    (reader.0.len() >= count.checked_mul(min)?).then_some(())?;
    (0..count).map(|_| read(reader)).collect()
}

impl Mark {
    fn encode(&self, key: ExtentKey) -> [u8; MARK] {
        let mut out = [0; MARK];
        let fields: [&[u8]; 10] = [
            &MAGIC.to_le_bytes(),
            &[0; 4],
            &key.id.0.to_le_bytes(),
            &self.end.to_le_bytes(),
            &self.summary_at.to_le_bytes(),
            &self.summary_len.to_le_bytes(),
            &self.summary_crc.to_le_bytes(),
            &self.previous.0.to_le_bytes(),
            &self.void_to.0.to_le_bytes(),
            &[0; 4],
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        let crc = crc32c::crc32c_append(key.salt, out.get(8..).unwrap_or_default()).to_le_bytes();
        if let Some(place) = out.get_mut(4..8) {
            place.copy_from_slice(&crc);
        }
        out
    }

    /// The mark in `bytes`, if one of this extent is there, undamaged.
    pub(crate) fn decode(bytes: &[u8], key: ExtentKey) -> Option<Self> {
        let bytes = bytes.get(..MARK)?;
        let mut reader = Reader(bytes);
        let ours = reader.u32()? == MAGIC
            && reader.u32()? == crc32c::crc32c_append(key.salt, bytes.get(8..)?)
            && reader.u32()? == key.id.0;
        ours.then_some(())?;
        Some(Self {
            end: reader.u32()?,
            summary_at: reader.u32()?,
            summary_len: reader.u32()?,
            summary_crc: reader.u32()?,
            previous: Position(reader.u64()?),
            void_to: ExtentId(reader.u32()?),
        })
    }

    /// The summary in `bytes`, if it is undamaged.
    pub(crate) fn summary(&self, key: ExtentKey, bytes: &[u8]) -> Option<Summary> {
        (crc32c::crc32c_append(key.salt, bytes) == self.summary_crc).then_some(())?;
        let mut reader = Reader(bytes);
        let replaces = list(&mut reader, 4, |reader| reader.u32().map(ExtentId))?;
        let mut runs = list(&mut reader, 77, RunSummary::decode)?;
        // The first version counted no costs: such runs pass for well placed.
        let costs = list(&mut reader, 8, |reader| reader.u64()).unwrap_or_default();
        for (run, cost) in runs.iter_mut().zip(costs) {
            run.scan_bytes = cost;
        }
        Some(Summary { replaces, runs })
    }
}

impl BlockRef {
    /// The index in `bytes`, if it is undamaged.
    pub(crate) fn index(&self, key: ExtentKey, bytes: &[u8]) -> Option<RunIndex> {
        (crc32c::crc32c_append(key.salt, bytes) == self.crc).then_some(())?;
        RunIndex::decode(bytes)
    }
}

impl RunSummary {
    fn encode(&self, out: &mut Vec<u8>) {
        let RunStats { first, end, bytes, disk_bytes, max_timestamp, max_at } = self.stats;
        out.extend_from_slice(&self.id.log.0.to_le_bytes());
        out.extend_from_slice(&self.id.epoch.0.to_le_bytes());
        for number in [first, end, bytes, disk_bytes, max_timestamp.cast_unsigned(), max_at] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [self.block.at, self.block.len, self.block.crc] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(if self.snapshot.is_some() { HAS_SNAPSHOT } else { 0 });
        if let Some(snapshot) = &self.snapshot {
            snapshot.encode(out);
        }
        // The place of the aborted transactions' ranges.
        put_list(out, &[] as &[u64], |_, _| {});
        put_list(out, &self.damaged, |out, range| {
            out.extend_from_slice(&range.start.to_le_bytes());
            out.extend_from_slice(&range.end.to_le_bytes());
        });
    }

    fn decode(reader: &mut Reader<'_>) -> Option<Self> {
        let id = SegmentId { log: LogId(reader.u64()?), epoch: Epoch(reader.u32()?) };
        let stats = RunStats {
            first: reader.u64()?,
            end: reader.u64()?,
            bytes: reader.u64()?,
            disk_bytes: reader.u64()?,
            max_timestamp: reader.i64()?,
            max_at: reader.u64()?,
        };
        let block = BlockRef { at: reader.u32()?, len: reader.u32()?, crc: reader.u32()? };
        let snapshot =
            if reader.u8()? & HAS_SNAPSHOT != 0 { Some(IndexEntry::decode(reader)?) } else { None };
        list(reader, 8, |reader| reader.u64())?;
        let damaged = list(reader, 16, |reader| Some(reader.u64()?..reader.u64()?))?;
        let scan_bytes = stats.least_scan_bytes();
        Some(Self { id, stats, snapshot, block, scan_bytes, damaged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::EntryKind;

    const KEY: ExtentKey = ExtentKey { id: ExtentId(3), salt: 9 };

    #[test]
    fn a_footer_is_read_back_and_no_flipped_bit_passes() {
        let entry = |offset, kind, count| IndexEntry {
            offset,
            max_timestamp: 5,
            at: 552,
            payload_len: 10,
            count,
            head_len: 80,
            kind,
        };
        let mut index = RunIndex::default();
        let mut stats = RunStats::default();
        for entry in [entry(7, EntryKind::Data, 3), entry(10, EntryKind::Snapshot, 0)] {
            stats.add(&entry);
            index.push(entry, None);
        }
        assert_eq!((stats.first, stats.end, stats.bytes, stats.max_at), (7, 10, 10, 7));
        let run = RunSummary {
            id: SegmentId { log: LogId(1), epoch: Epoch(2) },
            stats,
            snapshot: Some(entry(10, EntryKind::Snapshot, 0)),
            block: BlockRef::default(),
            scan_bytes: 0,
            damaged: vec![3..7, 9..10],
        };
        let mut runs = [(run, &index)];
        let bytes = encode(KEY, 1024, Position(77), ExtentId(8), &[ExtentId(1)], &mut runs);
        let mark = Mark::decode(&bytes, KEY).unwrap();
        assert_eq!(Mark::decode(&bytes[bytes.len() - MARK..], KEY), Some(mark));
        assert_eq!((mark.end, mark.previous, mark.void_to), (1024, Position(77), ExtentId(8)));
        let at = (mark.summary_at - 1024) as usize;
        let part = &bytes[at..at + mark.summary_len as usize];
        let summary = mark.summary(KEY, part).unwrap();
        assert_eq!(summary.replaces, [ExtentId(1)]);
        assert_eq!(summary.runs, [runs[0].0.clone()]);
        assert_eq!(summary.runs[0].scan_bytes, index.scan_bytes());
        let block = summary.runs[0].block;
        let at = (block.at - 1024) as usize;
        let part = &bytes[at..at + block.len as usize];
        assert_eq!(block.index(KEY, part).unwrap().entries(), index.entries());

        // What the first version wrote ends before the costs.
        let at = (mark.summary_at - 1024) as usize;
        let old = &bytes[at..at + mark.summary_len as usize - 12];
        let old_mark = Mark { summary_crc: crc32c::crc32c_append(KEY.salt, old), ..mark };
        let old = old_mark.summary(KEY, old).unwrap();
        assert_eq!(old.runs[0].scan_bytes, stats.least_scan_bytes());
        assert_eq!(old.runs[0].stats, stats);

        for bit in 0..MARK * 8 {
            let mut bad = bytes[..MARK].to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::decode(&bad, KEY), None);
        }
        let mut bad = part.to_vec();
        bad[5] ^= 1;
        assert!(block.index(KEY, &bad).is_none());
    }
}
