//! The chain of a log's segments, and which of them holds an offset.
//!
//! ```text
//!   closed        closed              closed     open
//!   |base..end)---|base..end)·· gap ··|base..end)|base..
//! ```
//!
//! A gap is bridged: a read in it goes on at the next base.

use interflow_meta::{Epoch, NodeId, Offset};

use super::segment::Nodes;

/// A segment that takes no more entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Its number in the chain.
    pub(crate) epoch: Epoch,
    /// Kafka's leader epoch during it.
    pub(crate) leader_epoch: u32,
    /// Its first offset.
    pub(crate) base: Offset,
    /// One past its last offset.
    pub(crate) end: Offset,
    /// Payload bytes.
    pub(crate) bytes: u64,
    /// What its age is judged by: its newest record's timestamp, or when it was closed where no
    /// record has one. Milliseconds since 1970.
    pub(crate) newest_ms: i64,
    /// Who stores it.
    pub(crate) replicas: Nodes,
    /// Fewer of them than a quorum are known to hold all of it.
    pub(crate) is_short: bool,
    /// How many of them had to have an entry before it was acknowledged.
    pub(crate) acks: usize,
}

/// The segment at the chain's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Open {
    /// Its number in the chain.
    pub(crate) epoch: Epoch,
    /// Kafka's leader epoch during it.
    pub(crate) leader_epoch: u32,
    /// Its first offset.
    pub(crate) base: Offset,
}

/// A log's segments in offset order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    closed: Vec<Closed>,
    open: Open,
}

/// Where an offset lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In a segment that ends before `end` (the end of a closed one; unbounded for the open one).
    Segment {
        /// The segment's number.
        epoch: Epoch,
        /// One past its last offset.
        end: Offset,
        /// Where the next segment begins.
        next_base: Offset,
    },
    /// Between two segments: nothing is there, go on at `next_base`.
    Gap {
        /// Where the next segment begins.
        next_base: Offset,
    },
    /// Below the first segment.
    Below,
}

/// Why segments from meta make no chain.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("the segments up to epoch {0} overlap or are out of order")]
pub(crate) struct ChainError(pub(crate) Epoch);

impl Chain {
    /// A chain of closed segments in offset order and the open one behind them.
    ///
    /// # Errors
    /// Segments that overlap or whose epochs don't rise (I3).
    pub(crate) fn new(closed: Vec<Closed>, open: Open) -> Result<Self, ChainError> {
        let mut chain = Self { closed: Vec::with_capacity(closed.len()), open };
        let mut end = 0;
        let mut last_epoch = None;
        for segment in closed {
            if segment.base < end
                || segment.end < segment.base
                || last_epoch.is_some_and(|last| segment.epoch <= last)
            {
                return Err(ChainError(segment.epoch));
            }
            end = segment.end;
            last_epoch = Some(segment.epoch);
            // A segment without offsets holds nothing that anyone could ask for.
            if segment.end > segment.base {
                chain.closed.push(segment);
            }
        }
        if open.base < end || last_epoch.is_some_and(|last| open.epoch <= last) {
            return Err(ChainError(open.epoch));
        }
        Ok(chain)
    }

    /// The open segment.
    pub(crate) fn open(&self) -> &Open {
        &self.open
    }

    /// The closed segments, oldest first.
    pub(crate) fn closed(&self) -> impl DoubleEndedIterator<Item = &Closed> + ExactSizeIterator {
        self.closed.iter()
    }

    /// The closed segments, each with the base of the one behind it.
    pub(crate) fn closed_with_next_base(&self) -> impl Iterator<Item = (&Closed, Offset)> {
        let bases = self.closed.iter().skip(1).map(|next| next.base).chain([self.open.base]);
        self.closed.iter().zip(bases)
    }

