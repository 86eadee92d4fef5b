//! A slow look at what closed segments hold: replicas compare what they have, and what is damaged
//! is copied from those that are whole.
//!
//! ```text
//!   the first replica that lives, page by page:  own entries ─► digest ─┐
//!                                          others' digests of the same ─┴─► the most alike are right
//!   damaged, or unlike the others ─► Mending: a whole source is found, the copy begins anew
//! ```
//!
//! By itself a node looks at those segments of which it is that replica, so that each is looked at once.
//! One that is asked to looks at all that it has: whoever asks doubts its disk.
//!
//! Entries are checked against their own checksums as they are read, so damage is found where it
//! is. That two replicas differ in sound entries can't be, unless one of them was made wrong.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interflow_meta::{NodeId, Offset};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::metrics::add;
use super::service::{Inner, LogStore};
use super::state::segment;
use crate::core::chain::Closed;
use crate::peers::{Checked, Checking, PeerError, Pull};
use crate::store::{EntryHeader, SegmentId, StoreError};

/// Payload bytes that are looked at at a time.
const PAGE_BYTES: u64 = 1 << 20;
/// An entry costs so much besides its payload, so that many small ones are paced as well.
const ENTRY_BYTES: u64 = 64;

/// When passes begin.
#[derive(Debug, Default)]
pub(super) struct Scrubbing {
    asked: Notify,
}

/// So many bytes a second.
struct Pace {
    bytes_per_second: u64,
    next: Instant,
}

impl Pace {
    /// Waits until so many bytes may be followed by others.
    async fn spend(&mut self, bytes: u64) {
        let micros = bytes.saturating_mul(1_000_000) / self.bytes_per_second.max(1);
        self.next = self.next.max(Instant::now()) + Duration::from_micros(micros);
        tokio::time::sleep_until(self.next).await;
    }
}

impl LogStore {
    /// Begins to look at all closed segments of this node now, or once more after the pass that is
    /// under way.
    pub fn scrub_now(&self) {
        self.inner.scrubbing.asked.notify_one();
    }
}

/// Looks at all that is here, again and again, until the service stops.
pub(super) async fn run(inner: Arc<Inner>) {
    let wait = inner.config.scrub_interval;
    loop {
        let is_asked = tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = inner.scrubbing.asked.notified() => true,
            () = tokio::time::sleep(wait), if inner.config.scrub_bytes_per_second > 0 => false,
        };
        tokio::select! {
            biased;
            () = inner.stop.cancelled() => return,
            () = pass(&inner, is_asked) => {}
        }
    }
}

async fn pass(inner: &Arc<Inner>, is_asked: bool) {
    let bytes_per_second = match inner.config.scrub_bytes_per_second {
        0 => u64::MAX,
        bytes_per_second => bytes_per_second,
    };
    let mut pace = Pace { bytes_per_second, next: Instant::now() };
    let mut logs: Vec<_> = inner.store.segments().iter().map(|found| found.id.log).collect();
    logs.sort_unstable();
    logs.dedup();
    logs.retain(|log| *log != super::seals::SEALS);
    for log in logs {
        let closed = match inner.upkeep.load(log).await {
            Ok(Some(record)) => record.closed,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(%log, %error, "a log's segments can't be scrubbed now");
                continue;
            }
        };
        for closed in &closed {
            if is_asked || inner.scrubs(closed) {
                scrub(inner, segment(log, closed.epoch), closed, &mut pace).await;
            }
        }
    }
    add(&inner.metrics.scrubs, 1);
}

impl Inner {
    /// Whether this node looks at the segment for all of its replicas: it is the first that lives.
    fn scrubs(&self, closed: &Closed) -> bool {
        let me = self.me().node;
        let candidates = self.peers.candidates();
        let lives = |node: &NodeId| *node == me || candidates.iter().any(|one| one.node == *node);
        closed.replicas.iter().find(|node| lives(node)) == Some(&me)
    }
}

/// What a replica says of a page.
type Said = (NodeId, Result<Checked, PeerError>);

async fn scrub(inner: &Arc<Inner>, id: SegmentId, closed: &Closed, pace: &mut Pace) {
    let me = inner.me().node;
    let mut from = closed.base;
    while from < closed.end {
        let ask = Checking { id, from, until: closed.end, max_bytes: PAGE_BYTES };
        let own = check(inner, ask).await;
        // Where this one is damaged the others' ends of pages are as good as any.
        let until = own.as_ref().map_or(closed.end, |own| own.next);
        let mut said: Vec<Said> = Vec::with_capacity(closed.replicas.len());
        let mut next = own.as_ref().map_or(from, |own| own.next);
        let mut bytes = own.as_ref().map_or(0, |own| own.bytes);
        if own.is_ok() {
            said.push((me, own.clone()));
        }
        for node in closed.replicas.iter().filter(|node| **node != me) {
            let max_bytes = if own.is_ok() { u64::MAX } else { PAGE_BYTES };
            let ask = Checking { until, max_bytes, ..ask };
            let answer = inner.peers.check(*node, ask).await;
            if let Ok(checked) = &answer {
                bytes = bytes.max(checked.bytes);
                if own.is_err() {
                    next = next.max(checked.next);
                }
            }
            said.push((*node, answer));
        }
        if own.is_ok() {
            judge(inner, id, closed, &said).await;
        }
        add(&inner.metrics.scrubbed_bytes, bytes);
        pace.spend(bytes).await;
        if next <= from {
            // It can't be read here nor elsewhere.
            return;
        }
        from = next;
    }
}

