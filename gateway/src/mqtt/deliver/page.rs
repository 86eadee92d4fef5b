//! A stretch of a log, decoded once for all who read there: its records by topic.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use interflow_logstore::{AppendKey, AppendKind, ReadOutcome};
use smallvec::{SmallVec, smallvec};

use super::dispatch::DispatchParts;
use crate::mqtt::topic;
use crate::records::{OpenBatch, Record};

/// What a read skipped by; `None` if it read everything.
pub(super) type Filter = Option<Arc<[u32]>>;

/// Bytes that a page, a batch, a topic and a record take beside their own, about.
const PAGE_BYTES: usize = 1 << 10;
const BATCH_BYTES: usize = 128;
const TOPIC_BYTES: usize = 96;
const RECORD_BYTES: usize = 24;

#[derive(Debug)]
struct PageBatch {
    open: OpenBatch,
    base_offset: u64,
    key: Option<AppendKey>,
}

#[derive(Debug)]
struct PageRecord {
    offset: u64,
    batch: u32,
    place: u32,
}

/// A record of a page.
pub(crate) struct Found<'a> {
    pub(crate) offset: u64,
    /// The key of its batch.
    pub(crate) key: Option<AppendKey>,
    pub(crate) record: Record<'a>,
}

/// All records from one offset to another whose batches may match a filter and whose keys are
/// topic names. Its bytes are its own: it keeps none of the log's memory.
#[derive(Debug)]
pub(crate) struct Page {
    from: u64,
    next: u64,
    filter: Filter,
    batches: Vec<PageBatch>,
    records: Vec<PageRecord>,
    /// The records of each topic, in order.
    topics: HashMap<Box<str>, SmallVec<[u32; 4]>, RandomState>,
    bytes: usize,
}

impl Page {
    /// Decodes what a read from `from` brought. It ends early, between batches, where it would
    /// come to more than `max_bytes`: batches that are small compressed may be large.
    pub(super) fn decode(
        parts: &DispatchParts,
        from: u64,
        filter: Filter,
        outcome: &ReadOutcome,
        max_bytes: usize,
    ) -> Self {
        // The first batch may begin before what was asked for, and it is here as a whole.
        let first = outcome.batches.first().map_or(from, |batch| batch.base_offset);
        let mut page = Self {
            from: first.min(from),
            next: outcome.next_offset,
            filter,
            batches: Vec::new(),
            records: Vec::new(),
            topics: HashMap::default(),
            bytes: PAGE_BYTES,
        };
        for batch in &outcome.batches {
            if page.bytes >= max_bytes && batch.base_offset > from {
                page.next = batch.base_offset;
                break;
            }
            if batch.kind != AppendKind::Data {
                continue;
            }
            if let Some(open) = parts.open(&Bytes::copy_from_slice(&batch.bytes)) {
                page.add(PageBatch { open, base_offset: batch.base_offset, key: batch.key });
            }
        }
        parts.metrics.catch_up_records.add(page.records.len() as u64);
        page
    }

    fn add(&mut self, batch: PageBatch) {
        let Ok(index) = u32::try_from(self.batches.len()) else { return };
        let mut records = batch.open.records();
        while let Some(place) = records.place(&batch.open) {
            let Some(Ok(record)) = records.next() else { break };
            let offset = batch.base_offset + u64::from(record.offset_delta);
            let name = record.key.and_then(|key| std::str::from_utf8(key).ok());
            let Some(name) = name.filter(|name| topic::is_name(name)) else { continue };
            if offset < self.from {
                continue;
            }
            let Ok(number) = u32::try_from(self.records.len()) else { break };
            self.records.push(PageRecord { offset, batch: index, place });
            if let Some(records) = self.topics.get_mut(name) {
                records.push(number);
            } else {
                self.topics.insert(name.into(), smallvec![number]);
                self.bytes += TOPIC_BYTES + name.len();
            }
            self.bytes += RECORD_BYTES;
        }
        self.bytes += BATCH_BYTES + batch.open.payload().len();
        self.batches.push(batch);
    }

    /// Where to read on.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Bytes of memory, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn has(&self, offset: u64) -> bool {
        (self.from..self.next).contains(&offset)
    }

    /// Whoever skips by `filter` finds everything here.
    pub(super) fn serves(&self, filter: &Filter) -> bool {
        match (&self.filter, filter) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(read), Some(asked)) => asked.iter().all(|hash| read.binary_search(hash).is_ok()),
        }
    }

    pub(super) fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The topics, each with its records in order.
    pub(crate) fn topics(&self) -> impl ExactSizeIterator<Item = (&str, &[u32])> {
        self.topics.iter().map(|(name, records)| (&**name, records.as_slice()))
    }

    /// The records of one topic, in order.
    pub(crate) fn topic(&self, name: &str) -> &[u32] {
        self.topics.get(name).map_or(&[], |records| records.as_slice())
    }

    /// A record by its number. Numbers rise with offsets.
    pub(crate) fn record(&self, number: u32) -> Option<Found<'_>> {
        let at = self.records.get(usize::try_from(number).ok()?)?;
        let batch = self.batches.get(usize::try_from(at.batch).ok()?)?;
        let record = batch.open.record_at(at.place)?;
        Some(Found { offset: at.offset, key: batch.key, record })
    }

    /// The numbers of the records at `offsets` whose topics match one filter, in order.
    pub(crate) fn select(&self, filter: &str, offsets: Range<u64>) -> Vec<u32> {
        let wanted = self.first_from(offsets.start)..self.first_from(offsets.end);
        let mut numbers = if topic::is_wildcard(filter) {
            let matching = self.topics().filter(|(name, _)| topic::filter_matches(filter, name));
            matching.flat_map(|(_, records)| records).copied().collect()
        } else {
            self.topic(filter).to_vec()
        };
        numbers.retain(|number| wanted.contains(number));
        numbers.sort_unstable();
        numbers
    }

    /// The number of the first record from `offset` on.
    pub(crate) fn first_from(&self, offset: u64) -> u32 {
        let first = self.records.partition_point(|record| record.offset < offset);
        u32::try_from(first).unwrap_or(u32::MAX)
    }
}
