//! The invariants, and what must be reachable so that they say anything.

use interflow_meta::Offset;
use stateright::Property;

use super::closings::PLANNED;
use super::disk::Segment;
use super::{Closed, Protocol, Value, World, index};
use crate::core::segment::Head;

impl Protocol {
    pub(super) fn all_properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("I1: what was acknowledged is read", |_, w: &World| {
                w.seen.acked.iter().all(|(value, offset)| w.is_read(*value, *offset))
            }),
            Property::always("I2: nothing is acknowledged past a tail", |_, w: &World| {
                !w.seen.broken.contains(&2)
            }),
            Property::always("I3: a segment closes once, the next begins there", |_, w: &World| {
                !w.seen.broken.contains(&3) && w.is_chain()
            }),
            Property::always("I4: what is closed is on Q replicas", |_, w: &World| {
                w.closed.iter().all(|closed| closed.is_short || w.is_on_quorum(closed))
            }),
            Property::always("I5: what was acknowledged is durable on Q", |_, w: &World| {
                w.seen.acked.iter().all(|(value, offset)| w.is_durable(*value, *offset))
            }),
            Property::always("I6: what was reported stays, without holes", |_, w: &World| {
                w.segments().all(|s| s.is_dense() && s.durable_end() >= s.reported)
            }),
            Property::always("I7: committed is on Q, and rises", |_, w: &World| {
                !w.seen.broken.contains(&7) && w.is_committed_on_quorum()
            }),
            Property::always("I8: a key is in the log once", |_, w: &World| w.is_once()),
            Property::always("I9: a seal is not unset", |_, w: &World| {
                w.segments().all(|s| !s.has_told_seal || s.is_sealed && s.core.is_sealed())
            }),
            Property::always("I10: one sequencer an epoch", |_, w: &World| {
                w.seen.sequencers.iter().all(|(epoch, life)| {
                    w.seen.sequencers.iter().all(|(other, l)| epoch != other || life == l)
                })
            }),
            Property::always("I12: who wins has written the chain", |_, w: &World| {
                !w.seen.broken.contains(&12)
            }),
            Property::always("a tail shows each record once", |_, w: &World| w.is_tail_right()),
            Property::sometimes("a batch is acknowledged", |_, w: &World| !w.seen.acked.is_empty()),
        ];
        let config = &self.config;
        let mut reached = |is_due: bool, name, condition: fn(&Self, &World) -> bool| {
            if is_due {
                properties.push(Property::sometimes(name, condition));
            }
        };
        reached(config.sends > 1, "a retry is known as a duplicate", |_, w| {
            w.seen.has_answered_a_duplicate
        });
        reached(config.recoveries > 0, "a recovery closes a segment with records", |_, w| {
            w.seen.has_recovered
        });
        reached(config.recoveries > 0 && config.replicas[0] > 1, "a recovery copies", |_, w| {
            w.seen.has_repaired
        });
        let has_next = config.recoveries + usize::from(config.plans) > 0;
        reached(has_next, "a batch is acknowledged by the next sequencer", |_, w| {
            let first = w.closed.first().map_or(Offset::MAX, |closed| closed.end);
            w.seen.acked.iter().any(|(_, offset)| *offset >= first)
        });
        reached(config.recoveries > 1, "a recovery finds the segment closed", |_, w| {
            w.recoverers.len() > 1
                && w.closed.len() == 1
                && w.recoverers.iter().all(|r| r.transaction.is_none() && r.core.is_finished())
        });
        reached(config.crashes > 0, "a crash loses what was not synced", |_, w| {
            w.seen.has_lost_unsynced
        });
        reached(config.unknowns > 0, "an unknown commit is resolved", |_, w| {
            w.seen.has_resolved_an_unknown && !w.closed.is_empty()
        });
        reached(config.plans > 0, "a planned close leaves records behind", |_, w| {
            w.head.token >= PLANNED && w.head.base > 0
        });
        reached(config.ticks && config.replicas[0] == 2, "a segment is closed short", |_, w| {
            w.closed.iter().any(|closed| closed.is_short && closed.end > closed.head.base)
        });
        properties
    }
}

