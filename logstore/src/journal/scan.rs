//! Reads an extent that has no valid footer, from its first group to its end.

use std::io;

use crate::disk::{DiskFile, is_unreadable};

use super::ExtentKey;
use super::entries::IndexEntry;
use super::footer::{MARK, Mark};
use super::format::{self, EXTENT_HEADER, EntryHead, GROUP_HEADER, GroupHeader};

/// Bytes read at a time.
const WINDOW: usize = 1 << 20;
/// Bytes read at a time where a window can't be read: what one bad sector costs.
const PAGE: u32 = 4096;
/// After so many pages that can't be read, the rest of an extent is given up: a device may try
/// for seconds at each.
const MAX_BAD_PAGES: u32 = 256;

/// What lies in an extent, in the order of places.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// A group's header; its entries follow.
    Group { at: u32, header: GroupHeader },
    /// An entry whose header is good; whether its payload is.
    Entry { at: u32, head: EntryHead, is_good: bool },
    /// A group's header is bad, but its first entry, which follows, is good.
    BadGroup { at: u32 },
    /// Nothing that can be read.
    Bad { from: u32, to: u32 },
    /// The footer begins: the data ends here.
    End { at: u32 },
}

impl Found {
    pub(crate) fn index_entry(at: u32, head: &EntryHead) -> IndexEntry {
        IndexEntry {
            offset: head.header.base_offset,
            max_timestamp: head.header.max_timestamp,
            at,
            payload_len: head.payload_len,
            count: head.header.count,
            head_len: u16::try_from(head.head_len).unwrap_or(u16::MAX),
            kind: head.header.kind,
        }
    }
}

/// Everything that is in the extent.
///
/// # Errors
/// The file, or a part of it, could not be read.
pub(crate) fn scan(file: &dyn DiskFile, key: ExtentKey) -> io::Result<Vec<Found>> {
    let (found, unreadable) = scan_past_errors(file, key)?;
    match unreadable {
        None => Ok(found),
        Some(Unreadable { error, .. }) => Err(error),
    }
}

/// What of an extent can't be got off the disk.
#[derive(Debug)]
pub(crate) struct Unreadable {
    /// Ascending and apart from one another.
    pub(crate) ranges: Vec<(u32, u32)>,
    /// What the disk said at the first of them.
    pub(crate) error: io::Error,
}

/// Everything in the extent that can be read, and what can't: that is found as bad.
///
/// # Errors
/// The file could not be read for another reason than [`is_unreadable`] knows.
pub(crate) fn scan_past_errors(
    file: &dyn DiskFile,
    key: ExtentKey,
) -> io::Result<(Vec<Found>, Option<Unreadable>)> {
    let len = u32::try_from(file.len()?).unwrap_or(u32::MAX);
    let pages = Pages { file, buffer: Vec::new(), at: 0, len, unreadable: None, bad_pages: 0 };
    let mut scan = Scan { pages, key, found: Vec::new() };
    let mut at = EXTENT_HEADER;
    while at < len {
        at = match scan.look(at)? {
            Look::Group(header) => scan.group(at, header)?,
            Look::End => {
                scan.found.push(Found::End { at });
                break;
            }
            Look::Entry => {
                scan.found.push(Found::BadGroup { at });
                let end = scan.entries(at + GROUP_HEADER, len)?;
                format::align(end)
            }
            Look::Nothing => {
                let mut next = format::align(at + 1);
                while next < len && matches!(scan.look(next)?, Look::Nothing) {
                    next = next.saturating_add(format::ALIGN);
                }
                scan.bad(at, next.min(len));
                next
            }
        };
    }
    Ok((scan.found, scan.pages.unreadable))
}

enum Look {
    Group(GroupHeader),
    /// The group's header is bad, but its first entry's is good.
    Entry,
    End,
    Nothing,
}

struct Scan<'a> {
    pages: Pages<'a>,
    key: ExtentKey,
    found: Vec<Found>,
}