    /// Whether the offset lies in a segment that was closed on fewer nodes than its quorum, and isn't
    /// repaired yet.
    pub(crate) fn is_short_at(&self, offset: Offset) -> bool {
        let behind = self.closed.partition_point(|segment| segment.base <= offset);
        let segment = behind.checked_sub(1).and_then(|index| self.closed.get(index));
        segment.is_some_and(|segment| segment.is_short && offset < segment.end)
    }

    /// Whether there is such a segment.
    pub(crate) fn has_short(&self) -> bool {
        self.closed.iter().any(|segment| segment.is_short)
    }

    /// Where the first segment begins.
    pub(crate) fn first_base(&self) -> Offset {
        self.closed.first().map_or(self.open.base, |first| first.base)
    }

    /// Whether the chain has this segment.
    pub(crate) fn contains(&self, epoch: Epoch) -> bool {
        epoch == self.open.epoch
            || self.closed.binary_search_by_key(&epoch, |segment| segment.epoch).is_ok()
    }

    /// The closed segment of that number.
    pub(crate) fn closed_segment(&self, epoch: Epoch) -> Option<&Closed> {
        let index = self.closed.binary_search_by_key(&epoch, |segment| segment.epoch).ok()?;
        self.closed.get(index)
    }

    /// A closed segment is on these nodes now.
    pub(crate) fn set_replicas(&mut self, epoch: Epoch, replicas: &[NodeId]) {
        let index = self.closed.binary_search_by_key(&epoch, |segment| segment.epoch);
        if let Some(closed) = index.ok().and_then(|index| self.closed.get_mut(index)) {
            closed.replicas = Nodes::from_slice(replicas);
            closed.is_short = false;
        }
    }

    /// Where `offset` lies.
    pub(crate) fn find(&self, offset: Offset) -> Place {
        if offset >= self.open.base {
            return Place::Segment {
                epoch: self.open.epoch,
                end: Offset::MAX,
                next_base: Offset::MAX,
            };
        }
        let behind = self.closed.partition_point(|segment| segment.base <= offset);
        let next_base = self.closed.get(behind).map_or(self.open.base, |next| next.base);
        let Some(segment) = behind.checked_sub(1).and_then(|index| self.closed.get(index)) else {
            return Place::Below;
        };
        if offset < segment.end {
            Place::Segment { epoch: segment.epoch, end: segment.end, next_base }
        } else {
            Place::Gap { next_base }
        }
    }

    /// Closes the open segment as `closed` says and opens `open` behind it.
    ///
    /// # Errors
    /// The two don't follow one another (I3).
    pub(crate) fn roll(&mut self, closed: Closed, open: Open) -> Result<(), ChainError> {
        if closed.epoch != self.open.epoch
            || closed.base != self.open.base
            || closed.end < closed.base
            || open.base < closed.end
            || open.epoch <= closed.epoch
        {
            return Err(ChainError(open.epoch));
        }
        if closed.end > closed.base {
            self.closed.push(closed);
        }
        self.open = open;
        Ok(())
    }

    /// Takes out the closed segments that lie wholly below `start`; returns their numbers.
    pub(crate) fn drop_below(&mut self, start: Offset) -> Vec<Epoch> {
        let gone = self.closed.partition_point(|segment| segment.end <= start);
        self.closed.drain(..gone).map(|segment| segment.epoch).collect()
    }

