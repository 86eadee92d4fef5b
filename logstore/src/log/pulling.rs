//! Copies of segments from other nodes, and what this node gives to theirs.

use std::sync::Arc;

use interflow_meta::{LogId, NodeId, Offset};

use super::replicas::Copying;
use super::service::Inner;
use crate::peers::{Fetch, Fetched, PeerError, Pull, SentEntry, What};
use crate::store::{EntryHeader, EntryKind, StoreError};

/// Payload bytes that are asked for at a time.
pub(super) const PAGE_BYTES: u64 = 4 << 20;
/// A copy that takes longer is answered with how far it came. Milliseconds.
const PULL_MS: u64 = 15_000;
/// Entries without payload count so much, at least.
const HEADER_BYTES: u64 = 64;

/// Has `target` copy what it lacks; returns the end up to which it has all durable then.
///
/// # Errors
/// Source or target can't be reached, or can't do it.
pub(super) async fn pull_at(
    inner: &Arc<Inner>,
    target: NodeId,
    pull: Pull,
) -> Result<Offset, PeerError> {
    let mut before = None;
    loop {
        let end = match target == inner.me().node {
            true => self::pull(inner, pull).await?,
            false => inner.peers.pull(target, pull).await?,
        };
        if end >= pull.until || before.is_some_and(|before| end <= before) {
            return Ok(end);
        }
        before = Some(end);
    }
}

/// Copies what this node lacks of a segment, which is sealed here first.
///
/// # Errors
/// The source can't be reached, or this node's disk doesn't take it.
pub(super) async fn pull(inner: &Arc<Inner>, pull: Pull) -> Result<Offset, PeerError> {
    if pull.is_anew {
        inner.mending.suspect(pull.id);
        return Ok(pull.base);
    }
    inner.mending.begins_copy(pull.id);
    // Not before: with nothing of it here yet there would seem to be nothing to do.
    let _ends = Ends { inner, log: pull.id.log };
    copy(inner, pull).await
}

/// Has a log looked at when its copy has ended, or nobody waits for it any more.
struct Ends<'a> {
    inner: &'a Inner,
    log: LogId,
}

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.inner.mending.look_later(self.log);
    }
}

async fn copy(inner: &Arc<Inner>, pull: Pull) -> Result<Offset, PeerError> {
    let me = inner.me().node;
    let own = |error: StoreError| PeerError::Refused(me, error.to_string());
    let copying = Copying::begin(inner, pull.id, pull.base).await.map_err(own)?;
    let until = inner.clock.monotonic_ms().saturating_add(PULL_MS);
    loop {
        let (from, has_snapshot) = copying.at();
        if from >= pull.until {
            break;
        }
        let fetch = Fetch {
            id: pull.id,
            from,
            has_snapshot,
            until: pull.until,
            max_bytes: PAGE_BYTES,
            what: What::Entries,
        };
        let Fetched { entries, is_all } = inner.peers.fetch(pull.source, fetch).await?;
        for (header, payload) in entries {
            let leader_epoch = leader_epoch(&header, &payload);
            copying.take(&SentEntry { header, payload, leader_epoch }).await.map_err(own)?;
        }
        let went_on = copying.at() != (from, has_snapshot);
        if is_all || !went_on || inner.clock.monotonic_ms() >= until {
            break;
        }
    }
    copying.finish().await.map_err(own)
}

/// The leader epoch in a RecordBatch v2, which its sequencer has set.
fn leader_epoch(header: &EntryHeader, batch: &[u8]) -> Option<u32> {
    if header.kind == EntryKind::Snapshot {
        return None;
    }
    batch.get(12..16).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes)
}

/// Reads entries of a segment at this node.
///
/// # Errors
/// The store's: damage and disks that can't be read.
pub(super) async fn fetch(inner: &Inner, fetch: Fetch) -> Result<Fetched, StoreError> {
    let Fetch { id, from, has_snapshot, until, max_bytes, what } = fetch;
    match what {
        What::Entries => {
            let (mut entries, is_all) = inner.store.entries(id, from, until, max_bytes).await?;
            entries.retain(|(header, _)| {
                let is_snapshot = header.kind == EntryKind::Snapshot;
                !(is_snapshot && has_snapshot && header.base_offset == from)
            });
            Ok(Fetched { entries, is_all })
        }
        What::Headers => {
            let all = inner.store.headers(id, from).await?;
            Ok(page(all.into_iter(), until, max_bytes))
        }
        What::SinceSnapshot => {
            let all = inner.store.headers(id, since_snapshot(inner, fetch).await?).await?;
            let last = all
                .iter()
                .rposition(|(header, snapshot)| snapshot.is_some() && header.base_offset <= until);
            Ok(page(all.into_iter().skip(last.unwrap_or(0)), until, max_bytes))
        }
    }
}

/// Where the newest snapshot at or below the end lies, or `from`.
async fn since_snapshot(inner: &Inner, fetch: Fetch) -> Result<Offset, StoreError> {
    let last = inner.store.last_snapshot(fetch.id).await?;
    // The newest may lie in what was cut off by the close.
    let below = last.map(|(header, _)| header.base_offset).filter(|at| *at <= fetch.until);
    Ok(below.unwrap_or(fetch.from).max(fetch.from))
}

fn page(
    all: impl Iterator<Item = (EntryHeader, Option<bytes::Bytes>)>,
    until: Offset,
    max_bytes: u64,
) -> Fetched {
    let (mut entries, mut bytes) = (Vec::new(), 0);
    for (header, snapshot) in all {
        if header.base_offset > until || header.base_offset == until && snapshot.is_none() {
            return Fetched { entries, is_all: true };
        }
        if bytes >= max_bytes {
            return Fetched { entries, is_all: false };
        }
        bytes += HEADER_BYTES + snapshot.as_ref().map_or(0, |payload| payload.len() as u64);
        entries.push((header, snapshot.unwrap_or_default()));
    }
    Fetched { entries, is_all: true }
}
