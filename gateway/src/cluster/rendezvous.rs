//! Rendezvous hashing: of all live gateways, who has what, by its weight.

use interflow_meta::NodeId;

/// What is weighed: its name as a number that is the same on every gateway, of any version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(u64);

impl Weight {
    /// Of a thing that is named by `parts`, each apart from the next.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        // FNV-1a; lengths keep ("a", "b") and ("ab", "") apart.
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        let hash = parts.iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| {
            let len = u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes();
            part.iter().fold(len.iter().fold(hash, step), step)
        });
        Self(mix(hash))
    }

    /// How much it draws `node`.
    fn on(self, node: NodeId) -> u64 {
        mix(self.0 ^ mix(u64::from(node.0)))
    }
}

/// Every bit of the result depends on every bit of `x` (splitmix64).
fn mix(x: u64) -> u64 {
    let mut x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Which of `nodes` the thing falls to: the same one wherever it is asked, in any order; when a node
/// goes only what it had falls to others, spread over all. `None` if there are no nodes.
pub fn heaviest<T>(
    weight: Weight,
    nodes: impl Iterator<Item = T>,
    id: impl Fn(&T) -> NodeId,
) -> Option<T> {
    nodes.max_by_key(|node| (weight.on(id(node)), id(node)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn owner(key: u32, nodes: &[u32]) -> u32 {
        let weight = Weight::of(&[b"partition", &key.to_be_bytes()]);
        heaviest(weight, nodes.iter().copied(), |id| NodeId(*id)).unwrap()
    }

    /// Gateways of different builds must agree.
    #[test]
    fn weights_are_the_same_for_ever() {
        let owners: Vec<_> = (0..12).map(|key| owner(key, &[1, 2, 3])).collect();
        assert_eq!(owners, [2, 2, 1, 2, 3, 3, 2, 1, 2, 3, 2, 1]);
        assert_ne!(Weight::of(&[b"a", b"b"]), Weight::of(&[b"ab", b""]));
    }

    #[test]
    fn keys_are_spread() {
        let mut counts = BTreeMap::new();
        for key in 0..10_000 {
            *counts.entry(owner(key, &[1, 2, 3, 4])).or_insert(0) += 1;
        }
        assert!(counts.values().all(|count| (2_300..2_700).contains(count)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn only_what_a_node_had_moves(
            key: u32, ids in proptest::collection::btree_set(0..50_u32, 2..9), gone: prop::sample::Index,
        ) {
            let all: Vec<u32> = ids.into_iter().collect();
            let gone = all[gone.index(all.len())];
            let rest: Vec<u32> = all.iter().copied().filter(|id| *id != gone).rev().collect();
            let (before, after) = (owner(key, &all), owner(key, &rest));
            prop_assert!(before == gone || before == after);
        }
    }
}