impl World {
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        self.nodes.iter().flat_map(|node| node.segments.iter().flatten())
    }

    /// The segment that `offset` belongs to, and its end if it has one.
    fn segment_of(&self, offset: Offset) -> Option<(&Head, Option<Offset>)> {
        let closed =
            self.closed.iter().find(|closed| closed.head.base <= offset && offset < closed.end);
        match closed {
            Some(closed) => Some((&closed.head, Some(closed.end))),
            None if offset >= self.head.base => Some((&self.head, None)),
            None => None,
        }
    }

    /// What a reader gets at `offset`.
    pub(super) fn read(&self, offset: Offset) -> Option<Value> {
        let (head, _) = self.segment_of(offset)?;
        head.replicas
            .iter()
            .find_map(|node| self.nodes[index(*node)].segment(head.epoch)?.value_at(offset))
    }

    /// I1: every replica that has the offset has this value there, and one has.
    fn is_read(&self, value: Value, offset: Offset) -> bool {
        let Some((head, _)) = self.segment_of(offset) else { return false };
        let mut values = head.replicas.iter().filter_map(|node| {
            let segment = self.nodes[index(*node)].segment(head.epoch)?;
            (segment.core.local_end() > offset).then(|| segment.value_at(offset))
        });
        values.next() == Some(Some(value)) && values.all(|other| other == Some(value))
    }

    /// I5
    fn is_durable(&self, value: Value, offset: Offset) -> bool {
        let Some((head, _)) = self.segment_of(offset) else { return false };
        let holders = head.replicas.iter().filter(|node| {
            let segment = self.nodes[index(**node)].segment(head.epoch);
            segment.and_then(|segment| segment.durable_value_at(offset)) == Some(value)
        });
        holders.count() >= head.quorum().acks
    }

    fn is_chain(&self) -> bool {
        let mut base = 0;
        self.closed.iter().zip(0..).all(|(closed, epoch)| {
            let is_next = closed.head.base == base && closed.head.epoch.0 == epoch;
            base = closed.end;
            is_next && closed.end >= closed.head.base
        }) && self.head.base == base
    }

    fn is_on_quorum(&self, closed: &Closed) -> bool {
        let all = |segment: &Segment| {
            (closed.head.base..closed.end).map(|o| segment.durable_value_at(o)).collect::<Vec<_>>()
        };
        let copies: Vec<_> = closed
            .head
            .replicas
            .iter()
            .filter_map(|node| self.nodes[index(*node)].segment(closed.head.epoch))
            .filter(|segment| segment.durable_end() >= closed.end)
            .map(all)
            .collect();
        let whole = copies.iter().filter(|copy| copy.iter().all(Option::is_some)).count();
        closed.end == closed.head.base
            || whole >= closed.head.quorum().acks && copies.windows(2).all(|two| two[0] == two[1])
    }

    fn is_committed_on_quorum(&self) -> bool {
        self.nodes.iter().filter_map(|node| node.sequencer.as_ref()).all(|open| {
            let Some(head) = self.descriptor(open.epoch) else { return false };
            let end = |node: &_| {
                let segment = self.nodes[index(*node)].segment(open.epoch);
                segment.map_or(head.base, Segment::durable_end)
            };
            let mut ends: Vec<_> = head.replicas.iter().map(end).collect();
            ends.sort_unstable_by(|a, b| b.cmp(a));
            open.log.sequencer().committed() <= ends[head.quorum().acks - 1]
        })
    }

    /// I8, over the closed segments and the longest replica of the open one.
    fn is_once(&self) -> bool {
        let end = self.nodes.iter().filter_map(|node| node.segment(self.head.epoch));
        let end = end.map(|segment| segment.core.local_end()).max().unwrap_or(self.head.base);
        let mut values: Vec<Value> = (0..end).filter_map(|offset| self.read(offset)).collect();
        let before = values.len();
        values.sort_unstable();
        values.dedup();
        values.len() == before
    }

    /// All that lies below the tail's position was shown, and nothing twice.
    fn is_tail_right(&self) -> bool {
        let Some(tail) = &self.tail else { return true };
        let count = |value| tail.shown.iter().filter(|shown| **shown == value).count();
        tail.shown.iter().all(|value| count(*value) == 1)
            && (0..tail.next).filter_map(|offset| self.read(offset)).all(|value| count(value) == 1)
    }
}
