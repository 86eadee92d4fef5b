//! Headers of extents, groups and entries, byte by byte. All numbers are little-endian.
//!
//! Every checksum is a CRC-32C that begins with the extent's salt and covers the place, so
//! nothing passes that lies where it was not written.

use std::sync::Arc;

use crate::store::{EntryHeader, EntryKind, Position, SegmentId};
use crate::{AppendKey, Epoch, KeyDigest, LogId};

use super::{ExtentId, ExtentKey};

/// The version of all formats of an extent.
pub(crate) const VERSION: u16 = 1;
/// Groups start at multiples of this: the unit that a disk writes whole.
pub(crate) const ALIGN: u32 = 512;
/// What an extent's header takes, padding included: the first group starts here.
pub(crate) const EXTENT_HEADER: u32 = ALIGN;
/// Bytes of a group's header.
pub(crate) const GROUP_HEADER: u32 = 40;
/// Bytes of an entry's header without its digest.
pub(crate) const ENTRY_HEADER: usize = 80;
/// Larger digests are not kept: the entry may then match any filter.
pub(crate) const MAX_DIGEST: usize = 1024;

const EXTENT_MAGIC: u32 = u32::from_le_bytes(*b"IFX1");
const GROUP_MAGIC: u32 = u32::from_le_bytes(*b"IFG1");
const ENTRY_MAGIC: u32 = u32::from_le_bytes(*b"IFE1");
const HAS_KEY: u8 = 1;
const HAS_DIGEST: u8 = 2;

/// Reads numbers off a slice; `None` when it is too short.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }
}

/// The next boundary at or after `at` where a group may start; `u32::MAX` where there is none.
pub(crate) fn align(at: u32) -> u32 {
    at.checked_next_multiple_of(ALIGN).unwrap_or(u32::MAX)
}

/// The extent's header sector.
pub(crate) fn encode_extent(key: ExtentKey) -> Vec<u8> {
    let mut out = Vec::with_capacity(EXTENT_HEADER as usize);
    out.extend_from_slice(&EXTENT_MAGIC.to_le_bytes());
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&key.id.0.to_le_bytes());
    out.extend_from_slice(&key.salt.to_le_bytes());
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.resize(EXTENT_HEADER as usize, 0);
    out
}

/// The format version that an extent's header states; `None` if the header is damaged.
pub(crate) fn decode_extent_version(bytes: &[u8]) -> Option<u16> {
    let crc = Reader(bytes.get(16..)?).u32()?;
    if crc32c::crc32c(bytes.get(..16)?) != crc {
        return None;
    }
    let mut reader = Reader(bytes);
    (reader.u32()? == EXTENT_MAGIC).then_some(())?;
    reader.u16()
}

/// What stands before the entries that one write wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupHeader {
    /// Bytes of the entries.
    pub(crate) bytes: u32,
    /// Everything below was durable when the group was built.
    pub(crate) synced: Position,
    /// Where the extent before this one ended.
    pub(crate) previous: Position,
}

impl GroupHeader {
    pub(crate) fn encode(&self, key: ExtentKey, at: u32) -> [u8; GROUP_HEADER as usize] {
        let mut out = [0; GROUP_HEADER as usize];
        let fields: [&[u8]; 7] = [
            &GROUP_MAGIC.to_le_bytes(),
            &[0; 4],
            &key.id.0.to_le_bytes(),
            &at.to_le_bytes(),
            &self.bytes.to_le_bytes(),
            &self.synced.0.to_le_bytes(),
            &self.previous.0.to_le_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        seal(&mut out, key.salt);
        out
    }

    /// The header at `at`, if one of this extent is there, undamaged.
    pub(crate) fn decode(bytes: &[u8], key: ExtentKey, at: u32) -> Option<Self> {
        let bytes = bytes.get(..GROUP_HEADER as usize)?;
        let mut reader = Reader(bytes);
        let ours = reader.u32()? == GROUP_MAGIC
            && reader.u32()? == checksum(bytes, key.salt)
            && reader.u32()? == key.id.0
            && reader.u32()? == at;
        ours.then_some(())?;
        Some(Self {
            bytes: reader.u32()?,
            synced: Position(reader.u64()?),
            previous: Position(reader.u64()?),
        })
    }
}

/// A header's checksum: all of it but magic and checksum.
fn checksum(header: &[u8], salt: u32) -> u32 {
    crc32c::crc32c_append(salt, header.get(8..).unwrap_or_default())
}

fn seal(header: &mut [u8], salt: u32) {
    let crc = checksum(header, salt).to_le_bytes();
    if let Some(place) = header.get_mut(4..8) {
        place.copy_from_slice(&crc);
    }
}

/// An entry's header as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryHead {
    pub(crate) header: EntryHeader,
    /// Bytes of the header with its digest.
    pub(crate) head_len: u32,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
}

