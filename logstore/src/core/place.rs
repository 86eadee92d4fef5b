//! Which nodes store the next segment of a log.

use std::cmp::Reverse;

use interflow_meta::{LogId, NodeId};

use super::segment::Nodes;

/// A node that can take segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The node.
    pub node: NodeId,
    /// Where it stands; empty: unknown, and then it shares its rack with nobody.
    pub rack: &'a str,
}

/// `replicas` of `nodes` for the next segment of `log`, or all of them if there are fewer; the
/// first is to be the sequencer. `None` if too few are left to be safe with: fewer than two, but
/// where one is all that is wanted.
///
/// The nodes that rendezvous hashing ranks highest for this log, one a rack as long as there are
/// racks, then a second one a rack, and so on: logs spread over all nodes, and a node that comes
/// or goes moves those logs only that it gets or had. The order of `nodes` makes no difference.
pub fn place(log: LogId, nodes: &[Candidate<'_>], replicas: usize) -> Option<Nodes> {
    let chosen: Nodes = order(log, nodes, &[]).take(replicas).collect();
    (replicas > 0 && chosen.len() >= replicas.min(2)).then_some(chosen)
}

/// In which order `nodes` are to get a copy of a segment of `log` that those in `held` have already.
pub(crate) fn order(
    log: LogId,
    nodes: &[Candidate<'_>],
    held: &[Candidate<'_>],
) -> impl Iterator<Item = NodeId> + use<> {
    let mut ranked: Vec<(u64, Candidate<'_>)> =
        nodes.iter().map(|candidate| (rank(log, candidate.node), *candidate)).collect();
    ranked.sort_unstable_by_key(|(rank, candidate)| (Reverse(*rank), candidate.node));
    ranked.dedup_by_key(|(_, candidate)| candidate.node);
    ranked.retain(|(_, candidate)| held.iter().all(|held| held.node != candidate.node));
    // The n-th of a rack comes behind all racks' (n-1)-th. Quadratic in nodes, of which there
    // are few.
    let mut order: Vec<(usize, NodeId)> = Vec::with_capacity(ranked.len());
    for (index, (_, candidate)) in ranked.iter().enumerate() {
        let before = ranked.iter().take(index).map(|(_, other)| other).chain(held);
        let same = before.filter(|other| is_same_rack(other, candidate)).count();
        order.push((same, candidate.node));
    }
    order.sort_by_key(|(nth, _)| *nth);
    order.into_iter().map(|(_, node)| node)
}

fn is_same_rack(a: &Candidate<'_>, b: &Candidate<'_>) -> bool {
    !a.rack.is_empty() && a.rack == b.rack
}

/// Where a node stands in a log's ranking: the same at every node and in every release, since
/// placements of different nodes are to agree. Two rounds of splitmix64's finaliser.
fn rank(log: LogId, node: NodeId) -> u64 {
    mix(mix(log.0).wrapping_add(u64::from(node.0)))
}

fn mix(value: u64) -> u64 {
    let mut value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RACKS: [&str; 3] = ["a", "b", "c"];

    /// Nodes 0.. with their racks by turns.
    fn nodes(count: u32, racks: usize) -> Vec<Candidate<'static>> {
        (0..count)
            .map(|node| Candidate { node: NodeId(node), rack: RACKS[node as usize % racks] })
            .collect()
    }

    fn racks_of(chosen: &Nodes, nodes: &[Candidate<'static>]) -> Vec<&'static str> {
        let rack = |id| nodes.iter().find(|node| node.node == id).unwrap().rack;
        let mut racks: Vec<_> = chosen.iter().map(|id| rack(*id)).collect();
        racks.sort_unstable();
        racks
    }

    #[test]
    fn replicas_stand_in_as_many_racks_as_there_are() {
        let (three, two) = (nodes(9, 3), nodes(6, 2));
        for log in 0..200 {
            let chosen = place(LogId(log), &three, 3).unwrap();
            assert_eq!(racks_of(&chosen, &three), RACKS);
            let mut racks = racks_of(&place(LogId(log), &two, 3).unwrap(), &two);
            racks.dedup();
            assert_eq!(racks, ["a", "b"]);
        }
    }

    #[test]
    fn logs_spread_over_nodes_as_replicas_and_as_sequencers() {
        let nodes = nodes(9, 3);
        let (mut stored, mut sequenced) = ([0u32; 9], [0u32; 9]);
        for log in 0..9_000 {
            let chosen = place(LogId(log), &nodes, 3).unwrap();
            sequenced[chosen[0].0 as usize] += 1;
            chosen.iter().for_each(|node| stored[node.0 as usize] += 1);
        }
        assert!(stored.iter().all(|count| (2_700..3_300).contains(count)), "{stored:?}");
        assert!(sequenced.iter().all(|count| (850..1_150).contains(count)), "{sequenced:?}");
    }

    #[test]
    fn a_lost_node_moves_only_what_it_had_and_order_is_nothing() {
        let all = nodes(9, 3);
        let without: Vec<_> = all.iter().copied().filter(|n| n.node != NodeId(4)).collect();
        let reversed: Vec<_> = all.iter().copied().rev().collect();
        for log in 0..500 {
            let before = place(LogId(log), &all, 3).unwrap();
            assert_eq!(place(LogId(log), &reversed, 3).unwrap(), before);
            let after = place(LogId(log), &without, 3).unwrap();
            let kept = after.iter().filter(|node| before.contains(node)).count();
            assert_eq!(kept, if before.contains(&NodeId(4)) { 2 } else { 3 });
        }
    }

    #[test]
    fn copies_go_to_racks_that_have_none_first() {
        let nodes = nodes(9, 3);
        let held = [nodes[0], nodes[4]];
        for log in 0..200 {
            let order: Vec<_> = order(LogId(log), &nodes, &held).collect();
            assert_eq!(order.len(), 7);
            // Node 0 stands in rack a, node 4 in b.
            assert_eq!(order[0].0 % 3, 2, "{order:?}");
            assert!(!order.contains(&NodeId(0)) && !order.contains(&NodeId(4)));
        }
        let first = |log| order(LogId(log), &nodes, &held).next();
        let firsts: std::collections::BTreeSet<_> = (0..200).map(first).collect();
        assert_eq!(firsts.len(), 3, "not all copies to one node");
    }

    #[test]
    fn too_few_nodes_are_said_to_be_too_few() {
        assert_eq!(place(LogId(1), &nodes(2, 2), 3).unwrap().len(), 2);
        assert_eq!(place(LogId(1), &nodes(1, 1), 3), None);
        assert_eq!(place(LogId(1), &nodes(1, 1), 1).unwrap().as_slice(), [NodeId(0)]);
        assert_eq!(place(LogId(1), &[], 1), None);
        let unknown = [1, 2, 3].map(|node| Candidate { node: NodeId(node), rack: "" });
        assert_eq!(place(LogId(1), &unknown, 3).unwrap().len(), 3);
    }
}
