//! Groups as meta keeps them.

use interflow_meta::groups::{self, Coordinator, GroupMetadata, Life};
use interflow_meta::{DEFAULT_TENANT, Meta, MetaError, Transaction};

use super::core::{Name, Saved};

/// How often a group that others write meanwhile is tried to be read.
const ATTEMPTS: usize = 5;

/// What meta keeps of a group; the epoch is that of whoever writes it.
pub(super) fn to_metadata(saved: &Saved, now_ms: i64) -> GroupMetadata {
    let text = |name: &Option<Name>| name.as_deref().unwrap_or_default().to_owned();
    GroupMetadata {
        generation: u32::try_from(saved.generation).unwrap_or(0),
        protocol_type: text(&saved.protocol_type),
        protocol: text(&saved.protocol),
        leader: text(&saved.leader),
        members: saved.encode_members(),
        changed_ms: now_ms,
        coordinator_epoch: 0,
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

/// A group as its coordinator takes it over.
pub(super) struct Loaded {
    pub(super) saved: Saved,
    /// `None`: nothing is stored of it, so its first write claims it.
    pub(super) held: Option<Coordinator>,
}

/// Reads a group and claims it for `life`, in one transaction: what whoever had it before writes
/// from then on fails. Nothing is written if `life` has it already, unless it `renews` its claim.
/// `None` if there is neither state nor an offset; with `is_created` it comes into being anyhow, so
/// offsets aren't looked for.
pub(super) async fn load(
    meta: &Meta,
    name: &str,
    life: Life,
    is_created: bool,
    renews: bool,
) -> Result<Option<Loaded>, MetaError> {
    let mut attempt = 1;
    loop {
        let tx = meta.begin();
        let outcome = match claimed(&tx, name, life, is_created, renews).await {
            Ok(loaded) => tx.commit().await.map(|_| loaded),
            Err(error) => Err(error),
        };
        match outcome {
            // Somebody else claimed or wrote it, or nobody knows whether this claim was made.
            Err(MetaError::Conflict | MetaError::CommitUnknown) if attempt < ATTEMPTS => {
                attempt += 1;
            }
            other => return other,
        }
    }
}

async fn claimed(
    tx: &Transaction,
    name: &str,
    life: Life,
    is_created: bool,
    renews: bool,
) -> Result<Option<Loaded>, MetaError> {
    let (metadata, before) = tokio::try_join!(
        groups::metadata(tx, DEFAULT_TENANT, name),
        groups::coordinator(tx, DEFAULT_TENANT, name),
    )?;
    // Offsets that were committed without a member make a group, too.
    if metadata.is_none()
        && !is_created
        && groups::all_offsets(tx, DEFAULT_TENANT, name).await?.is_empty()
    {
        return Ok(None);
    }
    if metadata.is_none() && before.is_none() && !renews {
        return Ok(Some(Loaded { saved: Saved::default(), held: None }));
    }
    let epoch = metadata.as_ref().map_or(0, |metadata| metadata.coordinator_epoch);
    let held = groups::claim(tx, DEFAULT_TENANT, name, life, epoch, renews).await?;
    let saved = metadata.map(|metadata| from_metadata(name, &metadata)).unwrap_or_default();
    Ok(Some(Loaded { saved, held: Some(held) }))
}

/// What is known of a group without claiming it.
pub(super) struct Glance {
    pub(super) coordinator: Option<Coordinator>,
    pub(super) protocol_type: String,
    pub(super) has_members: bool,
}

/// Looks at a group.
pub(super) async fn glance(meta: &Meta, name: &str) -> Result<Glance, MetaError> {
    let tx = meta.begin();
    let (metadata, coordinator) = tokio::try_join!(
        groups::metadata(&tx, DEFAULT_TENANT, name),
        groups::coordinator(&tx, DEFAULT_TENANT, name),
    )?;
    let has_members =
        metadata.as_ref().is_some_and(|found| !from_metadata(name, found).members.is_empty());
    let protocol_type = metadata.map(|found| found.protocol_type).unwrap_or_default();
    Ok(Glance { coordinator, protocol_type, has_members })
}

/// A page of the names of all groups, behind `after`.
pub(super) async fn names(meta: &Meta, after: Option<&str>) -> Result<Vec<String>, MetaError> {
    meta.transact(|tx| async move { groups::list(&tx, DEFAULT_TENANT, after, PAGE).await }).await
}

/// Names in one page of [`names`]; fewer are the last.
pub(super) const PAGE: usize = 256;
