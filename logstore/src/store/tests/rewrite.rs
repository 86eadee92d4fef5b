use super::*;

fn used(id: u32, live: u64, total: u64) -> Usage {
    Usage { id: ExtentId(id), is_closed: true, live, total }
}

#[test]
fn the_deadest_are_chosen_as_long_as_they_fit() {
    let options = Options { extent_bytes: 1000, rewrite_live_percent: 25, ..Options::default() };
    let open = Usage { is_closed: false, ..used(9, 1, 1000) };
    let small = |n: u32| (0..n).map(|i| used(i, 50, 60)).collect::<Vec<_>>();
    let cases: [(&str, Vec<Usage>, Vec<u32>); 7] = [
        ("nothing", vec![], vec![]),
        ("alive", vec![used(1, 900, 1000), used(2, 260, 1000)], vec![]),
        ("wholly dead ones are removed, not rewritten", vec![used(1, 0, 1000)], vec![]),
        ("the open one is left alone", vec![open], vec![]),
        ("deadest first", vec![used(1, 200, 1000), used(2, 100, 1000)], vec![2, 1]),
        ("as many as fit", (0..8).map(|i| used(i, 240, 1000)).collect(), vec![0, 1, 2, 3]),
        ("many small ones become one", small(8), (0..8).collect()),
    ];
    for (name, extents, expected) in cases {
        let chosen: Vec<u32> = choose(&extents, &options).iter().map(|id| id.0).collect();
        assert_eq!(chosen, expected, "{name}");
    }
    assert!(choose(&small(7), &options).is_empty(), "a few small ones may stay");
}