/// Bytes that the header takes with its digest.
pub(crate) fn head_len(header: &EntryHeader) -> usize {
    ENTRY_HEADER + 4 * kept_digest(header).map_or(0, |digest| digest.0.len())
}

fn kept_digest(header: &EntryHeader) -> Option<&KeyDigest> {
    header.digest.as_ref().filter(|digest| digest.0.len() <= MAX_DIGEST)
}

/// Encodes an entry's header as it stands at `at`, into the `head_len(header)` bytes of `out`.
pub(crate) fn encode_entry(
    out: &mut [u8],
    header: &EntryHeader,
    payload_len: u32,
    payload_crc: u32,
    key: ExtentKey,
    at: u32,
) {
    let append_key =
        header.key.unwrap_or(AppendKey { producer_id: -1, producer_epoch: -1, sequence: -1 });
    let digest = kept_digest(header);
    let hashes: &[u32] = digest.map_or(&[], |digest| &digest.0);
    let flags = if header.key.is_some() { HAS_KEY } else { 0 }
        | if digest.is_some() { HAS_DIGEST } else { 0 };
    let digest_len = u16::try_from(hashes.len()).unwrap_or(0);

    let mut writer = Writer(&mut *out);
    writer.put(&ENTRY_MAGIC.to_le_bytes());
    writer.put(&[0; 4]);
    writer.put(&key.id.0.to_le_bytes());
    writer.put(&at.to_le_bytes());
    writer.put(&header.id.log.0.to_le_bytes());
    writer.put(&header.id.epoch.0.to_le_bytes());
    writer.put(&header.count.to_le_bytes());
    writer.put(&header.base_offset.to_le_bytes());
    writer.put(&header.max_timestamp.to_le_bytes());
    writer.put(&append_key.producer_id.to_le_bytes());
    writer.put(&append_key.producer_epoch.to_le_bytes());
    writer.put(&header.window.to_le_bytes());
    writer.put(&append_key.sequence.to_le_bytes());
    writer.put(&payload_len.to_le_bytes());
    writer.put(&payload_crc.to_le_bytes());
    writer.put(&digest_len.to_le_bytes());
    writer.put(&[header.kind as u8, flags]);
    writer.put(&[0; 4]);
    for hash in hashes {
        writer.put(&hash.to_le_bytes());
    }
    seal(out, key.salt);
}

struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let place = std::mem::take(&mut self.0);
        if let Some((to, rest)) = place.split_at_mut_checked(bytes.len()) {
            to.copy_from_slice(bytes);
            self.0 = rest;
        }
    }
}

/// Reads an entry's header without checking it: for what was never out of memory.
pub(crate) fn read_entry(bytes: &[u8]) -> Option<EntryHead> {
    let mut reader = Reader(bytes.get(16..)?);
    let id = SegmentId { log: LogId(reader.u64()?), epoch: Epoch(reader.u32()?) };
    let count = reader.u32()?;
    let base_offset = reader.u64()?;
    let max_timestamp = reader.i64()?;
    let producer_id = reader.i64()?;
    let producer_epoch = reader.take().map(i16::from_le_bytes)?;
    let window = reader.u16()?;
    let sequence = reader.take().map(i32::from_le_bytes)?;
    let payload_len = reader.u32()?;
    let payload_crc = reader.u32()?;
    let digest_len = reader.u16()?;
    let kind = kind(reader.u8()?)?;
    let flags = reader.u8()?;
    reader.u32()?;
    let digest = if flags & HAS_DIGEST != 0 {
        let hashes = reader.0.get(..4 * usize::from(digest_len))?.chunks_exact(4);
        let hashes: Option<Arc<[u32]>> = hashes.map(|hash| Reader(hash).u32()).collect();
        Some(KeyDigest(hashes?))
    } else {
        None
    };
    let key = AppendKey { producer_id, producer_epoch, sequence };
    Some(EntryHead {
        header: EntryHeader {
            id,
            kind,
            base_offset,
            count,
            max_timestamp,
            key: (flags & HAS_KEY != 0).then_some(key),
            window,
            digest,
        },
        head_len: u32::try_from(ENTRY_HEADER).ok()? + 4 * u32::from(digest_len),
        payload_len,
        payload_crc,
    })
}

