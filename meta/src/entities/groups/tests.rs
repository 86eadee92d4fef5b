use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{EmbeddedStore, Env, Meta};

fn meta() -> Meta {
    let env = Env::default();
    let store = EmbeddedStore::in_memory(env.clone()).unwrap();
    Meta::new(Arc::new(store), env, "test")
}

fn at(topic: &str, partition: u32, offset: u64) -> PartitionOffset {
    let offset = CommittedOffset {
        offset,
        leader_epoch: -1,
        committed_ms: 100,
        ..CommittedOffset::default()
    };
    (topic.to_owned(), partition, offset)
}

async fn commit(meta: &Meta, group: &str, offsets: &[PartitionOffset]) {
    meta.transact(|tx| async move { commit_offsets(&tx, "", group, offsets) }).await.unwrap();
}

#[tokio::test]
async fn committed_offsets_are_found_one_by_one_and_together() {
    let meta = meta();
    let mut offsets = vec![at("a", 0, 5), at("a", 300, 6), at("b", 1, 7)];
    commit(&meta, "g", &offsets).await;
    commit(&meta, "g2", &[at("a", 0, 1)]).await;
    commit(&meta, "g", &[at("a", 300, 9)]).await;
    offsets[1].2.offset = 9;
    let tx = meta.begin();
    assert_eq!(all_offsets(&tx, "", "g").await.unwrap(), offsets);
    let one = fetch_offset(&tx, "", "g", "a", 300).await.unwrap();
    assert_eq!(one.map(|one| one.offset), Some(9));
    assert_eq!(fetch_offset(&tx, "", "g", "a", 1).await.unwrap(), None);
    assert_eq!(fetch_offset(&tx, "other", "g", "a", 0).await.unwrap(), None);
}

#[tokio::test]
async fn groups_are_listed_once_each_page_by_page() {
    let meta = meta();
    for group in ["b", "a", "ab", "c"] {
        commit(&meta, group, &[at("t", 0, 1), at("t", 1, 1)]).await;
    }
    meta.transact(|tx| async move { put_metadata(&tx, "", "m", &GroupMetadata::default()) })
        .await
        .unwrap();
    let tx = meta.begin();
    assert_eq!(list(&tx, "", None, 3).await.unwrap(), ["a", "ab", "b"]);
    assert_eq!(list(&tx, "", Some("b"), 3).await.unwrap(), ["c", "m"]);
}