impl Scan<'_> {
    fn look(&mut self, at: u32) -> io::Result<Look> {
        let key = self.key;
        let wanted = GROUP_HEADER as usize + format::ENTRY_HEADER + 4 * format::MAX_DIGEST;
        let bytes = self.pages.get(at, wanted.max(MARK))?;
        if let Some(header) = GroupHeader::decode(bytes, key, at) {
            return Ok(Look::Group(header));
        }
        if Mark::decode(bytes, key).is_some_and(|mark| mark.end == at) {
            return Ok(Look::End);
        }
        let entry = bytes.get(GROUP_HEADER as usize..).unwrap_or_default();
        let is_entry = format::decode_entry(entry, key, at.saturating_add(GROUP_HEADER)).is_some();
        Ok(if is_entry { Look::Entry } else { Look::Nothing })
    }

    fn is_entry(&mut self, at: u32) -> io::Result<bool> {
        let wanted = format::ENTRY_HEADER + 4 * format::MAX_DIGEST;
        let key = self.key;
        Ok(format::decode_entry(self.pages.get(at, wanted)?, key, at).is_some())
    }

    /// Reads a group; returns where the next one should be.
    fn group(&mut self, at: u32, header: GroupHeader) -> io::Result<u32> {
        self.found.push(Found::Group { at, header });
        let start = at + GROUP_HEADER;
        let end = start.saturating_add(header.bytes);
        // What lies past the file's end can't be searched.
        let readable = end.min(self.pages.len);
        let mut at = start;
        loop {
            at = self.entries(at, end)?;
            if at >= end {
                break;
            }
            // One bad header must not hide the entries behind it.
            let mut next = at + 1;
            while next < readable && !self.is_entry(next)? {
                next += 1;
            }
            if next >= readable {
                next = end;
            }
            self.bad(at, next);
            at = next;
        }
        Ok(format::align(end))
    }

    /// Reads entries until one is not good or `end` is reached; returns where that is.
    fn entries(&mut self, mut at: u32, end: u32) -> io::Result<u32> {
        while at < end {
            let wanted = format::ENTRY_HEADER + 4 * format::MAX_DIGEST;
            let Some(head) = format::decode_entry(self.pages.get(at, wanted)?, self.key, at) else {
                break;
            };
            let payload_at = at.saturating_add(head.head_len);
            let payload = self.pages.get(payload_at, head.payload_len as usize)?;
            let payload = payload.get(..head.payload_len as usize).unwrap_or_default();
            let is_good = format::payload_is_good(&head, payload);
            let after = payload_at.saturating_add(head.payload_len);
            self.found.push(Found::Entry { at, head, is_good });
            at = after;
        }
        Ok(at)
    }

    fn bad(&mut self, from: u32, to: u32) {
        if let Some(Found::Bad { to: last, .. }) = self.found.last_mut()
            && *last == from
        {
            *last = to;
        } else {
            self.found.push(Found::Bad { from, to });
        }
    }
}

/// A file, read a window at a time.
struct Pages<'a> {
    file: &'a dyn DiskFile,
    buffer: Vec<u8>,
    at: u32,
    len: u32,
    unreadable: Option<Unreadable>,
    bad_pages: u32,
}

impl Pages<'_> {
    /// The bytes at `at`: `wanted` of them or more, fewer only where the file ends.
    fn get(&mut self, at: u32, wanted: usize) -> io::Result<&[u8]> {
        let there =
            |pages: &Self| at.checked_sub(pages.at).and_then(|skip| usize::try_from(skip).ok());
        let wanted = wanted.min(self.len.saturating_sub(at) as usize);
        let has = there(self).is_some_and(|skip| skip + wanted <= self.buffer.len());
        if !has {
            let read = wanted.max(WINDOW).min(self.len.saturating_sub(at) as usize);
            self.buffer.clear();
            self.buffer.resize(read, 0);
            let n = match self.file.read_at(&mut self.buffer, u64::from(at)) {
                Ok(n) => n,
                Err(error) if is_unreadable(&error) => self.fill_by_pages(at)?,
                Err(error) => return Err(error),
            };
            self.buffer.truncate(n);
            self.at = at;
        }
        Ok(there(self).and_then(|skip| self.buffer.get(skip..)).unwrap_or_default())
    }

    /// Fills the buffer with what can be read from `at` on, and zeros for the rest.
    fn fill_by_pages(&mut self, at: u32) -> io::Result<usize> {
        let mut done = 0;
        while done < self.buffer.len() {
            let page_at = at.saturating_add(u32::try_from(done).unwrap_or(u32::MAX));
            let to_boundary = (PAGE - page_at % PAGE) as usize;
            let end = self.buffer.len().min(done + to_boundary);
            let Some(page) = self.buffer.get_mut(done..end) else { break };
            let known = self.unreadable.as_ref().is_some_and(|unreadable| {
                unreadable.ranges.iter().any(|(from, to)| (*from..*to).contains(&page_at))
            });
            if known {
                page.fill(0);
            } else {
                match self.file.read_at(page, u64::from(page_at)) {
                    Ok(n) if n < page.len() => return Ok(done + n),
                    Ok(_) => {}
                    Err(error) if is_unreadable(&error) => {
                        page.fill(0);
                        self.give_up(page_at, error);
                    }
                    Err(error) => return Err(error),
                }
            }
            done = end;
        }
        Ok(done)
    }

    /// The page at `at` can't be read.
    fn give_up(&mut self, at: u32, error: io::Error) {
        self.bad_pages += 1;
        let from = at - at % PAGE;
        let to = if self.bad_pages >= MAX_BAD_PAGES {
            self.len
        } else {
            from.saturating_add(PAGE).min(self.len)
        };
        let unreadable =
            self.unreadable.get_or_insert_with(|| Unreadable { ranges: Vec::new(), error });
        match unreadable.ranges.last_mut().filter(|(start, end)| *start <= from && from <= *end) {
            Some((_, end)) => *end = to.max(*end),
            None => {
                unreadable.ranges.push((from, to));
                unreadable.ranges.sort_unstable();
            }
        }
    }
}
