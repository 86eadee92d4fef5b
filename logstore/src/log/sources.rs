//! Closed segments wherever they are: on this node's disk if all of it is there, else at another
//! replica.

use std::sync::Arc;

use interflow_meta::{NodeId, Offset};

use super::pulling::{self, PAGE_BYTES};
use super::service::Inner;
use crate::core::chain::Closed;
use crate::peers::{Fetch, Fetched, PeerError, What};
use crate::store::{
    EntryHeader, EntryKind, SegmentId, SegmentRead, SegmentReadOutcome, StoreError,
};
use crate::{AppendKind, StoredBatch};

impl Inner {
    /// Whether this node's disk has all of a closed segment.
    pub(super) fn has_all(&self, id: SegmentId, closed: &Closed) -> bool {
        if closed.replicas.len() == 1 && closed.replicas.first() == Some(&self.me().node) {
            // There is no other copy to look at.
            return true;
        }
        self.store.segment(id).is_some_and(|found| {
            found.start <= closed.base
                && found.end >= closed.end
                && found.damaged.iter().all(|range| range.start >= closed.end)
        })
    }

    /// The other nodes that may have a closed segment.
    fn others(&self, closed: &Closed) -> Vec<NodeId> {
        let me = self.me().node;
        closed.replicas.iter().copied().filter(|node| *node != me).collect()
    }
}

/// Asks the replicas of a closed segment, one after the other, until one has all that is wanted.
async fn ask(inner: &Inner, closed: &Closed, fetch: Fetch) -> Result<Fetched, StoreError> {
    let mut failure = StoreError::Damaged(fetch.from..closed.end);
    for node in inner.others(closed) {
        match inner.peers.fetch(node, fetch).await {
            Ok(fetched) if goes_on(&fetched, &fetch) => return Ok(fetched),
            Ok(_) => {}
            Err(PeerError::Unreachable(_, reason)) => {
                failure = StoreError::Io(format!("node {node} can't be reached: {reason}"));
            }
            Err(error) => tracing::debug!(log = %fetch.id.log, %error, "a replica can't be read"),
        }
    }
    Err(failure)
}

/// Whether an answer has anything, where there is something; of headers, all up to the end.
fn goes_on(fetched: &Fetched, fetch: &Fetch) -> bool {
    if fetch.from >= fetch.until {
        return true;
    }
    let Some((last, _)) = fetched.entries.last() else { return false };
    // Reads go on elsewhere when a replica has no more; headers are taken for all there are.
    fetch.what == What::Entries || !fetched.is_all || end(last) >= fetch.until
}

/// The newest snapshot of a closed segment, if it has one, and the headers behind it, from a node
/// that has all of it.
///
/// # Errors
/// No such replica can be read.
pub(super) async fn since_snapshot(
    inner: &Inner,
    id: SegmentId,
    closed: &Closed,
) -> Result<Vec<(EntryHeader, bytes::Bytes)>, StoreError> {
    if inner.has_all(id, closed) {
        return since_snapshot_at(inner, None, id, closed).await;
    }
    let mut failure = StoreError::Damaged(closed.base..closed.end);
    // What only one had that is gone is gone.
    let others = inner.others(closed).into_iter().filter(|node| !inner.peers.is_gone(*node));
    for node in others {
        match since_snapshot_at(inner, Some(node), id, closed).await {
            // One that lacks the end knows producers that have gone on since.
            Ok(all) if all.iter().any(|(header, _)| end(header) >= closed.end) => return Ok(all),
            Ok(_) => {}
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The same at one node; `None` is this one.
async fn since_snapshot_at(
    inner: &Inner,
    node: Option<NodeId>,
    id: SegmentId,
    closed: &Closed,
) -> Result<Vec<(EntryHeader, bytes::Bytes)>, StoreError> {
    let mut all: Vec<(EntryHeader, bytes::Bytes)> = Vec::new();
    let mut fetch = Fetch {
        id,
        from: closed.base,
        has_snapshot: false,
        until: closed.end,
        max_bytes: PAGE_BYTES,
        what: What::SinceSnapshot,
    };
    loop {
        let page = match node {
            None => pulling::fetch(inner, fetch).await?,
            Some(node) => {
                let fetched = inner.peers.fetch(node, fetch).await;
                fetched.map_err(|error| StoreError::Io(error.to_string()))?
            }
        };
        let last = page.entries.last().map(|(header, _)| end(header));
        let is_all = page.is_all;
        all.extend(page.entries);
        match last {
            Some(next) if !is_all && next > fetch.from => fetch.from = next,
            _ => return Ok(all),
        }
        fetch.what = What::Headers;
    }
}

fn end(header: &EntryHeader) -> Offset {
    header.base_offset.saturating_add(u64::from(header.count))
}

/// Reads a closed segment that this node doesn't have all of.
///
/// # Errors
/// No replica can be read.
pub(super) async fn read(
    inner: &Arc<Inner>,
    closed: &Closed,
    read: &SegmentRead,
) -> Result<SegmentReadOutcome, StoreError> {
    let fetch = Fetch {
        id: read.id,
        from: read.offset,
        has_snapshot: true,
        until: read.end,
        max_bytes: (read.max_bytes as u64).min(PAGE_BYTES),
        what: What::Entries,
    };
    let fetched = ask(inner, closed, fetch).await?;
    let mut outcome = SegmentReadOutcome { batches: Vec::new(), next_offset: read.offset };
    let mut bytes = 0;
    for (header, payload) in fetched.entries {
        let kind = match header.kind {
            EntryKind::Data => AppendKind::Data,
            EntryKind::Commit => AppendKind::Commit,
            EntryKind::Abort => AppendKind::Abort,
            EntryKind::Snapshot => continue,
        };
        let is_wanted = match (&read.filter, &header.digest) {
            (Some(filter), Some(digest)) => {
                digest.0.iter().any(|hash| filter.binary_search(hash).is_ok())
            }
            _ => true,
        };
        if is_wanted {
            if !outcome.batches.is_empty() && bytes + payload.len() > read.max_bytes {
                break;
            }
            bytes += payload.len();
            outcome.batches.push(StoredBatch {
                base_offset: header.base_offset,
                count: header.count,
                max_timestamp: header.max_timestamp,
                kind,
                key: header.key,
                bytes: payload,
            });
        }
        outcome.next_offset = end(&header);
    }
    Ok(outcome)
}

/// The headers of a closed segment's batches, in order, where another node has it.
///
/// # Errors
/// No replica can be read.
pub(super) async fn headers(
    inner: &Inner,
    id: SegmentId,
    closed: &Closed,
    from: Offset,
) -> Result<Vec<EntryHeader>, StoreError> {
    let mut all = Vec::new();
    let mut fetch = Fetch {
        id,
        from,
        has_snapshot: true,
        until: closed.end,
        max_bytes: PAGE_BYTES,
        what: What::Headers,
    };
    loop {
        let page = ask(inner, closed, fetch).await?;
        let last = page.entries.last().map(|(header, _)| end(header));
        all.extend(page.entries.into_iter().map(|(header, _)| header).filter(|h| h.count > 0));
        match last {
            Some(next) if !page.is_all && next > fetch.from => fetch.from = next,
            _ => return Ok(all),
        }
    }
}
