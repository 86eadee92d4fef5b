use super::*;

fn used(id: u32, live: u64, total: u64) -> Usage {
    Usage {
        id: ExtentId(id),
        is_closed: true,
        is_original: true,
        live,
        total,
        runs: 0,
        scan_bytes: live,
        short: None,
    }
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

#[test]
fn the_newest_interleaved_one_that_lives_is_chosen() {
    let options = Options {
        extent_bytes: 100 << 20,
        rewrite_live_percent: 25,
        rewrite_scan_factor: 2,
        ..Options::default()
    };
    let mib = |n: u64| n << 20;
    let woven = |id, short| Usage { scan_bytes: mib(400), short, ..used(id, mib(90), mib(100)) };
    let cases: [(&str, Usage, Interleaved); 11] = [
        ("judged first", woven(1, None), Interleaved::Judge(ExtentId(1))),
        ("all of it lasts", woven(1, Some(0)), Interleaved::Rewrite(ExtentId(1))),
        ("little dies soon", woven(1, Some(mib(11))), Interleaved::Rewrite(ExtentId(1))),
        ("too much dies soon", woven(1, Some(mib(12))), Interleaved::None),
        (
            "it was rewritten before",
            Usage { is_original: false, ..woven(1, Some(0)) },
            Interleaved::None,
        ),
        ("it is open", Usage { is_closed: false, ..woven(1, Some(0)) }, Interleaved::None),
        ("in order", Usage { scan_bytes: mib(91), ..woven(1, Some(0)) }, Interleaved::None),
        (
            "so many segments that a scan of each goes there anyway",
            Usage { runs: 5000, ..woven(1, Some(0)) },
            Interleaved::None,
        ),
        ("mostly dead", Usage { live: mib(25), ..woven(1, Some(0)) }, Interleaved::None),
        ("dead", Usage { live: 0, ..woven(1, Some(0)) }, Interleaved::None),
        ("small", Usage { live: mib(5), total: mib(6), ..woven(1, Some(0)) }, Interleaved::None),
    ];
    for (name, extent, expected) in cases {
        assert_eq!(interleaved(&[extent], &options), expected, "{name}");
    }
    let several = [woven(1, Some(0)), woven(2, Some(0)), woven(3, Some(mib(90)))];
    assert_eq!(interleaved(&several, &options), Interleaved::Rewrite(ExtentId(2)));
    let never = Options { rewrite_scan_factor: u64::MAX, ..options };
    assert_eq!(interleaved(&several, &never), Interleaved::None);
}

#[test]
fn classes_that_are_large_enough_get_an_extent_each() {
    use LifeClass::{Forever, Hours, Soon, Unknown};
    let options = Options { extent_bytes: 800, ..Options::default() };
    type Runs = Vec<(LifeClass, u64)>;
    let cases: [(&str, Runs, Vec<usize>); 7] = [
        ("nothing", vec![], vec![]),
        ("one class", vec![(Soon, 90), (Soon, 500)], vec![0]),
        ("two", vec![(Soon, 60), (Soon, 60), (Forever, 200)], vec![0, 2]),
        (
            "a small one goes with the next",
            vec![(Soon, 99), (Hours(1), 5), (Hours(3), 300)],
            vec![0, 2],
        ),
        ("a small last one with the one before", vec![(Soon, 400), (Unknown, 99)], vec![0]),
        ("three", vec![(Hours(0), 100), (Hours(7), 100), (Forever, 100)], vec![0, 1, 2]),
        ("all too small", vec![(Soon, 30), (Hours(2), 30), (Forever, 30)], vec![0]),
    ];
    for (name, sorted, expected) in cases {
        assert_eq!(parts(&sorted, &options), expected, "{name}");
    }
}