    /// The largest leader epoch at or below `leader_epoch` that has offsets, and where it ends;
    /// the newest one ends at `committed`. `None` if `leader_epoch` is older than the chain.
    pub(crate) fn end_of_leader_epoch(
        &self,
        leader_epoch: u32,
        committed: Offset,
    ) -> Option<(u32, Offset)> {
        if leader_epoch >= self.open.leader_epoch {
            return Some((self.open.leader_epoch, committed));
        }
        self.closed
            .iter()
            .rev()
            .find(|segment| segment.leader_epoch <= leader_epoch)
            .map(|segment| (segment.leader_epoch, segment.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(epoch: u32, leader_epoch: u32, base: Offset, end: Offset) -> Closed {
        let epoch = Epoch(epoch);
        let (replicas, is_short) = (Nodes::new(), false);
        Closed {
            epoch,
            leader_epoch,
            base,
            end,
            bytes: 1,
            newest_ms: 0,
            replicas,
            is_short,
            acks: 1,
        }
    }

    fn open(epoch: u32, leader_epoch: u32, base: Offset) -> Open {
        Open { epoch: Epoch(epoch), leader_epoch, base }
    }

    /// 10..20, 20..30, a gap, 100..110, open from 110.
    fn chain() -> Chain {
        Chain::new(
            vec![closed(1, 0, 10, 20), closed(2, 0, 20, 30), closed(4, 1, 100, 110)],
            open(5, 2, 110),
        )
        .unwrap()
    }

    #[test]
    fn an_offset_is_in_a_segment_a_gap_or_below_all() {
        let chain = chain();
        let segment =
            |epoch, end, next_base| Place::Segment { epoch: Epoch(epoch), end, next_base };
        for (offset, place) in [
            (9, Place::Below),
            (10, segment(1, 20, 20)),
            (19, segment(1, 20, 20)),
            (20, segment(2, 30, 100)),
            (30, Place::Gap { next_base: 100 }),
            (99, Place::Gap { next_base: 100 }),
            (100, segment(4, 110, 110)),
            (110, segment(5, Offset::MAX, Offset::MAX)),
            (5000, segment(5, Offset::MAX, Offset::MAX)),
        ] {
            assert_eq!(chain.find(offset), place, "{offset}");
        }
    }

    #[test]
    fn leader_epochs_end_where_the_chain_says() {
        let chain = chain();
        assert_eq!(chain.end_of_leader_epoch(0, 120), Some((0, 30)));
        assert_eq!(chain.end_of_leader_epoch(1, 120), Some((1, 110)));
        assert_eq!(chain.end_of_leader_epoch(2, 120), Some((2, 120)));
        assert_eq!(chain.end_of_leader_epoch(9, 120), Some((2, 120)));
        let newer = Chain::new(vec![closed(1, 3, 0, 5)], open(2, 4, 5)).unwrap();
        assert_eq!(newer.end_of_leader_epoch(2, 5), None);
    }

    #[test]
    fn what_overlaps_is_no_chain() {
        assert!(Chain::new(vec![closed(1, 0, 0, 10)], open(2, 0, 9)).is_err());
        assert!(
            Chain::new(vec![closed(1, 0, 0, 10), closed(2, 0, 9, 12)], open(3, 0, 12)).is_err()
        );
        assert!(Chain::new(vec![closed(2, 0, 0, 10)], open(2, 0, 10)).is_err());
        let mut chain = chain();
        assert!(chain.roll(closed(5, 2, 110, 130), open(6, 2, 129)).is_err());
        assert!(chain.roll(closed(4, 2, 110, 130), open(6, 2, 130)).is_err());
        chain.roll(closed(5, 2, 110, 130), open(6, 2, 130)).unwrap();
        assert_eq!(chain.open().base, 130);
    }

    #[test]
    fn dropping_takes_whole_segments_only() {
        let mut chain = chain();
        assert_eq!(chain.drop_below(29), vec![Epoch(1)]);
        assert_eq!(chain.first_base(), 20);
        assert!(chain.contains(Epoch(4)) && !chain.contains(Epoch(1)));
        assert_eq!(chain.drop_below(10_000), vec![Epoch(2), Epoch(4)]);
        assert_eq!(chain.first_base(), 110);
    }

    #[test]
    fn empty_segments_take_no_place() {
        let mut chain = Chain::new(vec![closed(0, 0, 0, 0)], open(1, 0, 0)).unwrap();
        assert_eq!(chain.closed().len(), 0);
        chain.roll(closed(1, 0, 0, 0), open(2, 0, 0)).unwrap();
        assert_eq!(
            chain.find(0),
            Place::Segment { epoch: Epoch(2), end: Offset::MAX, next_base: Offset::MAX }
        );
    }
}
