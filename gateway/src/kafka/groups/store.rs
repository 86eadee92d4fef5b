//! Groups as meta keeps them.

use interflow_meta::groups::{self, GroupMetadata};
use interflow_meta::{DEFAULT_TENANT, Meta, MetaError};

use super::core::{Name, Saved};

/// What meta keeps of a group.
pub(super) fn to_metadata(saved: &Saved, now_ms: i64) -> GroupMetadata {
    let text = |name: &Option<Name>| name.as_deref().unwrap_or_default().to_owned();
    GroupMetadata {
        generation: u32::try_from(saved.generation).unwrap_or(0),
        protocol_type: text(&saved.protocol_type),
        protocol: text(&saved.protocol),
        leader: text(&saved.leader),
        members: saved.encode_members(),
        changed_ms: now_ms,
        coordinator_epoch: 1,
    }
}

/// What a group goes on with.
pub(super) fn from_metadata(name: &str, metadata: &GroupMetadata) -> Saved {
    let text = |text: &str| (!text.is_empty()).then(|| Name::from(text));
    let members = Saved::decode_members(&metadata.members).unwrap_or_else(|| {
        tracing::warn!(group = name, "the members of a group can't be read; they join anew");
        Vec::new()
    });
    Saved {
        generation: i32::try_from(metadata.generation).unwrap_or(0),
        protocol_type: text(&metadata.protocol_type),
        protocol: text(&metadata.protocol),
        leader: text(&metadata.leader),
        members,
    }
}

/// What is stored of a group; `None` if there is neither state nor an offset. With `is_created` it
/// comes into being anyhow, so offsets aren't looked for.
pub(super) async fn load(
    meta: &Meta,
    name: &str,
    is_created: bool,
) -> Result<Option<Saved>, MetaError> {
    let tx = meta.begin();
    if let Some(metadata) = groups::metadata(&tx, DEFAULT_TENANT, name).await? {
        return Ok(Some(from_metadata(name, &metadata)));
    }
    if is_created {
        return Ok(None);
    }
    // Offsets that were committed without a member make a group, too.
    let has_offsets = !groups::all_offsets(&tx, DEFAULT_TENANT, name).await?.is_empty();
    Ok(has_offsets.then(Saved::default))
}

/// A page of the names of all groups, behind `after`.
pub(super) async fn names(meta: &Meta, after: Option<&str>) -> Result<Vec<String>, MetaError> {
    meta.transact(|tx| async move { groups::list(&tx, DEFAULT_TENANT, after, PAGE).await }).await
}

/// Names in one page of [`names`]; fewer are the last.
pub(super) const PAGE: usize = 256;