/// Whoever has something else than the most has it wrong.
async fn judge(inner: &Arc<Inner>, id: SegmentId, closed: &Closed, said: &[Said]) {
    // Those that lack some of it mend that by themselves.
    let end = said.iter().filter_map(|(_, said)| Some(said.as_ref().ok()?.next)).max();
    let sound = || {
        let sound = said.iter().filter_map(|(node, said)| Some((*node, said.as_ref().ok()?)));
        sound.filter(|(_, checked)| Some(checked.next) == end)
    };
    let alike = |one: &Checked| sound().filter(|(_, other)| other.crc == one.crc).count();
    let Some((_, right)) = sound().max_by_key(|(_, checked)| alike(checked)) else { return };
    let all = sound().count();
    if alike(right) == all {
        return;
    }
    add(&inner.metrics.damaged_segments, 1);
    if alike(right) * 2 <= all {
        tracing::error!(log = %id.log, epoch = %id.epoch, "replicas differ, and none is known to be right");
        return;
    }
    for (node, _) in sound().filter(|(_, checked)| checked.crc != right.crc) {
        tracing::error!(log = %id.log, epoch = %id.epoch, %node, "a replica differs from the others: it is copied anew");
        if node == inner.me().node {
            inner.mending.suspect(id);
            continue;
        }
        let Some((source, _)) = sound().find(|(_, checked)| checked.crc == right.crc) else {
            return;
        };
        let (base, until) = (closed.base, closed.end);
        let pull = Pull { id, base, source, until, is_anew: true };
        if let Err(error) = inner.peers.pull(node, pull).await {
            tracing::debug!(log = %id.log, %error, "a replica could not be told that it is wrong");
        }
    }
}

/// A look at entries of a segment at this node. What is damaged, or lacking, is mended.
///
/// # Errors
/// Damage, and disks that can't be read.
pub(super) async fn check(inner: &Arc<Inner>, ask: Checking) -> Result<Checked, PeerError> {
    let Checking { id, from, until, max_bytes } = ask;
    let refused = |error: StoreError| PeerError::Refused(inner.me().node, error.to_string());
    match inner.store.entries(id, from, until, max_bytes).await {
        Ok((entries, is_all)) => {
            let checked = digest(from, &entries);
            if is_all && checked.next < until {
                inner.mending.look_later(id.log);
            }
            Ok(checked)
        }
        Err(error) => {
            if let StoreError::Damaged(range) = &error {
                tracing::error!(log = %id.log, epoch = %id.epoch, ?range, "a scrub has found damage");
                add(&inner.metrics.damaged_segments, 1);
                inner.mending.look_later(id.log);
            }
            Err(refused(error))
        }
    }
}

/// What entries come to. Snapshots aren't counted: a replica may lack the last one.
fn digest(from: Offset, entries: &[(EntryHeader, Bytes)]) -> Checked {
    let mut checked = Checked { crc: 0, next: from, bytes: 0 };
    for (header, payload) in entries {
        checked.bytes += ENTRY_BYTES + payload.len() as u64;
        if header.count == 0 {
            continue;
        }
        checked.next = header.base_offset.saturating_add(u64::from(header.count));
        let key = header
            .key
            .map_or((-1, -1, -1), |key| (key.producer_id, key.producer_epoch, key.sequence));
        let mut head = Vec::with_capacity(64);
        head.push(header.kind as u8);
        head.extend_from_slice(&header.base_offset.to_be_bytes());
        head.extend_from_slice(&header.count.to_be_bytes());
        head.extend_from_slice(&header.max_timestamp.to_be_bytes());
        head.extend_from_slice(&key.0.to_be_bytes());
        head.extend_from_slice(&key.1.to_be_bytes());
        head.extend_from_slice(&key.2.to_be_bytes());
        checked.crc = crc32c::crc32c_append(checked.crc, &head);
        checked.crc = crc32c::crc32c_append(checked.crc, payload);
    }
    checked
}

/// Whether a node has a closed segment whole: all of it was read there now.
pub(super) async fn is_whole_at(
    inner: &Arc<Inner>,
    node: NodeId,
    id: SegmentId,
    closed: &Closed,
) -> bool {
    let mut from = closed.base;
    while from < closed.end {
        let ask = Checking { id, from, until: closed.end, max_bytes: PAGE_BYTES };
        match inner.peers.check(node, ask).await {
            Ok(checked) if checked.next > from => from = checked.next,
            _ => return false,
        }
    }
    true
}
