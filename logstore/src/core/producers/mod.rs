//! The producers of a log: what makes an append happen once.
//!
//! ```text
//!   producer id ─► epoch, next sequence, last batches (sequence, count, offset)
//! ```

mod sequence;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use hashbrown::HashMap;
use interflow_meta::Offset;

use crate::{AppendError, AppendKey};

/// The most batches that are remembered of one producer, whatever window it declares.
pub(crate) const MAX_WINDOW: u16 = 1024;

/// How much a log remembers of its producers.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(PartialEq, Eq, Hash))]
pub(crate) struct ProducerLimits {
    /// Producers; the least recently used are forgotten beyond it.
    pub(crate) max_producers: usize,
    /// Batches of all producers together.
    pub(crate) max_batches: usize,
    /// A producer that appended nothing for so long is forgotten (Kafka's
    /// `producer.id.expiration.ms`).
    pub(crate) expiry_ms: i64,
}

impl Default for ProducerLimits {
    fn default() -> Self {
        Self { max_producers: 10_000, max_batches: 100_000, expiry_ms: 86_400_000 }
    }
}

/// A batch that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
struct Remembered {
    sequence: i32,
    count: u32,
    offset: Offset,
}

/// One producer in its newest epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(test, derive(Hash))]
struct Producer {
    epoch: i16,
    /// The sequence that its next batch must have.
    next: i32,
    window: u16,
    last_used_ms: i64,
    batches: VecDeque<Remembered>,
}

/// What a batch is to the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The producer's next one.
    Fresh,
    /// In the log already, at these offsets.
    Duplicate {
        /// Its first offset.
        base: Offset,
        /// One past its last.
        end: Offset,
    },
}

/// The table of a log's producers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    map: HashMap<i64, Producer, foldhash::fast::FixedState>,
    /// Batches of all producers together.
    remembered: usize,
}

/// Equal tables have equal hashes, whatever order their maps have.
#[cfg(test)]
impl std::hash::Hash for Producers {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let mut producers: Vec<(&i64, &Producer)> = self.map.iter().collect();
        producers.sort_unstable_by_key(|(id, _)| **id);
        producers.hash(state);
    }
}

impl Producers {
    /// Producers that are remembered.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether nobody is remembered: then a segment needs no snapshot.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// What a batch of `count` records under `key` is. Changes nothing.
    ///
    /// A producer that isn't known may begin at any sequence, as in Kafka after expiry; a new
    /// epoch of a known one begins at 0.
    pub(crate) fn check(&self, key: &AppendKey, count: u32) -> Result<Verdict, AppendError> {
        let Some(producer) = self.map.get(&key.producer_id) else {
            return Ok(Verdict::Fresh);
        };
        let expected = match key.producer_epoch.cmp(&producer.epoch) {
            std::cmp::Ordering::Less => {
                return Err(AppendError::ProducerFenced { current: producer.epoch });
            }
            std::cmp::Ordering::Greater => 0,
            std::cmp::Ordering::Equal => producer.next,
        };
        if key.sequence == expected {
            return Ok(Verdict::Fresh);
        }
        if key.producer_epoch == producer.epoch {
            // Newest first: a retry is nearly always of one of the last batches.
            let twin = producer
                .batches
                .iter()
                .rev()
                .find(|batch| batch.sequence == key.sequence && batch.count == count);
            if let Some(twin) = twin {
                let end = twin.offset.saturating_add(u64::from(count));
                return Ok(Verdict::Duplicate { base: twin.offset, end });
            }
            let oldest = producer.batches.front().map(|batch| batch.sequence);
            if oldest.is_some_and(|oldest| {
                sequence::is_before(
                    sequence::advance(key.sequence, count.saturating_sub(1)),
                    oldest,
                )
            }) {
                return Err(AppendError::DuplicateSequence);
            }
        }
        Err(AppendError::OutOfOrderSequence { expected, got: key.sequence })
    }

