//! Consumer groups: `("group", tenant, group, "offset", topic, partition)` are committed offsets,
//! `("group", tenant, group, "meta")` is what the coordinator must find again after a restart.

mod value;

#[cfg(test)]
mod tests;

use super::codec::bad_key;
use crate::error::MetaError;
use crate::store::{KeyRange, after_prefix};
use crate::transaction::{RangeOptions, Transaction};
pub use value::{CommittedOffset, GroupMetadata};

/// A topic's partition and the offset committed for it.
pub type PartitionOffset = (String, u32, CommittedOffset);

fn offset_key(tx: &Transaction, tenant: &str, group: &str, topic: &str, partition: u32) -> Vec<u8> {
    tx.root().pack(&("group", tenant, group, "offset", topic, partition))
}

fn metadata_key(tx: &Transaction, tenant: &str, group: &str) -> Vec<u8> {
    tx.root().pack(&("group", tenant, group, "meta"))
}

fn offsets_of(tx: &Transaction, tenant: &str, group: &str) -> KeyRange {
    let root = tx.root().subspace(&("group", tenant, group, "offset"));
    let (begin, end) = root.range();
    KeyRange::new(begin, end)
}

/// Commits offsets of a group; one of another partition is not touched. Reads nothing, so that
/// commits never conflict; whoever must be fenced reads the [metadata](metadata) first.
///
/// # Errors
/// Meta's own.
pub fn commit_offsets(
    tx: &Transaction,
    tenant: &str,
    group: &str,
    offsets: &[PartitionOffset],
) -> Result<(), MetaError> {
    for (topic, partition, offset) in offsets {
        tx.set(offset_key(tx, tenant, group, topic, *partition), offset.encode())?;
    }
    Ok(())
}

/// The committed offset of one partition.
///
/// # Errors
/// Meta's own.
pub async fn fetch_offset(
    tx: &Transaction,
    tenant: &str,
    group: &str,
    topic: &str,
    partition: u32,
) -> Result<Option<CommittedOffset>, MetaError> {
    let key = offset_key(tx, tenant, group, topic, partition);
    tx.get(&key).await?.map(CommittedOffset::decode).transpose()
}

/// All committed offsets of a group, by topic and partition.
///
/// # Errors
/// Meta's own.
pub async fn all_offsets(
    tx: &Transaction,
    tenant: &str,
    group: &str,
) -> Result<Vec<PartitionOffset>, MetaError> {
    let rows = tx.get_all(&offsets_of(tx, tenant, group)).await?;
    rows.into_iter()
        .map(|(key, value)| {
            let key: (String, String, String, String, String, u32) =
                tx.root().unpack(&key).map_err(bad_key("group"))?;
            Ok((key.4, key.5, CommittedOffset::decode(value)?))
        })
        .collect()
}

/// Removes the committed offset of one partition.
///
/// # Errors
/// Meta's own.
pub fn delete_offset(
    tx: &Transaction,
    tenant: &str,
    group: &str,
    topic: &str,
    partition: u32,
) -> Result<(), MetaError> {
    tx.clear(offset_key(tx, tenant, group, topic, partition))
}

/// Removes a group's offsets that are past their time at `now_ms`: their own, or `retention_ms`
/// after they were committed. Returns how many; for groups without members only.
///
/// # Errors
/// Meta's own.
pub async fn expire_offsets(
    tx: &Transaction,
    tenant: &str,
    group: &str,
    now_ms: i64,
    retention_ms: i64,
) -> Result<usize, MetaError> {
    let offsets = all_offsets(tx, tenant, group).await?;
    let mut expired = 0;
    for (topic, partition, offset) in &offsets {
        let kept = offset.committed_ms.saturating_add(retention_ms);
        if offset.expires_ms.unwrap_or(kept) <= now_ms {
            delete_offset(tx, tenant, group, topic, *partition)?;
            expired += 1;
        }
    }
    Ok(expired)
}

/// What the coordinator has stored of a group.
///
/// # Errors
/// Meta's own.
pub async fn metadata(
    tx: &Transaction,
    tenant: &str,
    group: &str,
) -> Result<Option<GroupMetadata>, MetaError> {
    let value = tx.get(&metadata_key(tx, tenant, group)).await?;
    value.map(GroupMetadata::decode).transpose()
}

/// Stores what the coordinator must find again.
///
/// # Errors
/// [`MetaError::ValueTooLarge`] when the members take more than about 100,000 bytes; meta's own.
pub fn put_metadata(
    tx: &Transaction,
    tenant: &str,
    group: &str,
    metadata: &GroupMetadata,
) -> Result<(), MetaError> {
    tx.set(metadata_key(tx, tenant, group), metadata.encode())
}

/// Up to `limit` groups by name, behind `after`; fewer mean that there are no more. Touches one
/// row a group, however many offsets it has.
///
/// # Errors
/// Meta's own.
pub async fn list(
    tx: &Transaction,
    tenant: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, MetaError> {
    let (mut begin, end) = tx.root().subspace(&("group", tenant)).range();
    let past = |name: &str| {
        let prefix = tx.root().pack(&("group", tenant, name));
        after_prefix(&prefix).map_or(end.clone(), Vec::from)
    };
    if let Some(name) = after {
        begin = past(name);
    }
    let mut names = Vec::new();
    while names.len() < limit {
        let range = KeyRange::new(begin, end.clone());
        let page = tx.get_range(&range, RangeOptions::limit(1).snapshot()).await?;
        let Some((key, _)) = page.rows.first() else {
            break;
        };
        // Keys of this family differ in length: only what they share is taken.
        let name = group_of(tx, key)?;
        begin = past(&name);
        names.push(name);
    }
    Ok(names)
}

fn group_of(tx: &Transaction, key: &[u8]) -> Result<String, MetaError> {
    use foundationdb_tuple::Element;
    let parts: Vec<Element<'_>> = tx.root().unpack(key).map_err(bad_key("group"))?;
    parts
        .get(2)
        .and_then(Element::as_str)
        .map(str::to_owned)
        .ok_or_else(|| super::codec::corrupt("group", "a key without a name"))
}

/// Removes all that is known of a group.
///
/// # Errors
/// Meta's own.
pub fn delete(tx: &Transaction, tenant: &str, group: &str) -> Result<(), MetaError> {
    let (begin, end) = tx.root().subspace(&("group", tenant, group)).range();
    tx.clear_range(KeyRange::new(begin, end))
}