/// The entry's header at `at`, if one of this extent is there, undamaged.
pub(crate) fn decode_entry(bytes: &[u8], key: ExtentKey, at: u32) -> Option<EntryHead> {
    let mut reader = Reader(bytes);
    (reader.u32()? == ENTRY_MAGIC).then_some(())?;
    let crc = reader.u32()?;
    (reader.u32()? == key.id.0 && reader.u32()? == at).then_some(())?;
    let digest_len = Reader(bytes.get(72..)?).u16()?;
    let head = bytes.get(..ENTRY_HEADER + 4 * usize::from(digest_len))?;
    (checksum(head, key.salt) == crc).then_some(())?;
    read_entry(head)
}

/// Whether the payload is what the header says.
pub(crate) fn payload_is_good(head: &EntryHead, payload: &[u8]) -> bool {
    payload.len() == head.payload_len as usize && crc32c::crc32c(payload) == head.payload_crc
}

pub(crate) fn kind(byte: u8) -> Option<EntryKind> {
    Some(match byte {
        0 => EntryKind::Data,
        1 => EntryKind::Commit,
        2 => EntryKind::Abort,
        3 => EntryKind::Snapshot,
        _ => return None,
    })
}

impl From<ExtentId> for u64 {
    fn from(id: ExtentId) -> Self {
        Self::from(id.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEY: ExtentKey = ExtentKey { id: ExtentId(5), salt: 77 };

    fn headers() -> impl Strategy<Value = EntryHeader> {
        (
            any::<(u64, u32, u64, u32, i64, u16)>(),
            proptest::option::of(any::<(i64, i16, i32)>()),
            proptest::option::of(proptest::collection::vec(any::<u32>(), 0..20)),
            0..4u8,
        )
            .prop_map(
                |((log, epoch, base_offset, count, max_timestamp, window), key, digest, k)| {
                    EntryHeader {
                        id: SegmentId { log: LogId(log), epoch: Epoch(epoch) },
                        kind: kind(k).unwrap(),
                        base_offset,
                        count,
                        max_timestamp,
                        key: key.map(|(producer_id, producer_epoch, sequence)| AppendKey {
                            producer_id,
                            producer_epoch,
                            sequence,
                        }),
                        window,
                        digest: digest.map(|hashes| KeyDigest(hashes.into())),
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn entries_are_read_back_and_no_flipped_bit_passes(
            header in headers(), bit in any::<prop::sample::Index>()
        ) {
            let mut bytes = vec![0; head_len(&header)];
            encode_entry(&mut bytes, &header, 9, 4, KEY, 1024);
            let head = decode_entry(&bytes, KEY, 1024).unwrap();
            prop_assert_eq!(&head.header, &header);
            prop_assert_eq!(head.head_len as usize, bytes.len());
            prop_assert!(decode_entry(&bytes, KEY, 1025).is_none(), "elsewhere");
            let old = ExtentKey { id: ExtentId(4), salt: 77 };
            prop_assert!(decode_entry(&bytes, old, 1024).is_none(), "another generation");
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode_entry(&bytes, KEY, 1024).is_none());
        }

        #[test]
        fn garbage_is_no_header(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode_entry(&bytes, KEY, 0).is_none());
            prop_assert!(GroupHeader::decode(&bytes, KEY, 0).is_none());
            prop_assert!(decode_extent_version(&bytes).is_none());
            let _ = read_entry(&bytes);
        }
    }

    #[test]
    fn groups_are_read_back_and_no_flipped_bit_passes() {
        let group = GroupHeader { bytes: 3, synced: Position(9), previous: Position(1 << 40) };
        let bytes = group.encode(KEY, 512);
        assert_eq!(GroupHeader::decode(&bytes, KEY, 512), Some(group));
        assert_eq!(GroupHeader::decode(&bytes, ExtentKey { salt: 78, ..KEY }, 512), None);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(GroupHeader::decode(&bad, KEY, 512), None);
        }
    }

    #[test]
    fn an_extent_states_its_version() {
        let mut bytes = encode_extent(KEY);
        assert_eq!(bytes.len(), 512);
        assert_eq!(decode_extent_version(&bytes), Some(VERSION));
        bytes[4] ^= 1;
        assert_eq!(decode_extent_version(&bytes), None);
    }
}