    /// Remembers a batch that [`Producers::check`] called fresh, or that a log's header tells of.
    pub(crate) fn record(
        &mut self,
        key: &AppendKey,
        batch: (Offset, u32),
        window: u16,
        now_ms: i64,
        limits: &ProducerLimits,
    ) {
        let (offset, count) = batch;
        self.make_room(key.producer_id, now_ms, limits);
        let window = window.clamp(1, MAX_WINDOW);
        let producer =
            self.map.entry(key.producer_id).or_insert_with(|| Producer::new(key, now_ms));
        if producer.epoch != key.producer_epoch {
            self.remembered = self.remembered.saturating_sub(producer.batches.len());
            *producer = Producer::new(key, now_ms);
        }
        producer.window = window;
        producer.last_used_ms = now_ms;
        producer.next = sequence::advance(key.sequence, count);
        while producer.batches.len() >= usize::from(window) {
            producer.batches.pop_front();
            self.remembered = self.remembered.saturating_sub(1);
        }
        producer.batches.push_back(Remembered { sequence: key.sequence, count, offset });
        self.remembered += 1;
    }

    /// A fresh batch was refused for a reason that has nothing to do with its sequence (no room,
    /// say). Of a producer that isn't known yet, and of a new epoch, that is remembered, so that
    /// its later batches are out of order until the refused one came: a successor must not
    /// overtake it.
    pub(crate) fn refused(&mut self, key: &AppendKey, now_ms: i64, limits: &ProducerLimits) {
        if let Some(producer) = self.map.get(&key.producer_id)
            && producer.epoch >= key.producer_epoch
        {
            return;
        }
        self.make_room(key.producer_id, now_ms, limits);
        if let Some(old) = self.map.insert(key.producer_id, Producer::new(key, now_ms)) {
            self.remembered = self.remembered.saturating_sub(old.batches.len());
        }
    }

    /// Forgets who appended nothing for long.
    pub(crate) fn expire(&mut self, now_ms: i64, limits: &ProducerLimits) {
        let oldest = now_ms.saturating_sub(limits.expiry_ms);
        let mut forgotten = 0;
        self.map.retain(|_, producer| {
            let keep = producer.last_used_ms >= oldest;
            if !keep {
                forgotten += producer.batches.len();
            }
            keep
        });
        self.remembered = self.remembered.saturating_sub(forgotten);
    }

    /// Sees to it that one more batch of `producer_id` stays within the limits.
    fn make_room(&mut self, producer_id: i64, now_ms: i64, limits: &ProducerLimits) {
        let is_new = !self.map.contains_key(&producer_id);
        if self.remembered < limits.max_batches
            && (!is_new || self.map.len() < limits.max_producers)
        {
            return;
        }
        self.expire(now_ms, limits);
        if self.remembered < limits.max_batches && self.map.len() < limits.max_producers {
            return;
        }
        // A sixteenth at once, so that a full table doesn't look for its oldest at every append.
        let mut ages: Vec<(i64, i64)> = self
            .map
            .iter()
            .filter(|(id, _)| **id != producer_id)
            .map(|(id, producer)| (producer.last_used_ms, *id))
            .collect();
        ages.sort_unstable();
        let batches = limits.max_batches - limits.max_batches / 16;
        let producers = limits.max_producers - limits.max_producers / 16;
        for (_, id) in ages {
            if self.remembered < batches.max(1) && self.map.len() < producers.max(1) {
                break;
            }
            if let Some(old) = self.map.remove(&id) {
                self.remembered = self.remembered.saturating_sub(old.batches.len());
            }
        }
    }
}

impl Producer {
    /// A producer whose first batch is to be `key`'s.
    fn new(key: &AppendKey, now_ms: i64) -> Self {
        Self {
            epoch: key.producer_epoch,
            next: key.sequence,
            window: 1,
            last_used_ms: now_ms,
            batches: VecDeque::new(),
        }
    }
}
