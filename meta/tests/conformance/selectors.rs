//! Key selectors: keys named by their place.

use std::sync::Arc;

use interflow_meta::{KeySelector, MetaError};

use super::Bed;

/// Developer guide, “Key selectors”: the four constructors.
pub(super) async fn the_four_selectors_name_keys_by_their_place(bed: Arc<Bed>) {
    bed.fill(&["b", "d", "f"]).await;
    let tx = bed.meta.begin();
    for (selector, name) in [
        (KeySelector::first_greater_or_equal(bed.key("d")), "d"),
        (KeySelector::first_greater_or_equal(bed.key("c")), "d"),
        (KeySelector::first_greater_than(bed.key("d")), "f"),
        (KeySelector::first_greater_than(bed.key("c")), "d"),
        (KeySelector::last_less_or_equal(bed.key("d")), "d"),
        (KeySelector::last_less_or_equal(bed.key("e")), "d"),
        (KeySelector::last_less_than(bed.key("d")), "b"),
        (KeySelector::last_less_than(bed.key("e")), "d"),
    ] {
        let key = tx.get_key(&selector, true).await.unwrap();
        assert_eq!(bed.name(&key), name, "{selector:?}");
    }
}

/// Developer guide, “Key selectors”: an offset goes so many keys on or back; own keys count, cleared
/// ones don't.
pub(super) async fn offsets_go_over_stored_and_own_keys(bed: Arc<Bed>) {
    bed.fill(&["b", "d", "f"]).await;
    let tx = bed.meta.begin();
    tx.set(bed.key("e"), "own").unwrap();
    tx.clear(bed.key("f")).unwrap();
    tx.set(bed.key("g"), "own").unwrap();
    for (selector, name) in [
        (KeySelector::first_greater_or_equal(bed.key("c")) + 1, "e"),
        (KeySelector::first_greater_or_equal(bed.key("c")) + 2, "g"),
        (KeySelector::first_greater_or_equal(bed.key("d")) + -1, "b"),
        (KeySelector::first_greater_than(bed.key("d")) + -1, "d"),
        (KeySelector::last_less_than(bed.key("z")) + -1, "e"),
        (KeySelector::last_less_or_equal(bed.key("e")) + 1, "g"),
        (KeySelector::last_less_or_equal(bed.key("d")) + -1, "b"),
    ] {
        let key = tx.get_key(&selector, true).await.unwrap();
        assert_eq!(bed.name(&key), name, "{selector:?}");
    }
}

/// C API, `fdb_transaction_get_key`: before the first key the empty key comes, behind the last one
/// 0xFF.
pub(super) async fn offsets_end_outside_of_what_is_there(bed: Arc<Bed>) {
    bed.fill(&["b", "d"]).await;
    let tx = bed.meta.begin();
    let before = [
        KeySelector::last_less_than(bed.key("b")),
        KeySelector::last_less_or_equal(bed.key("a")),
        KeySelector::last_less_than(bed.key("z")) + -2,
        KeySelector::first_greater_or_equal(bed.key("b")) + -1,
    ];
    let behind = [
        KeySelector::first_greater_than(bed.key("d")),
        KeySelector::first_greater_or_equal(bed.key("e")),
        KeySelector::first_greater_or_equal(bed.key("a")) + 2,
        KeySelector::last_less_than(bed.key("z")) + 1,
    ];
    for selector in before {
        let key = tx.get_key(&selector, true).await.unwrap();
        // Where others have keys as well, one of theirs may be next.
        assert!(if bed.is_shared { key < bed.all().begin } else { key.is_empty() }, "{selector:?}");
    }
    for selector in behind {
        let key = tx.get_key(&selector, true).await.unwrap();
        assert!(if bed.is_shared { key >= bed.all().end } else { key[..] == [0xff] });
    }
    if !bed.is_shared {
        let far = KeySelector::first_greater_or_equal(bed.key("a"));
        assert_eq!(tx.get_key(&(far.clone() + i32::MAX), true).await.unwrap()[..], [0xff]);
        assert!(tx.get_key(&(far + i32::MIN), true).await.unwrap().is_empty());
    }
}

/// C API, `fdb_transaction_get_range`: both ends of a range may be selectors.
pub(super) async fn a_range_is_selected_by_its_ends(bed: Arc<Bed>) {
    bed.fill(&["b", "d", "f"]).await;
    let tx = bed.meta.begin();
    let begin = KeySelector::first_greater_or_equal(bed.key("c"));
    let end = KeySelector::last_less_or_equal(bed.key("z"));
    let range = tx.select(&begin, &end, true).await.unwrap();
    assert_eq!((bed.name(&range.begin), bed.name(&range.end)), ("d".into(), "f".into()));
    let range = tx.select(&end, &begin, true).await.unwrap();
    assert!(range.is_empty(), "in the wrong order there is nothing between");
}

/// Developer guide, “Conflict ranges”: a key that comes to lie between the selector and what it
/// found would have changed the answer.
pub(super) async fn a_selected_key_conflicts_as_far_as_it_was_looked_for(bed: Arc<Bed>) {
    bed.fill(&["b", "f"]).await;
    for (snapshot, touched, conflicts) in
        [(false, "d", true), (false, "f", true), (false, "h", false), (true, "d", false)]
    {
        let tx = bed.begun().await;
        let selector = KeySelector::first_greater_or_equal(bed.key("c"));
        let found = tx.get_key(&selector, snapshot).await.unwrap();
        assert_eq!(bed.name(&found), "f");
        tx.set(bed.key("~"), "v").unwrap();
        bed.set(touched, "v").await;
        let ended = tx.commit().await;
        assert_eq!(ended.err(), conflicts.then_some(MetaError::Conflict), "{touched} {snapshot}");
        let key = &bed.key(touched);
        if touched != "f" {
            bed.meta.transact(|tx| async move { tx.clear(key.clone()) }).await.unwrap();
        }
    }
}
