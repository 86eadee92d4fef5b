//! There and back, and what isn't a whole dump.

use std::sync::Arc;

use super::*;
use crate::{EmbeddedStore, Env, KeyRange};

fn meta(root: &str) -> Meta {
    let env = Env::default();
    Meta::new(Arc::new(EmbeddedStore::in_memory(env.clone()).unwrap()), env, root)
}

/// More than one page, and values of all sizes.
async fn fill(meta: &Meta) {
    let root = &meta.root().bytes().to_vec();
    for n in 0..40_u32 {
        meta.transact(|tx| async move {
            for m in 0..200_u32 {
                let key = [&root[..], &n.to_be_bytes(), &m.to_be_bytes()].concat();
                tx.set(key, vec![7; usize::try_from(n * m % 1_000).unwrap()])?;
            }
            Ok::<_, MetaError>(())
        })
        .await
        .unwrap();
    }
}

async fn dumped(meta: &Meta) -> Vec<u8> {
    let mut out = Vec::new();
    let dumped = dump(meta, &mut out).await.unwrap();
    assert!(!dumped.has_moved);
    out
}

#[tokio::test]
async fn a_restore_into_another_store_has_the_same_dump() {
    let from = meta("one");
    // Beside the root, and so no part of it.
    from.transact(|tx| async move { tx.set("somebody else's", "v") }).await.unwrap();
    fill(&from).await;
    let file = dumped(&from).await;
    let to = meta("another");
    let restored = restore(&to, || Ok(&file[..]), false).await.unwrap();
    assert_eq!(restored, Dumped { rows: 8_000, has_moved: false });
    assert_eq!(dumped(&to).await, file);
    assert!(to.begin().get(b"somebody else's").await.unwrap().is_none());
}

#[tokio::test]
async fn nothing_is_as_good_as_something() {
    let file = dumped(&meta("one")).await;
    assert_eq!(file.len(), MAGIC.len() + 4 + 1 + 8 + 4);
    let to = meta("another");
    restore(&to, || Ok(&file[..]), false).await.unwrap();
    assert_eq!(dumped(&to).await, file);
}

#[tokio::test]
async fn what_is_there_goes_only_when_told() {
    let (from, to) = (meta("one"), meta("one"));
    fill(&from).await;
    let file = dumped(&from).await;
    let key = &to.root().pack(&("user", "al"));
    to.transact(|tx| async move {
        tx.set(key.clone(), "v")?;
        tx.set("beside", "v")
    })
    .await
    .unwrap();
    let before = dumped(&to).await;
    let refused = restore(&to, || Ok(&file[..]), false).await;
    assert!(matches!(refused, Err(DumpError::NotEmpty)), "{refused:?}");
    assert_eq!(dumped(&to).await, before);
    restore(&to, || Ok(&file[..]), true).await.unwrap();
    assert_eq!(dumped(&to).await, file);
    assert!(to.begin().get(b"beside").await.unwrap().is_some(), "not below the root");
}

#[tokio::test]
async fn an_interrupted_restore_leaves_its_mark() {
    let (from, to) = (meta("one"), meta("one"));
    fill(&from).await;
    let file = dumped(&from).await;
    let mut passes = 0;
    // The second pass ends too early.
    let interrupted = restore(
        &to,
        || {
            passes += 1;
            Ok(if passes == 1 { &file[..] } else { &file[..file.len() / 2] })
        },
        false,
    )
    .await;
    assert!(matches!(interrupted, Err(DumpError::Damaged(_))), "{interrupted:?}");
    assert!(to.begin().get(&mark(&to)).await.unwrap().is_some());
    let refused = restore(&to, || Ok(&file[..]), false).await;
    assert!(matches!(refused, Err(DumpError::NotEmpty)), "{refused:?}");
    restore(&to, || Ok(&file[..]), true).await.unwrap();
    assert_eq!(dumped(&to).await, file);
}

#[tokio::test]
async fn a_damaged_dump_restores_nothing() {
    let from = meta("one");
    let key = &from.root().pack(&("user", "al"));
    from.transact(|tx| async move { tx.set(key.clone(), "value") }).await.unwrap();
    let file = dumped(&from).await;
    let to = meta("one");
    let mut bad: Vec<Vec<u8>> = (0..file.len()).map(|end| file[..end].to_vec()).collect();
    bad.push([&file[..], b"x"].concat());
    for place in 0..file.len() {
        let mut flipped = file.clone();
        flipped[place] ^= 1;
        bad.push(flipped);
    }
    for file in bad {
        let refused = restore(&to, || Ok(&file[..]), false).await;
        assert!(refused.is_err(), "{file:?}");
        assert!(to.begin().get_all(&KeyRange::new("", "z")).await.unwrap().is_empty());
    }
    let mut newer = file.clone();
    newer[MAGIC.len() + 3] = 2;
    let refused = restore(&to, || Ok(&newer[..]), false).await;
    assert!(matches!(refused, Err(DumpError::NewerFormat(2))), "{refused:?}");
    let other = b"SQLite format 3, for example, or whatever";
    let refused = restore(&to, || Ok(&other[..]), false).await;
    assert!(matches!(refused, Err(DumpError::NotADump)), "{refused:?}");
}

#[tokio::test]
async fn the_seed_of_the_fuzz_target_is_a_dump() {
    let [seed] = &dump_seeds()[..] else { panic!("one seed") };
    let to = meta("one");
    assert_eq!(restore(&to, || Ok(&seed[..]), false).await.unwrap().rows, 1);
    assert_eq!(dumped(&to).await, *seed);
}
