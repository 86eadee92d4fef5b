//! Who lives, from what was read and when: no clock and no meta in it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::view::{Member, View};
use crate::ids::NodeId;
use crate::nodes::{Node, NodeState};

/// How often a lease passes unseen before a dead member's number may be given away.
const BURY_AFTER: u32 = 10;

/// What a counter showed, and since when.
#[derive(Clone, Copy, Debug)]
struct Seen {
    incarnation: u64,
    lease: u64,
    since: Duration,
}

/// What was seen of all members.
#[derive(Debug)]
pub(super) struct Roster {
    /// A pause between two reads that is longer than this counts against nobody.
    patience: Duration,
    seen: BTreeMap<NodeId, Seen>,
    last_read: Option<Duration>,
}

/// What a read shows.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) view: View,
    /// When the next lease lapses, if it isn't bumped.
    pub(super) next_lapse: Option<Duration>,
    /// Members dead for long, with their lease counters.
    pub(super) dead: Vec<(NodeId, u64)>,
}

impl Roster {
    /// For one that reads twice within `patience`, if it can.
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, seen: BTreeMap::new(), last_read: None }
    }

    /// Takes in `rows`, by id, from a read that began and ended at these times.
    pub(super) fn read(
        &mut self,
        began: Duration,
        ended: Duration,
        rows: Vec<(NodeId, Node)>,
    ) -> Reading {
        // While nothing could be read, nobody's bumps could be seen; and perhaps none be made.
        let blind = self
            .last_read
            .map_or(Duration::ZERO, |last| began.saturating_sub(last))
            .saturating_sub(self.patience);
        let mut seen = BTreeMap::new();
        let (mut members, mut dead, mut next_lapse) = (Vec::new(), Vec::new(), None::<Duration>);
        for (id, node) in rows {
            let since = match self.seen.get(&id) {
                Some(before)
                    if (before.incarnation, before.lease) == (node.incarnation, node.lease) =>
                {
                    before.since + blind
                }
                _ => ended,
            };
            let lapse = since.saturating_add(node.lease_time);
            let is_ended = node.is_stopped || node.state == NodeState::Gone;
            let is_live = !is_ended && began < lapse;
            if is_live {
                next_lapse = Some(next_lapse.map_or(lapse, |next| next.min(lapse)));
            }
            if !is_ended && began >= since.saturating_add(node.lease_time * BURY_AFTER) {
                dead.push((id, node.lease));
            }
            seen.insert(id, Seen { incarnation: node.incarnation, lease: node.lease, since });
            members.push(Member { id, node, is_live });
        }
        self.seen = seen;
        self.last_read = Some(ended);
        Reading { view: View::new(members), next_lapse, dead }
    }
}