#[tokio::test]
async fn offsets_expire_by_their_own_time_or_by_retention() {
    let meta = meta();
    let mut own = at("a", 1, 5);
    own.2.expires_ms = Some(120);
    let mut long = at("a", 2, 5);
    long.2.expires_ms = Some(1_000);
    commit(&meta, "g", &[at("a", 0, 5), own, long]).await;
    let expire = |now| {
        let meta = meta.clone();
        async move {
            meta.transact(|tx| async move { expire_offsets(&tx, "", "g", now, 50).await })
                .await
                .unwrap()
        }
    };
    assert_eq!(expire(119).await, 0);
    assert_eq!(expire(120).await, 1);
    assert_eq!(expire(150).await, 1);
    let left = all_offsets(&meta.begin(), "", "g").await.unwrap();
    assert_eq!(left.iter().map(|one| one.1).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_deleted_group_leaves_nothing() {
    let meta = meta();
    commit(&meta, "g", &[at("a", 0, 5)]).await;
    commit(&meta, "g1", &[at("a", 0, 6)]).await;
    meta.transact(|tx| async move {
        put_metadata(&tx, "", "g", &GroupMetadata::default())?;
        delete(&tx, "", "g")
    })
    .await
    .unwrap();
    let tx = meta.begin();
    assert_eq!(list(&tx, "", None, 9).await.unwrap(), ["g1"]);
    assert_eq!(metadata(&tx, "", "g").await.unwrap(), None);
    assert_eq!(all_offsets(&tx, "", "g").await.unwrap(), []);
}

/// Members whose bytes differ from place to place.
fn members(len: usize) -> bytes::Bytes {
    (0..len).map(|at| (at % 251) as u8).collect::<Vec<_>>().into()
}

async fn put_members(meta: &Meta, group: &str, len: usize) -> Result<(), MetaError> {
    let metadata = GroupMetadata { members: members(len), ..GroupMetadata::default() };
    let metadata = &metadata;
    meta.transact(|tx| async move { put_metadata(&tx, "", group, metadata) }).await
}

async fn members_of(meta: &Meta, group: &str) -> Option<bytes::Bytes> {
    metadata(&meta.begin(), "", group).await.unwrap().map(|metadata| metadata.members)
}

async fn rows_of(meta: &Meta, group: &str) -> usize {
    let tx = meta.begin();
    tx.get_all(&all_of(&tx.root().subspace(&("group", "", group)))).await.unwrap().len()
}

#[tokio::test]
async fn large_members_lie_in_parts_that_go_with_them() {
    let meta = meta();
    put_members(&meta, "g1", 100).await.unwrap();
    // To and fro over the size of a part, each write in place of the one before.
    for (len, rows) in
        [(10, 1), (89_000, 1), (90_000, 3), (1_000_000, 13), (200_000, 4), (9_000_000, 102), (7, 1)]
    {
        put_members(&meta, "g", len).await.unwrap();
        assert_eq!(members_of(&meta, "g").await.unwrap(), members(len));
        assert_eq!(rows_of(&meta, "g").await, rows, "{len} bytes");
        assert_eq!(list(&meta.begin(), "", None, 9).await.unwrap(), ["g", "g1"]);
    }
    put_members(&meta, "g", 200_000).await.unwrap();
    meta.transact(|tx| async move { delete(&tx, "", "g") }).await.unwrap();
    assert_eq!((rows_of(&meta, "g").await, members_of(&meta, "g").await), (0, None));
    assert_eq!(members_of(&meta, "g1").await.unwrap(), members(100));
}

#[tokio::test]
async fn what_is_too_large_for_a_transaction_is_refused_and_changes_nothing() {
    let meta = meta();
    let name = "g".repeat(2_048);
    put_members(&meta, &name, MAX_MEMBERS_BYTES).await.unwrap();
    let refused = put_members(&meta, &name, 10_000_000).await;
    assert!(matches!(refused, Err(MetaError::TransactionTooLarge(_))), "{refused:?}");
    assert_eq!(members_of(&meta, &name).await.unwrap(), members(MAX_MEMBERS_BYTES));
}

#[tokio::test]
async fn a_missing_part_is_damage() {
    let meta = meta();
    put_members(&meta, "g", 300_000).await.unwrap();
    meta.transact(|tx| async move { tx.clear(parts_of(&tx, "", "g").pack(&2)) }).await.unwrap();
    assert!(matches!(metadata(&meta.begin(), "", "g").await, Err(MetaError::Corrupt(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn stored_metadata_comes_back_whatever_its_size(
        sizes in proptest::collection::vec(0usize..400_000, 1..4), names in 0usize..100_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let meta = meta();
            for (generation, len) in sizes.iter().enumerate() {
                let value = GroupMetadata {
                    generation: generation as u32,
                    protocol_type: "p".repeat(names),
                    members: members(*len),
                    ..GroupMetadata::default()
                };
                let stored = &value;
                meta.transact(|tx| async move { put_metadata(&tx, "", "g", stored) })
                    .await
                    .unwrap();
                let found = metadata(&meta.begin(), "", "g").await.unwrap();
                prop_assert_eq!(found.as_ref(), Some(stored));
            }
            Ok(())
        })?;
    }
}

proptest! {
    #[test]
    fn an_offset_comes_back_as_it_was(
        offset: u64, leader_epoch: i32, metadata in ".{0,20}", committed_ms: i64,
        expires_ms: Option<i64>,
    ) {
        let value = CommittedOffset { offset, leader_epoch, metadata, committed_ms, expires_ms };
        prop_assert_eq!(CommittedOffset::decode(value.encode()).unwrap(), value);
    }

    #[test]
    fn metadata_comes_back_as_it_was(
        generation: u32, words in proptest::array::uniform3(".{0,9}"), members: Vec<u8>,
        changed_ms: i64, coordinator_epoch: u32,
    ) {
        let [protocol_type, protocol, leader] = words;
        let value = GroupMetadata {
            generation, protocol_type, protocol, leader, members: members.into(), changed_ms,
            coordinator_epoch,
        };
        prop_assert_eq!(GroupMetadata::decode(value.encode()).unwrap(), value);
    }
}
