//! Consumer groups: `("group", tenant, group, "offset", topic, partition)` are committed offsets,
//! `("group", tenant, group, "meta")` is what the next coordinator must find; where that is large it
//! lies in parts: `("group", tenant, group, "part", n)`. `("group", tenant, group, "owner")` is who
//! coordinates the group: every write of it must [`hold`] it.

mod coordinator;
mod value;

#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};
use foundationdb_tuple::Subspace;

use super::codec::{bad_key, corrupt};
use crate::error::MetaError;
use crate::store::{KeyRange, after_prefix};
use crate::transaction::{RangeOptions, Transaction};
pub use coordinator::{Coordinator, GroupError, Life, claim, coordinator, hold};
pub use value::{CommittedOffset, GroupMetadata};

/// Metadata up to this size lies in its row, in bytes; what is larger lies in parts of this size.
const PART_BYTES: usize = 90_000;

/// Members of a group that take so much, encoded, can be stored together with everything else that
/// is written in one transaction, in bytes.
pub const MAX_MEMBERS_BYTES: usize = 9_000_000;

/// A topic's partition and the offset committed for it.
pub type PartitionOffset = (String, u32, CommittedOffset);

fn offset_key(tx: &Transaction, tenant: &str, group: &str, topic: &str, partition: u32) -> Vec<u8> {
    tx.root().pack(&("group", tenant, group, "offset", topic, partition))
}

fn metadata_key(tx: &Transaction, tenant: &str, group: &str) -> Vec<u8> {
    tx.root().pack(&("group", tenant, group, "meta"))
}

fn parts_of(tx: &Transaction, tenant: &str, group: &str) -> Subspace {
    tx.root().subspace(&("group", tenant, group, "part"))
}

fn all_of(subspace: &Subspace) -> KeyRange {
    let (begin, end) = subspace.range();
    KeyRange::new(begin, end)
}

fn offsets_of(tx: &Transaction, tenant: &str, group: &str) -> KeyRange {
    all_of(&tx.root().subspace(&("group", tenant, group, "offset")))
}

/// Commits offsets of a group; one of another partition is not touched. Reads nothing, so that
/// commits never conflict with each other; a coordinator [holds](hold) the group first.
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
    let Some(row) = tx.get(&metadata_key(tx, tenant, group)).await? else { return Ok(None) };
    match GroupMetadata::parts(&row)? {
        0 => GroupMetadata::decode(row).map(Some),
        parts => GroupMetadata::decode(joined(tx, tenant, group, parts).await?).map(Some),
    }
}

/// The metadata that lies in parts, put together.
async fn joined(
    tx: &Transaction,
    tenant: &str,
    group: &str,
    parts: u32,
) -> Result<Bytes, MetaError> {
    let rows = tx.get_all(&all_of(&parts_of(tx, tenant, group))).await?;
    if u32::try_from(rows.len()) != Ok(parts) {
        return Err(corrupt("group", "its parts are not as many as it says"));
    }
    let mut value = BytesMut::new();
    rows.iter().for_each(|(_, part)| value.extend_from_slice(part));
    Ok(value.freeze())
}

/// Stores what the coordinator must find again.
///
/// # Errors
/// [`MetaError::TransactionTooLarge`] when the members take more than [`MAX_MEMBERS_BYTES`] or a
/// little above; meta's own.
pub fn put_metadata(
    tx: &Transaction,
    tenant: &str,
    group: &str,
    metadata: &GroupMetadata,
) -> Result<(), MetaError> {
    let parts = parts_of(tx, tenant, group);
    tx.clear_range(all_of(&parts))?;
    let mut value = metadata.encode();
    if value.len() > PART_BYTES {
        let mut count = 0;
        for part in value.chunks(PART_BYTES) {
            tx.set(parts.pack(&count), value.slice_ref(part))?;
            count += 1;
        }
        value = GroupMetadata::in_parts(count);
    }
    tx.set(metadata_key(tx, tenant, group), value)
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
        .ok_or_else(|| corrupt("group", "a key without a name"))
}

/// Removes all that is known of a group.
///
/// # Errors
/// Meta's own.
pub fn delete(tx: &Transaction, tenant: &str, group: &str) -> Result<(), MetaError> {
    tx.clear_range(all_of(&tx.root().subspace(&("group", tenant, group))))
}