/// Something changed that others act on: lease counters alone are nothing.
pub(super) fn differs(before: &View, after: &View) -> bool {
    let still = |member: &Member| Member {
        node: Node { lease: 0, ..member.node.clone() },
        ..member.clone()
    };
    before.all().len() != after.all().len()
        || before.all().iter().zip(after.all()).any(|(a, b)| still(a) != still(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn node(lease: u64) -> Node {
        Node { incarnation: 1, lease, lease_time: ms(6_000), ..Node::default() }
    }

    fn read(roster: &mut Roster, at: u64, nodes: &[(u32, Node)]) -> Reading {
        let rows = nodes.iter().map(|(id, node)| (NodeId(*id), node.clone())).collect();
        roster.read(ms(at), ms(at), rows)
    }

    fn live(reading: &Reading) -> Vec<u32> {
        let live = reading.view.all().iter().filter(|member| member.is_live);
        live.map(|member| member.id.0).collect()
    }

    #[test]
    fn who_stands_still_for_its_lease_is_dead_until_it_rises() {
        let mut roster = Roster::new(ms(4_000));
        let both = |one, two| [(1, node(one)), (2, node(two))];
        let first = read(&mut roster, 0, &both(5, 5));
        assert_eq!((live(&first), first.next_lapse), (vec![1, 2], Some(ms(6_000))));
        assert_eq!(live(&read(&mut roster, 2_000, &both(6, 5))), [1, 2]);
        assert_eq!(live(&read(&mut roster, 4_000, &both(7, 5))), [1, 2]);
        assert_eq!(live(&read(&mut roster, 5_999, &both(8, 5))), [1, 2]);
        let lapsed = read(&mut roster, 6_000, &both(8, 5));
        assert_eq!((live(&lapsed), lapsed.next_lapse), (vec![1], Some(ms(11_999))));
        assert_eq!(live(&read(&mut roster, 8_000, &both(9, 5))), [1]);
        assert_eq!(live(&read(&mut roster, 10_000, &both(10, 6))), [1, 2]);
    }

    #[test]
    fn a_slow_read_gives_no_less_time() {
        let mut roster = Roster::new(ms(4_000));
        // What it shows may be as new as its end, and as old as its begin.
        roster.read(ms(0), ms(1_000), vec![(NodeId(1), node(5))]);
        let reading = roster.read(ms(4_000), ms(9_000), vec![(NodeId(1), node(5))]);
        assert_eq!(live(&reading), [1]);
        let reading = roster.read(ms(9_001), ms(9_001), vec![(NodeId(1), node(5))]);
        assert_eq!(live(&reading), [0; 0]);
    }

    #[test]
    fn time_without_reads_counts_against_nobody() {
        let mut roster = Roster::new(ms(4_000));
        read(&mut roster, 0, &[(1, node(5))]);
        read(&mut roster, 2_000, &[(1, node(5))]);
        // Meta was away for a minute; the node had 2 s, and 4 s of a usual pause.
        assert_eq!(live(&read(&mut roster, 62_000, &[(1, node(5))])), [0; 0]);
        let mut roster = Roster::new(ms(4_000));
        read(&mut roster, 0, &[(1, node(5))]);
        assert_eq!(live(&read(&mut roster, 60_000, &[(1, node(5))])), [1]);
        assert_eq!(live(&read(&mut roster, 61_999, &[(1, node(5))])), [1]);
        assert_eq!(live(&read(&mut roster, 62_000, &[(1, node(5))])), [0; 0]);
    }

    #[test]
    fn a_new_life_lives_and_one_that_ended_in_order_does_not() {
        let mut roster = Roster::new(ms(4_000));
        read(&mut roster, 0, &[(1, node(5))]);
        let next = Node { incarnation: 2, ..node(5) };
        read(&mut roster, 3_000, &[(1, next.clone())]);
        assert_eq!(live(&read(&mut roster, 6_000, &[(1, next.clone())])), [1]);
        let stopped = Node { is_stopped: true, ..next.clone() };
        assert_eq!(live(&read(&mut roster, 6_001, &[(1, stopped)])), [0; 0]);
        let gone = Node { state: NodeState::Gone, lease: 9, ..next };
        assert_eq!(live(&read(&mut roster, 6_002, &[(1, gone)])), [0; 0]);
        assert_eq!(live(&read(&mut roster, 6_003, &[])), [0; 0]);
    }

    #[test]
    fn each_lease_has_the_time_that_its_holder_states() {
        let mut roster = Roster::new(ms(4_000));
        let short = Node { lease_time: ms(1_000), ..node(5) };
        let nodes = [(1, node(5)), (2, short)];
        read(&mut roster, 0, &nodes);
        assert_eq!(live(&read(&mut roster, 1_000, &nodes)), [1]);
    }

    #[test]
    fn the_long_dead_are_named_with_their_counters() {
        let mut roster = Roster::new(ms(4_000));
        for at in (0..60_000).step_by(2_000) {
            let reading = read(&mut roster, at, &[(1, node(5)), (2, node(at))]);
            assert_eq!(reading.dead, []);
        }
        let reading = read(&mut roster, 60_000, &[(1, node(5)), (2, node(60_000))]);
        assert_eq!(reading.dead, [(NodeId(1), 5)]);
        let stopped = Node { is_stopped: true, ..node(5) };
        assert_eq!(read(&mut roster, 62_000, &[(1, stopped)]).dead, []);
    }

    #[test]
    fn counters_alone_are_no_difference() {
        let mut roster = Roster::new(ms(4_000));
        let first = read(&mut roster, 0, &[(1, node(5))]).view;
        assert!(!differs(&first, &read(&mut roster, 1, &[(1, node(6))]).view));
        let moved = Node { address: "b:1".to_owned(), ..node(7) };
        assert!(differs(&first, &read(&mut roster, 2, &[(1, moved.clone())]).view));
        assert!(differs(&first, &read(&mut roster, 3, &[]).view));
        assert!(differs(&first, &read(&mut roster, 4, &[(2, node(5))]).view));
        let first = read(&mut roster, 5, &[(1, moved.clone())]).view;
        read(&mut roster, 3_000, &[(1, moved.clone())]);
        assert!(differs(&first, &read(&mut roster, 6_100, &[(1, moved)]).view));
    }
}
